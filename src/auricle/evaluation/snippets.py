"""The loudest seconds of a sound, small enough to lie inside a page."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

from auricle.data.items import Item
from auricle.data.loader import read_item

RATE = 16_000
# Of long sounds only so much is looked at.
MOST_SECONDS = 60.0

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Snippet:
    """A file that browsers play: its media type, its bytes (none where it is too large), their number, its name."""

    kind: str
    content: bytes
    size: int
    name: str


def snippet(item: Item, seconds: float) -> Snippet:
    """The loudest `seconds` of the first minute of an item as a file.

    Raises:
        AudioError: it cannot be read.
    """
    return encoded(excerpt(item, seconds), item.id)


def excerpt(item: Item, seconds: float) -> Wave:
    """The loudest `seconds` of the first minute of an item, one channel [n] at RATE.

    Raises:
        AudioError: it cannot be read.
    """
    return loudest(read_item(item.beginning(MOST_SECONDS), RATE), round(seconds * RATE))


def encoded(wave: Wave, name: str) -> Snippet:
    """Samples [n] at RATE as MP3, about 4 kB a second; as WAV where libsndfile was built without it."""
    kind = "MP3" if "MP3" in soundfile.available_formats() else "WAV"
    buffer = io.BytesIO()
    # Coding overshoots: a sound at full scale would be clipped.
    soundfile.write(buffer, np.clip(0.9 * wave, -1, 1), RATE, format=kind)
    content = buffer.getvalue()
    return Snippet("audio/mpeg" if kind == "MP3" else "audio/wav", content, len(content), name)


def loudest(wave: Wave, size: int) -> Wave:
    """The `size` neighbouring samples of most energy, to a tenth of `size`."""
    if len(wave) <= size:
        return wave
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    starts = np.arange(0, len(wave) - size + 1, max(1, size // 10))
    first = int(starts[np.argmax(energy[starts + size] - energy[starts])])
    return wave[first : first + size]
