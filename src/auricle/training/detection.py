"""What is particular to training a detector: its settings, how clips are drawn, and what is measured on the way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from auricle.config import TrainConfig
from auricle.data.events import untaught
from auricle.data.items import Manifest
from auricle.data.labels import Labels
from auricle.data.loader import WaveCache
from auricle.data.splits import Fold
from auricle.data.targets import frame_targets
from auricle.errors import plural
from auricle.metrics import PSDS, PSDS1, collar_counts, segment_counts
from auricle.tasks.decoding import FILTERS, choose_decoding
from auricle.tasks.detection import FILTER_SECONDS, THRESHOLD, Detector, odd_frames
from auricle.training.precision import autocast
from auricle.training.validation import CACHE_MB

# Settings that only detection reads, and those that it does not: a roll in time would move events away from their
# targets, and the rest is about clips.
FOR_DETECTION = ("collar", "frame_norm", "frame_pooling", "frame_seconds", "consistency", "ramp", "teacher_momentum")
NOT_FOR_DETECTION = (
    *("loss", "head", "head_layers", "noise", "label_smoothing", "average_epochs"),
    *("mix_spectrograms", "resize_crop", "teacher_trains"),
)


def for_detection(train: TrainConfig) -> TrainConfig:
    """A preset's training without what detection does not use."""
    defaults = TrainConfig()
    return dataclasses.replace(train, **{name: getattr(defaults, name) for name in NOT_FOR_DETECTION})


def label_notes(labels: Labels, classes: Sequence[str], tested: Sequence[int]) -> list[str]:
    """What should be known of events before a training, a sentence each.

    Args:
        classes: those that are learned; `tested`: the items of the test part.
    """
    missed = untaught(labels.classes(tested), classes) if labels.task == "detection" else ""
    return [*labels.notes, *([missed] if missed else [])]


def without_unlabelled(fold: Fold, labels: Labels) -> Fold:
    """The fold without training clips of which nothing is known, from which nothing but a mean teacher is learned."""
    unlabelled = labels.unlabelled(fold.train)
    if not unlabelled:
        return fold
    note = (
        f"{plural(len(unlabelled), 'unlabelled clip')} left out of the training: nothing is learned from such without "
        "a mean teacher, --set consistency=2."
    )
    train = tuple(sorted(set(fold.train) - set(unlabelled)))
    return dataclasses.replace(fold, train=train, note=" ".join(filter(None, (fold.note, note))))


def annotation_weights(
    labels: Labels, indices: Sequence[int], weights: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """How often clips are drawn so that strongly, weakly and unlabelled ones come equally often; None if all are alike.

    Args:
        weights: [indices] how often they are to be drawn within their kind; None: equally.
    """
    strong = set(labels.strong(indices))
    kinds = np.array([0 if i in strong else 1 if labels.sets[i] else 2 for i in indices])
    if len(np.unique(kinds)) < 2:
        return weights
    # Clips without labels would never be drawn by weights that count labels.
    each = np.ones(len(indices)) if weights is None else np.where(kinds == 2, 1.0, np.maximum(weights, 1e-9))
    return np.asarray(each / np.bincount(kinds, weights=each)[kinds])


class DetectionValidation:
    """Thresholds, filters and scores of a detector on parts of the data, called now and then during a training.

    On the part "val" each class's threshold and median filter are chosen anew and kept in the detector; the other parts
    are scored with them.

    Args:
        parts: strongly labelled items by the name of their part, such as {"val": (3, 7)}.
    """

    def __init__(
        self,
        manifest: Manifest,
        labels: Labels,
        parts: Mapping[str, Sequence[int]],
        precision: str,
        device: torch.device,
    ) -> None:
        self.manifest, self.labels = manifest, labels
        self.parts = {name: tuple(indices) for name, indices in parts.items()}
        self.precision, self.device = precision, device
        self.cache = WaveCache(CACHE_MB * 2**20)

    def __call__(self, module: nn.Module) -> dict[str, float]:
        """`<part>_event_f1`, `<part>_segment_f1`, `<part>_psds1`, `<part>_loss`; an undefined score is absent."""
        assert isinstance(module, Detector)
        classes = module.classes
        rate = module.encoder.sample_rate
        result: dict[str, float] = {}
        for name, indices in self.parts.items():
            with autocast(self.precision, self.device):
                waves = (self.cache.get(self.manifest[i], rate) for i in indices)
                scores = [module.scores(wave, self.device) for wave in waves]
            known = set(classes)
            truth = [[e for e in self.labels.events[i] or () if e.label in known] for i in indices]
            if name == "val":
                rate_of_frames = module.frame_rate
                lengths = list(dict.fromkeys(odd_frames(seconds, rate_of_frames) for seconds in FILTERS))
                thresholds, filters = choose_decoding(truth, scores, classes, lengths, module.collars)
                usual = odd_frames(FILTER_SECONDS, rate_of_frames)
                found = [(THRESHOLD, usual) if t is None else (t, f) for t, f in zip(thresholds, filters, strict=True)]
                module.thresholds.copy_(torch.tensor([t for t, _ in found]))
                module.filters.copy_(torch.tensor([f for _, f in found]))
            filtered, detected = zip(*map(module.decide, scores), strict=True)
            durations = [float(s.edges[-1]) for s in scores]
            result[f"{name}_event_f1"] = collar_counts(truth, detected, classes, collars=module.collars).macro_f1()
            result[f"{name}_segment_f1"] = segment_counts(truth, detected, classes).macro_f1()
            result[f"{name}_psds1"] = PSDS(truth, filtered, durations, classes, PSDS1).score().value
            targets = [frame_targets(events, classes, s.edges) for events, s in zip(truth, scores, strict=True)]
            result[f"{name}_loss"] = float(
                np.mean([_cross_entropy(s.values, t) for s, t in zip(scores, targets, strict=True)])
            )
        return {name: value for name, value in result.items() if not math.isnan(value) or name.endswith("_loss")}


def _cross_entropy(probability: NDArray[np.float64], targets: NDArray[np.float32]) -> float:
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())
