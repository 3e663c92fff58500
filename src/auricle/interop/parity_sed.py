"""The families of `auricle parity` about sound event detection: scores of frames in, events and metrics out.

See `parity_metrics` for what a family is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auricle.data.items import Event
from auricle.data.targets import frame_targets
from auricle.errors import DataError
from auricle.interop.parity_metrics import Family, Outcome
from auricle.metrics import (
    PSDS,
    PSDS1,
    PSDS2,
    EventCounts,
    FrameScores,
    Scenario,
    best_collar_f1,
    collar_counts,
    detect_events,
    intersection_counts,
    segment_counts,
)

# Where a case does not name its thresholds.
THRESHOLDS = ("0.3", "0.5", "0.7")
_SCENARIOS = {"psds1": PSDS1, "psds2": PSDS2}


def detection(case_dir: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outcome:
    """`input.json`: classes, seconds per frame, durations, ground truth and scores by clip.

    The thresholds are those that the names in expected.json ask for.

    Raises:
        DataError: input.json is missing or holds something else.
    """
    try:
        given = json.loads((case_dir / "input.json").read_text(encoding="utf-8"))
        classes, ids = given["classes"], list(given["durations"])
        truth = [[Event(*event) for event in given["ground_truth"][name]] for name in ids]
        scores = [_frames(given["scores"][name], given["hop_s"]) for name in ids]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{case_dir}: this family needs a readable input.json ({error}).") from None
    found: dict[str, Any] = {}
    for name, scenario in _SCENARIOS.items():
        score = PSDS(truth, scores, list(given["durations"].values()), classes, scenario).score()
        found |= {name: _number(score.value), f"{name}_single_class": _by_class(classes, score.per_class)}
    for text in _thresholds(case_dir):
        detected = [detect_events(clip, classes, float(text)) for clip in scores]
        found |= _at_threshold(f"th{text}", *(kind(truth, detected, classes) for kind in _COUNTS))
    best, thresholds = best_collar_f1(truth, scores, classes)
    values = _f1(best)
    limits = [*thresholds.tolist(), None, None]
    found["collar_best_f1"] = {
        name: {"f1": value, "threshold": limit} for (name, value), limit in zip(values.items(), limits, strict=True)
    }
    return {}, found


def frame_events(case_dir: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outcome:
    """`prob` [N, C, T] and `thresholds` [K], with the events and how frames are timed in meta.json, as ATST decodes.

    Raises:
        DataError: an input is missing.
    """
    if missing := {"prob", "thresholds"} - inputs.keys():
        raise DataError(f"{case_dir}: this family needs prob and thresholds, and has no {', '.join(sorted(missing))}.")
    args, classes = meta["arguments"], meta["arguments"]["classes"]
    files = [name for name, _ in meta["durations"]]
    truth = [[Event(*event[1:]) for event in meta["ground_truth"] if event[0] == name] for name in files]
    step, pooling, rate = args["frame_hop"], args["net_pooling"], args["fs"]
    frames = inputs["prob"].shape[2]
    edges = np.minimum(np.arange(frames + 1) * pooling * step / rate, args["audio_len"])
    probabilities = inputs["prob"].double().numpy().transpose(0, 2, 1)
    scores = [FrameScores(p, edges).filtered(args["median_filter"]) for p in probabilities]
    detected = [detect_events(clip, classes, 0.5) for clip in scores]
    durations = [seconds for _, seconds in meta["durations"]]

    def psds(scenario: Scenario, **changes: float) -> float:
        changed = Scenario(**{**vars(scenario), **changes})
        return PSDS(truth, scores, durations, classes, changed, inputs["thresholds"].numpy()).score().value

    results = {
        "psds1_desed(dtc=.7,gtc=.7,alpha_ct=0,alpha_st=1)": psds(PSDS1),
        "psds2_desed(dtc=.1,gtc=.1,cttc=.3,alpha_ct=.5,alpha_st=1)": psds(PSDS2),
        "psds1_as_strong(alpha_st=0)": psds(PSDS1, spread_weight=0.0),
        "psds2_as_strong(alpha_st=0)": psds(PSDS2, spread_weight=0.0),
        "intersection_f1_macro@0.5": intersection_counts(truth, detected, classes).macro_f1(),
    }
    # In frames, not seconds, and in the official order of operations: 8.04 s begin in frame 200, not 201.
    in_frames = [
        [Event(e.onset * rate / step / pooling, e.offset * rate / step / pooling, e.label) for e in events]
        for events in truth
    ]
    tensors = {
        "labels": np.stack([frame_targets(events, classes, np.arange(frames + 1.0)).T for events in in_frames]),
        "gpu_median_0.5": np.stack([(clip.values > 0.5).T for clip in scores]).astype(np.float32),
        "results": np.array(list(results.values())),
    }
    events = [
        [name, event.label, event.onset, event.offset]
        for name, found in zip(files, detected, strict=True)
        for event in found
    ]
    return {name: torch.from_numpy(x) for name, x in tensors.items()}, {"results": results, "events_at_0.5": events}


FAMILIES: dict[str, Family] = {"metrics/sed": detection, "atst/sed_metrics": frame_events}

_COUNTS: tuple[Callable[..., EventCounts], ...] = (collar_counts, segment_counts, intersection_counts)


def _at_threshold(name: str, collar: EventCounts, segment: EventCounts, crossed: EventCounts) -> dict[str, Any]:
    pooled = collar.pooled()
    # As sed_scores_eval counts a class of which there is nothing.
    precision, recall = collar.class_precision(empty=1.0), collar.class_recall(empty=1.0)
    return {
        f"collar_f1_{name}": {
            "f1": _f1(collar),
            "precision": _averaged(collar.classes, precision, pooled.class_precision(empty=0.0)),
            "recall": _averaged(collar.classes, recall, pooled.class_recall(empty=0.0)),
            "tps": dict(zip(collar.classes, collar.hits.sum(0).astype(int).tolist(), strict=True)),
        },
        f"segment_f1_{name}": _f1(segment),
        f"intersection_f1_{name}": _f1(crossed),
        f"sed_eval_{name}": {
            f"{kind}_{key}": _number(value)
            for kind, counts in (("event", collar), ("segment", segment))
            for key, value in (
                ("micro_f", counts.micro_f1()),
                ("micro_er", counts.error_rate()),
                ("macro_f", counts.macro_f1(only_found=True)),
            )
        },
    }


def _f1(counts: EventCounts) -> dict[str, Any]:
    return _averaged(counts.classes, counts.class_f1(empty=1.0), counts.pooled().class_f1(empty=0.0))


def _averaged(classes: Sequence[str], values: Any, micro: Any) -> dict[str, Any]:
    averages = {"macro_average": _number(np.mean(values)), "micro_average": _number(micro[0])}
    return _by_class(classes, values) | averages


def _by_class(classes: Sequence[str], values: Any) -> dict[str, Any]:
    return {name: _number(value) for name, value in zip(classes, values, strict=True)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _frames(values: Sequence[Sequence[float]], hop: float) -> FrameScores:
    return FrameScores(np.array(values, dtype=np.float64), hop * np.arange(len(values) + 1.0))


def _thresholds(case_dir: Path) -> list[str]:
    """The thresholds in the names of what is asked for; no value is looked at."""
    path = case_dir / "expected.json"
    asked: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    prefix = "collar_f1_th"
    return [name.removeprefix(prefix) for name in asked if name.startswith(prefix)] or list(THRESHOLDS)
