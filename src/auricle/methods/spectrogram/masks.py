"""Tokens that are chosen of each clip of a batch, as a function of the clip's own draws and its own length.

B clips, N tokens, M chosen tokens, D width, (f, t) grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auricle.methods.spectrogram.tokens import Tokens

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Mask:
    """Chosen tokens: `ids` [B, M], `valid` [B, M] (False where a clip has fewer than the most)."""

    ids: Tensor
    valid: Tensor


def choose(tokens: Tokens, sample: Callable[[int, tuple[int, int]], Sequence[Ids]]) -> Mask:
    """What `sample(row, grid)` chooses of each clip, once or several times: rows of the mask, clip by clip.

    It is given the clip's own grid: on that of the batch, what is drawn would depend on the longest clip in it.
    """
    rows, columns = tokens.grid
    ids: list[Ids] = []
    for row, own in enumerate(tokens.valid.sum(1).tolist()):
        ids += [chosen // own * columns + chosen % own for chosen in sample(row, (rows, own))]
    padded = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
    real = np.zeros(padded.shape, dtype=bool)
    for row, chosen in enumerate(ids):
        padded[row, : len(chosen)], real[row, : len(chosen)] = chosen, True
    device = tokens.embeddings.device
    return Mask(torch.from_numpy(padded).to(device), torch.from_numpy(real).to(device))


def gather(x: Tensor, ids: Tensor) -> Tensor:
    """x [B, N, D] at ids [B, M]: [B, M, D]."""
    return x.gather(1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
