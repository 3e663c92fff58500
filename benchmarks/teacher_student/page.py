"""The page and the picture, docs/teacher_student.md, made from the records and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from benchmarks.ssast_real_data.page import HEAD_NAMES, percent, points, table
from benchmarks.ssast_real_data.stages import HEADS
from benchmarks.ssast_real_data.tables import Line, mean_accuracy, mean_gain, read
from benchmarks.teacher_student.events import METRIC_NAMES, METRICS, Array, difference, interval
from benchmarks.teacher_student.picture import READING_NAMES, picture
from benchmarks.teacher_student.stages import Study
from benchmarks.teacher_student.systems import COMBINED, CORPUS, METHODS, NAMES, REFERENCE, SETS, Events, Settings
from benchmarks.teacher_student.tables import EXPECTED, SYSTEMS, EventScores, System, clip_table
from benchmarks.teacher_student.text import CLIPS, EVENTS, INTRODUCTION, MANY_SCHEDULES, NOTES, ONE_SCHEDULE

from auricle.environment import environment
from auricle.evaluation.results import write_json, write_text
from auricle.evaluation.style import png
from auricle.methods import get_preset
from auricle.metrics import Difference, Interval
from auricle.training.precision import resolve_precision

POOLED = {"mean": "tokens", "own": "class token"}
READINGS = tuple(READING_NAMES)
Clips = dict[str, dict[System, list[Line]]]


def write_page(study: Study, folder: Path) -> Path | None:
    """Write `teacher_student.md` and its picture in `images/` below `folder`, results.json below `out`.

    None where not every method was probed and read yet.
    """
    budget = study.settings.budget
    clips = {head: clip_table(study.out, head, budget) for head in HEADS}
    found = EventScores(study.outcome_path, budget)
    frozen = (found.pretrained("frozen", method, events) for method in METHODS for events in SETS)
    if len(clips[HEADS[0]]) < len(SYSTEMS) or not all(frozen):
        return None
    write_json(study.out / "results.json", results(study, clips, found))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images/teacher_student.png").write_bytes(png(picture(clips, found, budget), dpi=160))
    parts = [
        INTRODUCTION.format(**facts(study)),
        verdict(clips, found, budget),
        "![Points above random weights, and event F1, of each method](images/teacher_student.png)\n",
        CLIPS,
        summary(clips, budget),
        *(part for head in HEADS for part in (f"By task, {HEAD_NAMES[head]}, tokens:\n", by_task(clips[head], budget))),
        *over_budget(study),
        EVENTS.format(tune_steps=study.settings.tune_steps),
        *(part for events in SETS for part in (f"### {events.folder}: {events.what}\n", scored(found, events))),
        "### Who is ahead\n",
        "Differences in points, paired over the same test clips.\n",
        *(comparisons(found, events) for events in SETS),
        NOTES,
    ]
    return write_text(folder / "teacher_student.md", "\n".join(parts))


def facts(study: Study) -> dict[str, Any]:
    """The numbers of the page's first paragraphs."""
    s, where = study.settings, environment()
    budgets = ", ".join(f"{m:g}" for m in s.minutes)
    hours = read(study.out / REFERENCE / "pretraining" / f"{s.budget}.json")["hours"]
    return {
        "command": command(study),
        "machine": f"one core of an {where['processor']} in {resolve_precision('auto', torch.device('cpu'))}",
        "minutes": f"{s.minutes[-1]:g}",
        "schedule": MANY_SCHEDULES.format(budgets=budgets) if len(s.minutes) > 1 else ONE_SCHEDULE,
        "reference_steps": s.reference_steps,
        "minute_seconds": f"{s.reference_steps * study.speeds()[REFERENCE]['cpu_seconds']:.0f}",
        "public_hours": f"{hours - s.generated_hours:.1f}",
        "generated_hours": f"{s.generated_hours:.1f}",
        "speeds": speeds(study),
    }


