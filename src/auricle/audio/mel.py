"""A mel spectrogram in decibels, as torchaudio's MelSpectrogram and AmplitudeToDB make it.

B batch, S samples, T frames, W samples of a window, F mel bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from auricle.audio.frontends import Frontend

# The least power, in front of the logarithm: -100 dB.
LEAST_POWER = 1e-10
LEAST_DB = -100.0


class DecibelMel(Frontend):
    """Power of triangular mel filters in decibels, no lower than `top_db` below the loudest value of the clip.

    Frame i is centred at sample i * hop: half a window is mirrored at both ends of each clip, whatever it is batched
    with. A clip shorter than `min_samples`, of which not enough could be mirrored, is zero-padded to it. The mel scale
    is HTK's, filters are triangles in Hz of height 1, the window is a periodic Hann.

    Args:
        sample_rate: Hz.
        mel_bins: F.
        window_samples: W, at most `fft_size`; a shorter window stands in the middle of the transform.
        hop_samples: samples from frame to frame.
        fft_size: of the transform.
        lowest_hz, highest_hz: where the first filter begins and the last one ends.
        top_db: decibels between the loudest value of a clip and the least.
        least_db: nothing is lower than this, however quiet the clip.
    """

    window: Tensor
    mel_filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        mel_bins: int = 64,
        window_samples: int = 1024,
        hop_samples: int = 160,
        fft_size: int = 1024,
        lowest_hz: float = 60.0,
        highest_hz: float = 7800.0,
        top_db: float = 80.0,
        least_db: float = LEAST_DB,
    ) -> None:
        super().__init__()
        self.window_samples, self.hop_samples, self.fft_size = window_samples, hop_samples, fft_size
        self.top_db, self.least_db = top_db, least_db
        self.min_samples = fft_size // 2 + 1
        # Derived from the arguments, so never part of a checkpoint.
        filters = htk_mel_filters(mel_bins, fft_size, sample_rate, lowest_hz, highest_hz)
        self.register_buffer("window", torch.hann_window(window_samples), persistent=False)
        self.register_buffer("mel_filters", filters, persistent=False)

    def num_frames(self, samples: Tensor) -> Tensor:
        """Frames [B] of signals of `samples` [B] samples."""
        return 1 + torch.div(samples.clamp(min=self.min_samples), self.hop_samples, rounding_mode="floor")

    def power(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """waves [B, S], of which `lengths` [B] count (all, if None), to the power of each filter [B, T, F]."""
        if lengths is None:
            lengths = torch.full((len(waves),), waves.shape[-1], device=waves.device)
        waves = nn.functional.pad(waves, (0, max(0, self.min_samples - waves.shape[-1])))
        lengths = lengths.clamp(min=self.min_samples)
        # Half precision would drown the quiet bins, and autocast would choose it for the matrix product.
        with torch.autocast(waves.device.type, enabled=False):
            spectrum = torch.fft.rfft(self._frames(waves.float(), lengths) * self.window, n=self.fft_size)
            return (spectrum.real.square() + spectrum.imag.square()) @ self.mel_filters

    def _frames(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """[B, T, W]: what the windows see of the waves, which are mirrored at each clip's own ends."""
        half = self.fft_size // 2
        frames = int(self.num_frames(lengths).max())
        last = (lengths - 1)[:, None]
        index = torch.arange(-half, (frames - 1) * self.hop_samples + half, device=waves.device).abs()
        # Beyond the mirror image of a shorter clip nothing is heard: its frames end before.
        index = torch.where(index > last, 2 * last - index, index).clamp(min=0)
        seen = waves.gather(1, index).unfold(-1, self.fft_size, self.hop_samples)
        # Where a shorter window stands within the transform changes the phases only, and the power not at all.
        before = (self.fft_size - self.window_samples) // 2
        return seen[..., before : before + self.window_samples]

    def decibels(self, power: Tensor, frames: Tensor | None = None) -> Tensor:
        """power [B, T, F] in decibels; the loudest value of a row is sought among its first `frames` (all, if None)."""
        level = 10 * power.clamp(min=LEAST_POWER).log10()
        loudest = level.amax(2)
        if frames is not None:
            beyond = torch.arange(power.shape[1], device=power.device) >= frames[:, None]
            loudest = loudest.masked_fill(beyond, -math.inf)
        floor = (loudest.amax(1) - self.top_db).clamp(min=self.least_db)
        return torch.maximum(level, floor[:, None, None])

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """waves [B, S] in [-1, 1], of which `lengths` [B] count (all, if None), to decibels [B, T, F]."""
        frames = None if lengths is None else self.num_frames(lengths)
        return self.decibels(self.power(waves, lengths), frames)


def htk_mel_filters(mel_bins: int, fft_size: int, sample_rate: int, lowest_hz: float, highest_hz: float) -> Tensor:
    """Triangles in Hz between points that are evenly spaced on HTK's mel scale: [fft_size // 2 + 1, mel_bins]."""
    low, high = (2595.0 * math.log10(1 + hz / 700.0) for hz in (lowest_hz, highest_hz))
    mels = torch.linspace(low, high, mel_bins + 2, dtype=torch.float64)
    points = 700.0 * (10.0 ** (mels / 2595.0) - 1)
    hz = torch.linspace(0, sample_rate // 2, fft_size // 2 + 1, dtype=torch.float64)[:, None]
    rising = (hz - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - hz) / (points[2:] - points[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()
