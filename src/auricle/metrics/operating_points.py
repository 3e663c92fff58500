"""What changes when a threshold is lowered: counts of one class over all files, at every threshold there is.

A file's counts change only at its own scores, so each file is counted at those alone, and the changes of all files are
put in order (Ebbers, Serizel, Haeb-Umbach, "Threshold-independent evaluation of sound event detection scores", 2022).

T frames, K thresholds, S statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auricle.metrics._checks import Floats
from auricle.metrics.event_counts import EventCounts
from auricle.metrics.event_matching import COLLARS, Collars, Files, event_table, maximum_matching, spans_of
from auricle.metrics.frames import FrameScores, active_runs

# Of a file with more different scores than this, as many of them in even ranks: recordings of a minute and more.
MOST_PER_FILE = 2000
# Cells of thresholds times frames that are looked at together.
_CELLS = 2_000_000

# File, spans [R, 2] in seconds, the threshold [R] each belongs to, K: to statistics [K, S].
Count = Callable[[int, Floats, npt.NDArray[np.intp], int], Floats]


@dataclass(frozen=True)
class Curve:
    """The changes of S statistics of one class, in falling order of thresholds.

    Attributes:
        thresholds: [K]; a frame is active where its score is above.
        files: [K] the file whose counts change there.
        changes: [K, S].
        last: [K'] the last place of each different threshold.
    """

    thresholds: Floats
    files: npt.NDArray[np.intp]
    changes: Floats
    last: npt.NDArray[np.intp]

    def totals(self, columns: slice | Floats, draws: Floats | None = None) -> Floats:
        """Sums over the files at each different threshold [K', ...]: of some statistics, or of their weighted sum.

        Args:
            columns: which statistics; or weights [S] of a sum [K'].
            draws: [N] how often each file counts; None: once.
        """
        chosen = self.changes[:, columns] if isinstance(columns, slice) else self.changes @ columns
        if draws is not None:
            chosen = chosen * (draws[self.files] if chosen.ndim == 1 else draws[self.files, None])
        return np.asarray(np.cumsum(chosen, axis=0)[self.last])


def class_curve(
    scores: Sequence[FrameScores], column: int, count: Count, thresholds: npt.ArrayLike | None = None
) -> Curve:
    """Counts of one class at the given thresholds or, if None, at all that tell frames apart (see MOST_PER_FILE)."""
    parts = []
    for n, file in enumerate(scores):
        values = file.values[:, column]
        own = np.unique(values if thresholds is None else np.asarray(thresholds, dtype=np.float64))[::-1]
        if thresholds is None:
            own = own[np.linspace(0, len(own) - 1, min(len(own), MOST_PER_FILE)).round().astype(np.intp)]
            # "Above" what lies just below a score holds the score itself.
            own = np.nextafter(own, -np.inf)
        rows = max(1, _CELLS // len(values))
        counted = []
        for start in range(0, len(own), rows):
            limits = own[start : start + rows]
            runs = active_runs(values > limits[:, None])
            counted.append(count(n, runs.spans(file.edges), runs.row, len(limits)))
        changes = np.diff(np.concatenate(counted), axis=0, prepend=count(n, np.zeros((0, 2)), np.zeros(0, np.intp), 1))
        moved = changes.any(1)
        parts.append((own[moved], np.full(int(moved.sum()), n), changes[moved]))
    limits, files, changes = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-limits, kind="stable")
    limits = limits[order]
    last = np.flatnonzero(np.append(limits[1:] != limits[:-1], True)) if len(limits) else np.zeros(0, np.intp)
    return Curve(limits, files[order], changes[order], last)


def best_collar_f1(
    truth: Files,
    scores: Sequence[FrameScores],
    classes: Sequence[str],
    collars: Collars = COLLARS,
    thresholds: npt.ArrayLike | None = None,
) -> tuple[EventCounts, Floats]:
    """The highest event-based F1 that each class can reach by its own threshold, and those thresholds [C].

    Of several best thresholds it is the highest interval of them, and its middle. A class that nothing finds has an
    infinite threshold. Choose on validation data; on test data it is an upper bound, not a result.

    Args:
        thresholds: those to choose from; None: all there are.

    Returns:
        Counts of all files together ([1, C]) at the best thresholds, without substitutions, and the thresholds.

    Raises:
        DataError: as in `collar_counts`.
    """
    reference = event_table(truth, classes, "truth").sum(0)
    best, limits = np.zeros((2, len(classes))), np.full(len(classes), np.inf)
    for c, name in enumerate(classes):
        targets = [spans_of([event for event in events if event.label == name]) for events in truth]

        def count(
            n: int, spans: Floats, row: npt.NDArray[np.intp], rows: int, targets: list[Floats] = targets
        ) -> Floats:
            return _collar_hits(spans, row, rows, targets[n], collars)

        curve = class_curve(scores, c, count, thresholds)
        totals = curve.totals(slice(None))
        if not len(totals):
            continue
        f1 = 2 * totals[:, 0] / (totals.sum(1) + reference[c])
        at = int(f1.argmax())
        if f1[at] > 0:
            levels = curve.thresholds[curve.last]
            best[:, c] = totals[at]
            limits[c] = levels[at : at + 2].mean() if at + 1 < len(levels) else -np.inf
    return EventCounts(tuple(classes), best[:1], best[1:], reference[None]), limits


def _collar_hits(spans: Floats, row: npt.NDArray[np.intp], rows: int, target: Floats, collars: Collars) -> Floats:
    """Hits and false alarms [K, 2] of detections of one class in one file."""
    near = collars.near(spans, target)
    hits = np.zeros(rows)
    ambiguous = np.unique(row[near.sum(1) > 1])
    if len(target):
        claims = np.zeros((rows, len(target)), dtype=np.intp)
        np.add.at(claims, row, near)
        ambiguous = np.union1d(ambiguous, np.flatnonzero((claims > 1).any(1)))
        hits = (claims > 0).sum(1).astype(np.float64)
    for k in ambiguous:
        hits[k] = (maximum_matching(near[row == k]) >= 0).sum()
    return np.stack([hits, np.bincount(row, minlength=rows) - hits], axis=1)
