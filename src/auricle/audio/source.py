"""One open sound file: opened safely, checked for missing parts, decoded block by block.

Nothing is believed that the header says about the amount of samples: memory is taken for what was decoded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
import soundfile

from auricle.audio import containers, packets, pyav
from auricle.audio.containers import Damage
from auricle.errors import AudioError, printable

AudioPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
Policy: TypeAlias = Literal["reject", "warn"]
Samples: TypeAlias = npt.NDArray[np.float32]

REASONS = (
    "missing",  # no such file, or a loop of links
    "unreadable",  # the operating system refuses to read it
    "not audio",  # not a regular file, or not a sound file
    "unsupported",  # a sound file that this reader cannot decode
    "rate",  # a sample rate outside 1,000 to 768,000 Hz
    "channel",  # a channel that the file does not have
    "0 samples",
    "truncated",  # the file ends before its declared end
    "damaged",  # a checksum, frame or decoder says that the bytes were changed
    "changed",  # the file was written to while it was read
    "range",  # a range in seconds outside the file
    "too long",  # more decoded samples than the limit
    "non-finite",  # NaN or infinity
    "level",  # samples far outside [-1, 1]
    "array",  # an array of a wrong shape or type
)
MIN_RATE, MAX_RATE = 1_000, 768_000

# Decoded at a time, channels x frames: 4 MiB of float32.
_BLOCK_SAMPLES = 1 << 20
_SALVAGE_FRAMES = 1024
_SAMPLE_CODECS = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_KNOWN: dict[tuple[object, ...], object] = {}
_KNOWN_LIMIT = 65_536

T = TypeVar("T")


class AudioWarning(UserWarning):
    """A sound was read, but something about it deserves a look."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a sound file says: `rate` in Hz, `frames` in samples per channel.

    `format` and `subtype` are libsndfile's names, for example "WAV" and "PCM_16", or FFmpeg's ("MP4" and "AAC").
    `path` opens the file again.
    """

    path: str
    rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.rate


class Source:
    """An open file; use `open_source`. `name` is the path made printable, for messages."""

    def __init__(self, path: str, name: str, file: BinaryIO, truncated: Policy, check: bool) -> None:
        self.name = name
        self._path, self._file, self._truncated = path, file, truncated
        self._stat = os.fstat(file.fileno())
        self._complained = False
        self._length: int | None = None
        self._kind = containers.sniff(file)
        damage = self._cached("container", self._damage) if check and self._kind.name else None
        if damage is not None:
            self._complain(damage)
        self._sound = self._open()
        sound = self._sound
        frames = sound.frames if self._length is None else self._length
        self.info = AudioInfo(path, sound.samplerate, sound.channels, frames, sound.format, sound.subtype)
        self._block_frames = max(1, _BLOCK_SAMPLES // self.info.channels)
        if not MIN_RATE <= self.info.rate <= MAX_RATE:
            self.close()
            expected = f"expected {MIN_RATE:,} to {MAX_RATE:,} Hz, got {self.info.rate:,} Hz"
            raise AudioError(name, "rate", f"{expected}; correct the header")
        if damage is not None and not self._keeps_samples_apart():
            self.close()
            raise AudioError(name, damage.reason, f"{damage.detail}; the rest of {self.info.subtype} cannot be used")
        if not self.info.frames:
            self.close()
            self._raise_damage()
            raise AudioError(name, "0 samples", "there is a header and nothing after it")

    def close(self) -> None:
        """Free the decoder; the file itself belongs to `open_source`."""
        self._sound.close()

    def decode(self, first: int, last: int) -> Iterator[Samples]:
        """Blocks of shape (frames, channels) that cover the frames [first, last) in order.

        Raises:
            AudioError: "truncated", "damaged" or "changed" where the decoder cannot go on before `last`.
        """
        position = first
        if self._kind.name == "FLAC" and last - first < self.info.frames:
            self._check_tail()
        while position < last:
            wanted = min(self._block_frames, last - position)
            try:
                if position == first:
                    self._seek(first)
                block = self._read(wanted)
            except soundfile.SoundFileError as error:
                self._complain(self._undecodable(position, position + wanted, error))
                yield from self._salvage(position, last)
                return
            if not len(block):
                break
            position += len(block)
            yield block
        if position < last:
            done = containers.percent(position, self.info.frames)
            self._complain(Damage("truncated", f"decoding ended at {done} of {self.info.frames:,} declared samples"))

    def _complain(self, damage: Damage) -> None:
        """Raise, or warn once and let the caller use what is there."""
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise AudioError(self.name, "changed", f"it was written to while it was read; {damage.detail}")
        if self._truncated == "reject":
            advice = "replace the file (auricle.audio.read reads what is there with truncated='warn')"
            raise AudioError(self.name, damage.reason, f"{damage.detail}; {advice}")
        if not self._complained:
            self._complained = True
            warnings.warn(f"{self.name}: {damage.reason}: {damage.detail}", AudioWarning, stacklevel=2)

    def _keeps_samples_apart(self) -> bool:
        """Whether a cut leaves good samples before it: libsndfile fills up a cut block of ADPCM or GSM with noise."""
        return self._kind.name in ("FLAC", "OGG", "MP3") or self.info.subtype in _SAMPLE_CODECS

    def _raise_damage(self) -> None:
        """Explain by missing or changed bytes, if that is so, why the decoder finds nothing."""
        self._rewind()
        damage = self._damage()
        if damage is not None:
            raise AudioError(self.name, damage.reason, damage.detail)

    def _damage(self) -> Damage | None:
        if self._kind.name == "MP3":
            return self._mpeg_scan().damage
        if self._kind.name == "OGG":
            return packets.ogg_damage(self._file, self._kind.offset)
        if self._kind.name == "FLAC":
            return packets.flac_damage(self._file, self._kind.offset)
        return containers.missing_bytes(self._file, self._kind, self.name)

    def _mpeg_scan(self) -> packets.MpegScan:
        return self._cached("scan", lambda: packets.mpeg_scan(self._file, self._kind.offset))

    def _cached(self, check: str, compute: Callable[[], T]) -> T:
        """What `compute` finds, remembered for crops that are read from the same file again and again."""
        status = self._stat
        key = (check, self._path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        try:
            return cast(T, _KNOWN[key])
        except KeyError:
            found = compute()
        if len(_KNOWN) >= _KNOWN_LIMIT:
            _KNOWN.clear()
        _KNOWN[key] = found
        return found

    def _check_tail(self) -> None:
        """A FLAC file that ends inside its last frame is cut for every range, not only for the range at its end."""
        damage = self._cached("tail", self._tail_damage)
        if damage is not None:
            self._complain(damage)
            self._reopen()

    def _tail_damage(self) -> Damage | None:
        try:
            self._sound.seek(self.info.frames - 1)
            self._sound.read(1)
        except soundfile.SoundFileError as error:
            return self._undecodable(self.info.frames - 1, self.info.frames, error)
        return None

    def _undecodable(self, first: int, last: int, error: Exception) -> Damage:
        where = f"decoding failed between samples {first:,} and {last:,} of {self.info.frames:,}"
        return Damage("damaged", f"{where} ({_words(error)})")

    def _salvage(self, first: int, last: int) -> Iterator[Samples]:
        """The frames before a decoding error, in small steps: a block with an error in it is lost as a whole."""
        self._reopen()
        try:
            self._seek(first)
            while first < last:
                block = self._read(min(_SALVAGE_FRAMES, last - first))
                if not len(block):
                    return
                first += len(block)
                yield block
        except soundfile.SoundFileError:
            return

    def _read(self, frames: int) -> Samples:
        block = np.empty((frames, self.info.channels), np.float32)
        return block[: self._sound.buffer_read_into(block, "float32")]

    def _seek(self, first: int) -> None:
        if self._sound.seekable():
            # Not without need: a seek to where the decoder is decodes a frame for nothing.
            if self._sound.tell() != first:
                self._sound.seek(first)
            return
        # GSM cannot seek.
        while first > 0 and (skipped := len(self._read(min(self._block_frames, first)))):
            first -= skipped

    def _reopen(self) -> None:
        self._sound.close()
        self._sound = self._open()

    def _open(self) -> soundfile.SoundFile:
        self._rewind()
        if not self._kind.name:
            foreign = containers.foreign(self._file)
            if foreign:
                return self._open_foreign(foreign)
            what = "the file is empty" if not self._stat.st_size else "its first bytes belong to no known sound format"
            raise AudioError(self.name, "not audio", what)
        try:
            return soundfile.SoundFile(self._handle(), closefd=False)
        except soundfile.SoundFileError as error:
            self._raise_damage()
            if getattr(error, "code", 0) == 24:
                problem = "its header has an impossible sample rate or number of channels"
            else:
                problem = f"libsndfile cannot open it ({_words(error)})"
            raise AudioError(self.name, "not audio", f"it starts like {self._kind.name}, but {problem}") from None

    def _open_foreign(self, kind: str) -> soundfile.SoundFile:
        scan = self._cached("pyav", lambda: self._scan_foreign(kind))
        if scan.damage is not None:
            self._complain(scan.damage)
        # It offers what is used of a SoundFile that cannot seek.
        return cast(soundfile.SoundFile, pyav.Sound(self._file, self.name, kind, scan.frames))

    def _scan_foreign(self, kind: str) -> pyav.Scan:
        with contextlib.closing(pyav.Sound(self._file, self.name, kind)) as sound:
            return sound.scan()

    def _handle(self) -> int | str | BinaryIO:
        """What soundfile opens: the descriptor, so that no file name is too strange for libsndfile."""
        spliced: packets.SplicedFile | None = None
        offset = self._kind.offset
        if self._kind.name == "FLAC":
            header = packets.flac_header(self._file, offset)
            if header is not None and not header.frames:
                length = next(packets.flac_lengths(self._file, offset, header), 0)
                if not length:
                    raise AudioError(
                        self.name, "damaged", "neither its header nor a frame near its end tells the length"
                    )
                spliced = packets.with_flac_length(self._file, offset, header, length)
        elif self._kind.name == "MP3":
            view = packets.with_mpeg_length(self._file, offset, self._mpeg_scan())
            if view is not None:
                spliced, self._length = view
        if spliced is not None:
            return cast(BinaryIO, spliced)
        self._rewind()
        # A Windows build of libsndfile has its own table of descriptors.
        return self._file.fileno() if os.name == "posix" else self._path

    def _rewind(self) -> None:
        # libsndfile moves the descriptor behind the back of the file object; only a seek from the end is never skipped.
        self._file.seek(0, os.SEEK_END)
        self._file.seek(0)


@contextlib.contextmanager
def open_source(path: AudioPath, truncated: Policy = "reject", check: bool = True) -> Iterator[Source]:
    """Open a regular file that libsndfile or PyAV can decode; `check` compares its container with its size first.

    Raises:
        AudioError: any of the reasons from "missing" to "changed", except "channel".
    """
    text = os.fsdecode(path)
    name = printable(text)
    with os.fdopen(_descriptor(text, name), "rb") as file:
        try:
            source = Source(text, name, file, truncated, check)
        except OSError as error:
            raise AudioError(name, "unreadable", f"{error.strerror or error}") from None
        try:
            yield source
        finally:
            source.close()


def _descriptor(path: str, name: str) -> int:
    try:
        # Looked at before it is opened: opening a device can have effects. Looked at again after: it may be another.
        _require_regular(os.stat(path).st_mode, name)  # noqa: PTH116 (an empty Path is the current directory)
        # Without O_NONBLOCK a FIFO that took the place of the file would be waited for.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise AudioError(name, "missing", "no such file") from None
    except ValueError:
        raise AudioError(name, "missing", "no file name holds a NUL character") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AudioError(name, "missing", "the link leads back to itself") from None
        raise AudioError(name, "unreadable", f"{error.strerror}") from None
    try:
        _require_regular(os.fstat(descriptor).st_mode, name)
    except AudioError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise AudioError(name, "not audio", "this is a directory; name a file in it")
    if not stat.S_ISREG(mode):
        raise AudioError(name, "not audio", "this is a pipe, socket or device; copy the sound into a file first")


def _words(error: Exception) -> str:
    text = str(getattr(error, "error_string", error))
    return text.removeprefix("Error : ").rstrip(". ")
