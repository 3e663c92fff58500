"""Views of the clips of a batch, each drawn from its row's own randomness.

B clips, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from auricle.data.batch import Stream
from auricle.data.randomness import Draw


def random_crop(audio: Stream, seconds: float, draw: Draw, purpose: str) -> Stream:
    """A random stretch of `seconds` of each clip; shorter clips are whole."""
    size = round(seconds * audio.rate)
    lengths = audio.lengths.clamp(max=size)
    rows = []
    for row, (whole, length) in enumerate(zip(audio.lengths.tolist(), lengths.tolist(), strict=True)):
        start = int(draw.rng(purpose, row).integers(whole - length + 1))
        rows.append(torch.nn.functional.pad(audio.data[row, start : start + length], (0, size - length)))
    return Stream(torch.stack(rows)[:, : int(lengths.max())], lengths, audio.rate)


def random_roll(audio: Stream, probability: float, draw: Draw, purpose: str) -> Stream:
    """Some of the clips begin elsewhere, and what was before comes after their end."""
    rows: list[Tensor] = []
    for row, length in enumerate(audio.lengths.tolist()):
        rng, wave = draw.rng(purpose, row), audio.data[row]
        if rng.random() < probability:
            shift = int(rng.integers(length + 1))
            wave = torch.cat([wave[:length].roll(shift), wave[length:]])
        rows.append(wave)
    return Stream(torch.stack(rows), audio.lengths, audio.rate)