def command(study: Study) -> str:
    """The command that computes these figures: what differs from its defaults."""
    s, usual = study.settings, Settings()
    options = {
        "--minutes": (",".join(f"{m:g}" for m in s.minutes), ",".join(f"{m:g}" for m in usual.minutes)),
        "--generated-hours": (s.generated_hours, usual.generated_hours),
        "--tune-steps": (s.tune_steps, usual.tune_steps),
        "--seed": (s.seed, usual.seed),
    }
    given = [f"{name} {value}" for name, (value, default) in options.items() if value != default]
    return " ".join(["python -m benchmarks.teacher_student", *given, "--page"])


def speeds(study: Study) -> str:
    """What a step of each method costs, and how many there were."""
    rows = []
    for method in METHODS:
        measured, preset = study.speeds()[method], get_preset(method, "demo")
        record = read(study.out / method / "pretraining" / f"{study.settings.budget}.json")
        steps = round(measured["steps_per_minute"] * study.settings.minutes[-1])
        rows.append(
            (
                NAMES[method],
                f"{record['parameters'] / 1e6:.1f}",
                f"{preset.pretrain.batch_size} x {preset.pretrain.crop_seconds:g} s",
                f"{1000 * measured['cpu_seconds']:.0f}",
                f"{measured['steps_per_minute']:.0f}",
                f"{steps:,}",
            )
        )
    heads = ("network", "million weights", "crops of a step", "ms of a step", "steps of a minute", "steps in all")
    return table(heads, rows)


def verdict(clips: Clips, found: EventScores, budget: str) -> str:
    """What was expected, and what was reached."""
    rows = []
    for method in METHODS[1:]:
        for head in HEADS:
            lines = clips[head][System(method, "mean")]
            name = f"clips, {HEAD_NAMES[head]}: {NAMES[method]}"
            rows.append((f"{name} above its random weights", "above 0", points(mean_gain(lines, budget))))
            rows.append((f"{name} above SSAST", "-", points(mean_gain(lines, budget, REFERENCE))))
    for reading, ours, theirs in EXPECTED:
        for events in SETS:
            apart = ahead(found, reading, ours, theirs, events, "event_f1")
            if apart:
                name = f"{events.folder}, {READING_NAMES[reading]}: event F1 of {NAMES[ours]} above {NAMES[theirs]}"
                rows.append((name, "above 0", points(apart)))
    for reading in READINGS:
        for method in METHODS:
            for events in SETS:
                own, random = (f(reading, method, events) for f in (found.pretrained, found.random))
                if own and random:
                    name = f"{events.folder}, {READING_NAMES[reading]}: event F1 of {NAMES[method]}"
                    gained = difference(own["event_f1"], random["event_f1"])
                    rows.append((f"{name} above its random weights", "above 0", points(gained)))
    return table(("", "expected", "reached, points"), rows)


def summary(clips: Clips, budget: str) -> str:
    """The mean of the seven tasks of each network, under both heads."""
    heads = ["network", "read"]
    for head in HEADS:
        heads += [f"{HEAD_NAMES[head]}: random", "pretrained", "gain", "above SSAST"]
    rows = []
    for system in clips[HEADS[0]]:
        cells = [NAMES[system.method], POOLED[system.pooling]]
        for head in HEADS:
            lines = clips[head][system]
            above = "-" if system.method == REFERENCE else points(mean_gain(lines, budget, REFERENCE))
            means = [percent(mean_accuracy(lines)), percent(mean_accuracy(lines, budget))]
            cells += [*means, points(mean_gain(lines, budget)), above]
        rows.append(cells)
    return table(heads, rows)


def by_task(table_of_head: Mapping[System, list[Line]], budget: str) -> str:
    """Each task: the accuracy of each method, and its gain over random weights."""
    shown = [System(method, "mean") for method in METHODS]
    rows = []
    for index, line in enumerate(table_of_head[shown[0]]):
        cells = [f"{line.name}: {line.what}", str(line.clips)]
        for system in shown:
            own = table_of_head[system][index]
            cells += [percent(own.others[budget].mean()), points(own.gain(budget))]
        rows.append(cells)
    heads = [text for method in METHODS for text in (NAMES[method], "above random")]
    return table(["task", "n", *heads], rows)


