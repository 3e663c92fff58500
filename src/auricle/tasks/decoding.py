"""From the probabilities of frames to events: while they come in, and by which thresholds and filters.

n frames of a stretch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from auricle.metrics import Collars, Detection, FrameScores, TimedEvent, best_collar_f1, median_filter
from auricle.metrics.frames import active_runs

Floats = NDArray[np.float64]
# Lengths of median filters to choose from, in seconds, and thresholds. Of equally good filters it is the first: a
# little smoothing is the safer guess.
FILTERS = (0.1, 0.2, 0.3, 0.0, 0.5, 0.7, 1.0)
THRESHOLDS = np.arange(1, 100) / 100
# A class with fewer has no threshold of its own.
ENOUGH_EVENTS = 5
ANY = "any class"


class EventDecoder:
    """Median-filters and thresholds stretches of frames as they come, and gives each event once it is over.

    What comes out for a whole sound is what `detect_events` finds in its filtered scores, in order of their ends.

    Args:
        thresholds, filters: for each class, as `detect_events` and `median_filter` take them.
    """

    def __init__(self, classes: Sequence[str], thresholds: Sequence[float], filters: Sequence[int]) -> None:
        self.classes, self.limits, self.filters = tuple(classes), np.asarray(thresholds, np.float64), list(filters)
        self.before, self.behind = max(filters) // 2, (max(filters) - 1) // 2
        # Frames that are still needed: `done` of them have been decided, and serve as a past for the next ones.
        self.held, self.edges, self.done = np.zeros((0, len(classes))), np.zeros(1), 0
        # Of each class the event that is going on: its onset, the sum of its scores and its frames.
        self.open: list[tuple[float, float, int] | None] = [None] * len(classes)

    def add(self, values: Floats, edges: Floats) -> Iterator[Detection]:
        """Take the next stretch: values [n, C], edges [n + 1], which begin where the last ones ended."""
        fresh = edges if not len(self.held) else edges[1:]
        self.edges = np.concatenate([self.edges[:0] if not len(self.held) else self.edges, fresh])
        self.held = np.concatenate([self.held, values])
        ready = len(self.held) - self.behind
        if ready > self.done:
            yield from self._decide(ready)
            drop = max(0, self.done - self.before)
            self.held, self.edges, self.done = self.held[drop:], self.edges[drop:], self.done - drop

    def finish(self) -> Iterator[Detection]:
        """The rest, now that nothing follows."""
        if len(self.held) > self.done:
            yield from self._decide(len(self.held))
        for c in range(len(self.classes)):
            yield from self._close(c, float(self.edges[-1]))

    def _decide(self, ready: int) -> Iterator[Detection]:
        """Filter what is held and go on from frame `done` to `ready`."""
        values = median_filter(self.held, self.filters)[self.done : ready]
        edges, self.done = self.edges[self.done : ready + 1], ready
        runs = active_runs((values > self.limits).T)
        for c in np.flatnonzero([event is not None for event in self.open]):
            if not values[0, c] > self.limits[c]:
                yield from self._close(int(c), float(edges[0]))
        for c, first, end in zip(*(x.tolist() for x in runs), strict=True):
            onset, total, frames = self.open[c] or (float(edges[first]), 0.0, 0)
            self.open[c] = (onset, total + float(values[first:end, c].sum()), frames + end - first)
            if end < len(values):
                yield from self._close(c, float(edges[end]))

    def _close(self, c: int, offset: float) -> Iterator[Detection]:
        event = self.open[c]
        if event is not None:
            onset, total, frames = event
            yield Detection(onset, offset, self.classes[c], total / frames)
        self.open[c] = None


def choose_decoding(
    truth: Sequence[Sequence[TimedEvent]],
    scores: Sequence[FrameScores],
    classes: Sequence[str],
    filters: Sequence[int],
    collars: Collars,
) -> tuple[list[float | None], list[int]]:
    """For each class the threshold and the filter, one of `filters`, with the highest event-based F1 on these clips.

    Classes of fewer than `ENOUGH_EVENTS` share the pair that is best for all classes together: a handful of events
    would be fitted by chance. Of equally good filters it is the first. The threshold is None where nothing is ever
    found: nothing speaks for one.
    """
    best, shared_best = np.zeros(len(classes)), 0.0
    own: list[tuple[float | None, int]] = [(None, filters[0])] * len(classes)
    shared: tuple[float | None, int] = (None, filters[0])
    counted = np.array([sum(event.label == name for events in truth for event in events) for name in classes])
    for length in filters:
        filtered = [clip.filtered(length) for clip in scores]
        counts, limits = best_collar_f1(truth, filtered, classes, collars, THRESHOLDS)
        for c, f1 in enumerate(counts.class_f1()):
            if f1 > best[c]:
                best[c], own[c] = f1, (float(np.clip(limits[c], 0.0, 1.0)), length)
        # Every class of every clip as a clip of its own, with one class.
        pooled = [FrameScores(clip.values[:, [c]], clip.edges) for clip in filtered for c in range(len(classes))]
        events = [
            [Detection(e.onset, e.offset, ANY, 1.0) for e in clip if e.label == name]
            for clip in truth
            for name in classes
        ]
        counts, limits = best_collar_f1(events, pooled, (ANY,), collars, THRESHOLDS)
        if counts.class_f1()[0] > shared_best:
            shared_best, shared = counts.class_f1()[0], (float(np.clip(limits[0], 0.0, 1.0)), length)
    pairs = [pair if count >= ENOUGH_EVENTS else shared for pair, count in zip(own, counted, strict=True)]
    return [threshold for threshold, _ in pairs], [length for _, length in pairs]
