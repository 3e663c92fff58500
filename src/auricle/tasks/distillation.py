"""A fine-tuned network as the teacher of another: what it says of clips or time steps is learned beside the labels.

B batch, T frames, F features, t time steps, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.data.batch import Batch
from auricle.errors import ConfigError
from auricle.methods.base import SpectrogramEncoder
from auricle.nn.steps import Steps
from auricle.tasks.classification import Classifier
from auricle.tasks.detection import Detector


class DistilledClassifier(Classifier):
    """A classifier that learns from another one beside the labels."""

    distillation: Distillation

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """As a classifier's, with `label_loss` and `distillation_loss`, the parts of `loss`."""
        features, frames, targets = self.augmented(batch)
        encoded = self.spectrogram_encoder.forward_features(features, frames, self.read_layers)
        logits = self.logits(encoded).float()
        result = self.distillation.losses(self, logits, targets, features, frames)
        return result | {"weight": torch.tensor(float(len(logits)), device=logits.device)}


class Distillation:
    """loss = weight * (the student's loss against the teacher's probabilities) + (1 - weight) * (against the labels).

    Both hear the same features, augmented alike. The teacher is no part of the student: it does not change, and
    checkpoints do not hold it.

    Args:
        teacher: a classifier with the student's classes.
        weight: share of the teacher; the published combination of ATST-Clip and ATST-Frame takes 1 on AudioSet, else
            one half.
        teacher_trains: run the teacher in training mode, so that it normalises by the batch and drops paths, as the
            official code does unintentionally. Otherwise it says what it says when it is used.
    """

    def __init__(self, teacher: Classifier, weight: float, teacher_trains: bool = False) -> None:
        self.teacher = teacher.requires_grad_(False).train(teacher_trains)
        self.weight = weight

    def check(self, student: Classifier) -> None:
        """Raises ConfigError where the student cannot learn from the teacher."""
        check_classes(student.classes, self.teacher.classes)
        ours, theirs = (network.encoder for network in (student, self.teacher))
        if not isinstance(ours, SpectrogramEncoder) or not isinstance(theirs, SpectrogramEncoder):
            raise ConfigError("a teacher and its student must both hear spectrograms.")
        if repr_of(ours) != repr_of(theirs):
            raise ConfigError(
                f"the teacher hears {repr_of(theirs)}, the network {repr_of(ours)}; both must have the same front end."
            )

    @torch.no_grad()
    def probabilities(self, features: Tensor, frames: Tensor) -> Tensor:
        """What the teacher says [B, C] of features [B, T, F] of the student's front end."""
        teacher = self.teacher.to(features.device)
        encoded = teacher.spectrogram_encoder.forward_features(features, frames, teacher.read_layers)
        return teacher.probabilities(teacher.logits(encoded).float())

    def losses(
        self, student: Classifier, logits: Tensor, targets: Tensor, features: Tensor, frames: Tensor
    ) -> dict[str, Tensor]:
        """`loss` of logits [B, C], and its two parts."""
        label = student.training_loss(logits, targets)
        said = self.probabilities(self._for_teacher(student, features, frames), frames)
        if student.loss == "ce":
            distilled = F.cross_entropy(logits, said)
        else:
            distilled = F.binary_cross_entropy_with_logits(logits, said)
        total = self.weight * distilled + (1 - self.weight) * label
        return {"loss": total, "label_loss": label, "distillation_loss": distilled}

    def _for_teacher(self, student: Classifier, features: Tensor, frames: Tensor) -> Tensor:
        """Features normalised by the student's statistics, normalised by the teacher's."""
        theirs: Any = self.teacher.encoder
        ours: Any = student.encoder
        (mean, std), (other_mean, other_std) = ((e.config.norm_mean, e.config.norm_std) for e in (ours, theirs))
        if (mean, std) == (other_mean, other_std):
            return features
        again = (features * 2 * std + mean - other_mean) / (2 * other_std)
        beyond = torch.arange(features.shape[1], device=features.device) >= frames[:, None]
        return again.masked_fill(beyond.unsqueeze(-1), theirs.pad_value)


class DistilledDetector(Detector):
    """A detector that learns from another one beside the labels: ATST-Clip and ATST-Frame combined, for events.

    loss of a strongly labelled clip = weight * (cross-entropy with the teacher's probabilities of each time step)
    + (1 - weight) * (with the labels).
    """

    distillation: FrameDistillation

    def frame_targets(self, batch: Batch, steps: Steps) -> Tensor:
        """[B, t, C]. Cross-entropy is linear in its target, so the mean of two losses is the loss of their mean."""
        return self.distillation.targets(super().frame_targets(batch, steps), batch, steps)


class FrameDistillation:
    """What a detector says of the time steps of another. It does not change, and checkpoints do not hold it.

    Args:
        teacher: a detector with the student's classes; its time steps may be others.
        weight: share of the teacher, one half in the published combination for AudioSet-Strong.
    """

    def __init__(self, teacher: Detector, weight: float) -> None:
        self.teacher = teacher.requires_grad_(False).eval()
        self.weight = weight

    def check(self, student: Detector, crop_seconds: float) -> None:
        """Raises ConfigError where the student cannot learn from the teacher on crops of `crop_seconds`."""
        check_classes(student.classes, self.teacher.classes)
        ours, theirs = (network.encoder.sample_rate for network in (student, self.teacher))
        if ours != theirs:
            raise ConfigError(f"the teacher hears {theirs} Hz, the network {ours} Hz; both must have the same rate.")
        # Windows are whole time steps, so the teacher's may end within the last one of a crop.
        window = self.teacher.encoder.window_samples / theirs
        if crop_seconds - window > 1 / self.teacher.encoder.frame_rate:
            raise ConfigError(
                f"the teacher hears {window:g} s at once, less than crop_seconds={crop_seconds:g}; give --set "
                f"crop_seconds={window:g}, or a teacher that hears more."
            )

    @torch.no_grad()
    def targets(self, labels: Tensor, batch: Batch, steps: Steps) -> Tensor:
        """Targets [B, t, C]: those of the labels, mixed with what the teacher says at the nearest of its time steps.

        The teacher hears the batch as it is, as far as its window goes, without the student's SpecAugment.
        """
        encoder, head = self.teacher.to(labels.device).predictor
        waves, lengths = batch.audio.data, batch.audio.lengths
        window = encoder.window_samples
        heard = self.teacher.steps(encoder(waves[:, :window], lengths.clamp(max=window), (-1,)))
        said = head(heard.values)[0].float().sigmoid()
        nearest = (steps.times[:, None] - heard.times).abs().argmin(1)
        return torch.lerp(labels, said[:, nearest], self.weight)


def check_classes(student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
    """Raises ConfigError unless a teacher has the classes of its student."""
    if student != teacher:
        raise ConfigError(
            f"the teacher tells apart {len(teacher)} classes ({', '.join(teacher[:3])}, ...), which are not the "
            f"{len(student)} of the data; fine-tune it on the same data first."
        )


def repr_of(encoder: SpectrogramEncoder) -> str:
    """A front end in words."""
    names = ("fft_size", "mel_bins", "hop_samples", "window_samples")
    return f"{type(encoder.frontend).__name__} at {encoder.sample_rate} Hz " + ", ".join(
        f"{name} {value}" for name in names if (value := getattr(encoder.frontend, name, None)) is not None
    )
