"""Augmentations as pure functions: what is drawn comes in as an argument, so that every draw can be repeated.

T frames, F mel bins.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def mix_waveforms(first: NDArray[np.float32], second: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """`weight * first + (1 - weight) * second`, mean removed; `second` is zero-padded or cut to the length of `first`.

    Both are centred before mixing (SSAST's loader does), so that an offset of one does not leak into the other.
    """
    partner = np.zeros_like(first)
    shared = min(len(first), len(second))
    partner[:shared] = (second - second.mean())[:shared]
    mixed = weight * (first - first.mean()) + (1 - weight) * partner
    return np.asarray(mixed - mixed.mean(), dtype=np.float32)


def draw_mask(size: int, max_width: int, draw_width: float, draw_start: float) -> tuple[int, int]:
    """One SpecAugment mask `[start, end)` on an axis of `size`, from two uniform draws in [0, 1).

    The width is at most `size`: a mask wider than a short clip would otherwise start before it.
    """
    width = draw_width * min(max_width, size)
    start = int(draw_start * (size - width))
    return start, start + int(width)


def spec_augment(
    features: Tensor, frames: int, max_freq: int, max_time: int, rng: np.random.Generator, fill: float
) -> Tensor:
    """One frequency and one time mask over features [T, F], of which the first `frames` are real; returns a copy.

    Draws in SSAST's order: frequency width, frequency start, time width, time start; a maximum of 0 draws nothing.
    """
    features = features.clone()
    if max_freq:
        start, end = draw_mask(features.shape[1], max_freq, rng.random(), rng.random())
        features[:, start:end] = fill
    if max_time:
        start, end = draw_mask(frames, max_time, rng.random(), rng.random())
        features[start:end] = fill
    return features


def noise_and_roll(features: Tensor, field: Tensor, scale: float, shift: int) -> Tensor:
    """SSAST's noise augmentation on normalised features [T, F]: uniform noise of height `scale / 10`, circular shift.

    `field` [T, F] and `scale` are uniform in [0, 1), `shift` is a number of frames in [-10, 9].
    """
    return torch.roll(features + field * (scale / 10), shift, dims=0)
