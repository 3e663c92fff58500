"""Counts of events that were found, missed and made up, and the scores and intervals that follow from them.

N files, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auricle.metrics._checks import Floats, mean_of_defined
from auricle.metrics.intervals import Interval, bootstrap_table


@dataclass(frozen=True)
class EventCounts:
    """What was counted in each file.

    A share of nothing is NaN, and stays out of means. Where others have a number for it, `empty` stands for that:
    sed_scores_eval gives a class without detections the precision 1, one without events the recall 1.

    Attributes:
        classes: their names.
        hits: [N, C] events (or segments) of the truth that were found.
        false_alarms: [N, C] detections that are not right.
        truth: [N, C] events of the truth.
        substitutions: [N] pairs of a miss and a false alarm that differ in nothing but the class; None where the
            criterion knows none.
    """

    classes: tuple[str, ...]
    hits: Floats
    false_alarms: Floats
    truth: Floats
    substitutions: Floats | None = None

    def class_f1(self, draws: Floats | None = None, *, empty: float = math.nan) -> Floats:
        """F1 of each class [C], 2 hits / (2 hits + misses + false alarms); `empty` where it is neither there nor found.

        `draws` [N] says how often each file counts; None: once.
        """
        everything = self._sum(self.hits + self.false_alarms + self.truth, draws)
        return _share(2 * self._sum(self.hits, draws), everything, empty)

    def class_precision(self, *, empty: float = math.nan) -> Floats:
        """Share of detections that are right [C]; `empty` where there is none."""
        return _share(self.hits.sum(0), (self.hits + self.false_alarms).sum(0), empty)

    def class_recall(self, *, empty: float = math.nan) -> Floats:
        """Share of the truth that was found [C]; `empty` where there is none."""
        return _share(self.hits.sum(0), self.truth.sum(0), empty)

    def macro_f1(self, draws: Floats | None = None, *, only_found: bool = False) -> float:
        """Mean of the classes' F1 over those that are there or were found; NaN if there is none.

        With `only_found`, classes that are not there or of which nothing was detected do not count, as in sed_eval:
        a system that never speaks of a class is not charged for it.
        """
        scores = self.class_f1(draws)
        if only_found:
            detected, there = self._sum(self.hits + self.false_alarms, draws), self._sum(self.truth, draws)
            scores = np.where((detected > 0) & (there > 0), scores, math.nan)
        return mean_of_defined(scores)

    def micro_f1(self, draws: Floats | None = None) -> float:
        """F1 of all events together; NaN if nothing is there and nothing was found."""
        return float(self.pooled().class_f1(draws)[0])

    def pooled(self) -> EventCounts:
        """All classes as one."""
        hits, false_alarms, truth = (x.sum(1, keepdims=True) for x in (self.hits, self.false_alarms, self.truth))
        return EventCounts(("all",), hits, false_alarms, truth, self.substitutions)

    def error_rate(self, draws: Floats | None = None) -> float:
        """(substitutions + misses + false alarms) / events; it may exceed 1. NaN if there is no event.

        A substitution is one error: it counts neither as a miss nor as a false alarm.
        """
        errors = (self.truth + self.false_alarms - self.hits).sum(1)
        errors = errors if self.substitutions is None else errors - self.substitutions
        return float(_share(self._sum(errors, draws), self._sum(self.truth.sum(1), draws)))

    def intervals(self, *, n: int = 2000, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """`macro_f1`, `micro_f1` and, where it is defined, `error_rate`, with bootstrap intervals over the files.

        Raises:
            ConfigError: n below 1, or a level not between 0 and 1.
        """

        def statistics(drawn: npt.NDArray[np.intp]) -> dict[str, float]:
            draws = np.bincount(drawn, minlength=len(self.truth)).astype(np.float64)
            found = {"macro_f1": self.macro_f1(draws), "micro_f1": self.micro_f1(draws)}
            return found if self.substitutions is None else found | {"error_rate": self.error_rate(draws)}

        return bootstrap_table(statistics, len(self.truth), n=n, level=level, seed=seed)

    @staticmethod
    def _sum(counts: Floats, draws: Floats | None) -> Floats:
        return np.asarray(counts.sum(0) if draws is None else draws @ counts)


def _share(part: Floats, whole: Floats, empty: float = math.nan) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, empty)
