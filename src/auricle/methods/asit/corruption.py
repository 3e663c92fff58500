"""Group masked model learning: rectangles of a spectrogram are dropped, or come from another clip.

B clips, T frames, F mel bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auricle.data.randomness import Draw
from auricle.methods.asit.config import ASiTConfig, Drop
from auricle.nn.masking import block_mask, draws_of

Fill = Literal[Drop, "replace"]
_STRIPES: dict[str, Literal["", "rows", "columns"]] = {"time": "rows", "freq": "columns"}
# Of normalised features: half a unit, since x becomes (x - mean) / (2 std).
NOISE_STD = 0.5


@dataclass(frozen=True)
class Corrupted:
    """What a student sees: features [B, T, F], and which of them are not the clip's own."""

    features: Tensor
    hidden: Tensor


def rectangles(
    size: tuple[int, int], share: float, draw: Callable[[int, int], int], fill: Fill, align: int, most: float
) -> NDArray[np.bool_]:
    """Which values of a spectrogram of `size` = (T, F) a filling replaces, until `share` of them; see `block_mask`."""
    return block_mask(size, share, draw, align=align, most=most, stripes=_STRIPES.get(fill, ""))


def filled(features: Tensor, hidden: Tensor, fill: Fill, other: Tensor | None, noise: Tensor | None = None) -> Tensor:
    """features with the hidden ones taken from `other` ("replace") or `noise`, or 0: the mean of the data."""
    source = {"replace": other, "noise": noise}.get(fill)
    return torch.where(hidden, torch.zeros_like(features) if source is None else source, features)


def corrupt(
    features: Tensor, frames: Tensor, others: Tensor | None, config: ASiTConfig, draw: Draw, purpose: str
) -> Corrupted:
    """Damage each clip's own `frames` [B] of features [B, T, F], drawn from its row.

    With probability `alien_probability`, rectangles come from the same place in `others` [B, T, F], if there are any,
    until `alien_share` is covered. Otherwise they are dropped until a share that is drawn from one half (or less, if
    `drop_share` is) to `drop_share`. Never both.
    """
    size = features.shape
    hidden = np.zeros(size, dtype=bool)
    alien = np.zeros(size[0], dtype=bool)
    noise = np.zeros(size, dtype=np.float32) if config.drop == "noise" else None
    for row, own in enumerate(frames.tolist()):
        rng = draw.rng(purpose, row)
        # Drawn in any case: what is dropped must not depend on whether there was another clip.
        alien[row] = rng.random() < config.alien_probability and others is not None
        share = float(rng.uniform(min(0.5, config.drop_share), config.drop_share))
        fill: Fill = "replace" if alien[row] else config.drop
        hidden[row, :own] = rectangles(
            (own, size[2]),
            config.alien_share if alien[row] else share,
            draws_of(rng),
            fill,
            config.align,
            config.block_share,
        )
        if noise is not None:
            noise[row, :own] = NOISE_STD * rng.standard_normal((own, size[2]), dtype=np.float32)
    gone = torch.from_numpy(hidden).to(features.device)
    dropped = filled(features, gone, config.drop, None, None if noise is None else torch.from_numpy(noise).to(features))
    if others is None:
        return Corrupted(dropped, gone)
    replaced = filled(features, gone, "replace", others)
    return Corrupted(torch.where(torch.from_numpy(alien).to(gone.device)[:, None, None], replaced, dropped), gone)
