"""Whether the packets of an Ogg, MP3 or FLAC file are all there.

libsndfile reads a damaged Ogg file up to the damage, and a cut MP3 file up to the cut, and reports success. The packets
carry enough to notice: checksums and end marks in Ogg, a chain and a count of frames in MP3, frame numbers in FLAC. A
changed byte inside an MP3 frame cannot be noticed: the format has no checksum for it.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from auricle.audio.containers import Damage, percent

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FLAC_WINDOW = 1 << 20
# Of the size that an MP3 file states: half of what libmpg123 bears in silence.
_SIZE_TOLERANCE = 0.005
_PAGE = struct.Struct("<4sBBqIIIB")


def ogg_damage(file: BinaryIO, start: int) -> Damage | None:
    """Check every page of an Ogg file: checksum, running number, and the mark of the last page of each stream."""
    size = os.fstat(file.fileno()).st_size
    offset = start
    pages: dict[int, int] = {}
    unfinished: set[int] = set()
    file.seek(start)
    while offset < size:
        head = file.read(_PAGE.size)
        if not b"OggS".startswith(head[:4]):
            # After the last page of every stream there may be tags or padding.
            return Damage("damaged", f"no Ogg page at byte {offset:,}") if unfinished else None
        if len(head) < _PAGE.size:
            return Damage("truncated", f"the file ends inside the Ogg page at byte {offset:,}")
        _, _, flags, _, serial, number, checksum, segments = _PAGE.unpack(head)
        table = file.read(segments)
        length = sum(table)
        body = file.read(length)
        if len(table) < segments or len(body) < length:
            return Damage("truncated", f"the file ends inside the Ogg page at byte {offset:,}")
        if _ogg_checksum(head[:22] + b"\0\0\0\0" + head[26:] + table + body) != checksum:
            return Damage("damaged", f"the Ogg page at byte {offset:,} fails its checksum")
        # A recording of a running broadcast jumps once, between the header pages and the sound.
        if number != pages.get(serial, number - 1) + 1 and pages[serial] > 2:
            return Damage("damaged", f"Ogg pages are missing before byte {offset:,}")
        pages[serial] = number
        (unfinished.discard if flags & 4 else unfinished.add)(serial)
        offset += _PAGE.size + segments + length
    if unfinished:
        return Damage("truncated", "the file ends before the page that is marked as the last one of its Ogg stream")
    return None


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the most significant bit first, as Ogg has it.

    zlib has the same polynomial with the least significant bit first: reversing the bits of the input and of the result
    turns one into the other, at the speed of zlib.
    """
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")


