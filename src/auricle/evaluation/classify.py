"""From predictions to results: scores with intervals, the same for probes and fine-tuned classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.evaluation.results import Comparison, Confusion, Quantity, quantity
from auricle.metrics import (
    Bin,
    bootstrap_interval,
    class_precision_recall_f1,
    confusion_matrix,
    f1_score,
    paired_bootstrap,
    reliability_bins,
    unweighted_average_recall,
)

RESAMPLES = 2000
# Of a reliability diagram; test sets are small.
BINS = 10


@dataclass(frozen=True)
class Predictions:
    """Predicted and true labels of the same test items, with the score of what was predicted."""

    ids: tuple[str, ...]
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def correct(self) -> NDArray[np.float64]:
        """[N]: 1.0 where right."""
        return np.array([float(p == t) for p, t in zip(self.predicted, self.truth, strict=True)])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({*self.truth, *self.predicted}))

    def indices(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Predicted and true class numbers."""
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number[p] for p in self.predicted]), np.array([number[t] for t in self.truth])

    def metrics(self) -> dict[str, Quantity]:
        """Accuracy, unweighted average recall and macro F1, each with a 95 % bootstrap interval over the items."""
        return mean_metrics([self])

    def confusion(self) -> Confusion:
        """Counts, a row per true class."""
        return mean_confusion([self])

    def items(self) -> list[dict[str, Any]]:
        """One row per test item."""
        columns = zip(self.ids, self.truth, self.predicted, self.scores, strict=True)
        return [{"id": i, "label": t, "predicted": p, "score": s} for i, t, p, s in columns]


def mean_metrics(runs: Sequence[Predictions]) -> dict[str, Quantity]:
    """The metrics of one or several runs on the same items, averaged over the runs, with intervals over the items.

    `uar` and `macro_f1` are plain means over the classes that occur in the truth. A class that is only predicted is not
    among them, but each such prediction is a miss of its true class. A bootstrap resample that misses a class takes the
    mean over the classes that it has. `auricle.metrics.f1_score` instead counts a class without items as 0.
    """
    indices = [run.indices() for run in runs]
    items, classes = len(runs[0].truth), [len(run.classes) for run in runs]

    def uar(drawn: NDArray[np.intp]) -> float:
        recalls = [unweighted_average_recall(p[drawn], t[drawn], c) for (p, t), c in zip(indices, classes, strict=True)]
        return float(np.mean(recalls))

    def macro_f1(drawn: NDArray[np.intp]) -> float:
        scores = []
        for (predicted, truth), count in zip(indices, classes, strict=True):
            present = np.bincount(truth[drawn], minlength=count) > 0
            confusion = confusion_matrix(predicted[drawn], truth[drawn], count)
            # Classes that a resample happens to miss would count as zero.
            scores.append(f1_score(confusion, "macro") * count / max(1, int(present.sum())))
        return float(np.mean(scores))

    found = {
        "uar": bootstrap_interval(uar, n_items=items, n=RESAMPLES),
        "macro_f1": bootstrap_interval(macro_f1, n_items=items, n=RESAMPLES),
    }
    return {"accuracy": mean_accuracy(runs), **{name: quantity(*interval) for name, interval in found.items()}}


def mean_accuracy(runs: Sequence[Predictions]) -> Quantity:
    """The accuracy of one or several runs on the same items, with its 95 % bootstrap interval over the items."""
    return quantity(*bootstrap_interval(np.mean([run.correct for run in runs], axis=0), n=RESAMPLES))


def mean_confusion(runs: Sequence[Predictions]) -> Confusion:
    """Counts, a row per true class; of several runs their mean."""
    classes = sorted({name for run in runs for name in run.classes})
    number = {name: i for i, name in enumerate(classes)}
    total = np.zeros((len(classes), len(classes)))
    for run in runs:
        np.add.at(total, ([number[t] for t in run.truth], [number[p] for p in run.predicted]), 1)
    return {"labels": classes, "rows": (total / len(runs)).tolist()}


def class_scores(runs: Sequence[Predictions]) -> list[dict[str, Any]]:
    """Recall, precision and F1 of each class over all runs, and its `items`; no recall where it has none."""
    confusion = mean_confusion(runs)
    scores = class_precision_recall_f1(np.rint(np.array(confusion["rows"]) * len(runs)).astype(int))
    columns = (scores.recall, scores.precision, scores.f1, scores.support // len(runs))
    return [
        {
            "label": name,
            "recall": float(r) if items else None,
            "precision": float(p),
            "F1": float(f),
            "items": int(items),
        }
        for name, r, p, f, items in zip(confusion["labels"], *columns, strict=True)
    ]


def mean_calibration(runs: Sequence[Predictions]) -> list[Bin]:
    """Reliability bins over the items of all runs; their scores must lie in 0 to 1."""
    scores = np.concatenate([run.scores for run in runs])
    return reliability_bins(np.clip(scores, 0, 1), np.concatenate([run.correct for run in runs]), BINS)


def mean_items(runs: Sequence[Predictions]) -> list[dict[str, Any]]:
    """The rows of the first run; of several, with the share of them that are `right` about an item."""
    rows = runs[0].items()
    if len(runs) > 1:
        right = np.mean([run.correct for run in runs], axis=0)
        rows = [row | {"right": float(share)} for row, share in zip(rows, right, strict=True)]
    return rows


def compare(
    name: str, ours: Predictions | Sequence[Predictions], other: str, theirs: Sequence[Predictions]
) -> Comparison:
    """Mean accuracy of one or several runs minus that of others on the same items, with its paired 95 % interval."""
    own = [ours] if isinstance(ours, Predictions) else ours
    runs = [np.stack([run.correct for run in side]) for side in (own, theirs)]
    difference = paired_bootstrap(runs[0], runs[1], n=RESAMPLES)
    interval = quantity(difference.value, difference.low, difference.high)
    return {"a": name, "b": other, "value": interval["value"], "low": interval["low"], "high": interval["high"]}
