"""Scores of detected events, on all test clips and on resamples of them that are the same for every system.

N clips, t time steps of a clip, C classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from auricle.data.items import Event
from auricle.evaluation.detection import DetectionOutcome
from auricle.files import atomic_path
from auricle.metrics import PSDS, PSDS1, PSDS2, Collars, Detection, Difference, FrameScores, Interval
from auricle.metrics.ranked import RankedColumns

Array = NDArray[np.float64]
METRICS = ("event_f1", "segment_f1", "psds1", "psds2", "frame_map")
METRIC_NAMES = {
    "event_f1": "event F1",
    "segment_f1": "segment F1",
    "psds1": "PSDS1",
    "psds2": "PSDS2",
    "frame_map": "frame mAP",
}
RESAMPLES = 300
# Time steps of all networks are ranked on one grid.
GRID_SECONDS = 0.02


def save_outcome(path: Path, found: DetectionOutcome) -> None:
    """Keep what a detector said: all that scores follow from."""
    number = {name: c for c, name in enumerate(found.classes)}
    # Clip, class, onset, offset, and for a detection its score.
    detected = [(n, number[d.label], *d[:2], d.score) for n, own in enumerate(found.detected) for d in own]
    truth = [(n, number[e.label], e.onset, e.offset) for n, own in enumerate(found.truth) for e in own]
    with atomic_path(path) as partial:
        np.savez_compressed(
            partial,
            ids=np.array(found.ids),
            classes=np.array(found.classes),
            collars=np.array(found.collars),
            steps=np.array([len(clip.values) for clip in found.scores]),
            values=np.concatenate([clip.values for clip in found.scores]).astype(np.float32),
            edges=np.concatenate([clip.edges for clip in found.scores]),
            detected=np.array(detected),
            truth=np.array(truth),
        )


def load_outcome(path: Path) -> DetectionOutcome:
    """What `save_outcome` kept."""
    with np.load(path) as kept:
        classes = tuple(map(str, kept["classes"]))
        steps = np.cumsum(kept["steps"])[:-1]
        values = np.split(kept["values"], steps)
        edges = np.split(kept["edges"], steps + np.arange(1, len(steps) + 1))
        clips = range(len(values))
        detected, truth = kept["detected"].reshape(-1, 5), kept["truth"].reshape(-1, 4)
        return DetectionOutcome(
            ids=tuple(map(str, kept["ids"])),
            classes=classes,
            truth=tuple(tuple(Event(on, off, classes[int(c)]) for m, c, on, off in truth if m == n) for n in clips),
            detected=tuple(
                tuple(Detection(on, off, classes[int(c)], score) for m, c, on, off, score in detected if m == n)
                for n in clips
            ),
            scores=tuple(FrameScores(v, e) for v, e in zip(values, edges, strict=True)),
            collars=Collars(*kept["collars"]),
        )


def scores(found: DetectionOutcome) -> dict[str, Array]:
    """Each of `METRICS` [1 + R]: on all clips, then on resamples, the same clips for every outcome of as many clips."""
    event, segment, _ = found.counts()
    curves = {
        name: PSDS(found.truth, found.scores, found.durations, found.classes, scenario)
        for name, scenario in (("psds1", PSDS1), ("psds2", PSDS2))
    }
    ranked = ranked_steps(found)
    rows = [
        {
            "event_f1": event.macro_f1(counts),
            "segment_f1": segment.macro_f1(counts),
            "frame_map": float(np.nanmean(ranked.areas(counts)[0])),
            **{name: psds.score(counts).value for name, psds in curves.items()},
        }
        for counts in draws(len(found.ids))
    ]
    return {name: np.array([row[name] for row in rows]) for name in METRICS}


def draws(clips: int) -> Array:
    """How often each clip counts [1 + R, N]: once, then as resampled."""
    rng = np.random.default_rng(0)
    return np.stack([np.ones(clips), *(rng.multinomial(clips, np.full(clips, 1 / clips)) for _ in range(RESAMPLES))])


def ranked_steps(found: DetectionOutcome) -> RankedColumns:
    """Steps of 20 ms of all clips in the order of each class's scores; a step is what sounds in its middle."""
    values, present, clips = [], [], []
    for n, (events, clip) in enumerate(zip(found.truth, found.scores, strict=True)):
        middles = (np.arange(int(round(float(clip.edges[-1]) / GRID_SECONDS, 6))) + 0.5) * GRID_SECONDS
        rows = np.clip(np.searchsorted(clip.edges, middles, side="right") - 1, 0, len(clip.values) - 1)
        sounding = np.zeros((len(middles), len(found.classes)), dtype=bool)
        for e in events:
            sounding[(e.onset <= middles) & (middles < e.offset), found.classes.index(e.label)] = True
        values.append(clip.values[rows])
        present.append(sounding)
        clips.append(np.full(len(middles), n))
    return RankedColumns(np.concatenate(values).T, np.concatenate(present).T, np.concatenate(clips))


def mean_of(runs: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The mean score of several networks, on all clips and on each resample."""
    return {name: np.mean([run[name] for run in runs], axis=0) for name in METRICS}


def interval(values: Array) -> Interval:
    """A score [1 + R] with its 95 % interval."""
    return Interval(float(values[0]), *map(float, np.nanquantile(values[1:], [0.025, 0.975])))


def difference(ours: Array, theirs: Array) -> Difference:
    """The difference of two scores [1 + R] on the same clips."""
    apart = ours - theirs
    low, high = np.nanquantile(apart[1:], [0.025, 0.975])
    beyond = min(int((apart[1:] <= 0).sum()), int((apart[1:] >= 0).sum()))
    return Difference(float(apart[0]), float(low), float(high), min(1.0, 2 * (beyond + 1) / len(apart)))
