"""Classification and tagging: an encoder, a head, and a loss over classes.

B batch, S samples, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from auricle.audio.augment import noise_and_roll, spec_augment
from auricle.data.batch import Batch
from auricle.data.labels import Task
from auricle.errors import ConfigError
from auricle.methods.base import AudioEncoder, Encoded, SpectrogramEncoder, Trainable
from auricle.nn.heads import BatchNormHead, ClassifierHead, LayerMixHead
from auricle.tasks.freezing import freeze as freeze_encoder
from auricle.tasks.mixing import SpectrogramMixing
from auricle.tasks.windows import Window, clip_means, encode

if TYPE_CHECKING:
    from typing_extensions import Self

Loss = Literal["ce", "bce"]
Head = Literal["linear", "mix", "batchnorm"]


class Classifier(Trainable):
    """Logits from the output of an encoder, for one class per clip (task classification) or any number (tagging).

    Both losses take soft targets, so mixup is right under them: cross-entropy ("ce"), whose probabilities sum to 1, and
    binary cross-entropy ("bce"), where every class has a probability of its own. Tagging needs the second; SSAST uses
    it for some classifications too. The head reads the encoder's pooled output ("linear"), or a learned mixture of its
    layers ("mix", as SUPERB evaluates), or the summaries of its last `head_layers` layers through batch normalisation
    ("batchnorm", as DINO's linear probe and ATST's fine-tuning).

    Args:
        encoder: any; augmentation of features needs a `SpectrogramEncoder`, between whose halves it works.
        mixing: of spectrograms and labels with those of other clips, before the rest of the augmentation.
        freeze: whether the encoder stays as it is, but for its last `tuned_layers` layers.

    Raises:
        ConfigError: augmentation for another encoder.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        classes: Sequence[str],
        *,
        task: Task = "classification",
        loss: Loss | None = None,
        head: Head = "linear",
        head_layers: int = 1,
        mask_freq: int = 0,
        mask_time: int = 0,
        noise: bool = False,
        label_smoothing: float = 0.0,
        mixing: SpectrogramMixing | None = None,
        freeze: bool = False,
        tuned_layers: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = tuple(classes)
        self.task: Task = task
        self.loss: Loss = loss or ("bce" if task == "tagging" else "ce")
        self.head_layers = head_layers
        self.head: ClassifierHead | LayerMixHead | BatchNormHead
        if head == "linear":
            self.head = ClassifierHead(encoder.dim, len(self.classes))
        elif head == "batchnorm":
            self.head = BatchNormHead(head_layers * encoder.summary_dim, len(self.classes))
            self.whole_batch = True
        else:
            self.head = LayerMixHead(encoder.num_layers, encoder.dim, len(self.classes))
        self.mask_freq, self.mask_time, self.noise = mask_freq, mask_time, noise
        self.label_smoothing = label_smoothing
        self.mixing = mixing or SpectrogramMixing()
        self.partners = int(self.mixing.probability > 0)
        self.frozen = freeze_encoder(encoder, tuned_layers) if freeze else ()
        if (self.augments or self.mixing) and not isinstance(encoder, SpectrogramEncoder):
            raise ConfigError(
                "mask_freq, mask_time, noise, mix_spectrograms and resize_crop work on a spectrogram, and this network "
                "has none; set the first two to 0 and the others to false."
            )

    def settings(self) -> dict[str, Any]:
        """What a checkpoint records to build the network again."""
        head = {ClassifierHead: "linear", LayerMixHead: "mix", BatchNormHead: "batchnorm"}[type(self.head)]
        facts = {"task": self.task, "loss": self.loss, "head": head, "head_layers": self.head_layers}
        return {"kind": "classifier", **facts}

    def logits(self, encoded: Encoded) -> Tensor:
        """[B, C] from what the encoder said."""
        result: Tensor
        if isinstance(self.head, LayerMixHead):
            # SUPERB's hidden states hold the cls-like tokens too.
            layers, valid = list(encoded.layers), encoded.valid.repeat(1, encoded.grid[0])
            if encoded.prefix:
                layers = [torch.cat(pair, dim=1) for pair in zip(encoded.prefix, layers, strict=True)]
                valid = F.pad(valid, (encoded.prefix[0].shape[1], 0), value=True)
            result = self.head(layers, valid)
        elif isinstance(self.head, BatchNormHead):
            result = self.head(torch.cat((encoded.summaries or (encoded.pooled,))[-self.head_layers :], dim=1))
        else:
            result = self.head(encoded.pooled)
        return result

    @property
    def read_layers(self) -> tuple[int, ...] | None:
        """The layers that the head reads beside what is pooled; None: all."""
        if isinstance(self.head, LayerMixHead):
            return None
        count = self.encoder.num_layers
        return tuple(range(count)[-self.head_layers :]) if isinstance(self.head, BatchNormHead) else ()

    def probabilities(self, logits: Tensor) -> Tensor:
        """[..., C] from logits [..., C]: shares of 1 under cross-entropy, else of each class by itself."""
        return logits.softmax(-1) if self.loss == "ce" else logits.sigmoid()

    def window_probabilities(
        self, blocks: Iterable[NDArray[np.float32]], device: torch.device
    ) -> Iterator[tuple[Window, NDArray[np.float64]]]:
        """Each window of a sound with its class probabilities [C]; autocast is the caller's."""
        for window in encode(self.encoder, blocks, device, layers=self.read_layers):
            with torch.no_grad():
                logits = self.logits(window.encoded)[window.row]
            yield window, self.probabilities(logits.double()).cpu().numpy()

    def clip_probabilities(self, sounds: Iterable[NDArray[np.float32]], device: torch.device) -> NDArray[np.float64]:
        """Class probabilities [sounds, C] of whole sounds, each the mean over its windows; autocast is the caller's."""
        return self.clip_outputs(sounds, device)[0]

    def clip_outputs(
        self, sounds: Iterable[NDArray[np.float32]], device: torch.device
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Class probabilities [sounds, C] as in `clip_probabilities`, and the pooled embeddings [sounds, D]."""

        def value(encoded: Encoded) -> Tensor:
            return torch.cat([self.probabilities(self.logits(encoded).float()), encoded.pooled.float()], dim=1)

        both = clip_means(self.encoder, sounds, device, value, self.read_layers)
        return both[:, : len(self.classes)], both[:, len(self.classes) :]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, its `weight` (clips it is a mean over) and, unless tagging, `accuracy` of an augmented batch."""
        assert batch.targets is not None
        targets = batch.targets
        if self.augments or self.mixing:
            features, frames, targets = self.augmented(batch)
            encoded = self.spectrogram_encoder.forward_features(features, frames, self.read_layers)
        else:
            encoded = self.encoder(batch.audio.data, batch.audio.lengths, self.read_layers)
        logits = self.logits(encoded).float()
        result = {
            "loss": self.training_loss(logits, targets),
            "weight": torch.tensor(float(len(logits)), device=logits.device),
        }
        if self.task == "classification":
            result["accuracy"] = (logits.argmax(1) == targets.argmax(1)).float().mean().detach()
        return result

    def train(self, mode: bool = True) -> Self:
        """What is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def training_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over clips (and, for "bce", classes) of the loss of logits [B, C] against soft targets [B, C]."""
        if self.loss == "ce":
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smoothed)

    def augmented(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, T, F] as they are trained on, their valid frames [B], and their targets [B, C]."""
        assert batch.targets is not None
        encoder, targets = self.spectrogram_encoder, batch.targets
        features, frames = encoder.features(batch.audio.data, batch.audio.lengths)
        if self.mixing:
            features, targets = self.mixing(encoder, features, frames, batch)
        if self.augments:
            features = self.augment(features, frames, batch)
        return features, frames, targets

    @property
    def augments(self) -> bool:
        """Whether SpecAugment or noise change features while training."""
        return bool(self.mask_freq or self.mask_time or self.noise)

    @property
    def spectrogram_encoder(self) -> SpectrogramEncoder:
        """The encoder, which must be one."""
        assert isinstance(self.encoder, SpectrogramEncoder)
        return self.encoder

    def augment(self, features: Tensor, frames: Tensor, batch: Batch) -> Tensor:
        """SpecAugment, noise and roll on features [B, T, F], each row by its own draw."""
        rows, pad_value = [], self.spectrogram_encoder.pad_value
        for row, x in enumerate(features):
            rng = batch.draw.rng("augment", row)
            real = int(frames[row])
            x = spec_augment(x, real, self.mask_freq, self.mask_time, rng, pad_value)
            if self.noise:
                # On the clip's own frames: what is drawn must not depend on the longest clip of the batch.
                field = torch.from_numpy(rng.random((real, x.shape[1]), dtype="float32")).to(x.device)
                x[:real] = noise_and_roll(x[:real], field, rng.random(), int(rng.integers(-10, 10)))
            rows.append(x)
        return torch.stack(rows)
