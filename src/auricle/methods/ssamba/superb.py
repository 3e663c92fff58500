"""SSAMBA as an upstream of SUPERB, the way its authors evaluated it (src/finetune/*/ssast/expert.py).

It differs from the rest: the waveform keeps its mean, statistics are always AudioSet's, features are normalised before
they are padded with zeros, long sounds are cut into windows without regard to time steps, and the final norm is applied
once. Their wrapper builds a network with RMSNorm and loads LayerNorm weights into it: import with `rms_norm=true` for
their numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from auricle.methods.spectrogram.encoder import PatchEncoder, adapt_encoder
from auricle.methods.spectrogram.superb import superb_features
from auricle.methods.ssamba.config import SSAMBAConfig

# Samples that the wrapper says a frame stands for; ours stand 1600 apart as well, for a stride of 10.
SAMPLES_PER_FRAME = 1600


class SuperbUpstream(nn.Module):
    """Waveforms to the one hidden state of SUPERB's downstream tasks.

    Args:
        encoder: a pretrained encoder; it is adapted to the fine-tuning strides and to windows of `window_seconds`.
        window_seconds: the authors' wrapper works with 10 only.
    """

    def __init__(self, encoder: PatchEncoder, window_seconds: float = 10.0) -> None:
        super().__init__()
        self.target_length = int(100 * window_seconds)
        config = encoder.config.for_finetuning(self.target_length)
        assert isinstance(config, SSAMBAConfig)
        self.encoder = adapt_encoder(encoder, dataclasses.replace(config, attend_padding=True, final_norms=1))
        self.window_samples = round(window_seconds * self.encoder.sample_rate)

    def windows(self, waves: Sequence[Tensor]) -> Iterator[Tensor]:
        """Unpadded waveforms [S] at 16 kHz to the features [B, target_length, F] of each window."""
        for window in pad_sequence(list(waves), batch_first=True).split(self.window_samples, dim=1):
            yield torch.stack([superb_features(self.encoder, wave, self.target_length) for wave in window])

    def forward(self, waves: Sequence[Tensor]) -> Tensor:
        """Unpadded waveforms [S] to [B, t, f * D], a vector for each time step: its patches side by side."""
        longest = max(len(wave) for wave in waves)
        parts = []
        for features in self.windows(waves):
            frames = torch.full((len(features),), self.target_length, device=features.device)
            parts.append(self.encoder.forward_features(features, frames, (-1,)).frames())
        return torch.cat(parts, dim=1)[:, : math.ceil(longest / SAMPLES_PER_FRAME)]
