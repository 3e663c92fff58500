"""Evaluate a detector on strongly labelled clips: is each event found, at the right time, at how many false alarms?

N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from auricle.command import current_command
from auricle.data.items import Event, Item, Manifest
from auricle.data.labels import Labels, read_labels
from auricle.errors import ConfigError, DataError, plural
from auricle.evaluation.classify import RESAMPLES
from auricle.evaluation.parts import choose_part
from auricle.evaluation.probe import describe
from auricle.evaluation.results import Exhibits, Quantity, Result, quantity
from auricle.inference.model import Model, load
from auricle.metrics import (
    PSDS,
    PSDS1,
    PSDS2,
    Collars,
    Detection,
    EventCounts,
    FrameScores,
    collar_counts,
    intersection_counts,
    segment_counts,
)
from auricle.tasks.detection import OFFSET_SHARE

# Of so many clips the result keeps the probabilities, for pictures; and at most so many of their frames.
SHOWN_CLIPS = 3
SHOWN_FRAMES = 600
# A class with events in fewer clips is missed by many resamples of them, which then leave it out.
FEW_CLIPS = 5


@dataclass(frozen=True)
class DetectionOutcome:
    """What one or more detectors say about strongly labelled clips.

    Attributes:
        ids, truth, detected, scores: of each clip; the scores are filtered, with a column for each of `classes`.
        collars: what counts as the right time.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    truth: tuple[tuple[Event, ...], ...]
    detected: tuple[tuple[Detection, ...], ...]
    scores: tuple[FrameScores, ...]
    collars: Collars

    @property
    def durations(self) -> list[float]:
        """Seconds of each clip."""
        return [float(clip.edges[-1]) for clip in self.scores]

    def counts(self) -> tuple[EventCounts, EventCounts, EventCounts]:
        """By collars, by segments of a second, and by intersections."""
        return (
            collar_counts(self.truth, self.detected, self.classes, collars=self.collars),
            segment_counts(self.truth, self.detected, self.classes),
            intersection_counts(self.truth, self.detected, self.classes),
        )

    def metrics(self) -> tuple[dict[str, Quantity], int]:
        """All scores with their intervals over clips, and how many resamples the fewest of them have."""
        found: dict[str, Quantity] = {}
        resamples = RESAMPLES
        for kind, counts in zip(("event", "segment", "intersection"), self.counts(), strict=True):
            for name, interval in counts.intervals(n=RESAMPLES).items():
                if kind != "intersection" or name == "macro_f1":
                    found[f"{kind}_{name.removeprefix('macro_')}"] = quantity(*interval)
        for name, scenario in (("psds1", PSDS1), ("psds2", PSDS2)):
            psds = PSDS(self.truth, self.scores, self.durations, self.classes, scenario)
            interval, drawn = psds.interval(n=RESAMPLES)
            found[name], resamples = quantity(*interval), min(resamples, drawn)
        return found, resamples

    def notes(self) -> list[str]:
        """What a reader of the intervals should know."""
        clips = np.array([sum(any(e.label == name for e in clip) for clip in self.truth) for name in self.classes])
        few = int(((clips > 0) & (clips < FEW_CLIPS)).sum())
        if not few:
            return []
        return [
            f"the intervals of PSDS lean upwards, with events in fewer than {FEW_CLIPS} clips in {few} of "
            f"{plural(len(self.classes), 'class')}"
        ]

    def per_class(self, thresholds: Sequence[float], filters: Sequence[float]) -> list[dict[str, Any]]:
        """A row for each class; None where a score is undefined.

        Args:
            thresholds, filters: of the classes that the detector knows, the filters in seconds; of several detectors,
                nothing.
        """
        event, segment, _ = self.counts()
        psds = [
            PSDS(self.truth, self.scores, self.durations, self.classes, scenario).score().per_class
            for scenario in (PSDS1, PSDS2)
        ]
        columns = {
            "event_f1": event.class_f1(),
            "precision": event.class_precision(),
            "recall": event.class_recall(),
            "segment_f1": segment.class_f1(),
            "psds1": psds[0],
            "psds2": psds[1],
        }
        rows: list[dict[str, Any]] = []
        for c, name in enumerate(self.classes):
            row: dict[str, Any] = {"label": name, "events": int(event.truth[:, c].sum())}
            row |= {key: quantity(float(values[c]))["value"] for key, values in columns.items()}
            if c < len(thresholds):
                row |= {"threshold": float(thresholds[c]), "filter": float(filters[c])}
            rows.append(row)
        return rows

    def items(self) -> list[dict[str, Any]]:
        """A row for each clip: its events and detections; of the few with most events the probabilities as well."""
        shown = set(sorted(range(len(self.ids)), key=lambda n: -len(self.truth[n]))[:SHOWN_CLIPS])
        rows = []
        for n, name in enumerate(self.ids):
            row: dict[str, Any] = {
                "id": name,
                "duration": self.durations[n],
                "events": [[e.onset, e.offset, e.label] for e in self.truth[n]],
                "detections": [list(d) for d in sorted(self.detected[n])],
            }
            if n in shown:
                clip = self.scores[n]
                values, edges = clip.values[:SHOWN_FRAMES], clip.edges[: SHOWN_FRAMES + 1]
                row |= {
                    "edges": np.round(edges, 4).tolist(),
                    "probabilities": np.round(values, 3).tolist(),
                }
            rows.append(row)
        return rows


@dataclass(frozen=True)
class _Clip:
    """What one detector, which knows `classes`, says about one clip."""

    classes: tuple[str, ...]
    scores: FrameScores
    events: tuple[Detection, ...]

    def scores_of(self, classes: Sequence[str]) -> FrameScores:
        """With a column for each of `classes`; 0 for those that the detector does not know."""
        values = np.zeros((len(self.scores.values), len(classes)))
        values[:, [classes.index(name) for name in self.classes]] = self.scores.values
        return FrameScores(values, self.scores.edges)


