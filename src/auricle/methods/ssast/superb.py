"""SSAST as an upstream of SUPERB, the way its authors evaluated it (src/finetune/superb/upstream/ast).

It differs from the rest: the waveform keeps its mean, statistics are always AudioSet's, features are normalised before
they are padded with zeros, and the two prefix tokens stay among the hidden states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from auricle.methods.spectrogram.encoder import PatchEncoder, adapt_encoder
from auricle.methods.spectrogram.superb import superb_features

# Frames of the three tasks: keyword spotting, emotion recognition, speaker identification (section 7.2).
TARGET_LENGTHS = {"ks1": 100, "er": 600, "sid": 1000}


class SuperbUpstream(nn.Module):
    """Waveforms to the 12 (depth) hidden states of SUPERB's weighted sum.

    Args:
        encoder: a pretrained encoder; it is adapted to the fine-tuning strides and to `target_length` frames.
        target_length: frames that every clip is cut or padded to.
    """

    def __init__(self, encoder: PatchEncoder, target_length: int) -> None:
        super().__init__()
        config = dataclasses.replace(encoder.config.for_finetuning(target_length), attend_padding=True)
        self.encoder = adapt_encoder(encoder, config)
        self.target_length = target_length

    def features(self, waves: Sequence[Tensor]) -> Tensor:
        """Unpadded waveforms [S] at 16 kHz to features [B, target_length, F]."""
        return torch.stack([superb_features(self.encoder, wave, self.target_length) for wave in waves])

    def forward(self, waves: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Each block's output [B, 2 + N, D] (SUPERB's hidden states), and the final norm's (its last hidden state)."""
        features = self.features(waves)
        frames = torch.full((len(features),), self.target_length, device=features.device)
        tokens, _ = self.encoder.embed_patches(features, frames)
        *blocks, normed = self.encoder.transform(tokens)
        return blocks, normed
