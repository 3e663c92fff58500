"""Masked latent prediction: many masks of a clip share one pass of its teacher, and masked tokens are not encoded.

As EAT (Chen et al., IJCAI 2024, arXiv 2401.03497) does it for spectrograms after data2vec 2.0 (Baevski et al., ICML
2023, arXiv 2212.07525), for any encoder over patches. docs/latent.md says where it differs from them.

B clips, R masks of all of them ("clones" of a clip side by side), N tokens of a clip, M kept ones, P prefix tokens,
D width, K values of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from auricle.data.batch import Batch
from auricle.data.randomness import Draw
from auricle.data.views import random_crop
from auricle.methods.base import AudioEncoder, Objective, Reconstruction
from auricle.methods.spectrogram.config import LatentConfig
from auricle.methods.spectrogram.masks import Ids, Mask, choose, chosen_tokens, gather, rebuilt
from auricle.methods.spectrogram.tokens import TokenEncoder, Tokens, token_mean
from auricle.nn.collapse import feature_spread
from auricle.nn.decoder import GridDecoder
from auricle.nn.losses import single
from auricle.nn.masking import cluster_mask
from auricle.nn.patches import patchify
from auricle.nn.schedules import cosine
from auricle.nn.teacher import averaged_layers, follow, teacher_of

# Features are (x - mean) / (2 std): with this, patches deviate from their mean by about 1, as the teacher's targets do.
SCALE = 2.0


class Student(nn.Module):
    """The network that learns: an encoder, which the teacher follows, and what predicts the teacher's outputs."""

    def __init__(self, encoder: TokenEncoder, config: LatentConfig) -> None:
        super().__init__()
        width, (rows, _) = config.width, config.grid
        self.encoder = encoder
        self.decoder = GridDecoder(width, config.latent_decoder_depth, rows)
        self.tokens = nn.Linear(width, width)
        self.clip = nn.Linear(width, width)
        patch = config.patch_freq * config.patch_time
        self.patches = nn.Linear(width, patch) if config.latent_reconstruction else None


@dataclass(frozen=True)
class Outputs:
    """Of clips, each token [B, N, D], the clip [B, D], and the values of each patch [B, N, K]: what is to be predicted.

    Or what is predicted under each of their masks, [R, ...]; without patches, if none are rebuilt.
    """

    tokens: Tensor
    clip: Tensor
    patches: Tensor | None


