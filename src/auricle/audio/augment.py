"""Augmentations as pure functions: what is drawn comes in as an argument, so that every draw can be repeated.

T frames, F mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
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


def central_crop(wave: NDArray[np.float32], samples: int, pad: bool = False) -> NDArray[np.float32]:
    """The middle of a waveform [S]; a shorter one is as it is, or zero-padded at its end."""
    if len(wave) < samples:
        return np.pad(wave, (0, samples - len(wave))) if pad else wave
    start = (len(wave) - samples) // 2
    return wave[start : start + samples]


def mix_log(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Add up two spectrograms as sounds add up: log(weight exp(first) + (1 - weight) exp(second)) (BYOL-A).

    `first` and `second` [..., T, F] are logarithms of power, normalised or not.
    """
    mixed = weight * first.exp() + (1 - weight) * second.exp()
    return (mixed + torch.finfo(mixed.dtype).eps).log()


def mix_aligned(own: Tensor, other: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """`own` [T, F] with `share` of `other` [T', F] in it, over as many frames as both have, placed at random."""
    shared = min(len(own), len(other))
    at, begin = int(rng.integers(len(own) - shared + 1)), int(rng.integers(len(other) - shared + 1))
    mixed = own.clone()
    mixed[at : at + shared] = mix_log(own[at : at + shared], other[begin : begin + shared], 1 - share)
    return mixed


@dataclass(frozen=True)
class ResizeCrop:
    """How random resized crops of spectrograms are drawn (BYOL-A).

    The spectrogram lies in the middle of a canvas that is larger by `canvas` (mel bins, frames) and otherwise 0. A
    rectangle of `freq` x `time` of the spectrogram's size is cut out anywhere in the canvas and stretched to that size.
    """

    canvas: tuple[float, float] = (1.0, 1.5)
    freq: tuple[float, float] = (0.6, 1.5)
    time: tuple[float, float] = (0.6, 1.5)

    def canvas_of(self, frames: int, bins: int) -> tuple[int, int]:
        """(bins, frames) of the canvas of a spectrogram."""
        return int(self.canvas[0] * bins), int(self.canvas[1] * frames)

    def draw(self, frames: int, bins: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """A rectangle in the canvas: first bin, first frame, bins, frames."""
        wide, long = self.canvas_of(frames, bins)
        height = min(max(int(rng.uniform(*self.freq) * bins), 1), wide)
        width = min(max(int(rng.uniform(*self.time) * frames), 1), long)
        return int(rng.integers(wide - height + 1)), int(rng.integers(long - width + 1)), height, width

    def apply(self, features: Tensor, box: tuple[int, int, int, int]) -> Tensor:
        """features [T, F] with the rectangle `box` of the canvas in their place."""
        frames, bins = features.shape
        wide, long = self.canvas_of(frames, bins)
        canvas = features.new_zeros(wide, long)
        bin_, frame = (wide - bins) // 2, (long - frames) // 2
        canvas[bin_ : bin_ + bins, frame : frame + frames] = features.T
        first, start, height, width = box
        cut = canvas[first : first + height, start : start + width]
        resized = F.interpolate(cut[None, None], size=(bins, frames), mode="bicubic", align_corners=True)
        return resized[0, 0].T


# What ATST-Frame does to a view: the time axis stays, so that frames of both views belong together.
FREQUENCY_ONLY = ResizeCrop(canvas=(1.0, 1.0), time=(1.0, 1.0))
