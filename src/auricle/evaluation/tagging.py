"""From tag probabilities to results: scores with intervals, a table of classes, what was found in each item.

N items, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.errors import plural
from auricle.evaluation.classify import BINS
from auricle.evaluation.results import Quantity, quantity
from auricle.metrics import Bin, class_average_precision, class_roc_auc, reliability_bins, tagging_intervals

THRESHOLD = 0.5
# Of fewer, a resample repeats some and misses others so often that the interval of mAP visibly leans upwards.
FEW_POSITIVES = 5
TOP = 5


@dataclass(frozen=True)
class TagPredictions:
    """Probabilities [N, C] of tags and which are true [N, C], of the same test items."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def metrics(self) -> tuple[dict[str, Quantity], int]:
        """See `auricle.metrics.tagging_intervals`: the metrics, and the number of resamples behind their intervals."""
        found, resamples = tagging_intervals(self.scores, self.truth)
        order = ("mAP", "micro_AP", "mAUC", "d_prime", "lwlrap")
        return {name: quantity(*found[name]) for name in order}, resamples

    def notes(self) -> list[str]:
        """What a reader of the intervals should know."""
        positives = self.truth.sum(0)
        few = int(((positives > 0) & (positives < FEW_POSITIVES)).sum())
        if not few:
            return []
        return [
            f"the interval of mAP leans upwards, with fewer than {FEW_POSITIVES} positives in {few} of "
            f"{plural(len(self.classes), 'class')}"
        ]

    def per_class(self) -> list[dict[str, Any]]:
        """Average precision and ROC area of each class; None where a class has no positive, or nothing else."""
        columns = (class_average_precision(self.scores, self.truth), class_roc_auc(self.scores, self.truth))
        return [
            {"label": name, "AP": quantity(ap)["value"], "AUC": quantity(auc)["value"], "items": int(count)}
            for name, ap, auc, count in zip(self.classes, *columns, self.truth.sum(0), strict=True)
        ]

    def calibration(self) -> list[Bin]:
        """Reliability bins over all pairs of an item and a class: how often a tag is true that is given so likely."""
        return reliability_bins(np.clip(self.scores, 0, 1).ravel(), self.truth.ravel().astype(float), BINS)

    def items(self) -> list[dict[str, Any]]:
        """One row per test item: true labels, those that reach the threshold, the likeliest few with their scores."""
        rows = []
        for name, truth, scores in zip(self.ids, self.truth, self.scores, strict=True):
            order = np.argsort(-scores, kind="stable")
            rows.append(
                {
                    "id": name,
                    "labels": [self.classes[i] for i in np.flatnonzero(truth)],
                    "predicted": [self.classes[i] for i in order if scores[i] >= THRESHOLD],
                    "scores": {self.classes[i]: float(scores[i]) for i in order[:TOP]},
                }
            )
        return rows
