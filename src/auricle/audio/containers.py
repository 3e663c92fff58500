"""What a sound file is by its first bytes, and whether all the bytes that its header declares are there.

libsndfile reads a file that was cut in half without a word: it shortens the declared length to what it finds. So the
declared number of bytes is read here from the container itself. Files made of packets (FLAC, Ogg, MP3) are in
`packets.py`.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

_LOG = logging.getLogger(__name__)

# A hostile file can hold millions of empty chunks; no honest one comes near this.
_MAX_CHUNKS = 10_000


@dataclass(frozen=True)
class Damage:
    """Evidence that samples are missing or wrong: `reason` is "truncated" or "damaged", `detail` one sentence."""

    reason: str
    detail: str


class Kind(NamedTuple):
    """`name` is the container's common name (or "" if unknown), `offset` where it starts (after an ID3v2 tag)."""

    name: str
    offset: int


class _Layout(NamedTuple):
    """How a chunked container writes its chunks: an identifier and a size, then the bytes, padded to `align`."""

    header: struct.Struct
    first: int
    data: bytes
    counts_header: bool
    align: int


_LAYOUTS = {
    b"RIFF": _Layout(struct.Struct("<4sI"), 12, b"data", False, 2),
    b"RIFX": _Layout(struct.Struct(">4sI"), 12, b"data", False, 2),
    b"RF64": _Layout(struct.Struct("<4sI"), 12, b"data", False, 2),
    b"riff": _Layout(struct.Struct("<16sQ"), 40, b"data", True, 8),
    b"FORM": _Layout(struct.Struct(">4sI"), 12, b"SSND", False, 2),
    b"caff": _Layout(struct.Struct(">4sq"), 8, b"data", False, 1),
}


def sniff(file: BinaryIO) -> Kind:
    """The container of an open file, by its first bytes."""
    offset = id3_length(file)
    file.seek(offset)
    head = file.read(16)
    magic, form = head[:4], head[8:12]
    names = {b"RF64": "RF64", b"riff": "W64", b".snd": "AU", b"dns.": "AU", b"caff": "CAF", b"fLaC": "FLAC"}
    if magic in (b"RIFF", b"RIFX"):
        return Kind("WAV" if form == b"WAVE" else "", offset)
    if magic == b"FORM":
        return Kind("AIFF" if form in (b"AIFF", b"AIFC") else "", offset)
    if magic in names:
        return Kind(names[magic], offset)
    if magic == b"OggS":
        return Kind("OGG", offset)
    if head[:7] == b"NIST_1A":
        return Kind("NIST", offset)
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06:
        return Kind("MP3", offset)
    # Padding between the tag and the first frame is common; libsndfile decides.
    return Kind("MP3" if offset else "", offset)


def foreign(file: BinaryIO) -> str:
    """The name of a format that PyAV can decode and libsndfile cannot, or an empty string."""
    file.seek(0)
    head = file.read(16)
    if head[4:8] == b"ftyp":
        return "MP4 (m4a, mp4, mov)"
    if head[:4] == b"ADIF" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0):
        return "AAC"
    if head == bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"):
        return "ASF (wma, wmv)"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "Matroska (mkv, webm)"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if head[:4] in (b"\0\0\1\xba", b"\0\0\1\xb3"):
        return "MPEG (mpg)"
    return "AMR" if head[:5] == b"#!AMR" else ""


def id3_length(file: BinaryIO) -> int:
    """Bytes taken by the ID3v2 tags at the start of a file."""
    offset = 0
    while True:
        file.seek(offset)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 0x7F:
            return offset
        offset += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])


def missing_bytes(file: BinaryIO, kind: Kind, name: str) -> Damage | None:
    """Compare the declared size of the samples with the file, for WAV, RF64, W64, AIFF, AU, CAF and NIST SPHERE.

    A file from a pipe declares no size, which is noted in the log under its `name`.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(kind.offset)
    if kind.name == "AU":
        return _au(file.read(12), size - kind.offset, name)
    if kind.name == "NIST":
        return _nist(file.read(1024), size - kind.offset, name)
    layout = _LAYOUTS.get(file.read(4))
    if layout is None:
        return None
    wide_size = None
    offset = kind.offset + layout.first
    for _ in range(_MAX_CHUNKS):
        file.seek(offset)
        head = file.read(layout.header.size)
        if len(head) < layout.header.size:
            return None
        chunk, length = layout.header.unpack(head)
        body = offset + layout.header.size
        length -= layout.header.size if layout.counts_header else 0
        if chunk[:4] == layout.data:
            # RF64 keeps the 64-bit size in an earlier chunk and all ones here.
            declared = wide_size if wide_size is not None and length == 0xFFFFFFFF else length
            return _short(size - body, declared, _is_placeholder(declared), name)
        if chunk == b"ds64":
            wide = file.read(16)
            wide_size = struct.unpack_from("<Q", wide, 8)[0] if len(wide) == 16 else None
        if length < 0:
            return None
        if body + length > size:
            return Damage("truncated", f"the file ends inside its header, {size - body:,} bytes into a chunk")
        offset = body + length + (-length) % layout.align
    return None


def percent(part: float, whole: float) -> str:
    """`49.9 %`, rounded down so that something incomplete never reads as 100 %."""
    return f"{int(1000 * part / whole) / 10:g} %"


def _short(available: int, declared: int, placeholder: bool, name: str) -> Damage | None:
    available = max(0, available)
    if 0 <= declared <= available:
        return None
    if placeholder:
        _LOG.info("%s: the header declares no length, as from a pipe; reading to the end of the file", name)
        return None
    return Damage(
        "truncated", f"{percent(available, declared)} of the {declared:,} declared bytes of samples are there"
    )


def _is_placeholder(size: int) -> bool:
    """Whether a size only says "unknown": programs that write to a pipe cannot come back to fill it in.

    They write the largest number they can, less the headers.
    """
    if size < 0 or size >= 2**63 - 256:
        return True
    return any(largest - 256 < size <= largest for largest in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024))


def _au(head: bytes, size: int, name: str) -> Damage | None:
    if len(head) < 12:
        return None
    order = ">" if head[:4] == b".snd" else "<"
    offset, length = struct.unpack_from(order + "II", head, 4)
    return _short(size - offset, length, length == 0xFFFFFFFF, name)


def _nist(head: bytes, size: int, name: str) -> Damage | None:
    fields = {key: int(value) for key, value in re.findall(rb"^(\w+) -i (\d{1,15})\s*$", head, re.MULTILINE)}
    try:
        length = fields[b"sample_count"] * fields[b"channel_count"] * fields[b"sample_n_bytes"]
        offset = int(head[8:16])
    except (KeyError, ValueError):
        return None
    return _short(size - offset, length, False, name)
