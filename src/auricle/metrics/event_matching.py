"""Three ways to say whether an event was found: collars around its ends, segments of a second, shares of its length.

Collars and segments: Mesaros, Heittola, Virtanen, "Metrics for polyphonic sound event detection", 2016. Intersections:
Bilen et al., "A framework for the robust evaluation of sound event detection", ICASSP 2020. Times are compared to a
microsecond, so that 0.1 + 0.2 s ends where 0.3 s does.

N files, C classes, M detections, G events of the truth, K rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from auricle.errors import ConfigError, DataError
from auricle.metrics._checks import Floats
from auricle.metrics.event_counts import EventCounts
from auricle.metrics.frames import TimedEvent

Bools = npt.NDArray[np.bool_]
Files = Sequence[Sequence[TimedEvent]]
DECIMALS = 6


class Collars(NamedTuple):
    """How far off the ends of a detection may be: the onset by seconds, the offset by seconds or by a share of the
    length of the event, whichever is more."""

    onset: float = 0.2
    offset: float = 0.2
    offset_share: float = 0.2

    def near(self, spans: Floats, target: Floats) -> Bools:
        """[M, G]: which detections [M, 2] are near which events [G, 2].

        Raises:
            ConfigError: a negative collar.
        """
        if min(self) < 0:
            raise ConfigError(f"a collar must be 0 or more, got {min(self)}.")
        allowed = np.maximum(self.offset, self.offset_share * (target[:, 1] - target[:, 0]))
        start, end = (np.abs(spans[:, None, side] - target[:, side]) for side in (0, 1))
        return (np.round(start - self.onset, DECIMALS) <= 0) & (np.round(end - allowed, DECIMALS) <= 0)


COLLARS = Collars()


def collar_counts(truth: Files, detected: Files, classes: Sequence[str], *, collars: Collars = COLLARS) -> EventCounts:
    """Event-based counts: a detection is right if its onset and its offset are near those of an event of its class.

    As many detections and events as possible are paired, each once. A missed and a wrong event within the collars are a
    substitution.

    Raises:
        DataError: lists of different length, a label that is no class, or an event that does not end after its onset.
        ConfigError: a negative collar.
    """
    hits, false_alarms, reference = _tables(truth, detected, classes)
    substitutions = np.zeros(len(truth))
    for n, (events, found) in enumerate(zip(truth, detected, strict=True)):
        near = collars.near(spans_of(found), spans_of(events))
        true, heard = (np.array([classes.index(x.label) for x in part], np.intp) for part in (events, found))
        partner = maximum_matching(near & (heard[:, None] == true))
        open_detections = partner < 0
        hits[n] = np.bincount(heard[~open_detections], minlength=len(classes))
        false_alarms[n] = np.bincount(heard[open_detections], minlength=len(classes))
        for e in np.setdiff1d(np.arange(len(events)), partner):
            taken = np.flatnonzero(near[:, e] & open_detections)
            if len(taken):
                open_detections[taken[0]] = False
                substitutions[n] += 1
    return EventCounts(tuple(classes), hits, false_alarms, reference, substitutions)


def segment_counts(truth: Files, detected: Files, classes: Sequence[str], *, seconds: float = 1.0) -> EventCounts:
    """Segment-based counts: a class is there in every segment that one of its events touches.

    A segment's misses and false alarms of different classes pair up as substitutions.

    Raises:
        DataError: as in `collar_counts`.
        ConfigError: segments without length.
    """
    if not seconds > 0:
        raise ConfigError(f"segments must be longer than 0 s, got {seconds}.")
    hits, false_alarms, reference = _tables(truth, detected, classes)
    reference[:] = 0
    substitutions = np.zeros(len(truth))
    for n, pair in enumerate(zip(truth, detected, strict=True)):
        ends = [event.offset for events in pair for event in events]
        there, found = (_segments(events, classes, seconds, max(ends, default=0.0)) for events in pair)
        hits[n], false_alarms[n] = (there & found).sum(0), (found & ~there).sum(0)
        reference[n] = there.sum(0)
        substitutions[n] = np.minimum((there & ~found).sum(1), (found & ~there).sum(1)).sum()
    return EventCounts(tuple(classes), hits, false_alarms, reference, substitutions)


def intersection_counts(
    truth: Files, detected: Files, classes: Sequence[str], *, dtc: float = 0.5, gtc: float = 0.5
) -> EventCounts:
    """Intersection-based counts; see `intersections`.

    Raises:
        DataError: as in `collar_counts`.
        ConfigError: a criterion that is not a share.
    """
    criteria = Criteria(dtc, gtc)
    hits, false_alarms, reference = _tables(truth, detected, classes)
    for n, (events, found) in enumerate(zip(truth, detected, strict=True)):
        for c, name in enumerate(classes):
            spans = spans_of([d for d in found if d.label == name])
            rows = np.zeros(len(spans), dtype=np.intp)
            counts = intersections(spans, rows, 1, spans_of([e for e in events if e.label == name]), (), criteria)
            hits[n, c], false_alarms[n, c] = counts[0]
    return EventCounts(tuple(classes), hits, false_alarms, reference)


class Criteria(NamedTuple):
    """Which shares of a length count: detection tolerance, ground-truth intersection, cross-trigger tolerance."""

    dtc: float
    gtc: float
    cttc: float | None = None


def intersections(
    spans: Floats,
    row: npt.NDArray[np.intp],
    rows: int,
    target: Floats,
    others: Sequence[Floats],
    criteria: Criteria,
) -> Floats:
    """Hits, false alarms and, for each of `others`, cross triggers: [K, 2 + others], a row per operating point.

    A detection passes if the truth of its class covers at least the share `dtc` of it; the others are false alarms. An
    event is a hit if passing detections cover at least the share `gtc` of it. A false alarm that another class covers
    to the share `cttc` is a cross trigger too.

    Args:
        spans: [M, 2] detections of one class in one file, in seconds.
        row: [M] the operating point of each, below `rows` = K.
        target: [G, 2] events of the class; others: those of the other classes, empty where `cttc` is None.

    Raises:
        ConfigError: a criterion that is not a share.
    """
    for name, share in criteria._asdict().items():
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"{name} must be a share above 0 and at most 1, got {share}.")
    lengths = spans[:, 1] - spans[:, 0]
    overlap = _overlaps(spans, target)
    passes = np.round(overlap.sum(1), DECIMALS) >= np.round(criteria.dtc * lengths, DECIMALS)
    counts = np.zeros((rows, 2 + len(others)))
    covered = np.zeros((rows, len(target)))
    np.add.at(covered, row[passes], overlap[passes])
    needed = np.round(criteria.gtc * (target[:, 1] - target[:, 0]), DECIMALS)
    counts[:, 0] = (np.round(covered, DECIMALS) >= needed).sum(1)
    counts[:, 1] = np.bincount(row[~passes], minlength=rows)
    for column, other in enumerate(others, start=2):
        if len(other) and criteria.cttc is not None:
            share = np.round(_overlaps(spans[~passes], other).sum(1), DECIMALS)
            crossed = share >= np.round(criteria.cttc * lengths[~passes], DECIMALS)
            counts[:, column] = np.bincount(row[~passes][crossed], minlength=rows)
    return counts


def maximum_matching(allowed: Bools) -> npt.NDArray[np.intp]:
    """For each row of `allowed` [M, G] the column it is paired with, or -1: as many pairs as possible.

    Hopcroft and Karp's algorithm, without recursion: where events are dense, thousands of pairs move on together.
    """
    return np.asarray(maximum_bipartite_matching(csr_array(allowed), perm_type="column"), np.intp)  # type: ignore[no-untyped-call]


def spans_of(events: Sequence[TimedEvent]) -> Floats:
    """Onset and offset [G, 2] of events."""
    return np.array([(event.onset, event.offset) for event in events], dtype=np.float64).reshape(-1, 2)


def event_table(files: Files, classes: Sequence[str], what: str) -> Floats:
    """How many events of each class [N, C] the files hold.

    Raises:
        DataError: a label that is no class, or an event that does not end after its onset.
    """
    number = {name: column for column, name in enumerate(classes)}
    counts = np.zeros((len(files), len(number)))
    for n, events in enumerate(files):
        for event in events:
            if event.label not in number:
                raise DataError(f"{what}: '{event.label}' in file {n} is none of the {len(number)} classes; add it.")
            if not event.onset < event.offset:
                raise DataError(
                    f"{what}: an event of '{event.label}' in file {n} lasts from {event.onset} to {event.offset} s; "
                    "it must end after its onset."
                )
            counts[n, number[event.label]] += 1
    return counts


def _tables(truth: Files, detected: Files, classes: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Zeros for hits and false alarms [N, C], and the number of events [N, C]."""
    if len(truth) != len(detected) or not truth:
        raise DataError(f"events: expected as many files of truth as of detections, got {len(truth)}, {len(detected)}.")
    reference = event_table(truth, classes, "truth")
    event_table(detected, classes, "detections")
    return np.zeros_like(reference), np.zeros_like(reference), reference


def _overlaps(spans: Floats, target: Floats) -> Floats:
    """Seconds [M, G] that spans [M, 2] share with events [G, 2]."""
    ends = np.minimum(spans[:, None, 1], target[None, :, 1])
    return np.maximum(ends - np.maximum(spans[:, None, 0], target[None, :, 0]), 0.0)


def _segments(events: Sequence[TimedEvent], classes: Sequence[str], seconds: float, end: float) -> Bools:
    """[segments, C]: which classes each segment up to `end` holds."""
    there = np.zeros((int(np.ceil(np.round(end / seconds, DECIMALS))), len(classes)), dtype=bool)
    for event in events:
        first = int(np.floor(np.round(event.onset / seconds, DECIMALS)))
        there[first : int(np.ceil(np.round(event.offset / seconds, DECIMALS))), classes.index(event.label)] = True
    return there
