"""Mixing the spectrograms and labels of clips with those of others, as ATST is fine-tuned.

B batch, T frames, F features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from auricle.audio.augment import ResizeCrop, mix_aligned
from auricle.data.batch import Batch
from auricle.methods.base import SpectrogramEncoder


@dataclass(frozen=True)
class SpectrogramMixing:
    """Adds up the powers of a clip and of its partner, `Batch.partners[0]`, and their labels by the same shares.

    The official code keeps earlier clips to mix with; here the loader draws a partner for each clip from the whole set.

    Attributes:
        probability: with which a clip is mixed.
        alpha: the clip's share is drawn from Beta(alpha, alpha).
        resize: whether a random crop of each spectrogram, mixed or not, is stretched to its size.
    """

    probability: float = 0.0
    alpha: float = 10.0
    resize: bool = False

    def __bool__(self) -> bool:
        return bool(self.probability or self.resize)

    @torch.no_grad()
    def __call__(
        self, encoder: SpectrogramEncoder, features: Tensor, frames: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """features [B, T, F] with `frames` [B] valid ones, changed, and the targets [B, C] of what is heard now."""
        assert batch.targets is not None
        mixed, targets = torch.zeros_like(features) + encoder.pad_value, batch.targets.clone()
        others = frames_of = None
        if self.probability:
            partner = batch.partners[0]
            others, frames_of = encoder.features(partner.audio.data, partner.audio.lengths)
        for row, count in enumerate(frames.tolist()):
            rng = batch.draw.rng("mix-spectrograms", row)
            own = features[row, :count]
            if others is not None and frames_of is not None and rng.random() < self.probability:
                share = float(rng.beta(self.alpha, self.alpha))
                own = mix_aligned(own, others[row, : int(frames_of[row])], 1 - share, rng)
                theirs = batch.partners[0].targets
                assert theirs is not None
                targets[row] = share * targets[row] + (1 - share) * theirs[row]
            if self.resize:
                crop = ResizeCrop()
                own = crop.apply(own, crop.draw(count, own.shape[1], rng))
            mixed[row, :count] = own
        return mixed, targets
