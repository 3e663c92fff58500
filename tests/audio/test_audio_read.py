"""What the reader accepts, and what it says about sound files that hold nothing usable."""

from __future__ import annotations

import struct
import sys
import time
import warnings
from pathlib import Path

import audio_files
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from audio_files import RATE, edited, encode, tone

from auricle.audio.read import REASONS, AudioWarning, blocks, probe, read
from auricle.errors import AudioError, ConfigError

MP4 = b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(500)
AAC = bytes.fromhex("fff15080021ffc") + bytes(500)
WMA = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(500)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sound"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def reason_of(path: Path, **options: object) -> str:
    with pytest.raises(AudioError) as caught:
        read(path, **options)  # type: ignore[arg-type]
    assert caught.value.path == str(path)
    assert caught.value.reason in REASONS
    assert caught.value.detail
    return caught.value.reason


def wav(samples: npt.NDArray[np.floating], rate: int = RATE, subtype: str = "FLOAT") -> bytes:
    return encode(samples, {"FLOAT": "float.wav", "DOUBLE": "double.wav", "PCM_16": "16.wav"}[subtype], rate)


def test_reasons_are_a_closed_vocabulary() -> None:
    assert len(set(REASONS)) == len(REASONS)
    assert {"not audio", "0 samples", "truncated", "range", "non-finite", "level"} <= set(REASONS)


# Signal to noise in dB, at least, of a tone with a little noise.
LOSSLESS = {"16": 75, "24": 120, "32": 120, "float": 140, "double": 140, "extensible": 75, "extensible24": 120}
LOSSY = {"u8": 25, "ulaw": 25, "alaw": 25, "ima": 20, "ms": 20, "gsm": 10, "vorbis": 10, "opus": 10, "lame": 10}


@pytest.mark.parametrize("name", audio_files.FORMATS)
def test_every_format_reads_as_the_sound_that_was_written(name: str, file: Path) -> None:
    sound = tone()
    write(file, encode(sound, name))
    samples, rate = read(file)
    assert (samples.dtype.name, samples.ndim, rate) == ("float32", 1, RATE)
    # ADPCM writes whole blocks.
    assert len(samples) - len(sound) == {"ima.wav": 272, "ms.wav": 192}.get(name, 0)
    error = samples[: len(sound)] - sound
    ratio = 10 * np.log10(np.mean(sound**2) / max(np.mean(error**2), 1e-30))
    expected = {**LOSSLESS, **LOSSY}[name.split(".")[0]]
    assert ratio > expected
    # The MP3 decoder differs in the last bit after a seek, which soundfile.read begins with.
    assert np.allclose(samples, soundfile.read(file, dtype="float32")[0], rtol=0, atol=1e-6 if "mp3" in name else 0)


@pytest.mark.parametrize("name", audio_files.FORMATS)
def test_probe_tells_the_header(name: str, file: Path) -> None:
    write(file, encode(tone(), name))
    info = probe(file)
    samples, _ = read(file)
    assert (info.path, info.rate, info.channels, info.frames) == (str(file), RATE, 1, len(samples))
    assert (info.format, info.subtype) == audio_files.FORMATS[name]
    assert info.duration == len(samples) / RATE