class LatentObjective(Objective):
    """The student predicts, from a few of a clip's tokens, what the teacher makes of all of them.

    loss = mean squared error at the tokens that were left out + `latent_utterance` * that of the clip's target +
    `latent_reconstruction` * that of the patches that were left out, each a mean over the clip's masks first. Kept
    tokens lie in blocks; all masks of a clip keep as many.

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
        features, frames = self.heard(batch)
        targets = self.teach(features, frames)
        tokens = self.student.encoder.placed(features, frames)
        kept = self.draw_kept(tokens, batch.draw)
        return self.losses(targets, self.predict(tokens, kept), tokens.token_valid(), kept)

    def heard(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """features [B, T, F] and frames [B] of what is heard of each clip."""
        audio = batch.audio
        if self.view_seconds:
            audio = random_crop(audio, self.view_seconds, batch.draw, "view")
        return self.encoder.features(audio.data, audio.lengths)

    @torch.no_grad()
    def teach(self, features: Tensor, frames: Tensor) -> Outputs:
        """The targets of clips, features [B, T, F] and frames [B], from one pass of the teacher over each."""
        tokens = self.encoder.placed(features, frames)
        valid = tokens.token_valid()
        wanted = range(self.encoder.num_layers)[-self.config.latent_layers :]
        *outputs, _ = self.encoder.encode(tokens.embeddings, valid, wanted)
        layers = [x[:, self.encoder.prefix :] for x in outputs]
        targets = averaged_layers(layers, valid)
        return Outputs(targets, token_mean(targets, valid), self.patches(features, tokens.grid))

    def patches(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """The values [B, N, K] of the patches of a grid that cover features [B, T, F], their deviation being 1."""
        kernel, frames = self.config.kernel, grid[1] * self.config.patch_time
        padding = (0, 0, 0, max(0, frames - features.shape[1]))
        covered = nn.functional.pad(features, padding, value=self.encoder.pad_value)[:, :frames]
        return SCALE * patchify(covered, kernel, kernel)

    def draw_kept(self, tokens: Tokens, draw: Draw) -> Mask:
        """The tokens [R, M] that each mask leaves of its clip."""
        c = self.config

        def sample(row: int, grid: tuple[int, int]) -> list[Ids]:
            rng, everything = draw.rng("mask", row), np.ones(grid, dtype=bool)
            # One is always seen, and of two or more one is not.
            count = max(1, min(round(c.latent_keep * everything.size), everything.size - 1))
            return [cluster_mask(everything, count, rng, (c.latent_block,)) for _ in range(c.latent_clones)]

        return choose(tokens, sample)

    def predict(self, tokens: Tokens, kept: Mask) -> Outputs:
        """What the student says of all tokens and of the clips, having encoded the tokens that are kept."""
        encoder, clones = self.student.encoder, self.config.latent_clones
        seen = gather(tokens.embeddings.repeat_interleave(clones, 0), kept.ids)
        normed = encoder.encode(seen, kept.valid, ())[-1]
        valid = tokens.token_valid().repeat_interleave(clones, 0)
        filled = self.student.decoder(normed[:, encoder.prefix :], kept.ids, kept.valid, valid)
        student = self.student
        clip = student.clip(encoder.pool(normed, kept.valid))
        return Outputs(student.tokens(filled), clip, None if student.patches is None else student.patches(filled))

    def losses(self, targets: Outputs, predicted: Outputs, valid: Tensor, kept: Mask) -> dict[str, Tensor]:
        """The losses of predictions of clips and of their `valid` [B, N] tokens but those that are `kept`."""
        c, clones = self.config, self.config.latent_clones
        hidden = hidden_tokens(valid.repeat_interleave(clones, 0), kept).unflatten(0, (-1, clones))
        tokens = single(predicted.tokens).unflatten(0, (-1, clones))
        clips = single(predicted.clip).unflatten(0, (-1, clones))
        parts = {
            "tokens": hidden_error(tokens, targets.tokens, hidden),
            "utterance": (clips - targets.clip[:, None]).square().mean(),
        }
        loss = parts["tokens"] + c.latent_utterance * parts["utterance"]
        if predicted.patches is not None and targets.patches is not None:
            patches = single(predicted.patches).unflatten(0, (-1, clones))
            parts["reconstruction"] = hidden_error(patches, targets.patches, hidden)
            loss = loss + c.latent_reconstruction * parts["reconstruction"]
        spreads = {"student": tokens[:, 0][valid].detach(), "teacher": targets.tokens[valid]}
        return {
            "loss": loss,
            "weight": torch.tensor(float(len(valid)), device=valid.device),
            **parts,
            **{f"spread_{who}": torch.tensor(feature_spread(x), device=valid.device) for who, x in spreads.items()},
        }

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Reconstruction | None:
        """For pictures: log-mel [B, T, F], what the first mask of each clip hid of it, and with that rebuilt.

        None if nothing is ever rebuilt.
        """
        if self.student.patches is None:
            return None
        features, frames = self.heard(batch)
        tokens = self.student.encoder.placed(features, frames)
        kept = self.draw_kept(tokens, batch.draw)
        found, clones = self.predict(tokens, kept).patches, self.config.latent_clones
        assert found is not None
        first = Mask(kept.ids[::clones], kept.valid[::clones])
        hidden = hidden_tokens(tokens.token_valid(), first)
        patches = self.patches(features, tokens.grid) / SCALE
        return rebuilt(patches, single(found)[::clones] / SCALE, hidden, tokens.grid, frames, self.config)


def hidden_error(predicted: Tensor, targets: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of predictions [B, K, N, D] of targets [B, N, D] where tokens are `hidden` [B, K, N].

    Each clip counts alike, however many tokens it has; nothing is hidden of a clip of one token.
    """
    errors = (predicted - targets[:, None]).square().mean(-1) * hidden
    return (errors.sum((1, 2)) / hidden.sum((1, 2)).clamp(min=1)).mean()


def hidden_tokens(valid: Tensor, kept: Mask) -> Tensor:
    """Of `valid` [R, N] tokens those that are not kept."""
    return valid & ~chosen_tokens(kept, valid.shape[1])
