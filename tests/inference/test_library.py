"""A library of audio becomes a table of embeddings: its schema, and that nothing on the way changes what it holds."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pyarrow import parquet
from rich.console import Console

import auricle
from auricle.audio import read
from auricle.cli.progress import EmbeddingProgress
from auricle.errors import AudioError, ConfigError, DataError
from auricle.inference import libraries
from auricle.inference.libraries import Progress
from auricle.inference.model import Model
from auricle.inference.parts import PartWarning
from auricle.inference.table import open_library
from conftest import sound, write_tones
from launch import Command

Cli = Callable[..., Any]
RATE = 16000


@pytest.fixture(scope="module")
def model(pretrained: Path) -> Model:
    # In bf16, rounding depends a little on what shares a batch.
    return auricle.load(pretrained, precision="fp32")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips, and one of 20 s among them."""
    folder = write_tones(tmp_path_factory.mktemp("library") / "sounds") / "audio"
    soundfile.write(folder / "chirp-long.wav", sound("hiss", 20.0, RATE, 99), RATE)
    return folder


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch.setattr)


def shorten_parts(setattr: Callable[[Any, str, Any], None] = setattr) -> None:
    """A part is 3 s of sound, not ten minutes."""
    setattr(libraries, "PART_SECONDS", 3.0)
    setattr(libraries, "PART_SECONDS_WITH_FRAMES", 3.0)


def errors(outcome: Any) -> list[str]:
    """What a command complains of."""
    return [line for line in outcome.err.splitlines() if not line.startswith("data: ")]


def vectors(library: Any) -> Any:
    return np.concatenate(list(library.vectors()))


# The table ----------------------------------------------------------------------------------------------------------


def test_the_schema_is_as_documented(model: Model, sounds: Path, tmp_path: Path) -> None:
    library = auricle.embed_library(model, sounds, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert [str(field.type) for field in table.schema] == [
        "string",
        "double",
        "double",
        f"fixed_size_list<element: float>[{model.encoder.dim}]",
    ]
    assert table.column_names == ["path", "start", "end", "vector"]
    assert len(table) == len(library) > 25
    metadata = json.loads(table.schema.metadata[b"auricle"])
    assert metadata == library.metadata
    assert metadata["model"]["hash"] == model.hash
    assert (metadata["auricle"], metadata["dim"]) == (auricle.__version__, model.encoder.dim)
    assert (metadata["layer"], metadata["pooling"], metadata["rows"]) == ("last", "own", "windows")
    assert metadata["data"]["files"] == 25
    seconds = sum(soundfile.info(path).duration for path in sounds.iterdir())
    assert metadata["data"]["seconds"] == pytest.approx(seconds, abs=25 / RATE)
    assert not list(tmp_path.glob("*.parts"))


def test_a_row_is_what_the_model_says_of_that_stretch(model: Model, sounds: Path, tmp_path: Path) -> None:
    library = auricle.embed_library(model, sounds / "chirp-long.wav", tmp_path / "x.parquet")
    wave, _ = read(sounds / "chirp-long.wav", rate=RATE)
    for start, end, vector in zip(library.starts, library.ends, vectors(library), strict=True):
        stretch = wave[round(start * RATE) : round(end * RATE)]
        np.testing.assert_allclose(vector, model.embed_clip(stretch, RATE), atol=1e-5)
    # All of the file lies in some row.
    assert (library.starts[0], library.ends[-1]) == (0, 20)
    assert (library.starts[1:] <= library.ends[:-1]).all()


def test_clips_and_frames_are_what_embed_gives(model: Model, sounds: Path, tmp_path: Path, short_parts: None) -> None:
    auricle.embed_library(model, sounds, tmp_path / "x.npz", frames=True)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file}
    in_memory, bad = auricle.embed(model, sounds, frames=True)
    assert bad == []
    assert arrays.keys() == in_memory.keys()
    assert str(arrays["model"]) == model.hash
    for name, values in in_memory.items():
        np.testing.assert_array_equal(arrays[name], values, err_msg=name)
    assert arrays["paths"].tolist() == sorted(map(str, sounds.iterdir()))
    for number, path in enumerate(arrays["paths"]):
        want, inside = model.embed(path), slice(*arrays["offsets"][number : number + 2])
        np.testing.assert_allclose(arrays["embeddings"][number], want.clip, atol=1e-5)
        np.testing.assert_allclose(arrays["frames"][inside], want.frames, atol=1e-4)
        np.testing.assert_allclose(arrays["times"][inside], want.times)
        assert arrays["starts"][number] == 0
        assert arrays["ends"][number] == pytest.approx(soundfile.info(path).duration, abs=1 / RATE)


