"""Single-label classification: an encoder, a head, cross-entropy.

B batch, S samples, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from auricle.audio.augment import noise_and_roll, spec_augment
from auricle.data.batch import Batch
from auricle.methods.base import Encoded
from auricle.nn.heads import ClassifierHead
from auricle.tasks.windows import Window, clip_means, encode


class Classifier(nn.Module):
    """Logits from the pooled output of an encoder; the training loss takes soft targets, so mixup is right under it.

    The encoder must offer `features(waves, lengths)` and `forward_features(features, frames)`, so that augmentation can
    work between them.
    """

    def __init__(
        self,
        encoder: Any,
        classes: Sequence[str],
        *,
        mask_freq: int = 0,
        mask_time: int = 0,
        noise: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = tuple(classes)
        self.head = ClassifierHead(encoder.dim, len(self.classes))
        self.mask_freq, self.mask_time, self.noise = mask_freq, mask_time, noise
        self.label_smoothing = label_smoothing

    def logits(self, encoded: Encoded) -> Tensor:
        """[B, C] from what the encoder said."""
        result: Tensor = self.head(encoded.pooled)
        return result

    def window_probabilities(
        self, blocks: Iterable[NDArray[np.float32]], device: torch.device
    ) -> Iterator[tuple[Window, NDArray[np.float64]]]:
        """Each window of a sound with its class probabilities [C]; autocast is the caller's."""
        for window in encode(self.encoder, blocks, device):
            with torch.no_grad():
                logits = self.logits(window.encoded)[window.row]
            yield window, logits.double().softmax(0).cpu().numpy()

    def clip_probabilities(self, sounds: Iterable[NDArray[np.float32]], device: torch.device) -> NDArray[np.float64]:
        """Class probabilities [sounds, C] of whole sounds, each the mean over its windows; autocast is the caller's."""
        return clip_means(self.encoder, sounds, device, lambda encoded: self.logits(encoded).float().softmax(1))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, its `weight` (clips it is a mean over) and `accuracy` of an augmented training batch."""
        assert batch.targets is not None
        features, frames = self.encoder.features(batch.audio.data, batch.audio.lengths)
        features = self.augment(features, frames, batch)
        logits = self.logits(self.encoder.forward_features(features, frames)).float()
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)
        right = logits.argmax(1) == batch.targets.argmax(1)
        weight = torch.tensor(float(len(right)), device=loss.device)
        return {"loss": loss, "weight": weight, "accuracy": right.float().mean().detach()}

    def augment(self, features: Tensor, frames: Tensor, batch: Batch) -> Tensor:
        """SpecAugment, noise and roll on features [B, T, F], each row by its own draw."""
        if not (self.mask_freq or self.mask_time or self.noise):
            return features
        rows = []
        for row, x in enumerate(features):
            rng = batch.draw.rng("augment", row)
            real = int(frames[row])
            x = spec_augment(x, real, self.mask_freq, self.mask_time, rng, self.encoder.pad_value)
            if self.noise:
                # On the clip's own frames: what is drawn must not depend on the longest clip of the batch.
                field = torch.from_numpy(rng.random((real, x.shape[1]), dtype="float32")).to(x.device)
                x[:real] = noise_and_roll(x[:real], field, rng.random(), int(rng.integers(-10, 10)))
            rows.append(x)
        return torch.stack(rows)

    def after_step(self, progress: float) -> None:
        """Nothing moves but the weights."""
