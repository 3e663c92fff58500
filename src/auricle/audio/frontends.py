"""Waveforms to log-mel features in plain torch: batched, on any device, differentiable.

B batch, S samples, T frames, W samples of a window, F mel bins.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

Window = Literal["hanning", "hamming", "povey", "blackman", "rectangular"]

# Kaldi floors energies at the float32 epsilon before the logarithm: log(1.19e-7) = -15.9424.
ENERGY_FLOOR = torch.finfo(torch.float32).eps
PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
# Filters are narrow: in this many groups, each multiplied with the bins it covers only, they cost a quarter.
FILTER_GROUPS = 8


class Frontend(nn.Module, ABC):
    """Waveforms to features, without weights of its own.

    Attributes:
        window_samples: W, what a frame sees; a shorter signal is padded to it.
        hop_samples: samples from frame to frame.
    """

    window_samples: int
    hop_samples: int

    @abstractmethod
    def num_frames(self, samples: Tensor) -> Tensor:
        """Frames [B] of signals of `samples` [B] samples, at least one each."""

    @abstractmethod
    def forward(self, waves: Tensor) -> Tensor:
        """waves [B, S] in [-1, 1] to features [B, T, F], before any normalisation by statistics of a data set."""


def fill_up(waves: Tensor, lengths: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """waves [B, S], of which `lengths` [B] count, with silence after each clip up to `samples`; and their new lengths.

    A clip that is longer stays as it is.
    """
    heard = lengths.clamp(min=samples)
    silent = torch.arange(waves.shape[1], device=waves.device) >= lengths[:, None]
    waves = nn.functional.pad(waves.masked_fill(silent, 0.0), (0, max(0, samples - waves.shape[1])))
    return waves, heard


class KaldiFbank(Frontend):
    """Kaldi's log-mel filterbank, as torchaudio's `compliance.kaldi.fbank(htk_compat=True, use_energy=False)`.

    Windows of 25 ms every 10 ms that lie wholly inside the signal (`snip_edges`); per window the mean is removed, 0.97
    pre-emphasis applied with a replicated first sample, a symmetric window, a power spectrum over the next power of
    two, triangular filters in the mel domain from 20 Hz to Nyquist, a natural logarithm floored at the float32 epsilon.

    With 128 filters at 16 kHz the fourth filter covers no FFT bin: it is always at the floor, as in Kaldi.

    Args:
        sample_rate: Hz.
        mel_bins: F.
        window: shape of the analysis window.
        dither: standard deviation of Gaussian noise added to every window; needs `generator` in `forward`.
    """

    window: Tensor
    mel_filters: Tensor

    def __init__(
        self, sample_rate: int = 16000, mel_bins: int = 128, window: Window = "hanning", dither: float = 0.0
    ) -> None:
        super().__init__()
        self.sample_rate, self.mel_bins, self.dither = sample_rate, mel_bins, dither
        self.window_samples = int(sample_rate * 0.025)
        self.hop_samples = int(sample_rate * 0.010)
        self.fft_size = 1 << (self.window_samples - 1).bit_length()
        # Derived from the arguments, so never part of a checkpoint.
        self.register_buffer("window", analysis_window(window, self.window_samples), persistent=False)
        self.register_buffer("mel_filters", kaldi_mel_filters(mel_bins, self.fft_size, sample_rate), persistent=False)
        self.bands = mel_bands(mel_bins, self.fft_size, sample_rate)

    def num_frames(self, samples: Tensor) -> Tensor:
        """Frames of signals of `samples` [B] samples; a signal shorter than one window counts as one."""
        hops = torch.div(samples - self.window_samples, self.hop_samples, rounding_mode="floor")
        return 1 + hops.clamp(min=0)

    def forward(self, waves: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """waves [B, S] in [-1, 1] to log-mel [B, T, F] with T = 1 + (S - W) // hop; S < W is zero-padded to W."""
        if waves.shape[-1] < self.window_samples:
            waves = nn.functional.pad(waves, (0, self.window_samples - waves.shape[-1]))
        # Half precision would drown the quiet bins, and autocast would choose it for the matrix product.
        with torch.autocast(waves.device.type, enabled=False):
            frames = waves.float().unfold(-1, self.window_samples, self.hop_samples)
            if self.dither:
                noise = torch.randn(frames.shape, generator=generator, device=frames.device)
                frames = frames + self.dither * noise
            spectrum = torch.fft.rfft(self._shaped(frames))
            power = spectrum.real.square() + spectrum.imag.square()
            energies = [power[..., bins] @ self.mel_filters[bins, filters] for bins, filters in self.bands]
            return torch.cat(energies, dim=-1).clamp(min=ENERGY_FLOOR).log()

    def _shaped(self, frames: Tensor) -> Tensor:
        """frames [B, T, W] without their means, emphasised, windowed, and padded for the transform."""
        centred = frames - frames.mean(-1, keepdim=True)
        # Written into zeros: faster than letting the transform pad.
        padded = centred.new_zeros(*centred.shape[:-1], self.fft_size)
        padded[..., 0] = centred[..., 0] * ((1 - PRE_EMPHASIS) * self.window[0])
        emphasised = torch.sub(centred[..., 1:], centred[..., :-1], alpha=PRE_EMPHASIS)
        padded[..., 1 : self.window_samples] = emphasised * self.window[1:]
        return padded