def test_both_formats_hold_the_same(model: Model, sounds: Path, tmp_path: Path) -> None:
    for rows in ("windows", "clips"):
        one = auricle.embed_library(model, sounds, tmp_path / f"{rows}.npz", rows=rows)
        other = auricle.embed_library(model, sounds, tmp_path / f"{rows}.parquet", rows=rows)
        np.testing.assert_array_equal(vectors(one), vectors(other))
        for name in ("paths", "starts", "ends"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_name_that_is_not_utf8_has_a_row(model: Model, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff.wav")
    soundfile.write(os.open(name, os.O_CREAT | os.O_RDWR), sound("buzz", 0.5, RATE, 0), RATE, format="WAV")
    library = auricle.embed_library(model, name, tmp_path / "x.parquet")
    # The table holds it in other words, and a library opens what is there.
    written = parquet.read_table(tmp_path / "x.parquet").column("path").to_pylist()
    assert [path.split("/")[-1] for path in written] == ["\\udcff.wav"]
    assert list(library.paths) == [name]
    # A name that looks like such words is itself.
    plain = tmp_path / "\\udcff.wav"
    plain.write_bytes(Path(name).read_bytes())
    both = auricle.embed_library(model, [name, plain], tmp_path / "both.parquet")
    assert str(plain) in both.paths


def test_a_file_whose_name_is_not_utf8_is_found_told_and_heard(cli: Cli, pretrained: Path, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff.wav")
    soundfile.write(os.open(name, os.O_CREAT | os.O_RDWR), sound("buzz", 0.5, RATE, 0), RATE, format="WAV")
    for table in ("x.parquet", "x.npz"):
        assert cli("embed", pretrained, name, "--out", tmp_path / table).code == 0
        places = {"--json": tmp_path / "hits.json", "--page": tmp_path / "hits.html"}
        done = cli("search", tmp_path / table, name, *(word for pair in places.items() for word in pair))
        assert done.code == 0, done.err
        assert "\\udcff.wav" in done.out
        assert json.loads((tmp_path / "hits.json").read_text())["hits"][0]["path"] == name
        assert "cannot be heard any more" not in (tmp_path / "hits.html").read_text()


# Whatever happens ---------------------------------------------------------------------------------------------------


def kill(log: Path, parts: Path, arguments: Sequence[object], wait_for: int, rng: random.Random) -> None:
    """Start, wait for a part, and a moment more, kill."""
    command = Command(log, *arguments, prepare=shorten_parts)
    while command.process.is_alive() and not (parts / f"part-{wait_for:06d}.safetensors").exists():
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.03))
    assert command.signal(signal.SIGKILL) == -signal.SIGKILL, log.read_text()


@pytest.mark.parametrize("options", [("x.parquet",), ("x.npz", "--frames")])
def test_killed_anywhere_it_goes_on_and_ends_with_the_same_bytes(
    pretrained: Path, sounds: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    name, *more = options
    log = tmp_path / "log"
    alone, disturbed = tmp_path / "alone", tmp_path / "disturbed"
    for folder in (alone, disturbed):
        folder.mkdir()
    assert Command(log, "embed", pretrained, sounds, "--out", alone / name, *more, prepare=shorten_parts).wait() == 0
    arguments = ("embed", pretrained, sounds, "--out", disturbed / name, *more)
    rng, parts = random.Random(0), disturbed / f"{name}.parts"
    # The long file, of which one part does not hold all, lies in parts 4 to 10.
    for wait_for in (0, 6, 9):
        kill(log, parts, arguments, wait_for, rng)
        assert not (disturbed / name).exists()
        written = {path: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    assert Command(log, *arguments, prepare=shorten_parts).wait() == 0, log.read_text()
    assert len(written) >= 10
    assert (disturbed / name).read_bytes() == (alone / name).read_bytes()
    assert [path.name for path in disturbed.iterdir()] == [name]


def test_what_is_done_is_not_done_again(
    model: Model, sounds: Path, tmp_path: Path, short_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def stop_at(most: int) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if len(encoded) == most:
                raise KeyboardInterrupt
            encoded.append(1)
            return part(*arguments)

        return counted

    part = libraries._part
    monkeypatch.setattr(libraries, "_part", stop_at(7))
    with pytest.raises(KeyboardInterrupt):
        auricle.embed_library(model, sounds, tmp_path / "x.parquet")
    monkeypatch.setattr(libraries, "_part", stop_at(10**6))
    library = auricle.embed_library(model, sounds, tmp_path / "x.parquet")
    seconds = sum(soundfile.info(path).duration for path in sounds.iterdir())
    assert len(encoded) == pytest.approx(seconds * library.metadata["window"] / library.metadata["hop"] / 3, abs=2)
    # Finished, and asked for again: nothing is done.
    monkeypatch.setattr(libraries, "_part", stop_at(0))
    again = auricle.embed_library(model, sounds, tmp_path / "x.parquet")
    np.testing.assert_array_equal(vectors(again), vectors(library))


def test_a_file_that_was_written_again_is_embedded_again(model: Model, tmp_path: Path) -> None:
    path, out = tmp_path / "a.wav", tmp_path / "x.parquet"
    before = {}
    for seed in (0, 1):
        soundfile.write(path, sound("buzz", 1.0, RATE, seed), RATE)
        os.utime(path, ns=(seed, seed))
        before[seed] = vectors(auricle.embed_library(model, path, out))
    assert np.abs(before[0] - before[1]).max() > 1e-3


def test_a_damaged_part_is_embedded_again(
    model: Model, sounds: Path, tmp_path: Path, short_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = auricle.embed_library(model, sounds, tmp_path / "want.parquet")
    begin(model, sounds, tmp_path / "x.parquet", monkeypatch)
    part = tmp_path / "x.parquet.parts" / "part-000003.safetensors"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.warns(PartWarning, match="part-000003.safetensors is damaged .*; embedding again from there"):
        library = auricle.embed_library(model, sounds, tmp_path / "x.parquet")
    np.testing.assert_array_equal(vectors(library), vectors(want))


def begin(model: Model, sounds: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make all parts of a library; for its table the disk is too full."""

    def full(*arguments: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(libraries, "write_table", full)
        with pytest.raises(OSError, match="full"):
            auricle.embed_library(model, sounds, out)
    return out


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_it_so_that_it_can_go_on(
    pretrained: Path, sounds: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ("embed", pretrained, sounds, "--out", tmp_path / "x.parquet")
    command = Command(tmp_path / "log", *arguments, prepare=shorten_parts)
    while command.process.is_alive() and not list(tmp_path.glob("*.parts/part-*")):
        time.sleep(0.001)
    assert command.signal(number) == code
    assert f"{number.name}: saved what is embedded so far; run the same command" in (tmp_path / "log").read_text()
    assert list(tmp_path.glob("*.parts/part-*"))
    assert Command(tmp_path / "log", *arguments, prepare=shorten_parts).wait() == 0


def limit_files() -> None:
    shorten_parts()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))


@pytest.mark.parametrize("name", ["x.parquet", "x.npz"])
def test_a_disk_that_is_too_full_for_the_table_keeps_the_parts(
    pretrained: Path, sounds: Path, tmp_path: Path, name: str
) -> None:
    arguments = ("embed", pretrained, sounds, "--rows", "windows", "--out", tmp_path / name)
    assert Command(tmp_path / "log", *arguments, prepare=limit_files).wait() == 1
    (line,) = [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("data: ")]
    assert line.startswith("error: ")
    assert "File too large" in line
    assert not (tmp_path / name).exists()
    parts = len(list(tmp_path.glob("*.parts/part-*")))
    assert parts > 10
    assert Command(tmp_path / "log", *arguments, prepare=shorten_parts).wait() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", name]


def test_memory_does_not_grow_with_the_length_of_a_file(model: Model, tmp_path: Path, short_parts: None) -> None:
    peaks = []
    for seconds in (1, 150, 400):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, np.tile(sound("hiss", 1.0, RATE, 0), seconds), RATE)
        tracemalloc.start()
        library = auricle.embed_library(model, path, tmp_path / f"{seconds}.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert library.ends[-1] == seconds
    # 250 seconds more are 16 MB of samples.
    assert peaks[2] - peaks[1] < 1e6


# What cannot be embedded --------------------------------------------------------------------------------------------


def test_bad_files_are_listed_and_left_out_whole(
    cli: Cli, pretrained: Path, sounds: Path, tmp_path: Path, short_parts: None
) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "a.wav", sound("buzz", 4.0, RATE, 0), RATE)
    (folder / "b.wav").write_text("no sound")
    # Damaged near its end: parts with its beginning are finished before that is known.
    soundfile.write(folder / "c.flac", sound("hiss", 30.0, RATE, 1), RATE)
    content = bytearray((folder / "c.flac").read_bytes())
    content[-3000:-2800] = bytes(200)
    (folder / "c.flac").write_bytes(content)
    soundfile.write(folder / "d.wav", sound("chirp", 4.0, RATE, 2), RATE)
    for name in ("x.parquet", "x.npz"):
        end = cli("embed", pretrained, folder, folder / "gone.wav", "--out", tmp_path / name, "--rows", "clips")
        assert end.code == 2
        assert [line.split(": ")[1:3] for line in errors(end)] == [
            [str(folder / "b.wav"), "not audio"],
            [str(folder / "c.flac"), "damaged"],
            [str(folder / "gone.wav"), "missing"],
        ]
        library = open_library(tmp_path / name)
        assert library.paths.tolist() == [str(folder / "a.wav"), str(folder / "d.wav")]
        assert [(b["path"], b["reason"]) for b in library.metadata["bad_files"]] == [
            (str(folder / "b.wav"), "not audio"),
            (str(folder / "c.flac"), "damaged"),
            (str(folder / "gone.wav"), "missing"),
        ]
        assert library.metadata["data"]["seconds"] == 8
        assert all(isinstance(error, AudioError) for error in library.bad_files)


def test_each_kind_of_trouble_has_its_reason(cli: Cli, pretrained: Path, tmp_path: Path) -> None:
    good, nan = sound("buzz", 1.0, RATE, 0), np.zeros(RATE)
    nan[5] = np.nan
    for name, wave in (("good.wav", good), ("nan.wav", nan), ("loud.wav", good * 1e30), ("none.wav", good[:0])):
        soundfile.write(tmp_path / name, wave, RATE, subtype="FLOAT")
    content = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "zeros.wav").write_bytes(bytes(4000))
    (tmp_path / "two\nlines.wav").write_text("no sound")
    (tmp_path / "slow.wav").write_bytes(content[:24] + (7).to_bytes(4, "little") + content[28:])
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    end = cli("embed", pretrained, *sorted(tmp_path.glob("*.wav")), "/dev/zero", "--out", tmp_path / "x.parquet")
    assert end.code == 2
    found = [line.removeprefix("error: ").split(": ")[:2] for line in errors(end)]
    assert {Path(path).name: reason for path, reason in found} == {
        "cut.wav": "truncated",
        "empty.wav": "not audio",
        "loop.wav": "missing",
        "loud.wav": "level",
        "nan.wav": "non-finite",
        "none.wav": "0 samples",
        "pipe.wav": "not audio",
        "slow.wav": "rate",
        "two\\nlines.wav": "not audio",
        "zero": "not audio",
        "zeros.wav": "not audio",
    }
    library = open_library(tmp_path / "x.parquet")
    assert set(library.paths) == {str(tmp_path / "good.wav")}
    assert len(library.bad_files) == len(found)


def test_nothing_to_embed_leaves_nothing_behind(model: Model, tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_text("no sound")
    with pytest.raises(DataError, match=r"none of 2 files can be read, such as .*a.wav \(not audio\)"):
        auricle.embed_library(model, [tmp_path / "a.wav", tmp_path / "b.wav"], tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no sound was given"):
        auricle.embed_library(model, [], tmp_path / "x.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.fixture
def begun(model: Model, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library whose parts are complete, and whose table is not there yet."""
    return begin(model, sounds, tmp_path / "x.parquet", monkeypatch)


@pytest.fixture(scope="module")
def other(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Another model: the same network, one step of training."""
    return auricle.load(
        auricle.pretrain("ssast", tones, tmp_path_factory.mktemp("other") / "run", preset="test", steps=1, quiet=True)
    )


def test_two_models_do_not_mix(
    cli: Cli, model: Model, other: Model, sounds: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auricle.inference.model.resolve_precision", lambda *arguments: "fp32")
    end = cli("embed", other.source, sounds, "--out", begun)
    assert end.code == 2
    assert errors(end) == [
        f"error: {begun}.parts was begun with another model ({model.hash[:12]}, now {other.hash[:12]}), and the "
        "embeddings of two models do not mix; repeat the command that began it, give another --out, or delete "
        f"{begun}.parts to begin again."
    ]
    # The first one goes on; its table is not overwritten either.
    assert cli("embed", model.source, sounds, "--out", begun).code == 0
    content = begun.read_bytes()
    end = cli("embed", other.source, sounds, "--out", begun)
    assert end.code == 2
    assert errors(end) == [
        f"error: {begun} holds embeddings of another model ({model.hash[:12]}, now {other.hash[:12]}), and the "
        "embeddings of two models do not mix; give another --out, or delete the file."
    ]
    assert begun.read_bytes() == content


def test_an_npz_file_is_replaced_as_it_always_was(model: Model, other: Model, sounds: Path, tmp_path: Path) -> None:
    for which in (model, other):
        auricle.embed_library(which, sounds, tmp_path / "x.npz")
        assert str(np.load(tmp_path / "x.npz")["model"]) == which.hash


def test_what_was_begun_is_not_mixed_with_other_files_or_precision(
    model: Model, sounds: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(sounds.iterdir())
    for files, what in (
        (paths[2:], r"2 files gone: .*buzz0.wav, .*buzz1.flac\)"),
        ([*paths, sounds / "more.wav"], r"1 file new: .*more.wav\)"),
        (paths[::-1], r"\(in another order\)"),
    ):
        with pytest.raises(ConfigError, match=f"was begun with other files .*{what}.*delete .*parts to begin again"):
            auricle.embed_library(model, files, begun)
    stat = paths[0].stat()
    os.utime(paths[0], ns=(0, 0))
    with pytest.raises(ConfigError, match=r"\(1 file changed: .*buzz0.wav\)"):
        auricle.embed_library(model, paths, begun)
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    monkeypatch.setattr(model, "precision", "fp64")
    with pytest.raises(ConfigError, match=r"other settings \(precision: was '.*', now 'fp64'\)"):
        auricle.embed_library(model, paths, begun)


def test_a_folder_in_the_place_of_the_parts_is_left_alone(model: Model, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "x.parquet.parts").mkdir()
    (tmp_path / "x.parquet.parts" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is in the way, and not of auricle"):
        auricle.embed_library(model, sounds, tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet.parts" / "thesis.txt").read_text() == "mine"


def test_without_pyarrow_it_is_said_what_to_do(
    cli: Cli, pretrained: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "x.parquet"
    end = cli("embed", pretrained, sounds, "--out", out)
    assert end.code == 2
    assert errors(end) == [
        f"error: {out} is a Parquet file, which needs pyarrow (pip install 'auricle[library]'); or take a file that "
        "ends in .npz, which needs nothing."
    ]
    assert cli("embed", pretrained, sounds, "--out", tmp_path / "x.npz").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_frames_have_no_place_in_parquet(cli: Cli, pretrained: Path, sounds: Path, tmp_path: Path) -> None:
    end = cli("embed", pretrained, sounds, "--out", tmp_path / "x.parquet", "--frames")
    assert (end.code, "--frames needs --out FILE.npz" in end.err) == (2, True)


# Progress -----------------------------------------------------------------------------------------------------------


def test_progress_counts_files_and_seconds(model: Model, sounds: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    auricle.embed_library(model, sounds, tmp_path / "x.parquet", tell=told.append)
    assert {p.all_files for p in told} == {25}
    assert told[-1].files == 25
    assert told[-1].seconds == told[-1].all_seconds
    assert told[-1].seconds == pytest.approx(sum(soundfile.info(path).duration for path in sounds.iterdir()))
    seconds = [p.seconds for p in told]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(
    ("files", "done", "line"),
    [
        (4, Progress(1, 4, 3600.0, 7200.0), "1 of 4 files  1.00 of 2.00 h  36 audio-s/s  100 s left"),
        # Before anything is embedded, no time is guessed.
        (1, Progress(0, 1, 0.0, 7200.0), "0 of 1 files  0.00 of 2.00 h  0 audio-s/s"),
    ],
)
def test_progress_is_a_line_where_there_is_no_terminal(
    files: int, done: Progress, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter((0.0, 0.0, 100.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(now, 100.0))
    with EmbeddingProgress() as progress:
        progress(Progress(0, files, 0.0, 7200.0))
        progress(done)
    assert capsys.readouterr().err == f"embedding: {line}\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setattr("auricle.cli.progress.BAR_EVERY", 0.0)
    with EmbeddingProgress() as progress:
        progress(Progress(0, 4, 0.0, 7200.0))
        progress(Progress(1, 4, 3600.0, 7200.0))
        progress.bar.refresh()
    assert "1 of 4 files  1.00 of 2.00 h" in capsys.readouterr().err