def evaluate_detection(
    runs: Sequence[Path],
    source: str,
    manifest: Manifest,
    *,
    split: str = "test",
    label: str = "",
    split_column: str | None = None,
    group_column: str | None = None,
    collar: float | None = None,
) -> Result:
    """Detect events in one part of the data, and compare; `runs` is one, or those of a cross-validation.

    Only strongly labelled clips are scored. Each fold's network decides by its own thresholds. An event of a class that
    the network does not know is a miss.

    Args:
        source: what the result calls its model.
        collar: seconds by which an event may be off; None: as the run was trained for.

    Raises:
        ConfigError: another part of a cross-validation than the folds it left out, or folds that overlap.
        DataError: the part holds no strongly labelled clip, or no class that the network knows.
    """
    if len(runs) > 1 and split != "test":
        raise ConfigError(
            f"{source} is a cross-validation and tests the folds that were left out, not --split {split}."
        )
    models = [load(run) for run in runs]
    first, alone = models[0], len(models) == 1
    labels = read_labels(manifest, label or first.config.get("label", "label"), "detection")
    heard: dict[int, _Clip] = {}
    notes = [note.rstrip(".") for note in labels.notes]
    for model in models:
        part = choose_part(manifest, split, model, split_column, group_column)
        strong = labels.strong(part.indices)
        if repeated := heard.keys() & set(strong):
            raise ConfigError(
                f"{source} was made with other folds than this data has ({manifest[min(repeated)].id} is in two of "
                "them); give the data it was made with."
            )
        if untimed := len(part.indices) - len(strong):
            notes.append(f"{plural(untimed, 'clip')} of the part '{split}' are not scored: their events are not timed")
        heard |= zip(strong, _detect(model, [manifest[i] for i in strong]), strict=True)
        notes += part.notes
    if not heard:
        raise DataError(f"the part '{split}' of {manifest.source} holds no clip with timed events; choose another.")
    how = part.how if alone else f"each of {len(models)} folds, by the run that left it out"
    protocol = {"split": split, "notes": list(dict.fromkeys(notes)), "chosen_by": how}
    return _result(models, source, manifest, labels, heard, collar, protocol)


def evaluate_detector(
    model: Model, manifest: Manifest, labels: Labels, indices: Sequence[int], protocol: Mapping[str, Any]
) -> Result:
    """The result of one detector on those of the items `indices` that are strongly labelled.

    Raises:
        DataError: there are none, or no class that the network knows.
    """
    strong = labels.strong(indices)
    if not strong:
        raise DataError(f"of the clips of {manifest.source}, none of this part has timed events.")
    heard = dict(zip(strong, _detect(model, [manifest[i] for i in strong]), strict=True))
    return _result([model], model.source, manifest, labels, heard, None, protocol)


def _result(
    models: Sequence[Model],
    source: str,
    manifest: Manifest,
    labels: Labels,
    heard: Mapping[int, _Clip],
    collar: float | None,
    protocol: Mapping[str, Any],
) -> Result:
    """The result of what was heard in the items."""
    first = models[0]
    outcome = _outcome(manifest, labels, heard, first, collar)
    known = {name for model in models for name in model.classes}
    unknown = sorted({event.label for events in outcome.truth for event in events} - known)
    if unknown and not known & set(labels.classes(sorted(heard))):
        raise DataError(
            f"none of the events ({', '.join(unknown[:5])}) is of a class that the model knows "
            f"({', '.join(sorted(known)[:5])} ...)."
        )
    metrics, resamples = outcome.metrics()
    detector = first.detector if len(models) == 1 else None
    return Result(
        task="detection",
        metrics=metrics,
        command=current_command(),
        model={**describe(first), "source": source},
        data={"hash": manifest.hash, "source": manifest.source, "items": len(manifest)},
        seed=first.config.get("split", {}).get("seed", 0),
        protocol={
            **protocol,
            "notes": [*protocol["notes"], *outcome.notes()],
            "label": labels.column,
            "tested": len(outcome.ids),
            "events": sum(map(len, outcome.truth)),
            "classes": len(outcome.classes),
            "unknown_labels": unknown,
            "collar": outcome.collars.onset,
            "interval": f"95 % percentile bootstrap over test clips, {resamples} resamples",
        },
        per_class=outcome.per_class(
            detector.thresholds.tolist() if detector else (),
            (detector.filters / detector.frame_rate).tolist() if detector else (),
        ),
        items=outcome.items(),
        exhibits=Exhibits([manifest[i] for i in sorted(heard)], None),
    )


def _detect(model: Model, items: Sequence[Item]) -> list[_Clip]:
    scores = model.score_items(items)
    detector = model.detector
    assert detector is not None
    decided = map(detector.decide, scores)
    return [_Clip(model.classes, filtered, tuple(events)) for filtered, events in decided]


def _outcome(
    manifest: Manifest, labels: Labels, heard: Mapping[int, _Clip], first: Model, collar: float | None
) -> DetectionOutcome:
    indices = sorted(heard)
    others = {name for i in indices for name in (*labels.sets[i], *heard[i].classes)} - set(first.classes)
    classes = (*first.classes, *sorted(others))
    seconds = first.config.get("collar", 0.2) if collar is None else collar
    return DetectionOutcome(
        ids=tuple(manifest[i].id for i in indices),
        classes=classes,
        truth=tuple(labels.events[i] or () for i in indices),
        detected=tuple(heard[i].events for i in indices),
        scores=tuple(heard[i].scores_of(classes) for i in indices),
        collars=Collars(seconds, seconds, OFFSET_SHARE),
    )