@pytest.mark.parametrize(
    ("container", "valid"), [(16, 16), (24, 24), (32, 24), (24, 20), (16, 12)], ids=lambda bits: str(bits)
)
def test_wave_extensible_with_fewer_valid_bits_than_stored_bits(container: int, valid: int, file: Path) -> None:
    values = np.round(tone(0.1) * 2 ** (valid - 1)).astype(np.int64) << (container - valid)
    data = b"".join(int(v).to_bytes(container // 8, "little", signed=True) for v in values)
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    layout = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, RATE * container // 8, container // 8, container, 22, valid, 4)
    body = b"WAVEfmt " + struct.pack("<I", 40) + layout + guid + b"data" + struct.pack("<I", len(data)) + data
    write(file, b"RIFF" + struct.pack("<I", len(body)) + body)
    samples, _ = read(file)
    assert np.array_equal(samples, (values / 2.0 ** (container - 1)).astype(np.float32))


@pytest.mark.parametrize(
    "data",
    [b"", encode(tone())[:12], b"one line of text\n" * 20, bytes(4096), b"RIFF\x10\0\0\0ACON" + bytes(50), b"\xff\xfb"],
    ids=["empty", "RIFF only", "text", "zeros", "another RIFF", "two bytes of MP3"],
)
def test_files_that_are_no_sound(data: bytes, file: Path) -> None:
    write(file, data)
    assert reason_of(file) in ("not audio", "damaged")
    with pytest.raises(AudioError):
        probe(file)
    with pytest.raises(AudioError):
        list(blocks(file))
    if not data.startswith(b"\xff"):
        assert reason_of(file) == "not audio"


@pytest.mark.parametrize("data", [MP4, AAC, WMA], ids=["m4a", "aac", "wma"])
def test_formats_that_need_the_video_extra_say_so(data: bytes, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, data)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"pip install 'auricle\[video\]' to read it, or convert it to FLAC") as caught:
        probe(file)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("name", ["16.wav", "16.aiff", "16.au"])
def test_a_header_without_samples(name: str, file: Path) -> None:
    write(file, encode(np.zeros(0, np.float32), name))
    assert reason_of(file) == "0 samples"
    with pytest.raises(AudioError, match="0 samples"):
        probe(file)


def test_a_wav_that_ends_after_its_header_was_cut(file: Path) -> None:
    write(file, encode(tone())[:44])
    assert reason_of(file) == "truncated"


@pytest.mark.parametrize(
    ("offset", "code", "value", "reason"),
    [
        (24, "<I", 0, "not audio"),
        (24, "<I", 4_000_000_000, "not audio"),
        (24, "<I", 7, "rate"),
        (24, "<I", 999, "rate"),
        (24, "<I", 768_001, "rate"),
        (22, "<H", 0, "not audio"),
        (22, "<H", 65_535, "not audio"),
        (20, "<H", 0x2000, "not audio"),
    ],
)
def test_impossible_headers(offset: int, code: str, value: int, reason: str, file: Path) -> None:
    write(file, edited(encode(tone()), offset, code, value))
    assert reason_of(file) == reason
    with pytest.raises(AudioError, match=r"rate|hannel|fmt"):
        probe(file)


@pytest.mark.parametrize("rate", [1_000, 768_000])
def test_the_extreme_rates_are_accepted(rate: int, file: Path) -> None:
    write(file, encode(tone(), rate=rate))
    assert probe(file).rate == rate
    assert read(file)[1] == rate


@pytest.mark.parametrize("frames", [1, 10])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -1.0, 1e-8])
def test_short_and_constant_sounds_are_sounds(frames: int, value: float, file: Path) -> None:
    write(file, wav(np.full(frames, value, np.float32)))
    samples, _ = read(file)
    assert np.array_equal(samples, np.full(frames, value, np.float32))


def test_less_than_one_sample_after_resampling(file: Path) -> None:
    write(file, wav(np.ones(1, np.float32), 48_000))
    assert reason_of(file, rate=8_000) == "0 samples"
    with pytest.raises(AudioError, match="0 samples"):
        list(blocks(file, rate=8_000))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_named(bad: float, file: Path) -> None:
    sound = tone(channels=2)
    sound[12_345, 1] = bad
    write(file, wav(sound))
    with pytest.raises(AudioError, match=r"sample 12,345 of channel 1 is -?(nan|inf)") as caught:
        read(file)
    assert caught.value.reason == "non-finite"
    # The index counts from the start of the file.
    with pytest.raises(AudioError, match=r"sample 12,345 of channel 1"):
        read(file, start=0.5)
    assert len(read(file, end=0.5)[0]) == 8_000

    repaired, _ = read(file, nonfinite="zero")
    sound[12_345, 1] = 0
    assert np.allclose(repaired, sound.mean(1), atol=1e-7)


