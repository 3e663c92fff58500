"""Sound that libsndfile cannot decode (m4a, aac, wma, the sound of video files), by PyAV: the extra `video`.

`Sound` offers what `source.py` uses of a `soundfile.SoundFile`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from auricle.audio.containers import Damage
from auricle.errors import AudioError

# FFmpeg's demuxer by the name that `containers.foreign` gives. Never probed: among its formats are play lists, which
# open other files.
DEMUXERS = {
    "MP4 (m4a, mp4, mov)": "mov",
    "AAC": "aac",
    "ASF (wma, wmv)": "asf",
    "Matroska (mkv, webm)": "matroska",
    "AVI": "avi",
    "AMR": "amr",
    "MPEG (mpg)": "mpeg",
}
# Encoders pad, and containers round: what is missing beyond this was cut off.
TOLERANCE = 0.2


@dataclass(frozen=True)
class Scan:
    """What decoding all of a file gives: the samples per channel, and what is wrong with it."""

    frames: int
    damage: Damage | None


class _Seekable:
    """A file as PyAV reads it, whose refusal of a seek is an answer.

    A damaged header sends FFmpeg before the beginning of the file. The exception would be printed with its traceback,
    and raised as if the system could not read the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self._file = file.read, file.tell, file

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


class Sound:
    """The first sound stream of an open file, decoded from its beginning on.

    Args:
        name: of the file, for messages.
        kind: one of `DEMUXERS`.
        frames: samples per channel, as `scan` counted them; 0 before that.

    Raises:
        AudioError: PyAV is not installed, cannot open the file, or finds no sound in it.
    """

    def __init__(self, file: BinaryIO, name: str, kind: str, frames: int = 0) -> None:
        try:
            import av
        except ImportError:
            how = "pip install 'auricle[video]' to read it, or convert it to FLAC or WAV"
            raise AudioError(name, "unsupported", f"this is {kind}; {how}") from None
        self._errors = (av.FFmpegError, ValueError)
        file.seek(0)
        try:
            self._container: Any = av.open(_Seekable(file), format=DEMUXERS[kind], metadata_errors="replace")
        except self._errors as error:
            raise AudioError(
                name, "damaged", f"it starts like {kind}, but PyAV cannot open it ({_words(error)})"
            ) from None
        streams = self._container.streams.audio
        if not streams:
            self._container.close()
            raise AudioError(name, "not audio", f"this is {kind} without sound")
        self._stream = streams[0]
        # Else FFmpeg repeats or mutes what it cannot decode.
        self._stream.codec_context.options = {"err_detect": "explode"}
        self.samplerate, self.channels = self._stream.codec_context.sample_rate, self._stream.codec_context.channels
        self.format, self.subtype = kind.split(" ")[0], self._stream.codec_context.name.upper()
        self.frames = frames
        self._blocks = self._decode()
        self._rest: npt.NDArray[np.float32] = np.empty((0, self.channels), np.float32)
        self._position = 0

    def scan(self) -> Scan:
        """Decode to the end, since no header tells the exact length; the sound is at its end afterwards."""
        frames, damage = 0, None
        try:
            for block in self._decode():
                frames += len(block)
        except self._errors as error:
            damage = Damage("damaged", f"decoding failed behind sample {frames:,} ({_words(error)})")
        declared = self._declared()
        if damage is None and declared - frames / self.samplerate > TOLERANCE:
            have = f"{frames / self.samplerate:.3f} of {declared:.3f} declared seconds"
            damage = Damage("truncated", f"decoding ended at {have}")
        return Scan(frames, damage)

    def buffer_read_into(self, buffer: npt.NDArray[np.float32], dtype: str) -> int:
        """Fill the buffer (frames, channels) from where reading stopped; returns how many frames were left for it."""
        done = 0
        while done < len(buffer):
            if not len(self._rest):
                try:
                    block = next(self._blocks, None)
                except self._errors as error:
                    raise soundfile.SoundFileRuntimeError(_words(error)) from None
                if block is None:
                    break
                self._rest = block
            count = min(len(buffer) - done, len(self._rest))
            buffer[done : done + count] = self._rest[:count]
            self._rest = self._rest[count:]
            done += count
        self._position += done
        return done

    def seekable(self) -> bool:
        """Compressed streams are read from their beginning: seeking in them lands near, not at, a sample."""
        return False

    def tell(self) -> int:
        """Frames read so far."""
        return self._position

    def close(self) -> None:
        """Free the decoder."""
        self._container.close()

    def _decode(self) -> Iterator[npt.NDArray[np.float32]]:
        import av

        convert = av.AudioResampler(format="flt")
        for frame in self._container.decode(self._stream):
            for piece in convert.resample(frame):
                samples: Any = piece.to_ndarray()
                yield samples.reshape(-1, self.channels)

    def _declared(self) -> float:
        """The length in seconds that the container states, or 0."""
        stream: Any = self._stream
        if self.format in ("AAC", "AMR", "MPEG"):  # without one: FFmpeg guesses it from the bit rate
            return 0.0
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        only = len(self._container.streams) == 1
        return (self._container.duration or 0) / 1e6 if only else 0.0


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