_BITRATES = {
    # (MPEG version 1?, layer): kbit/s for the index in the header.
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_LONGEST_FRAME = 2881
_ID3V1_LENGTH = 128
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")


class _MpegFrame(NamedTuple):
    """What a frame header says; `length` in bytes is 0 where it does not tell, `family` is constant in a file."""

    length: int
    family: tuple[int, int, int]
    side_info: int
    samples: int


class MpegScan(NamedTuple):
    """The complete frames of a file, one after the other, and the encoder's count of them if it left one.

    The frame that holds the count holds no sound and is in neither number.
    """

    frames: int
    declared: int | None
    damage: Damage | None


def mpeg_scan(file: BinaryIO, start: int) -> MpegScan:
    """Follow the chain of MPEG audio frames to its end, and compare their number with the encoder's count."""
    size = os.fstat(file.fileno()).st_size
    first = _mpeg_frame(_at(file, start, 4))
    if first is None:
        return MpegScan(0, None, Damage("damaged", f"no MPEG frame at byte {start:,}"))
    count_at = _count_offset(_at(file, start, 192), first)
    declared = None if count_at is None else int.from_bytes(_at(file, start + count_at, 4), "big")
    frames = 0 if declared is None else -1
    offset = start
    frame: _MpegFrame | None = first
    while frame is not None and frame.family == first.family and offset + frame.length <= size:
        if not frame.length:
            return MpegScan(0, None, None)
        frames += 1
        offset += frame.length
        frame = _mpeg_frame(_at(file, offset, 4))
    cut = frame is not None and frame.family == first.family
    # Some encoders count the frame that holds the count.
    if declared is not None and frames < (declared if cut else declared - 1):
        if cut or offset >= size:
            share = f"{percent(frames, declared)} of the {declared:,} declared MPEG frames are there"
            return MpegScan(frames, declared, Damage("truncated", share))
        broken = f"no MPEG frame at byte {offset:,}, after {frames:,} of {declared:,}"
        return MpegScan(frames, declared, Damage("damaged", broken))
    if declared is not None or offset >= size:
        return MpegScan(frames, declared, None)
    if cut:
        return MpegScan(frames, None, Damage("truncated", f"the file ends inside the MPEG frame at byte {offset:,}"))
    tail = _at(file, offset, 1 << 16)
    if tail.startswith(_TAGS) or not any(tail) or (size - offset < _LONGEST_FRAME and not _has_frame(tail, first)):
        return MpegScan(frames, None, None)
    broken = f"no MPEG frame at byte {offset:,}, where frame {frames:,} should start"
    return MpegScan(frames, None, Damage("damaged", broken))


def with_mpeg_length(file: BinaryIO, start: int, scan: MpegScan) -> tuple[SplicedFile, int | None] | None:
    """A view of an MP3 file of which libsndfile decodes every frame, or None if the file is right itself.

    libsndfile takes the length from the encoder's count, right or wrong. Without one it guesses from the size of the
    file and of the first frame, and drops the samples beyond its guess: here the file looks too long for a short guess.

    Returns:
        The view, and the length in samples per channel where libsndfile will not know it.
    """
    first = _mpeg_frame(_at(file, start, 4))
    if first is None or scan.frames < 1:
        return None
    if scan.declared is None:
        return SplicedFile(b"", file, start, scan.frames * _LONGEST_FRAME), scan.frames * first.samples
    written = _at(file, start, first.length)
    frame, count_at, size_at = bytearray(written), _count_offset(written, first), _size_offset(written, first)
    if count_at is not None and scan.damage is None:
        frame[count_at : count_at + 4] = scan.frames.to_bytes(4, "big")
    if size_at is not None:
        # libmpg123 complains of a size that is off by 1 %, on stderr, without the file's name.
        size = os.fstat(file.fileno()).st_size - start
        if abs(int.from_bytes(frame[size_at : size_at + 4], "big") - size) > _SIZE_TOLERANCE * size:
            frame[size_at : size_at + 4] = min(size, 2**32 - 1).to_bytes(4, "big")
    return None if frame == written else (SplicedFile(bytes(frame), file, start + first.length), None)


class SplicedFile(io.RawIOBase):
    """A file that reads as `prefix`, then `file` from `offset` on, and then claims `extra` bytes that do not exist."""

    def __init__(self, prefix: bytes, file: BinaryIO, offset: int, extra: int = 0) -> None:
        self._prefix, self._file, self._offset = prefix, file, offset
        self._size = len(prefix) + os.fstat(file.fileno()).st_size - offset + extra
        self._extra = extra
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(0, (0, self._position, self._size)[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = len(memoryview(buffer).cast("B"))
        if self._extra and self._position >= self._size - _ID3V1_LENGTH:
            # A decoder that looks for the tag at the end must get an answer.
            data = bytes(min(length, max(0, self._size - self._position)))
        else:
            data = self._prefix[self._position : self._position + length]
            offset = self._offset + max(0, self._position - len(self._prefix))
            data += _at(self._file, offset, length - len(data))
        memoryview(buffer).cast("B")[: len(data)] = data
        self._position += len(data)
        return len(data)


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _has_frame(data: bytes, first: _MpegFrame) -> bool:
    found = (_mpeg_frame(data[i : i + 4]) for i in range(len(data) - 3) if data[i] == 0xFF)
    return any(frame is not None and frame.family == first.family for frame in found)


def _mpeg_frame(head: bytes) -> _MpegFrame | None:
    """Parse a frame header; a length of 0 means that it is not written in the header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate == 15 or rate == 3:
        return None
    full = version == 3
    bits, hertz = 1000 * _BITRATES[full, layer][bitrate], _MPEG_RATES[version][rate]
    if layer == 1:
        length = (12 * bits // hertz + padding) * 4
    else:
        length = (144 if full or layer == 2 else 72) * bits // hertz + padding
    mono = head[3] >> 6 == 3
    side_info = (17 if mono else 32) if full else (9 if mono else 17)
    samples = 384 if layer == 1 else 1152 if full or layer == 2 else 576
    return _MpegFrame(length if bitrate else 0, (version, layer, rate), side_info, samples)


def _count_offset(data: bytes, first: _MpegFrame) -> int | None:
    """Where in the first frame the encoder wrote the number of frames (after Xing, Info or VBRI), if it did."""
    tag = 4 + first.side_info
    if data[tag : tag + 4] in (b"Xing", b"Info") and len(data) >= tag + 12:
        return tag + 8 if data[tag + 7] & 1 else None
    return 50 if data[36:40] == b"VBRI" and len(data) >= 54 else None


def _size_offset(data: bytes, first: _MpegFrame) -> int | None:
    """Where in the first frame the encoder wrote the number of bytes (after Xing or Info and the frames), if it did."""
    tag = 4 + first.side_info
    known = data[tag : tag + 4] in (b"Xing", b"Info") and len(data) >= tag + 16 and data[tag + 7] & 3 == 3
    return tag + 12 if known else None


class FlacHeader(NamedTuple):
    """STREAMINFO: what frames must agree with; `frames` is 0 where the encoder did not know, `raw` are all 42 bytes."""

    raw: bytes
    block_size: int
    channels: int
    bits: int
    frames: int


def flac_header(file: BinaryIO, start: int) -> FlacHeader | None:
    """Parse STREAMINFO, or None if the file does not start with it."""
    data = _at(file, start, 42)
    if len(data) < 42 or data[4] & 0x7F or data[:4] != b"fLaC":
        return None
    (packed,) = struct.unpack_from(">Q", data, 18)
    block_size = struct.unpack_from(">H", data, 8)[0]
    return FlacHeader(data, block_size, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & 2**36 - 1)


def flac_lengths(file: BinaryIO, start: int, header: FlacHeader) -> Iterator[int]:
    """Length of the stream in samples per channel by each frame header near the end of the file, the last one first.

    Sound can look like a frame header by chance, so one of these is right for a complete file, not always the first.
    """
    size = os.fstat(file.fileno()).st_size
    # Nearly every frame is shorter than the first window, none that matters is longer than the second.
    for window in (1 << 16, _FLAC_WINDOW):
        data = _at(file, max(start, size - window), window)
        for match in reversed(list(re.finditer(rb"\xff[\xf8\xf9]", data))):
            length = _flac_frame_end(data[match.start() : match.start() + 16], header)
            if length is not None and length < 2**36:
                yield length


def with_flac_length(file: BinaryIO, start: int, header: FlacHeader, length: int) -> SplicedFile:
    """A view of a FLAC file that declares `length` samples: libsndfile cannot seek in one that declares none."""
    # 36 bits: the lower half of one byte and the four bytes after it.
    field = ((header.raw[21] & 0xF0) << 32 | length).to_bytes(5, "big")
    return SplicedFile(header.raw[:21] + field + header.raw[26:], file, start + 42)


def flac_damage(file: BinaryIO, start: int) -> Damage | None:
    """Compare the declared length of a FLAC file with the number of its last frame."""
    header = flac_header(file, start)
    if header is None or not header.frames:
        return None
    longest = 0
    for length in flac_lengths(file, start, header):
        if length == header.frames:
            return None
        longest = max(longest, length)
    if not longest and os.fstat(file.fileno()).st_size - start > _FLAC_WINDOW:
        return None  # a picture or the like behind the sound: only the decoder can tell
    if longest > header.frames:
        return Damage("damaged", f"the header declares {header.frames:,} samples but the frames go on to {longest:,}")
    return Damage("truncated", f"about {percent(longest, header.frames)} of the {header.frames:,} samples are there")


def _flac_frame_end(data: bytes, header: FlacHeader) -> int | None:
    """Number of the first sample after the frame whose header `data` starts with, or None if it is no frame header."""
    if len(data) < 6 or data[3] & 1:
        return None
    channels = data[3] >> 4
    bits = {0: header.bits, 1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}.get(data[3] >> 1 & 7)
    if (2 if channels in (8, 9, 10) else channels + 1) != header.channels or bits != header.bits:
        return None
    first = data[4]
    extra = 0 if first < 0x80 else 7 - (first ^ 0xFF).bit_length()
    if extra > 6 or 0x80 <= first < 0xC0 or len(data) < 6 + extra:
        return None
    number = first if not extra else first & (0x3F >> extra)
    for byte in data[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    at = 5 + extra
    size_code, rate_code = data[2] >> 4, data[2] & 15
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    rate_bytes = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if size_code == 0 or rate_code == 15 or len(data) < at + size_bytes + rate_bytes + 1:
        return None
    if size_bytes:
        block = int.from_bytes(data[at : at + size_bytes], "big") + 1
    else:
        block = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    at += size_bytes + rate_bytes
    if _flac_checksum(data[:at]) != data[at]:
        return None
    return (number if data[1] & 1 else number * header.block_size) + block


def _flac_checksum(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
