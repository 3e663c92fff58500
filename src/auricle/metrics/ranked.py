"""Metrics of tagging on resampled items, without sorting again for every resample.

N items, C classes. A resample is how often each item was drawn: [N] counts.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from auricle.metrics._checks import Floats, float_array, mean_of_defined, zero_one
from auricle.metrics.intervals import Interval, bootstrap_table
from auricle.metrics.ranking import d_prime

# Cells of scores times resamples: a table of AudioSet's size takes minutes, not hours.
_WORK = 500_000_000
_LEAST_RESAMPLES = 200


class RankedColumns:
    """Columns of scores in falling order, from which areas follow for any counts of the items.

    Only the positives are looked at after a running sum over the items. Equal scores share a threshold, as in
    scikit-learn.

    Args:
        scores: [K, M], the entries of each column.
        present: [K, M], which of them are positive.
        items: [M], the item each entry belongs to.
    """

    def __init__(self, scores: Floats, present: npt.NDArray[np.bool_], items: npt.NDArray[np.intp]) -> None:
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        self.items = items[order]
        column, place = np.nonzero(np.take_along_axis(present, order, axis=1))
        self.columns, self.column, self.place = len(scores), column, place
        # Each positive's run of equal scores: its first and last place in the column, and the last positive in it.
        falling = -ranked[column, place]
        starts = np.searchsorted(column, np.arange(self.columns + 1))
        self.first, self.last = np.empty_like(place), np.empty_like(place)
        self.last_positive, self.first_positive = np.empty_like(place), np.empty_like(place)
        for c in range(self.columns):
            own = slice(starts[c], starts[c + 1])
            self.first[own] = np.searchsorted(-ranked[c], falling[own], side="left")
            self.last[own] = np.searchsorted(-ranked[c], falling[own], side="right") - 1
            self.first_positive[own] = starts[c] + np.searchsorted(falling[own], falling[own], side="left")
            self.last_positive[own] = starts[c] + np.searchsorted(falling[own], falling[own], side="right") - 1
        self.starts = starts[:-1]

    def areas(self, counts: Floats) -> tuple[Floats, Floats]:
        """Average precision and area under the ROC curve of each column [K], NaN where undefined.

        Args:
            counts: [N], how often each item is there.
        """
        weight = counts[self.items]
        above = np.cumsum(weight, axis=1)
        hits = weight[self.column, self.place]
        running = np.concatenate([[0.0], np.cumsum(hits)])
        base = running[self.starts][self.column]
        hits_before, hits_to = running[self.first_positive] - base, running[self.last_positive + 1] - base
        drawn_to = above[self.column, self.last]
        drawn_before = above[self.column, self.first] - weight[self.column, self.first]
        positives = self._sums(hits)
        negatives = above[:, -1] - positives
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = self._sums(np.where(hits > 0, hits * hits_to / drawn_to, 0.0)) / positives
            # Negatives that rank above a positive, those of equal score by half.
            wrong = self._sums(hits * ((drawn_to - hits_to) + (drawn_before - hits_before)) / 2)
            return precision, 1 - wrong / (positives * negatives)

    def _sums(self, values: Floats) -> Floats:
        return np.bincount(self.column, weights=values, minlength=self.columns).astype(np.float64)


def tagging_intervals(
    scores: npt.ArrayLike, targets: npt.ArrayLike, *, n: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[dict[str, Interval], int]:
    """`mAP`, `micro_AP`, `mAUC`, `d_prime` (of the mean AUC) and `lwlrap`, each with its bootstrap interval over items.

    A class that a resample misses is left out of that resample's means. Of large tables fewer resamples are drawn.

    Args:
        scores: [N, C], higher means "more present"; targets: [N, C], 0 or 1.

    Returns:
        The intervals by name, and how many resamples were drawn.

    Raises:
        DataError: wrong shapes, scores that are not finite, no label at all.
    """
    values = float_array(scores, "scores", "NC")
    present = zero_one(targets, values.shape, "targets")
    items = np.arange(len(values))
    columns = RankedColumns(values.T, present.T, items)
    cells = RankedColumns(values.reshape(1, -1), present.reshape(1, -1), items.repeat(values.shape[1]))
    precision, labels = _label_precision(values, present), present.sum(1)

    def statistics(drawn: npt.NDArray[np.intp]) -> dict[str, float]:
        counts = np.bincount(drawn, minlength=len(values)).astype(np.float64)
        areas, aucs = columns.areas(counts)
        total = float(counts @ labels)
        return {
            "mAP": mean_of_defined(areas),
            "micro_AP": float(cells.areas(counts)[0][0]),
            "mAUC": mean_of_defined(aucs),
            "lwlrap": float(counts @ precision) / total if total else math.nan,
        }

    drawn = max(min(n, _LEAST_RESAMPLES), min(n, _WORK // values.size))
    found = bootstrap_table(statistics, len(values), n=drawn, level=level, seed=seed)
    # d' rises with the area, so its quantiles are those of the area.
    found["d_prime"] = Interval(*(float(d_prime(bound)) for bound in found["mAUC"]))
    return found, drawn


def _label_precision(scores: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """[N]: over an item's labels, the sum of the share of labels among those ranked at or above each."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(present, order, axis=1)
    return np.asarray((ranked * np.cumsum(ranked, axis=1) / np.arange(1, scores.shape[1] + 1)).sum(1))
