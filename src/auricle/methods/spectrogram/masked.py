"""SSAST's pretext task: masked patches, told apart from their neighbours and reconstructed. SSAMBA has the same.

B batch, T frames, F mel bins, N tokens, M masked tokens, K values of a raw patch, D width.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from auricle.data.batch import Batch
from auricle.data.randomness import Draw
from auricle.errors import ConfigError
from auricle.methods.base import Objective, Reconstruction
from auricle.methods.spectrogram.config import MaskedPatchConfig
from auricle.methods.spectrogram.encoder import PatchEncoder
from auricle.methods.spectrogram.masks import Mask, choose, chosen_tokens, gather, rebuilt
from auricle.methods.spectrogram.tokens import Tokens
from auricle.nn import masking
from auricle.nn.heads import Predictor
from auricle.nn.losses import info_nce, masked_mse
from auricle.nn.patches import patchify


@dataclass(frozen=True)
class Pass:
    """One encoder pass over masked input: final outputs [B, P + N, D], and the masked ones among them [B, M, D]."""

    normed: Tensor
    masked: Tensor
    mask: Mask


class MaskedPatchObjective(Objective):
    """Joint discriminative and generative masked spectrogram patch modelling (SSAST section 2.3, Eq. 1-3).

    Masked patch embeddings are replaced by one learned vector before positions are added; the encoder sees all tokens.
    Targets are raw normalised spectrogram patches, detached, without temperature. With `passes=2` (official) each loss
    has its own mask and its own encoder pass; with `passes=1` they share one, at half the cost.
    """

    encoder: PatchEncoder
    config: MaskedPatchConfig

    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        c = encoder.config
        if not isinstance(c, MaskedPatchConfig):
            raise TypeError(f"the settings of the encoder say nothing about masks: {type(c).__name__}")
        self.encoder, self.config = encoder, c
        tokens = c.grid[0] * c.grid[1]
        c.check_pretraining()
        if c.mask_count >= tokens - 1:
            raise ConfigError(
                f"mask_count is {c.mask_count}, but a clip of {c.window_frames} frames has only {tokens} tokens; "
                f"set mask_count below {tokens - 1}, or mask_count=0 to mask the share mask_ratio."
            )
        patch = c.patch_freq * c.patch_time
        self.mask_token = nn.Parameter(torch.empty(1, 1, c.width))
        nn.init.xavier_normal_(self.mask_token)
        self.discriminative = Predictor(c.width, patch)
        self.generative = Predictor(c.width, patch)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, its `weight` (masked tokens it is a mean over), and its parts: `nce`, `accuracy`, `mse`."""
        features, frames = self.encoder.features(batch.audio.data, batch.audio.lengths)
        tokens, covered = self.encoder.embed_patches(features, frames)
        first = self.draw_mask(tokens, batch.draw, "mask")
        second = self.draw_mask(tokens, batch.draw, "mask-generative") if self.config.passes == 2 else first
        return self.losses(tokens, covered, first, second)[0]

    def score(self, losses: Mapping[str, float]) -> float:
        """What SSAST's authors watch: the contrastive accuracy, or the loss where nothing is contrasted."""
        return losses["accuracy"] if "accuracy" in losses else super().score(losses)

    def losses(
        self, tokens: Tokens, features: Tensor, discriminative_mask: Mask, generative_mask: Mask
    ) -> tuple[dict[str, Tensor], dict[str, Pass]]:
        """The losses for given masks, and the encoder passes behind them; one pass serves both if the masks are one."""
        c = self.config
        patches = patchify(features, c.kernel, c.stride).detach()
        result: dict[str, Tensor] = {}
        passes: dict[str, Pass] = {}
        if c.task != "generative":
            seen = passes["discriminative"] = self.run(tokens, discriminative_mask)
            predictions = self.discriminative(seen.masked).float()
            targets = gather(patches, seen.mask.ids)
            result["nce"], result["accuracy"] = info_nce(predictions, targets, seen.mask.valid, c.softmax_over)
        if c.task != "discriminative":
            shared = generative_mask is discriminative_mask and "discriminative" in passes
            seen = passes["discriminative"] if shared else self.run(tokens, generative_mask)
            passes["generative"] = seen
            predictions = self.generative(seen.masked).float()
            result["mse"] = masked_mse(predictions, gather(patches, seen.mask.ids), seen.mask.valid)
        weight = c.generative_weight if c.task == "joint" else 1.0
        parts = [result["nce"]] if "nce" in result else []
        parts += [weight * result["mse"]] if "mse" in result else []
        result["loss"] = torch.stack(parts).sum()
        # Both masks hide the same number of tokens of a clip, so one weight serves both losses.
        result["weight"] = discriminative_mask.valid.sum().float()
        return result, passes

    def run(self, tokens: Tokens, mask: Mask) -> Pass:
        """Encode with the masked tokens replaced by the mask token."""
        replaced = chosen_tokens(mask, tokens.embeddings.shape[1])
        embeddings = torch.where(replaced.unsqueeze(-1), self.mask_token.to(tokens.embeddings.dtype), tokens.embeddings)
        normed = self.encoder.transform(Tokens(embeddings, tokens.grid, tokens.valid), ())[-1]
        return Pass(normed, gather(normed[:, self.encoder.prefix :], mask.ids), mask)

    def draw_mask(self, tokens: Tokens, draw: Draw, stream: str) -> Mask:
        """A mask for each clip, drawn from its valid tokens only, as a function of the clip's own key."""
        return choose(tokens, lambda row, grid: [self._sample(grid, draw.rng(stream, row))])

    def _sample(self, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        c = self.config
        available = grid[0] * grid[1]
        # At least one token is masked and one is seen, however short the clip (a clip of one token is masked whole).
        # A clip shorter than the window has the same share of its tokens masked.
        share = c.mask_count / (c.grid[0] * c.grid[1]) if c.mask_count else c.mask_ratio
        wanted = round(share * available)
        count = max(1, min(wanted, available - 1))
        # The official loop would not end if all tokens but one were to be masked.
        if c.mask_sampler == "official" and count < available - 1:
            if grid[0] == 1:
                return masking.official_frame_mask(available, count, random.Random(int(rng.integers(2**63))))
            return masking.official_cluster_mask(grid, count, int(rng.integers(3, 6)), _starts(rng, available))
        clustered = c.mask_sampler == "cluster" or (c.mask_sampler == "official" and grid[0] > 1)
        sampler = masking.cluster_mask if clustered else masking.random_mask
        return sampler(np.ones(grid, dtype=bool), count, rng)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Reconstruction | None:
        """For pictures: log-mel [B, T, F], what the mask hid of it, and with masked patches predicted.

        None of a discriminative task, which trains nothing that fills in.
        """
        c = self.config
        if c.task == "discriminative":
            return None
        features, frames = self.encoder.features(batch.audio.data, batch.audio.lengths)
        tokens, features = self.encoder.embed_patches(features, frames)
        mask = self.draw_mask(tokens, batch.draw, "mask")
        predicted = self.generative(self.run(tokens, mask).masked).float()
        patches = patchify(features, c.kernel, c.stride)
        filled = patches.clone()
        for row, real in enumerate(mask.valid):
            filled[row, mask.ids[row, real]] = predicted[row, real]
        return rebuilt(patches, filled, chosen_tokens(mask, patches.shape[1]), tokens.grid, frames, c)


def _starts(rng: np.random.Generator, tokens: int) -> Iterator[int]:
    while True:
        yield from rng.integers(tokens, size=64).tolist()
