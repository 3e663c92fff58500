"""Small sound files, whole and damaged, for the tests of the reader."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 16_000
FORMATS = {
    "u8.wav": ("WAV", "PCM_U8"),
    "16.wav": ("WAV", "PCM_16"),
    "24.wav": ("WAV", "PCM_24"),
    "32.wav": ("WAV", "PCM_32"),
    "float.wav": ("WAV", "FLOAT"),
    "double.wav": ("WAV", "DOUBLE"),
    "ulaw.wav": ("WAV", "ULAW"),
    "alaw.wav": ("WAV", "ALAW"),
    "ima.wav": ("WAV", "IMA_ADPCM"),
    "ms.wav": ("WAV", "MS_ADPCM"),
    "gsm.wav": ("WAV", "GSM610"),
    "extensible.wav": ("WAVEX", "PCM_16"),
    "extensible24.wav": ("WAVEX", "PCM_24"),
    "16.rf64": ("RF64", "PCM_16"),
    "16.w64": ("W64", "PCM_16"),
    "16.aiff": ("AIFF", "PCM_16"),
    "16.au": ("AU", "PCM_16"),
    "16.caf": ("CAF", "PCM_16"),
    "16.sph": ("NIST", "PCM_16"),
    "16.flac": ("FLAC", "PCM_16"),
    "24.flac": ("FLAC", "PCM_24"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.opus": ("OGG", "OPUS"),
    "lame.mp3": ("MP3", "MPEG_LAYER_III"),
}


def tone(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> npt.NDArray[np.float32]:
    """Tones with a little noise, (frames,) or (frames, channels); no channel is like another."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((len(t), channels))
    wave = 0.3 * np.sin(2 * np.pi * np.outer(t, 440 + 110 * np.arange(channels))) + 0.02 * noise
    return (wave[:, 0] if channels == 1 else wave).astype(np.float32)


def encode(samples: npt.NDArray[Any], name: str = "16.wav", rate: int = RATE) -> bytes:
    """A complete file in the format that `FORMATS` has for `name`."""
    buffer = io.BytesIO()
    container, subtype = FORMATS[name]
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, format=container, subtype=subtype) as file:
        # libsndfile puts what one call encodes to Vorbis on the stack, and crashes where that is full.
        for start in range(0, len(samples), 100_000):
            file.write(samples[start : start + 100_000])
    return buffer.getvalue()


def edited(data: bytes, offset: int, code: str, *values: int) -> bytes:
    """`data` with the numbers `values`, packed as struct `code` says, at `offset`."""
    packed = struct.pack(code, *values)
    return data[:offset] + packed + data[offset + len(packed) :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def scratched(data: bytes, length: int = 300, seed: int = 0) -> bytes:
    """`data` with random bytes in the middle."""
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(seed).bytes(length) + data[middle + length :]


def flac_declaring(data: bytes, frames: int) -> bytes:
    """A FLAC file whose header declares `frames` samples; 0 means unknown, as an encoder writes to a pipe."""
    return data[:21] + bytes([data[21] & 0xF0 | frames >> 32]) + struct.pack(">I", frames & 0xFFFFFFFF) + data[26:]


def mp3_frames(data: bytes) -> list[bytes]:
    """The frames of an MP3 file at 16 kHz (MPEG-2, layer III); the first one holds the encoder's count."""
    bitrates = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    frames = []
    while data:
        length = 72 * 1000 * bitrates[data[2] >> 4] // RATE + (data[2] >> 1 & 1)
        frames.append(data[:length])
        data = data[length:]
    return frames


def mp3_without_count(data: bytes) -> bytes:
    return b"".join(mp3_frames(data)[1:])
