"""What is measured on labelled clips while a classifier or tagger is trained.

N clips, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from auricle.data.items import Manifest
from auricle.data.labels import Labels, Task
from auricle.data.loader import WaveCache
from auricle.metrics import class_average_precision
from auricle.tasks.classification import Classifier
from auricle.training.precision import autocast

CACHE_MB = 512
Floats = NDArray[np.float64]


def score_name(task: Task) -> str:
    """By what the best weights are chosen: accuracy, mean average precision, or mean event-based F1 over classes."""
    return {"classification": "accuracy", "tagging": "mAP", "detection": "event_f1"}[task]


class Validation:
    """Score and loss of a network on parts of the data, called now and then during a training.

    `<part>_ensemble` is the score of the mean of all predictions so far, as SSAST's code keeps it: an ensemble over
    epochs. Its running sums are among the tensors that a checkpoint carries.

    Args:
        parts: items by the name of their part, such as {"val": (3, 7)}.
        classes: of the network; a label outside them counts as an error (classification), or is left out (tagging).
    """

    def __init__(
        self,
        manifest: Manifest,
        labels: Labels,
        classes: Sequence[str],
        parts: Mapping[str, Sequence[int]],
        precision: str,
        device: torch.device,
    ) -> None:
        self.manifest, self.task = manifest, labels.task
        self.parts = {name: tuple(indices) for name, indices in parts.items()}
        self.targets = {name: labels.targets(indices, classes) for name, indices in self.parts.items()}
        self.sums = {name: np.zeros(target.shape) for name, target in self.targets.items()}
        self.count = 0
        self.precision, self.device = precision, device
        self.cache = WaveCache(CACHE_MB * 2**20)

    def __call__(self, module: nn.Module) -> dict[str, float]:
        """`<part>_accuracy` or `<part>_mAP`, `<part>_loss`, `<part>_ensemble`; an undefined score is absent."""
        assert isinstance(module, Classifier)
        self.count += 1
        result: dict[str, float] = {}
        for name, indices in self.parts.items():
            with autocast(self.precision, self.device):
                waves = (self.cache.get(self.manifest[i], module.encoder.sample_rate) for i in indices)
                probability = module.clip_probabilities(waves, self.device)
            self.sums[name] += probability
            result[f"{name}_{score_name(self.task)}"] = score(self.task, probability, self.targets[name])
            result[f"{name}_loss"] = loss(module.loss, probability, self.targets[name])
            result[f"{name}_ensemble"] = score(self.task, self.sums[name] / self.count, self.targets[name])
        # Tagging of clips without any label that the network knows has no average precision.
        return {name: value for name, value in result.items() if not math.isnan(value) or name.endswith("_loss")}

    def tensors(self) -> dict[str, Tensor]:
        """The running sums, for a checkpoint."""
        sums = {f"predictions.{name}": torch.from_numpy(values.copy()) for name, values in self.sums.items()}
        return {**sums, "predictions": torch.tensor(self.count)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of `tensors`."""
        self.count = int(tensors["predictions"])
        self.sums = {name: tensors[f"predictions.{name}"].numpy().copy() for name in self.sums}


def score(task: Task, probability: Floats, targets: NDArray[np.float32]) -> float:
    """Accuracy, or mean average precision over the classes that occur; NaN where none does."""
    if task == "classification":
        # A row without a target has a label that the network does not know.
        return float(np.mean((probability.argmax(1) == targets.argmax(1)) & (targets.sum(1) > 0)))
    precision = class_average_precision(probability, targets)
    return float(np.nanmean(precision)) if not np.isnan(precision).all() else math.nan


def loss(kind: str, probability: Floats, targets: NDArray[np.float32]) -> float:
    """Cross-entropy of the known labels ("ce"; 0 if there are none), or binary cross-entropy of all cells ("bce")."""
    present = np.log(np.maximum(probability, 1e-12))
    if kind == "ce":
        known = targets.sum(1) > 0
        return float(-(present * targets)[known].sum(1).mean()) if known.any() else 0.0
    absent = np.log(np.maximum(1 - probability, 1e-12))
    return float(-(present * targets + absent * (1 - targets)).mean())
