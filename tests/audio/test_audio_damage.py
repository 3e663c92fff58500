"""Cut and damaged files: noticed for the whole file and for every range of it."""

from __future__ import annotations

import re
import resource
import struct
import time
from collections import Counter
from pathlib import Path

import audio_files
import numpy as np
import pytest
from audio_files import RATE, edited, encode, flac_declaring, half, mp3_frames, mp3_without_count, scratched, tone

from auricle.audio.read import AudioWarning, blocks, probe, read
from auricle.errors import AudioError

# The compressed formats have checks inside; in the others a changed byte is only another sound.
PACKETS = ("16.flac", "24.flac", "vorbis.ogg", "opus.opus", "lame.mp3")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sound"


def reasons(path: Path) -> set[str]:
    """The reasons that a whole read, two ranges and a stream give; "samples" where one of them succeeds."""
    found = set()
    calls = (
        lambda: read(path),
        lambda: read(path, start=0.0, end=0.05),
        lambda: read(path, start=0.2, end=0.21, rate=8_000),
        lambda: list(blocks(path, seconds=0.1)),
    )
    for call in calls:
        try:
            call()
            found.add("samples")
        except AudioError as error:
            found.add(error.reason)
    return found


@pytest.mark.parametrize("name", audio_files.FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_a_cut_file_is_truncated_for_every_read(name: str, share: float, file: Path) -> None:
    data = encode(tone(), name)
    file.write_bytes(data[: int(share * len(data))])
    # Whether the last frame is cut or damaged cannot be told.
    assert reasons(file) <= {"truncated", "damaged"}


@pytest.mark.parametrize("name", audio_files.FORMATS)
def test_half_of_a_file_says_how_much_is_there_and_what_to_do(name: str, file: Path) -> None:
    data = encode(tone(), name)
    file.write_bytes(half(data))
    with pytest.raises(AudioError, match=r"truncated='warn'") as caught:
        read(file)
    assert caught.value.reason == "truncated"
    if name not in ("vorbis.ogg", "opus.opus"):
        assert re.search(r"\b(4\d|5[0-5])(\.\d)? %", caught.value.detail)


@pytest.mark.parametrize(
    "name", [name for name, (_, subtype) in audio_files.FORMATS.items() if subtype not in ("VORBIS", "OPUS")]
)
def test_what_is_left_of_a_cut_file_can_be_used(name: str, file: Path) -> None:
    data = encode(tone(), name)
    file.write_bytes(data)
    whole, _ = read(file)
    file.write_bytes(half(data))
    if name in ("16.caf", "ima.wav", "ms.wav", "gsm.wav"):
        # libsndfile does not open a cut CAF file, and invents the end of a cut block.
        with pytest.warns(AudioWarning), pytest.raises(AudioError, match="truncated"):
            read(file, truncated="warn")
        return
    with pytest.warns(AudioWarning, match="truncated") as caught:
        left, _ = read(file, truncated="warn")
    assert len(caught) == 1
    assert 0.15 * len(whole) < len(left) < 0.65 * len(whole)
    assert np.allclose(left, whole[: len(left)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("seed", range(5))
def test_three_hundred_changed_bytes_are_noticed(name: str, seed: int, file: Path) -> None:
    file.write_bytes(scratched(encode(tone(), name), seed=seed))
    whole = reasons(file)
    if "flac" in name:
        # Only the decoder can see it, where it comes by; a whole read is what tells.
        with pytest.raises(AudioError):
            read(file)
        with pytest.raises(AudioError):
            list(blocks(file, seconds=0.1))
    else:
        assert whole == {"damaged"}


@pytest.mark.parametrize("name", ["16.flac", "24.flac"])
def test_one_flipped_bit_in_a_flac_is_never_silently_wrong(name: str, file: Path) -> None:
    data = encode(tone(), name)
    file.write_bytes(data)
    whole, _ = read(file)
    audio = data.index(b"\xff\xf8", 42)
    rng = np.random.default_rng(5)
    outcomes: Counter[str] = Counter()
    for _ in range(150):
        at = int(rng.integers(audio, len(data)))
        file.write_bytes(edited(data, at, "B", data[at] ^ 1 << int(rng.integers(8))))
        with pytest.raises(AudioError):
            read(file)
        start = float(rng.integers(10)) / 10
        try:
            crop, _ = read(file, start=start, end=start + 0.1)
            outcomes["right"] += 1
            first = round(start * RATE)
            assert np.array_equal(crop, whole[first : first + len(crop)])
        except AudioError:
            outcomes["error"] += 1
    assert outcomes["right"] > 10
    assert outcomes["error"] > 10


def test_what_is_left_of_a_damaged_flac_is_what_precedes_the_damage(file: Path) -> None:
    data = encode(tone(4), "16.flac")
    file.write_bytes(data)
    whole, _ = read(file)
    file.write_bytes(scratched(data))
    with pytest.warns(AudioWarning, match="damaged"):
        left, _ = read(file, truncated="warn")
    assert 0.4 * len(whole) < len(left) < 0.5 * len(whole)
    assert np.array_equal(left, whole[: len(left)])


@pytest.mark.parametrize("declared", [2**36 - 1, 16_001, 80_000])
def test_a_flac_header_that_promises_too_much(declared: int, file: Path) -> None:
    file.write_bytes(flac_declaring(encode(tone(), "16.flac"), declared))
    assert probe(file).frames == declared
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    assert reasons(file) == {"truncated"}
    with pytest.warns(AudioWarning):
        left, _ = read(file, truncated="warn", max_samples=2**40, start=0.5)
    assert len(left) > 2_000
    assert np.allclose(left, tone()[8_000 : 8_000 + len(left)], atol=2**-15)
    assert time.perf_counter() - begin < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_a_flac_header_that_promises_too_little(file: Path) -> None:
    file.write_bytes(flac_declaring(encode(tone(), "16.flac"), 8_000))
    assert reasons(file) == {"damaged"}


@pytest.mark.parametrize("channels", [1, 2])
def test_a_flac_from_a_pipe_declares_no_length_and_reads_like_any_other(channels: int, file: Path) -> None:
    data = encode(tone(3, channels=channels), "16.flac")
    file.write_bytes(data)
    whole, _ = read(file)
    file.write_bytes(flac_declaring(data, 0))
    assert probe(file).frames == 3 * RATE
    assert np.array_equal(read(file)[0], whole)
    assert np.array_equal(read(file, start=1.5, end=2.9)[0], whole[int(1.5 * RATE) : int(2.9 * RATE)])
    assert np.array_equal(np.concatenate(list(blocks(file, seconds=0.7))), whole)
    file.write_bytes(flac_declaring(scratched(data), 0))
    with pytest.raises(AudioError):
        read(file)


def test_an_au_header_that_points_behind_the_file(file: Path) -> None:
    data = encode(tone(), "16.au")
    for length in (0, 100):
        file.write_bytes(edited(data, 4, ">II", 10**6, length))
        with pytest.raises(AudioError):
            read(file)


def test_a_large_picture_behind_a_flac_is_no_damage(file: Path) -> None:
    data = encode(tone(), "16.flac")
    file.write_bytes(data)
    whole, _ = read(file)
    file.write_bytes(data + bytes(1_500_000))
    assert np.array_equal(read(file)[0], whole)
    assert np.array_equal(read(file, start=0.9)[0], whole[14_400:])


STREAMED = (0xFFFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF - 44, 0x7FFFFFFF, 0x7FFFF000)


@pytest.mark.parametrize(
    ("name", "offset", "order", "size"),
    [("16.wav", 40, "<", size) for size in STREAMED]
    + [("16.aiff", 42, ">", size) for size in STREAMED]
    + [("16.au", 8, ">", 0xFFFFFFFF)],
)
def test_a_length_written_to_a_pipe_is_no_length(
    name: str, offset: int, order: str, size: int, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    data = encode(tone(), name)
    assert struct.unpack_from(order + "I", data, offset)[0] in (32_000, 32_008)
    file.write_bytes(data)
    whole, _ = read(file)
    assert not caplog.messages
    file.write_bytes(edited(data, offset, order + "I", size))
    assert np.array_equal(read(file)[0], whole)
    assert any(str(file) in message and "pipe" in message for message in caplog.messages)
    assert np.array_equal(read(file, start=0.25, end=0.5)[0], whole[4_000:8_000])


@pytest.mark.parametrize("missing", [1, 2, 100])
def test_a_few_missing_bytes_count(missing: int, file: Path) -> None:
    file.write_bytes(encode(tone())[:-missing])
    assert reasons(file) == {"truncated"}


def test_chunks_before_and_after_the_samples_are_no_damage(file: Path) -> None:
    data = encode(tone())
    odd = b"LIST" + struct.pack("<I", 5) + b"hello\0"
    long = b"junk" + struct.pack("<I", 3_000) + bytes(3_000)
    file.write_bytes(data)
    whole, _ = read(file)
    file.write_bytes(data[:36] + odd + long + data[36:] + odd + b"tail")
    assert np.array_equal(read(file)[0], whole)
    file.write_bytes(data[:36] + long[:500])
    assert reasons(file) == {"truncated"}


def test_an_ogg_file_must_reach_its_end_mark(file: Path) -> None:
    data = encode(tone(8), "vorbis.ogg")
    last_page = data.rindex(b"OggS")
    file.write_bytes(data[:last_page])
    assert reasons(file) == {"truncated"}
    # A tag after the end is no sound.
    file.write_bytes(data + b"TAG" + bytes(125))
    assert len(read(file)[0]) == 8 * RATE


def test_a_lost_ogg_page_is_noticed(file: Path) -> None:
    data = encode(np.random.default_rng(0).uniform(-0.5, 0.5, 60 * RATE).astype(np.float32), "vorbis.ogg")
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    assert len(pages) > 20
    file.write_bytes(b"".join(pages[:10] + pages[11:]))
    assert reasons(file) == {"damaged"}


@pytest.mark.parametrize("name", ["vorbis.ogg", "opus.opus"])
def test_every_flipped_bit_in_an_ogg_file_is_noticed(name: str, file: Path) -> None:
    data = encode(tone(), name)
    for at in np.random.default_rng(1).integers(len(data), size=100):
        file.write_bytes(edited(data, int(at), "B", data[at] ^ 1 << int(at) % 8))
        with pytest.raises(AudioError):
            read(file)


def test_an_mp3_without_a_count_is_read_to_its_end(file: Path) -> None:
    """libsndfile guesses the length from the first frame, and here drops half of the sound."""
    data = encode(tone(), "lame.mp3")
    file.write_bytes(mp3_without_count(data))
    frames = len(mp3_frames(data)) - 1
    samples, _ = read(file)
    assert probe(file).frames == len(samples) == 576 * frames
    # The encoder's delay stays, because the count is where it would be written.
    delay = 576 + 529
    assert np.abs(samples[delay : delay + RATE - 600] - tone()[: RATE - 600]).max() < 0.2
    assert np.allclose(read(file, start=0.5, end=0.6)[0], samples[8_000:9_600], rtol=0, atol=1e-6)
    assert np.allclose(np.concatenate(list(blocks(file, seconds=0.3))), samples, rtol=0, atol=1e-6)
    file.write_bytes(mp3_without_count(data)[:-10])
    assert reasons(file) == {"truncated"}


@pytest.mark.parametrize(("change", "right"), [(-15, True), (-1, True), (1, True), (2, False), (30, False)])
def test_an_mp3_with_a_wrong_count(change: int, right: bool, file: Path) -> None:
    data = encode(tone(), "lame.mp3")
    file.write_bytes(data)
    whole, _ = read(file)
    at = data.index(b"Xing") + 8 if b"Xing" in data else data.index(b"Info") + 8
    (frames,) = struct.unpack_from(">I", data, at)
    file.write_bytes(edited(data, at, ">I", frames + change))
    if right:
        # Some encoders count one frame too many; others leave an old count behind when they append.
        assert np.allclose(read(file)[0], whole, rtol=0, atol=1e-6)
    else:
        assert reasons(file) == {"truncated"}


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(3_000), b"APETAGEX" + bytes(300), b"some junk"])
@pytest.mark.parametrize("count", [True, False])
def test_tags_and_padding_around_an_mp3_are_no_damage(tail: bytes, count: bool, file: Path) -> None:
    data = encode(tone(), "lame.mp3")
    data = data if count else mp3_without_count(data)
    file.write_bytes(data)
    whole, _ = read(file)
    file.write_bytes(b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + data + tail)
    samples, _ = read(file)
    assert np.allclose(samples, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [True, False])
def test_an_mp3_with_a_hole_is_damaged(count: bool, file: Path) -> None:
    data = encode(tone(), "lame.mp3")
    data = data if count else mp3_without_count(data)
    file.write_bytes(scratched(data, 600))
    assert reasons(file) == {"damaged"}


@pytest.mark.parametrize("name", ["16.flac", "16.wav", "lame.mp3"])
def test_a_tag_in_front_of_a_file_does_not_hide_a_cut(name: str, file: Path) -> None:
    data = b"ID3\4\0\0\0\0\1\0" + bytes(128) + encode(tone(), name)
    file.write_bytes(data)
    assert len(read(file)[0]) == RATE
    file.write_bytes(half(data))
    assert reasons(file) == {"truncated"}


def test_rejecting_a_cut_mp3_leaves_standard_error_alone(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(half(encode(tone(), "lame.mp3")))
    assert reasons(file) == {"truncated"}
    probe(file)
    assert capfd.readouterr().err == ""


def test_an_mp3_that_states_a_wrong_size_is_read_in_silence(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(tone(), "lame.mp3")
    file.write_bytes(data)
    whole, _ = read(file)
    at = max(data.find(b"Xing"), data.find(b"Info")) + 12
    assert int.from_bytes(data[at : at + 4], "big") == len(data)
    for size in (0, len(data) // 2, 2 * len(data)):
        file.write_bytes(data[:at] + size.to_bytes(4, "big") + data[at + 4 :])
        np.testing.assert_array_equal(read(file)[0], whole)
    assert capfd.readouterr().err == ""


def test_a_repaired_file_is_looked_at_again(file: Path) -> None:
    data = encode(tone())
    file.write_bytes(half(data))
    assert reasons(file) == {"truncated"}
    file.write_bytes(data)
    assert reasons(file) == {"samples"}
