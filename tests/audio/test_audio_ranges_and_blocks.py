"""Ranges in seconds, resampling, and streams in constant memory."""

from __future__ import annotations

import gc
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import audio_files
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from audio_files import RATE, encode, tone

from auricle.audio.read import blocks, probe, read
from auricle.errors import AudioError, ConfigError

RATES = [8_000, 11_025, 12_345, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sound"


def decibel(signal: npt.NDArray[np.floating], error: npt.NDArray[np.floating]) -> float:
    return float(10 * np.log10(np.mean(np.square(error)) / np.mean(np.square(signal)) + 1e-30))


@pytest.mark.parametrize("source", RATES)
@pytest.mark.parametrize("target", [16_000, 32_000])
def test_resampling_is_as_good_as_the_best_reference(source: int, target: int, file: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, source + 7)
    file.write_bytes(encode(noise, "double.wav", source))
    samples, rate = read(file, rate=target)
    reference = soxr.resample(noise, source, target, quality="VHQ")
    assert rate == target
    assert samples.dtype == np.float32
    assert abs(len(samples) - round(len(noise) * target / source)) <= 1
    assert decibel(reference, samples - reference) < -90


@pytest.mark.parametrize("source", RATES)
def test_a_resampled_tone_is_the_tone_at_the_other_rate(source: int, file: Path) -> None:
    t = np.arange(source) / source
    file.write_bytes(encode(0.5 * np.sin(2 * np.pi * 1_000 * t), "double.wav", source))
    samples, _ = read(file, rate=16_000)
    expected = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)
    inside = slice(2_000, -2_000)
    assert decibel(expected[inside], samples[inside] - expected[inside]) < -90


@pytest.mark.parametrize("name", audio_files.FORMATS)
def test_a_range_is_a_slice_of_the_whole(name: str, file: Path) -> None:
    file.write_bytes(encode(tone(2, channels=1), name))
    whole, _ = read(file)
    # After a seek the MP3 decoder differs in the last bit, and the Opus decoder needs a while to forget that it began.
    tolerance = {"lame.mp3": 1e-6, "opus.opus": 2e-3}.get(name, 0)
    for start, end in ((0.0, 0.1), (0.5, 0.75), (1.234, 1.5), (1.9, 2.0)):
        samples, rate = read(file, start=start, end=end)
        first = round(start * RATE)
        assert rate == RATE
        assert len(samples) == round(end * RATE) - first
        assert np.allclose(samples, whole[first : first + len(samples)], rtol=0, atol=tolerance)
    tail, _ = read(file, start=1.5)
    assert np.allclose(tail, whole[24_000:], rtol=0, atol=tolerance)


def test_a_resampled_range_is_the_resampled_slice(file: Path) -> None:
    file.write_bytes(encode(tone(2, 44_100), "24.wav", 44_100))
    whole, _ = read(file)
    samples, _ = read(file, rate=16_000, start=0.5, end=1.5)
    assert len(samples) == 16_000
    assert np.array_equal(samples, soxr.resample(whole[22_050:66_150], 44_100, 16_000, quality="VHQ"))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (1.0, None),
        (5.0, None),
        (0.5, 1.1),
        (0.5, 1.0 + 1 / RATE),
        (5.0, 6.0),
        (-0.1, 0.5),
        (0.5, 0.5),
        (0.6, 0.5),
        (0.5, 0.500001),
        (math.nan, None),
        (0.0, math.nan),
        (0.0, math.inf),
    ],
)
def test_ranges_outside_the_file_are_refused(start: float, end: float | None, file: Path) -> None:
    file.write_bytes(encode(tone()))
    with pytest.raises(AudioError) as caught:
        read(file, start=start, end=end)
    assert caught.value.reason == "range"
    with pytest.raises(AudioError, match="range"):
        list(blocks(file, start=start, end=end))


def test_a_range_may_end_less_than_one_output_sample_beyond_the_file(file: Path) -> None:
    file.write_bytes(encode(tone(1, 44_100), rate=44_100))
    assert len(read(file, start=0.5, end=1 + 0.9 / 44_100)[0]) == 22_050
    assert len(read(file, start=0.5, end=1 + 0.9 / 8_000, rate=8_000)[0]) == 4_000
    with pytest.raises(AudioError, match="range"):
        read(file, start=0.5, end=1 + 0.9 / 8_000)
    with pytest.raises(AudioError, match="range"):
        read(file, start=0.5, end=1 + 1.1 / 8_000, rate=8_000)


@pytest.mark.parametrize("name", ["16.wav", "16.flac", "vorbis.ogg", "lame.mp3", "gsm.wav"])
@pytest.mark.parametrize("rate", [None, 8_000, 44_100])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 100.0])
def test_joined_blocks_are_the_whole(name: str, rate: int | None, seconds: float, file: Path) -> None:
    file.write_bytes(encode(tone(1.5), name))
    whole, actual = read(file, rate=rate)
    pieces = list(blocks(file, rate=rate, seconds=seconds))
    size = round(seconds * actual)
    assert all(piece.dtype == np.float32 and len(piece) == size for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= size
    assert np.allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)


