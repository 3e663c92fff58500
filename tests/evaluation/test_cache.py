"""Kept embeddings: used where nothing that decides them has changed, and never trusted when damaged."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from soundsets import RATE, save_pretrained, tone, write_tones

import auricle
from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.evaluation import cache
from auricle.evaluation.cache import Cache, CacheWarning, default_folder
from auricle.evaluation.probe import probe
from auricle.inference.model import Model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are not what is tested here."""
    monkeypatch.setattr("auricle.evaluation.classify.RESAMPLES", 50)


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    return write_tones(tmp_path / "tones", clips=4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AURICLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hash of the model for each time that a data set was embedded."""
    calls: list[str] = []
    embed = Model.embed_layers

    def counted(self: Model, items: Sequence[Any], *options: Any) -> NDArray[np.float32]:
        calls.append(self.hash)
        return embed(self, items, *options)

    monkeypatch.setattr(Model, "embed_layers", counted)
    return calls


def test_a_second_head_does_not_embed_again(model: Path, tones: Path, folder: Path, embedded: list[str]) -> None:
    first = probe(model, [tones], baselines=["random"], seeds=2)
    assert sorted(h for h in embedded if h.startswith("random")) == ["random-0", "random-1"]
    assert len(embedded) == 3
    for head in ("linear", "knn"):
        probe(model, [tones], head=head, baselines=["random"], seeds=2)
    again = probe(model, [tones], baselines=["random"], seeds=2)
    assert len(embedded) == 3
    assert again.items == first.items
    assert len(list((folder / "embeddings").iterdir())) == 3


def test_best_layer_and_mix_share_their_embeddings(model: Path, tones: Path, folder: Path, embedded: list[str]) -> None:
    probe(model, [tones], layers="all")
    probe(model, [tones], layers="mix", head="linear")
    assert len(embedded) == 1


def test_another_reading_is_embedded_anew(model: Path, tones: Path, folder: Path, embedded: list[str]) -> None:
    for count, (layers, pooling) in enumerate([("last", ""), ("last", "mean"), ("1", ""), ("1", "rows"), ("all", "")]):
        probe(model, [tones], layers=layers, pooling=pooling)
        assert len(embedded) == count + 1
    probe(save_pretrained(tones.parent / "other", seed=1), [tones])
    assert len(embedded) == 6


def test_labels_and_places_do_not_matter_but_contents_do(
    model: Path, tones: Path, folder: Path, embedded: list[str]
) -> None:
    probe(model, [tones])
    moved = tones.parent.rename(tones.parent.with_name("moved")) / tones.name
    moved.write_text(moved.read_text().replace(",low,", ",deep,"))
    probe(model, [moved])
    assert len(embedded) == 1
    before = read_data([moved])
    hashes = before.hash, before.audio_hash
    # As large and as old as before: nothing but its bytes is new.
    clip, times = moved.parent / "low0.wav", (moved.parent / "low0.wav").stat()
    soundfile.write(clip, tone(300, seed=9), RATE)
    os.utime(clip, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = read_data([moved])
    assert clip.stat().st_size == times.st_size
    assert after.hash == hashes[0]
    assert after.audio_hash != hashes[1]
    probe(model, [moved])
    assert len(embedded) == 2


def test_stretches_of_one_file_are_told_apart(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(300, 1.0), RATE)
    (item,) = read_data([tmp_path]).items
    hashes = set()
    for change in ({}, {"start": 0.1}, {"end": 0.5}, {"channel": 0}):
        ref = dataclasses.replace(item.streams["audio"], **change)
        hashes.add(Manifest((dataclasses.replace(item, streams={"audio": ref}),), tmp_path).audio_hash)
    assert len(hashes) == 4


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_entry_is_computed_again(
    damage: str, model: Path, tones: Path, folder: Path, embedded: list[str]
) -> None:
    first = probe(model, [tones])
    (entry,) = (folder / "embeddings").iterdir()
    content = entry.read_bytes()
    broken = {"cut": content[:-10], "empty": b"", "flipped": content[:-1] + bytes([content[-1] ^ 1])}[damage]
    entry.write_bytes(broken)
    with pytest.warns(CacheWarning, match="is damaged .*; embedding again"):
        again = probe(model, [tones])
    assert again.items == first.items
    assert len(embedded) == 2
    assert entry.read_bytes() == content


def test_without_a_cache_nothing_is_kept_or_used(model: Path, tones: Path, folder: Path, embedded: list[str]) -> None:
    for _ in range(2):
        probe(model, [tones], cache=False)
    assert len(embedded) == 2
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_a_warning(
    model: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AURICLE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(CacheWarning, match="could not be kept .*; set AURICLE_CACHE"):
        probe(model, [tones])


def test_the_entries_used_last_stay(tmp_path: Path) -> None:
    values = {name: np.full((100,), index, np.float32) for index, name in enumerate("abcd")}
    cache = Cache(tmp_path, limit=2000)

    def get(name: str) -> bool:
        """Whether it was kept."""
        computed = []
        got = cache.get({"name": name}, lambda: computed.append(1) or values[name])  # type: ignore[func-returns-value]
        np.testing.assert_array_equal(got, values[name])
        return not computed

    for age, name in enumerate("abc"):
        assert not get(name)
        newest = max((tmp_path / "embeddings").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, ns=(10**9 * (age + 1),) * 2)
    assert get("a")
    # Room for three: "b" was not used for longest.
    assert not get("d")
    assert sum(path.stat().st_size for path in (tmp_path / "embeddings").iterdir()) <= 2000
    assert [get(name) for name in "ad"] == [True, True]
    assert not get("b")


def test_the_folder_is_the_one_of_the_environment_else_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_CACHE", "/somewhere")
    assert default_folder() == Path("/somewhere")
    monkeypatch.delenv("AURICLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setattr("sys.platform", "linux")
    assert default_folder() == Path("/xdg/auricle")
    monkeypatch.setattr("sys.platform", "darwin")
    assert default_folder() == Path.home() / "Library" / "Caches" / "auricle"


def test_all_code_between_a_file_and_its_embedding_is_in_the_key() -> None:
    package = Path(auricle.__file__).parent
    hashed = {str(path.relative_to(package)) for path in cache._code_files()}
    assert {
        "audio/read.py",
        "data/loader.py",
        "inference/model.py",
        "kernels/chunked.py",
        "kernels/scan.py",
        "methods/ssamba/model.py",
        "nn/patches.py",
        "tasks/windows.py",
        "training/precision.py",
    } <= hashed
    assert ("kernels/libauricle_kernels.so" in hashed) == (package / "kernels/libauricle_kernels.so").exists()
    assert "evaluation/report.py" not in hashed
