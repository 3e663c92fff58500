"""Names that break other readers, things that are no files, and files that change while they are read."""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from audio_files import RATE, encode, half, tone

from auricle.audio.read import AudioWarning, blocks, probe, read
from auricle.errors import AudioError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file names and file types")
NAMES = [
    b"with spaces .wav",
    b"new\nline.wav",
    "Übung 音.wav".encode(),
    b"not utf-8 \xff\xfe.wav",
    b"-leading %s {} dash",
    b"n" * 255,
    b"wrong.extension.mp3",
]


def reason_of(path: str | bytes | Path) -> str:
    reasons = set()
    for call in (probe, read, lambda path: list(blocks(path))):
        with pytest.raises(AudioError) as caught:
            call(path)
        reasons.add(caught.value.reason)
    (reason,) = reasons
    return reason


@posix
@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("format", ["16.wav", "16.flac", "lame.mp3"])
def test_any_file_name_works(name: bytes, format: str, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118 (Path takes no bytes)
    Path(os.fsdecode(path)).write_bytes(encode(tone(), format))
    for form in (path, os.fsdecode(path), Path(os.fsdecode(path))):
        assert len(read(form)[0]) == RATE
        assert read(probe(form).path)[1] == RATE


@posix
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_any_file_name_can_be_printed_in_an_error(name: bytes, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
    Path(os.fsdecode(path)).write_bytes(half(encode(tone())))
    with pytest.raises(AudioError) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.encode("utf-8")
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    with pytest.warns(AudioWarning):
        read(path, truncated="warn")


@pytest.mark.parametrize("name", ["absent.wav", "absent/absent.wav", "", "nul\0.wav", "n" * 256])
def test_a_name_without_a_file(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / name) if name else ""
    assert reason_of(path) in ("missing", "unreadable")
    if len(name) < 256:
        assert reason_of(path) == "missing"


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert reason_of(tmp_path / "file" / "sound.wav") in ("missing", "unreadable")


def test_a_folder_named_like_a_sound(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    assert reason_of(tmp_path / "folder.wav") == "not audio"


@posix
def test_links(tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(encode(tone()))
    (tmp_path / "link").symlink_to(tmp_path / "sound")
    assert len(read(tmp_path / "link")[0]) == RATE
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert reason_of(tmp_path / "a") == "missing"


@posix
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    begin = time.perf_counter()
    for path in (tmp_path / "fifo.wav", "/dev/zero", "/dev/null"):
        assert reason_of(path) == "not audio"
    assert time.perf_counter() - begin < 1


@posix
def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(encode(tone()))
    really_open = os.open

    def swap_and_open(name: str, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return really_open(name, flags)

    monkeypatch.setattr(os, "open", swap_and_open)
    begin = time.perf_counter()
    with pytest.raises(AudioError, match="not audio"):
        read(path)
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_what_the_system_refuses_is_unreadable(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(encode(tone()))

    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    assert error.strerror is not None
    with pytest.raises(AudioError, match=error.strerror) as caught:
        read(path)
    assert caught.value.reason == "unreadable"


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("format", ["16.wav", "16.flac", "vorbis.ogg", "lame.mp3", "16.caf"])
def test_no_descriptor_is_left_open(format: str, tmp_path: Path) -> None:
    good, cut = tmp_path / "good", tmp_path / "cut"
    good.write_bytes(encode(tone(), format))
    cut.write_bytes(half(good.read_bytes()))
    before = len(descriptors())
    for _ in range(20):
        read(good)
        probe(good)
        for path in (cut, tmp_path / "absent", tmp_path):
            with pytest.raises(AudioError):
                read(path)
        with pytest.raises(AudioError):
            read(good, start=100.0)
        stream = blocks(good, seconds=0.1)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert len(descriptors()) == before


@posix
def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(encode(tone(200)))
    stream = blocks(path, seconds=1.0)
    assert len(next(stream)) == RATE
    os.truncate(path, 1_000_000)
    with pytest.raises(AudioError) as caught:
        list(stream)
    assert caught.value.reason == "changed"


@posix
@pytest.mark.parametrize("format", ["16.wav", "16.flac", "vorbis.ogg", "lame.mp3"])
def test_a_file_that_is_being_written_gives_samples_or_an_error(format: str, tmp_path: Path) -> None:
    path = tmp_path / "sound"
    data = encode(tone(2), format)
    path.write_bytes(data[:100])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with path.open("wb") as file:
                for at in range(0, len(data), 1_000):
                    file.write(data[at : at + 1_000])
                    file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        end = time.perf_counter() + 0.4
        errors = 0
        while time.perf_counter() < end:
            try:
                samples, _ = read(path)
                assert samples.dtype == np.float32
            except AudioError:
                errors += 1
    finally:
        stop.set()
        writer.join()
    assert errors > 0
    assert len(read(path)[0]) == 2 * RATE