def over_budget(study: Study) -> list[str]:
    """The gain of each method after each budget that was probed; nothing, if there is one budget."""
    if len(study.settings.minutes) == 1:
        return []
    rows = []
    for minutes in study.settings.minutes:
        name = f"{CORPUS}-{minutes:g}"
        found = [clip_table(study.out, head, name) for head in HEADS]
        for method in METHODS:
            lines = [of_head.get(System(method, "mean")) for of_head in found]
            if all(lines):
                rows.append((f"{minutes:g}", NAMES[method], *(points(mean_gain(own or (), name)) for own in lines)))
    heads = ("minutes", "network", *(HEAD_NAMES[head] for head in HEADS))
    return ["Over the budget, tokens, points above random weights:\n", table(heads, rows)]


def scored(found: EventScores, events: Events) -> str:
    """The scores of each network and of its random weights."""
    rows = []
    for reading in READINGS:
        for method in (*METHODS, COMBINED):
            for start, of in starts(found, reading, method, events).items():
                name = NAMES[method] + (", random weights" if start == "random" else "")
                rows.append([READING_NAMES[reading], name, *(spread(interval(of[metric])) for metric in METRICS)])
    return table(["", "network", *METRIC_NAMES.values()], rows)


def starts(found: EventScores, reading: str, method: str, events: Events) -> dict[str, dict[str, Array]]:
    """What was computed of a method's scores: "pretrained" and "random"."""
    both = {
        "pretrained": found.pretrained(reading, method, events),
        "random": found.random(reading, method, events),
    }
    return {start: of for start, of in both.items() if of}


def comparisons(found: EventScores, events: Events) -> str:
    """Differences between networks, in every score."""
    rows = []
    for reading in READINGS:
        for method in METHODS:
            ours, theirs = found.pretrained(reading, method, events), found.random(reading, method, events)
            if ours and theirs:
                rows.append([READING_NAMES[reading], f"{NAMES[method]} - random weights", *apart(ours, theirs)])
    for reading, method, other in EXPECTED:
        ours, theirs = (found.pretrained(reading, name, events) for name in (method, other))
        if ours and theirs:
            rows.append([READING_NAMES[reading], f"{NAMES[method]} - {NAMES[other]}", *apart(ours, theirs)])
    return table([events.folder, "", *METRIC_NAMES.values()], rows)


def ahead(found: EventScores, reading: str, ours: str, theirs: str, events: Events, metric: str) -> Difference | None:
    """By how much a network is ahead of another one; None where one of them was not run."""
    a, b = (found.pretrained(reading, name, events) for name in (ours, theirs))
    return difference(a[metric], b[metric]) if a and b else None


def apart(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> list[str]:
    return [points(difference(ours[metric], theirs[metric])) for metric in METRICS]


def spread(value: Interval) -> str:
    """A score in percent with its interval."""
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def results(study: Study, clips: Clips, found: EventScores) -> dict[str, Any]:
    """All figures, for machines."""
    budget = study.settings.budget
    on_clips = {
        head: {
            f"{system.method}, {POOLED[system.pooling]}": {
                "random": mean_accuracy(lines),
                "pretrained": mean_accuracy(lines, budget),
                "gain": mean_gain(lines, budget)._asdict(),
                "above_reference": mean_gain(lines, budget, REFERENCE)._asdict(),
                "tasks": {
                    line.name: {
                        "random": line.random.mean(1).tolist(),
                        "pretrained": float(line.others[budget].mean()),
                        "gain": line.gain(budget)._asdict(),
                    }
                    for line in lines
                },
            }
            for system, lines in clips[head].items()
        }
        for head in HEADS
    }
    on_events: dict[str, Any] = {}
    for events in SETS:
        for reading in READINGS:
            for method in (*METHODS, COMBINED):
                for start, of in starts(found, reading, method, events).items():
                    values = {metric: interval(of[metric])._asdict() for metric in METRICS}
                    on_events[f"{events.folder}, {reading}, {method}, {start}"] = values
    return {
        "command": command(study),
        "settings": study.settings,
        "environment": environment(),
        "speeds": study.speeds(),
        "clips": on_clips,
        "events": on_events,
    }
