"""Sounds of any length through an encoder, window by window, in constant memory.

D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from auricle.data.windows import cut_windows
from auricle.methods.base import AudioEncoder, Encoded

Array = NDArray[np.float32]
# Windows of one shape that go through the network together.
BATCH = 16


@dataclass(frozen=True)
class Window:
    """One window of a sound: where it lies in samples, and its row of an encoded batch."""

    start: int
    samples: int
    encoded: Encoded
    row: int

    @property
    def steps(self) -> int:
        """Time steps that hold sound: the weight of the window in means over a clip."""
        return int(self.encoded.valid[self.row].sum())

    def pooled(self) -> NDArray[np.float64]:
        """[D]."""
        result: NDArray[np.float64] = self.encoded.pooled[self.row].double().cpu().numpy()
        return result


def encode(encoder: AudioEncoder, blocks: Iterable[Array], device: torch.device) -> Iterator[Window]:
    """Encode a sound given in blocks of samples at the encoder's rate; windows of equal length share a batch.

    A window's result does not depend on the others. Autocast is the caller's.
    """
    held: list[tuple[int, Array]] = []
    for window in cut_windows(blocks, encoder.window_samples, encoder.window_hop, encoder.min_samples):
        if held and (len(held) == BATCH or len(window[1]) != len(held[0][1])):
            yield from _encode_batch(encoder, held, device)
            held = []
        held.append(window)
    if held:
        yield from _encode_batch(encoder, held, device)


def _encode_batch(encoder: AudioEncoder, windows: list[tuple[int, Array]], device: torch.device) -> Iterator[Window]:
    waves = torch.from_numpy(np.stack([samples for _, samples in windows])).to(device)
    with torch.no_grad():
        encoded = encoder(waves)
    for row, (start, samples) in enumerate(windows):
        yield Window(start, len(samples), encoded, row)


def embed_clip(encoder: AudioEncoder, blocks: Iterable[Array], device: torch.device) -> Array:
    """The clip embedding [D]: the mean of the windows' pooled outputs, weighted by their time steps."""
    total, weight = np.zeros(encoder.dim), 0
    for window in encode(encoder, blocks, device):
        total += window.pooled() * window.steps
        weight += window.steps
    return (total / weight).astype(np.float32)