def analysis_window(kind: Window, size: int) -> Tensor:
    """Symmetric window [size] of Kaldi's kinds; `povey` is Hann to the power 0.85."""
    if kind == "rectangular":
        return torch.ones(size)
    phase = 2 * math.pi * torch.arange(size, dtype=torch.float64) / (size - 1)
    hann = 0.5 - 0.5 * torch.cos(phase)
    shapes = {
        "hanning": hann,
        "hamming": 0.54 - 0.46 * torch.cos(phase),
        "povey": hann**0.85,
        "blackman": 0.42 - 0.5 * torch.cos(phase) + 0.08 * torch.cos(2 * phase),
    }
    if kind not in shapes:
        raise ValueError(f"window must be one of {', '.join([*shapes, 'rectangular'])}, got {kind!r}")
    return shapes[kind].float()


def kaldi_mel_filters(mel_bins: int, fft_size: int, sample_rate: int, lowest_hz: float = LOWEST_HZ) -> Tensor:
    """Triangles in the mel domain, without area normalisation: [fft_size // 2 + 1, mel_bins].

    The Nyquist bin gets no weight, as in Kaldi.
    """
    low, high = (1127.0 * math.log1p(hz / 700.0) for hz in (lowest_hz, sample_rate / 2))
    step = (high - low) / (mel_bins + 1)
    left = low + step * torch.arange(mel_bins, dtype=torch.float64)
    hz = torch.arange(fft_size // 2, dtype=torch.float64) * sample_rate / fft_size
    mel = 1127.0 * torch.log1p(hz / 700.0)[:, None]
    rising, falling = (mel - left) / step, (left + 2 * step - mel) / step
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return nn.functional.pad(triangles, (0, 0, 0, 1)).float()


def mel_bands(
    mel_bins: int, fft_size: int, sample_rate: int, lowest_hz: float = LOWEST_HZ
) -> tuple[tuple[slice, slice], ...]:
    """Groups of neighbouring filters: (FFT bins outside which they are zero, filters)."""
    low, high = (1127.0 * math.log1p(hz / 700.0) for hz in (lowest_hz, sample_rate / 2))
    step = (high - low) / (mel_bins + 1)
    groups = min(FILTER_GROUPS, mel_bins)
    edges = [group * mel_bins // groups for group in range(groups + 1)]
    bands = []
    for first, last in itertools.pairwise(edges):
        # Filter i rises from its left edge, low + i * step, and has fallen to zero at low + (i + 2) * step.
        hz = [700.0 * math.expm1((low + step * edge) / 1127.0) for edge in (first, last + 1)]
        bands.append(
            (
                slice(int(hz[0] * fft_size / sample_rate), math.ceil(hz[1] * fft_size / sample_rate) + 1),
                slice(first, last),
            )
        )
    return tuple(bands)
