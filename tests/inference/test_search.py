"""Search in a library finds what sounds alike, and only compares what can be compared."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import auricle
from auricle.errors import ConfigError, DataError
from auricle.inference.model import Model
from auricle.inference.search import cosines
from auricle.inference.table import Library, open_library

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def model(pretrained: Path) -> Model:
    return auricle.load(pretrained)


@pytest.fixture(scope="module")
def library(model: Model, tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return auricle.embed_library(model, tones, tmp_path_factory.mktemp("search") / "x.parquet", rows="clips")


def test_a_sound_finds_itself_first_and_then_its_kind(library: Library, tones: Path) -> None:
    right = 0
    for query in library.paths[::3]:
        itself, *others = auricle.search(library, query, 4)
        assert (itself.path, itself.start) == (query, 0)
        assert itself.end == pytest.approx(soundfile.info(query).duration, abs=1e-4)
        assert itself.similarity == pytest.approx(1, abs=1e-3)
        similarities = [hit.similarity for hit in (itself, *others)]
        assert similarities == sorted(similarities, reverse=True)
        kind = Path(query).name[:4]
        right += sum(Path(hit.path).name[:4] == kind for hit in others)
    # Of 24, chance is a third.
    assert right >= 16


def test_clips_of_real_recordings_find_their_class(real_data: Path, tmp_path: Path) -> None:
    labels = defaultdict(list)
    with (real_data / "esc10" / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            labels[row["label"]].append(str(real_data / "esc10" / row["path"]))
    clips = {path: label for label, paths in labels.items() for path in paths[:8]}
    model = auricle.load("ssast-test", weights="random")
    library = auricle.embed_library(model, list(clips), tmp_path / "x.npz")
    queries = list(clips)[::2]
    found = [auricle.search(library, query, 2, model=model) for query in queries]
    assert [first.path for first, _ in found] == queries
    # Chance is 7 in 79: the other clips of its class.
    assert (
        np.mean([clips[second.path] == clips[query] for query, (_, second) in zip(queries, found, strict=True)]) > 0.3
    )


def test_an_array_is_a_query_too_and_both_formats_answer_alike(model: Model, tones: Path, tmp_path: Path) -> None:
    wave, rate = soundfile.read(tones / "audio" / "hiss6.wav", dtype="float32")
    answers = []
    for suffix in (".npz", ".parquet"):
        made = auricle.embed_library(model, tones, tmp_path / f"x{suffix}", rows="windows")
        answers.append(auricle.search(made.path, wave, 100, rate=rate))
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(made)
    with pytest.raises(ConfigError, match="needs its sample rate"):
        auricle.search(made, wave)


def test_cosines_are_cosines() -> None:
    vectors = np.array([[2, 0], [0, 3], [-1, 0], [1, 1], [0, 0]], np.float32)
    np.testing.assert_allclose(cosines(vectors, np.array([5, 0], np.float32)), [1, 0, -1, 0.5**0.5, 0])


def test_the_command_prints_and_writes_what_python_finds(
    cli: Cli, library: Library, tones: Path, tmp_path: Path
) -> None:
    query = tones / "audio" / "hiss6.wav"
    end = cli("search", library.path, query, "-k", 3, "--json", tmp_path / "x.json")
    assert end.code == 0, end.err
    hits = auricle.search(library, query, 3)
    assert end.out.splitlines() == [
        f"{hit.similarity:.4f}  {hit.start:9.2f} - {hit.end:9.2f} s  {hit.path}" for hit in hits
    ]
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["hits"] == [vars(hit) for hit in hits]
    assert found["similarity"] == "cosine"
    assert found["library"]["rows"] == len(library)
    assert found["model"]["hash"] == library.metadata["model"]["hash"]
    assert "auricle search" in found["command"]


def test_only_the_librarys_own_model_is_compared_with(
    cli: Cli, finetuned: Path, pretrained: Path, tones: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(pretrained, moved)
    library = auricle.embed_library(moved, tones, tmp_path / "x.parquet")
    made_by = library.metadata["model"]["hash"][:12]
    query = tones / "audio" / "hiss6.wav"
    end = cli("search", library.path, query, "--model", finetuned)
    assert (end.code, end.err) == (
        2,
        f"error: {library.path} was made by model {made_by} ({moved}), and {finetuned} is "
        f"{auricle.load(finetuned).hash[:12]}: their vectors cannot be compared; give the first one with --model, or "
        "embed the library again.\n",
    )
    shutil.rmtree(moved)
    end = cli("search", library.path, query)
    assert (end.code, end.err) == (
        2,
        f"error: the model that made {library.path} is not at {moved} any more; say where it is with --model.\n",
    )
    assert cli("search", library.path, query, "--model", pretrained).code == 0


def test_what_is_no_library_is_said(cli: Cli, library: Library, tones: Path, tmp_path: Path) -> None:
    query = tones / "audio" / "hiss6.wav"
    np.savez(tmp_path / "other.npz", paths=np.zeros(1))
    (tmp_path / "text.parquet").write_text("hello")
    (tmp_path / "cut.parquet").write_bytes(library.path.read_bytes()[:-50])
    for name, expected in (
        ("gone.parquet", "no such file; make it with: auricle embed MODEL FOLDER --out"),
        ("other.npz", "cannot be read as embeddings of auricle"),
        ("text.parquet", "cannot be read as embeddings of auricle"),
        ("cut.parquet", "cannot be read as embeddings of auricle"),
        ("x.csv", "expected a file that ends in .parquet or .npz"),
    ):
        end = cli("search", tmp_path / name, query)
        (line,) = end.err.splitlines()
        assert end.code == 2
        assert f"{tmp_path / name}: {expected}" in line
    with pytest.raises(DataError, match="no such file"):
        open_library(tmp_path / "gone.parquet")
    assert "expected a whole number above 0, got '0'" in cli("search", library.path, query, "-k", 0).err
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        auricle.search(library, query, 0)
    end = cli("search", library.path, tmp_path / "gone.wav")
    assert (end.code, "gone.wav: missing" in end.err) == (2, True)


def test_a_parquet_file_of_others_is_no_library(cli: Cli, tones: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"path": ["a"]}), tmp_path / "x.parquet")
    end = cli("search", tmp_path / "x.parquet", tones / "audio" / "hiss6.wav")
    assert end.code == 2
    assert f"{tmp_path / 'x.parquet'}: not a table of auricle; make it with" in end.err
