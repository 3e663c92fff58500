"""Polyphonic sound detection score: how much of each class is found at how many false alarms per hour.

Bilen et al., "A framework for the robust evaluation of sound event detection", ICASSP 2020; computed at every
threshold, or at given ones as psds_eval does.

N files, C classes, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.errors import ConfigError, DataError
from auricle.metrics._checks import Floats, float_array
from auricle.metrics.event_matching import Criteria, Files, event_table, intersections, spans_of
from auricle.metrics.frames import FrameScores
from auricle.metrics.intervals import Interval, bootstrap_table
from auricle.metrics.operating_points import Curve, class_curve

# Places of curves times resamples.
_WORK = 300_000_000
_LEAST_RESAMPLES = 100
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Scenario:
    """What a PSDS asks for: `criteria` of intersections, weights of cross triggers and of differences between classes.

    `max_rate` is the highest rate of false alarms per hour that counts.

    Raises:
        ConfigError: cross triggers have a weight but no criterion, or the rate is not above 0.
    """

    criteria: Criteria
    cross_weight: float = 0.0
    spread_weight: float = 1.0
    max_rate: float = 100.0

    def __post_init__(self) -> None:
        if self.cross_weight and self.criteria.cttc is None:
            raise ConfigError("a weight of cross triggers needs the criterion cttc.")
        if not self.max_rate > 0:
            raise ConfigError(f"max_rate must be above 0, got {self.max_rate}.")


# DCASE task 4: events must be timed well (1), or not be taken for others (2).
PSDS1 = Scenario(Criteria(0.7, 0.7))
PSDS2 = Scenario(Criteria(0.1, 0.1, 0.3), cross_weight=0.5)


class PSDSScore(NamedTuple):
    """The score, that of each class alone [C] (NaN where it does not occur), and the curve it is the area under.

    `rates` are effective false alarms per hour, `found` the effective share of events found from each of them on.
    """

    value: float
    per_class: Floats
    rates: Floats
    found: Floats


class PSDS:
    """Counts over all thresholds, from which the score of any draw of the files follows.

    A class that does not occur has no share of found events, and no rate of being taken for: it is left out of means.

    Args:
        truth: events of each file.
        scores: of each file, with a column per class.
        durations: [N] seconds of each file.
        thresholds: operating points; None: all there are.

    Raises:
        DataError: other numbers of files or classes, or labels that are no class.
    """

    def __init__(
        self,
        truth: Files,
        scores: Sequence[FrameScores],
        durations: npt.ArrayLike,
        classes: Sequence[str],
        scenario: Scenario = PSDS1,
        thresholds: npt.ArrayLike | None = None,
    ) -> None:
        self.seconds = float_array(durations, "durations", "N")
        if not len(truth) == len(scores) == len(self.seconds):
            raise DataError(
                f"PSDS: expected truth, scores and a duration of every file, got {len(truth)}, {len(scores)} and "
                f"{len(self.seconds)}."
            )
        if widths := {file.values.shape[1] for file in scores} - {len(classes)}:
            raise DataError(f"PSDS: {len(classes)} classes, but frame scores with {min(widths)} columns.")
        self.scenario, self.classes = scenario, tuple(classes)
        self.events = event_table(truth, classes, "truth")
        spans = [[spans_of([e for e in events if e.label == name]) for name in classes] for events in truth]
        self.sounding = np.array([[float(np.diff(s, axis=1).sum()) for s in file] for file in spans])
        self.curves = [self._curve(c, spans, scores, thresholds) for c in range(len(classes))]

    def _curve(
        self, c: int, spans: list[list[Floats]], scores: Sequence[FrameScores], thresholds: npt.ArrayLike | None
    ) -> Curve:
        """Hits, false alarms and, if they count, cross triggers with every class (none with the class itself)."""

        def count(n: int, found: Floats, row: npt.NDArray[np.intp], rows: int) -> Floats:
            others = [s if j != c else s[:0] for j, s in enumerate(spans[n])] if self.scenario.cross_weight else []
            return intersections(found, row, rows, spans[n][c], others, self.scenario.criteria)

        return class_curve(scores, c, count, thresholds)

    def score(self, draws: Floats | None = None) -> PSDSScore:
        """The score of all files, or of `draws` [N], how often each counts; NaN if no class occurs."""
        limit = self.scenario.max_rate
        weights = np.ones(len(self.seconds)) if draws is None else draws
        hours = float(weights @ self.seconds) / 3600
        events, sounding = weights @ self.events, weights @ self.sounding / 3600
        stairs = [self._staircase(c, draws, hours, events[c], sounding) for c in range(len(self.classes))]
        present = [stair for stair, count in zip(stairs, events, strict=True) if count]
        if not present:
            return PSDSScore(math.nan, np.full(len(stairs), math.nan), np.zeros(0), np.zeros(0))
        rates = np.unique(np.concatenate([r for r, _ in present]))
        rates = rates[rates < limit]
        found = np.stack([f[np.searchsorted(r, rates, side="right") - 1] for r, f in present])
        effective = found.mean(0) - self.scenario.spread_weight * found.std(0)
        # A mean and a spread that are equal leave rounding, and a score of 2e-16 would not look like none.
        effective = np.where(effective > _ROUNDING, effective, 0.0)
        per_class = [_area(*stair, limit) if count else math.nan for stair, count in zip(stairs, events, strict=True)]
        return PSDSScore(_area(rates, effective, limit), np.array(per_class), rates, effective)

    def _staircase(
        self, c: int, draws: Floats | None, hours: float, events: float, sounding: Floats
    ) -> tuple[Floats, Floats]:
        """Rising rates of false alarms of one class, from 0 on, and the share of its events found up to each."""
        curve = self.curves[c]
        found = np.append(0.0, curve.totals(slice(0, 1), draws)[:, 0] / max(events, 1.0))
        rate = np.append(0.0, curve.totals(slice(1, 2), draws)[:, 0] / hours)
        others = np.flatnonzero((sounding > 0) & (np.arange(len(sounding)) != c))
        if self.scenario.cross_weight and len(others):
            per_hour = np.zeros(2 + len(sounding))
            per_hour[2 + others] = self.scenario.cross_weight / (len(others) * sounding[others])
            rate[1:] += curve.totals(per_hour, draws)
        # Rates need not rise as a threshold falls: false alarms merge.
        order = np.lexsort((found, rate))
        rate, found = rate[order], np.maximum.accumulate(found[order])
        last = np.append(rate[1:] != rate[:-1], True)
        return rate[last], found[last]

    def interval(self, *, n: int = 2000, level: float = 0.95, seed: int = 0) -> tuple[Interval, int]:
        """The score with its bootstrap interval over the files, and how many resamples were drawn (few of long curves).

        Raises:
            ConfigError: n below 1, or a level not between 0 and 1.
        """
        work = sum(curve.changes.size for curve in self.curves)
        drawn = max(min(n, _LEAST_RESAMPLES), min(n, _WORK // max(work, 1)))

        def statistics(chosen: npt.NDArray[np.intp]) -> dict[str, float]:
            return {"psds": self.score(np.bincount(chosen, minlength=len(self.seconds)).astype(np.float64)).value}

        return bootstrap_table(statistics, len(self.seconds), n=drawn, level=level, seed=seed)["psds"], drawn


def _area(rates: Floats, found: Floats, limit: float) -> float:
    """Area under a staircase up to `limit`, as a share of all there could be."""
    inside = rates < limit
    return float(np.diff(np.append(rates[inside], limit)) @ found[inside] / limit)