def test_doubles_beyond_float32_are_not_finite(file: Path) -> None:
    write(file, wav(np.full(100, 1e300), subtype="DOUBLE"))
    assert reason_of(file) == "non-finite"


@pytest.mark.parametrize("value", [1e30, -1e30, 8.1])
def test_levels_of_unscaled_samples(value: float, file: Path) -> None:
    sound = tone()
    sound[5_000] = value
    write(file, wav(sound))
    with pytest.raises(AudioError, match=r"sample 5,000 of channel 0") as caught:
        read(file)
    assert caught.value.reason == "level"
    sound[5_000] = np.sign(value) * 8
    write(file, wav(sound))
    assert np.array_equal(read(file)[0], sound)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels(channels: int, file: Path) -> None:
    sound = tone(channels=channels)
    write(file, wav(sound))
    assert probe(file).channels == channels
    assert np.allclose(read(file)[0], sound.mean(1), atol=1e-6)
    for channel in range(channels):
        assert np.array_equal(read(file, channel=channel)[0], sound[:, channel])
    assert reason_of(file, channel=channels) == "channel"


def test_channels_that_cancel(file: Path) -> None:
    left = tone()
    write(file, wav(np.stack([left, -left], 1)))
    with pytest.warns(AudioWarning, match="silent after downmix"):
        samples, _ = read(file)
    assert not samples.any()
    with pytest.warns(AudioWarning, match="silent after downmix"):
        list(blocks(file, seconds=0.1))
    assert np.array_equal(read(file, channel=1)[0], -left)
    # Silence is not cancellation, nor is one silent channel.
    for quiet in (np.zeros_like(left), left):
        write(file, wav(np.stack([quiet, np.zeros_like(left)], 1)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read(file)


def test_the_limit_counts_channels_and_resampled_samples(file: Path) -> None:
    write(file, wav(tone(channels=2)))
    assert len(read(file, max_samples=2 * RATE)[0]) == RATE
    assert reason_of(file, max_samples=2 * RATE - 1) == "too long"
    assert len(read(file, max_samples=RATE, end=0.5)[0]) == RATE // 2
    assert reason_of(file, max_samples=2 * RATE, rate=48_000) == "too long"
    with pytest.raises(AudioError, match="too long"):
        list(blocks(file, max_samples=2 * RATE - 1))


@pytest.mark.parametrize(("name", "seconds", "channels"), [("16.flac", 10, 8), ("vorbis.ogg", 40, 1)])
def test_a_decompression_bomb_stops_at_the_limit(name: str, seconds: int, channels: int, file: Path) -> None:
    silence = np.zeros((seconds * 96_000, channels), np.float32)
    write(file, encode(silence, name, 96_000))
    assert silence.nbytes / file.stat().st_size > 1_000
    begin = time.perf_counter()
    assert reason_of(file, max_samples=silence.size - 1) == "too long"
    assert time.perf_counter() - begin < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"channel": "left"},
        {"channel": -1},
        {"channel": 0.5},
        {"channel": True},
        {"rate": 999},
        {"rate": 16_000.0},
        {"rate": "16k"},
        {"max_samples": 0},
        {"nonfinite": "keep"},
        {"truncated": "ignore"},
    ],
    ids=str,
)
def test_meaningless_arguments(options: dict[str, object], file: Path) -> None:
    write(file, encode(tone()))
    with pytest.raises(ConfigError, match=next(iter(options))):
        read(file, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        blocks(file, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_good_short_flac_costs_little_more_than_decoding_it(file: Path) -> None:
    write(file, encode(tone(5), "16.flac"))

    def fastest(function: object) -> float:
        times = []
        for _ in range(300):
            begin = time.perf_counter()
            function(file)  # type: ignore[operator]
            times.append(time.perf_counter() - begin)
        return min(times)

    bare = fastest(lambda path: soundfile.read(path, dtype="float32"))
    assert fastest(read) < 1.5 * bare
