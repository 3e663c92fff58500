"""Tokens that are chosen of each clip of a batch, as a function of the clip's own draws and its own length.

B clips, T frames, F mel bins, N tokens, M chosen tokens, K values of a patch, D width, (f, t) grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auricle.methods.base import Reconstruction
from auricle.methods.spectrogram.config import SpectrogramConfig
from auricle.methods.spectrogram.tokens import Tokens
from auricle.nn.patches import unpatchify

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


def chosen_tokens(mask: Mask, tokens: int) -> Tensor:
    """[B, N]: True at the chosen ones of N `tokens`."""
    # What does not count goes to a place beyond the last.
    chosen = torch.zeros(len(mask.ids), tokens + 1, dtype=torch.bool, device=mask.ids.device)
    return chosen.scatter_(1, mask.ids.masked_fill(~mask.valid, tokens), True)[:, :tokens]


def rebuilt(
    patches: Tensor, predicted: Tensor, hidden: Tensor, grid: tuple[int, int], frames: Tensor, config: SpectrogramConfig
) -> Reconstruction:
    """A picture of normalised patches [B, N, K], of which `hidden` [B, N] ones are as `predicted` [B, N, K]."""
    gone = hidden.unsqueeze(-1).expand_as(patches)
    original, filled = (
        unpatchify(x, grid, config.kernel) * 2 * config.norm_std + config.norm_mean
        for x in (patches, torch.where(gone, predicted, patches))
    )
    # The frame that is centred at the very end of a clip may lie beyond its last patch.
    frames = frames.clamp(max=original.shape[1])
    return Reconstruction(original, unpatchify(gone.float(), grid, config.kernel).bool(), filled, frames)


def gather(x: Tensor, ids: Tensor) -> Tensor:
    """x [B, N, D] at ids [B, M]: [B, M, D]."""
    return x.gather(1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