def test_blocks_of_a_range_and_of_a_channel(file: Path) -> None:
    file.write_bytes(encode(tone(2, channels=3)))
    pieces = list(blocks(file, seconds=0.25, start=0.5, end=1.25, channel=2))
    assert [len(piece) for piece in pieces] == [4_000, 4_000, 4_000]
    assert np.array_equal(np.concatenate(pieces), read(file, start=0.5, end=1.25, channel=2)[0])


def test_a_file_longer_than_one_decoding_block_joins_without_a_seam(file: Path) -> None:
    sound = tone(50, 48_000)
    assert len(sound) > 2**21
    file.write_bytes(encode(sound, "float.wav", 48_000))
    assert np.array_equal(read(file)[0], sound)
    reference = soxr.resample(sound.astype(np.float64), 48_000, 16_000, quality="VHQ")
    assert decibel(reference, read(file, rate=16_000)[0] - reference) < -90
    assert decibel(reference, np.concatenate(list(blocks(file, rate=16_000, seconds=7))) - reference) < -90


def test_a_block_does_not_share_memory_with_the_next(file: Path) -> None:
    file.write_bytes(encode(tone()))
    whole, _ = read(file)
    pieces = []
    for piece in blocks(file, seconds=0.25):
        pieces.append(piece.copy())
        piece[:] = 7
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_blocks_of_no_length(seconds: float, file: Path) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        blocks(file, seconds=seconds)


def test_blocks_before_a_sample_that_is_no_number_are_given(file: Path) -> None:
    sound = np.zeros((40_000, 2), np.float32)
    sound[30_000, 1] = np.nan
    soundfile.write(file, sound, RATE, format="WAV", subtype="FLOAT")
    heard: list[int] = []
    with pytest.raises(AudioError, match=r"sample 30,000 of channel 1"):
        heard.extend(len(block) for block in blocks(file, seconds=0.5))
    assert heard == [8_000] * 3


def test_checks_apply_to_blocks_at_the_end_at_the_latest(file: Path) -> None:
    sound = tone(2)
    sound[-1] = np.nan
    file.write_bytes(encode(sound, "float.wav"))
    with pytest.raises(AudioError, match="sample 31,999"):
        list(blocks(file, seconds=0.1))


HOURS = 24
DAY_RATE = 48_000


def sparse_day(path: Path) -> npt.NDArray[np.float32]:
    """A day of silence in an RF64 file of 8.3 GB that takes up 1 MB, with ten seconds of sound at the end."""
    frames = HOURS * 3_600 * DAY_RATE
    size = 2 * frames
    head = b"RF64" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE"
    head += b"ds64" + struct.pack("<IQQQI", 28, size + 72, size, frames, 0)
    head += b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, DAY_RATE, 2 * DAY_RATE, 2, 16)
    head += b"data" + struct.pack("<I", 0xFFFFFFFF)
    sound = np.round(tone(10, DAY_RATE) * 32_768).astype("<i2")
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + size - sound.nbytes)
        file.write(sound.tobytes())
    return (sound / 32_768).astype(np.float32)


@pytest.fixture
def day(tmp_path: Path) -> Iterator[tuple[Path, npt.NDArray[np.float32]]]:
    path = tmp_path / "day.wav"
    sound = sparse_day(path)
    yield path, sound
    path.unlink()


def test_a_day_in_more_than_four_gigabytes(day: tuple[Path, npt.NDArray[np.float32]]) -> None:
    path, sound = day
    assert path.stat().st_size > 2**32
    assert probe(path).duration == HOURS * 3_600
    assert np.array_equal(read(path, start=HOURS * 3_600 - 10)[0], sound)
    with pytest.raises(AudioError, match="too long"):
        read(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1_000_000)
    with pytest.raises(AudioError, match="truncated"):
        read(path, start=0, end=1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_day_is_streamed_in_constant_memory(day: tuple[Path, npt.NDArray[np.float32]]) -> None:
    path, sound = day

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096

    gc.collect()
    start, peak, total = resident(), 0, 0
    last: list[npt.NDArray[np.float32]] = []
    for piece in blocks(path, rate=16_000, seconds=30.0):
        total += len(piece)
        last = [*last[-1:], piece]
        peak = max(peak, resident())
    assert total == HOURS * 3_600 * 16_000
    assert peak - start < 200e6
    reference = soxr.resample(sound.astype(np.float64), DAY_RATE, 16_000, quality="VHQ")
    inside = slice(2_000, -2_000)
    joined = np.concatenate(last)[-len(reference) :]
    assert decibel(reference[inside], joined[inside] - reference[inside]) < -90
