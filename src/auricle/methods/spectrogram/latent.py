"""Masked latent prediction: many masks of a clip share one pass of its teacher, and masked tokens are not encoded.

As EAT (Chen et al., IJCAI 2024, arXiv 2401.03497) does it for spectrograms after data2vec 2.0 (Baevski et al., ICML
2023, arXiv 2212.07525), for any encoder over patches. docs/latent.md says where it differs from them.

B clips, K masks of each ("clones"), R = B * K, N tokens of a clip, M kept ones, P prefix tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from auricle.data.batch import Batch
from auricle.data.randomness import Draw
from auricle.data.views import random_crop
from auricle.methods.base import AudioEncoder, Objective
from auricle.methods.spectrogram.config import LatentConfig
from auricle.methods.spectrogram.masks import Ids, Mask, choose, gather
from auricle.methods.spectrogram.tokens import TokenEncoder, Tokens, token_mean
from auricle.nn.collapse import feature_spread
from auricle.nn.decoder import GridDecoder
from auricle.nn.losses import single
from auricle.nn.masking import cluster_mask
from auricle.nn.schedules import cosine
from auricle.nn.teacher import averaged_layers, follow, teacher_of


class Student(nn.Module):
    """The network that learns: an encoder, which the teacher follows, and what predicts the teacher's outputs."""

    def __init__(self, encoder: TokenEncoder, config: LatentConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = GridDecoder(config.width, config.latent_decoder_depth, config.grid[0])
        self.utterance = nn.Linear(config.width, config.width)


@dataclass(frozen=True)
class Targets:
    """What the teacher makes of clips: of each token [B, N, D], and of the clip [B, D]."""

    tokens: Tensor
    clip: Tensor


class LatentObjective(Objective):
    """The student predicts, from a quarter of a clip's tokens, what the teacher makes of all of them.

    loss = mean squared error at the tokens that were left out + `latent_utterance` * that of the clip's target, each a
    mean over the clip's masks first. Kept tokens lie in blocks; all masks of a clip keep as many.

    `encoder` is the teacher's: it is what is evaluated. It begins as the student's copy, is never in training mode, and
    follows the student after each step, its momentum going from `latent_momentum` to 1 on a cosine.
    """

    encoder: TokenEncoder

    def __init__(self, encoder: TokenEncoder, view_seconds: float = 0.0) -> None:
        """`view_seconds` are heard of each crop, all if 0.

        Raises:
            ConfigError: the encoder's settings are not made to be pretrained.
        """
        super().__init__()
        c = encoder.config
        if not isinstance(c, LatentConfig):
            raise TypeError(f"the settings of the encoder say nothing about latent prediction: {type(c).__name__}")
        c.check_pretraining()
        self.config, self.view_seconds = c, view_seconds
        self.student = Student(encoder, c)
        self.encoder = teacher_of(encoder).eval()

    @property
    def encoders(self) -> tuple[AudioEncoder, ...]:
        return self.encoder, self.student.encoder

    def train(self, mode: bool = True) -> LatentObjective:
        """Training mode of the student; what the teacher says is never dropped."""
        super().train(mode)
        self.encoder.eval()
        return self

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        follow(self.encoder, self.student.encoder, cosine(self.config.latent_momentum, 1.0, progress))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, its `weight` (clips), its parts `tokens` and `utterance`, and how far both networks' outputs differ.

        `spread_student` and `spread_teacher` are near 0 where all tokens of all clips are given the same.
        """
        audio = batch.audio
        if self.view_seconds:
            audio = random_crop(audio, self.view_seconds, batch.draw, "view")
        features, frames = self.encoder.features(audio.data, audio.lengths)
        targets = self.teach(features, frames)
        tokens = self.student.encoder.placed(features, frames)
        kept = self.draw_kept(tokens, batch.draw)
        predicted, clips = self.predict(tokens, kept)
        return self.losses(targets, predicted, clips, tokens.token_valid(), kept)

    @torch.no_grad()
    def teach(self, features: Tensor, frames: Tensor) -> Targets:
        """The targets of clips, features [B, T, F] and frames [B], from one pass of the teacher over each."""
        tokens = self.encoder.placed(features, frames)
        valid = tokens.token_valid()
        *outputs, _ = self.encoder.encode(tokens.embeddings, valid)
        layers = [x[:, self.encoder.prefix :] for x in outputs[-self.config.latent_layers :]]
        targets = averaged_layers(layers, valid)
        return Targets(targets, token_mean(targets, valid))

    def draw_kept(self, tokens: Tokens, draw: Draw) -> Mask:
        """The tokens [R, M] that each of a clip's masks leaves, R = B * K with the masks of a clip side by side."""
        c = self.config

        def sample(row: int, grid: tuple[int, int]) -> list[Ids]:
            rng, everything = draw.rng("mask", row), np.ones(grid, dtype=bool)
            # One is always seen, and of two or more one is not.
            count = max(1, min(round(c.latent_keep * everything.size), everything.size - 1))
            return [cluster_mask(everything, count, rng, (c.latent_block,)) for _ in range(c.latent_clones)]

        return choose(tokens, sample)

    def predict(self, tokens: Tokens, kept: Mask) -> tuple[Tensor, Tensor]:
        """What the student says of all tokens [R, N, D] and of the clips [R, D], having encoded those that are kept."""
        encoder, clones = self.student.encoder, self.config.latent_clones
        seen = gather(tokens.embeddings.repeat_interleave(clones, 0), kept.ids)
        normed = encoder.encode(seen, kept.valid)[-1]
        valid = tokens.token_valid().repeat_interleave(clones, 0)
        filled = self.student.decoder(normed[:, encoder.prefix :], kept.ids, kept.valid, valid)
        return filled, self.student.utterance(encoder.pool(normed, kept.valid))

    def losses(
        self, targets: Targets, predicted: Tensor, clips: Tensor, valid: Tensor, kept: Mask
    ) -> dict[str, Tensor]:
        """The losses of predictions [R, N, D] of `valid` [B, N] tokens but those `kept`, and of clips [R, D]."""
        by_mask = (-1, self.config.latent_clones)
        predicted, clips = (single(x).unflatten(0, by_mask) for x in (predicted, clips))
        hidden = hidden_tokens(valid.repeat_interleave(by_mask[1], 0), kept).unflatten(0, by_mask)
        errors = (predicted - targets.tokens[:, None]).square().mean(-1) * hidden
        # Each clip counts alike, however many tokens it has; one token alone is never hidden.
        token_loss = (errors.sum((1, 2)) / hidden.sum((1, 2)).clamp(min=1)).mean()
        clip_loss = (clips - targets.clip[:, None]).square().mean()
        return {
            "loss": token_loss + self.config.latent_utterance * clip_loss,
            "weight": torch.tensor(float(len(valid)), device=valid.device),
            "tokens": token_loss,
            "utterance": clip_loss,
            "spread_student": torch.tensor(feature_spread(predicted[:, 0][valid].detach()), device=valid.device),
            "spread_teacher": torch.tensor(feature_spread(targets.tokens[valid]), device=valid.device),
        }


def hidden_tokens(valid: Tensor, kept: Mask) -> Tensor:
    """Of `valid` [R, N] tokens those that are not kept."""
    seen = torch.zeros(len(valid), valid.shape[1] + 1, dtype=torch.bool, device=valid.device)
    seen.scatter_(1, kept.ids.masked_fill(~kept.valid, valid.shape[1]), True)
    return valid & ~seen[:, :-1]
