"""The page and the picture: docs/ssast_real_data.md for SSAST, made from the records and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.ssast_real_data.rows import PITCH, QUOTED, QUOTED_SOURCE, ROWS
from benchmarks.ssast_real_data.stages import CORPORA, HEADS, POOLINGS, STATISTICS, Bench, Settings
from benchmarks.ssast_real_data.tables import Line, Tuned, lines, mean_accuracy, mean_gain, read, tuned
from benchmarks.ssast_real_data.text import FINE_TUNED, INTRODUCTION, NOTES
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from auricle.environment import environment
from auricle.evaluation.results import write_json, write_text
from auricle.evaluation.style import INK, MARKERS, MUTED, OTHERS, PALETTE, WIDTH, new_figure, png, styled
from auricle.methods import get_method, get_preset
from auricle.metrics import Difference
from auricle.training.precision import resolve_precision

HEAD_NAMES = {"ridge": "ridge", "linear": "logistic regression"}
SYSTEM_NAMES = {"mfcc": "MFCC statistics", "logmel": "log-mel statistics"}
# The head and pooling that the bars are about.
RIDGE = (HEADS[0], POOLINGS[0])
Tables = dict[tuple[str, str], list[Line]]


def write_page(bench: Bench, folder: Path) -> Path:
    """Write `METHOD_real_data.md` and its picture in `images/` below `folder`; results.json below `out`."""
    name = f"{bench.settings.method}_real_data"
    minutes = bench.settings.minutes
    systems = [f"{corpus}-{m:g}" for corpus in CORPORA for m in minutes]
    tables = {(h, p): lines(bench.out, h, p, [*STATISTICS, *systems]) for h in HEADS for p in POOLINGS}
    done = [name for name in systems if name in tables[RIDGE][0].others]
    # The run that the tables show: the longest on all audio (of one corpus, where the others were not run).
    main = ([name for name in done if name.startswith(f"{CORPORA[0]}-")] or done)[-1]
    tuned_sets = tuned(bench.out)
    write_json(bench.out / "results.json", results(bench, tables, done, tuned_sets))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / f"images/{name}.png").write_bytes(png(curves(tables, done), dpi=160))
    parts = [
        INTRODUCTION.format(**facts(bench, main)),
        verdict(tables, main),
        "## Frozen, read out by ridge\n",
        frozen(tables, HEADS[0], main),
        "## Frozen, read out by logistic regression\n",
        frozen(tables, HEADS[1], main),
        f"From the {QUOTED_SOURCE}, not computed here (logistic regression; emodb as unweighted average recall):\n",
        quoted(),
        "## Over the budget, and over what was heard\n",
        f"![Points above random weights over minutes of pretraining](images/{name}.png)\n",
        over_budget(tables, done),
        *(["## Fine-tuned\n", FINE_TUNED.format(**facts(bench, main)), fine_tuned(tuned_sets)] if tuned_sets else []),
        *([NOTES] if bench.settings.method == Settings().method else []),
    ]
    return write_text(folder / f"{name}.md", "\n".join(parts))


def facts(bench: Bench, main: str) -> dict[str, Any]:
    """The numbers of the page's first paragraphs."""
    corpus, _, minutes = main.rpartition("-")
    s, where = bench.settings, environment()
    record = read(bench.record("pretraining", main))
    generated = {"public": 0.0, "generated": record["hours"], "both": s.generated_hours}[corpus]
    missing = [f"{m:g}" for m in sorted({*s.minutes, *Settings().minutes}) if m > float(minutes)]
    encoder = get_method(s.method).build_encoder(get_preset(s.method, s.preset).model)
    return {
        "method": s.method.upper(),
        "window": f"{encoder.window_samples / encoder.sample_rate:.1f}",
        "minutes": minutes,
        "steps": f"{round(float(minutes) * s.steps_per_minute):,}",
        "steps_per_minute": s.steps_per_minute,
        "parameters": f"{record['parameters'] / 1e6:.1f}",
        "public_hours": f"{record['hours'] - generated:.1f}",
        "generated_hours": f"{generated:.1f}",
        "finetune_steps": s.finetune_steps,
        "folds": f"the first {s.finetune_folds} folds of each set" if s.finetune_folds else "all folds",
        "command": command(bench),
        "machine": f"one core of an {where['processor']} in {resolve_precision('auto', torch.device('cpu'))}",
        "not_run": f" Budgets of {' and '.join(missing)} minutes were not run." if missing else "",
    }


def command(bench: Bench) -> str:
    """The command that computes these figures: what differs from its defaults."""
    s, usual = bench.settings, Settings()
    only = not any(record for corpus in CORPORA[1:] for record in bench.out.glob(f"probes/*/{corpus}-*.json"))
    options = {
        "--method": (s.method, usual.method),
        "--only": (CORPORA[0] if only else "", ""),
        "--minutes": (",".join(f"{m:g}" for m in s.minutes), ",".join(f"{m:g}" for m in usual.minutes)),
        "--compare-at": (f"{s.compared_minutes:g}", f"{usual.compared_minutes:g}"),
        "--steps-per-minute": (s.steps_per_minute, usual.steps_per_minute),
        "--generated-hours": (s.generated_hours, usual.generated_hours),
        "--finetune-steps": (s.finetune_steps, usual.finetune_steps),
        "--finetune-folds": (s.finetune_folds, usual.finetune_folds),
        "--seed": (s.seed, usual.seed),
    }
    given = [f"{name} {value}" for name, (value, default) in options.items() if value != default]
    given += [f"--set {key}={value}" for key, value in s.pretrain.items() if usual.pretrain.get(key) != value]
    return " ".join(["python -m benchmarks.ssast_real_data", *given, "--page"])


def verdict(tables: Tables, main: str) -> str:
    """The bars of this benchmark, and what was reached."""
    worse = [line.name for line in tables[RIDGE] if line.gain(main).high < 0]
    pitch = next(line for line in tables[RIDGE] if line.name == PITCH).gain(main)
    rows = [
        ("ridge, above random weights", "+4, clear of 0; aim +8", points(mean_gain(tables[RIDGE], main))),
        ("ridge, tasks significantly below random weights", "none but pitch", ", ".join(worse) or "none"),
        ("ridge, pitch above random weights", "aim: not below 0", points(pitch)),
    ]
    for pooling in POOLINGS:
        found = tables["linear", pooling]
        # Only the first pooling was fixed before there were scores.
        aim = "aim: above 0" if pooling == POOLINGS[0] else "aim: above 0; pooling added after the first scores"
        rows += [
            (f"logistic regression, {pooling}, above random weights", "-", points(mean_gain(found, main))),
            (
                f"logistic regression, {pooling}, above log-mel statistics",
                aim,
                points(mean_gain(found, main, "logmel")),
            ),
        ]
    return table(("mean of the seven tasks, where none is named", "bar", "reached, points"), rows)


def frozen(tables: Tables, head: str, main: str) -> str:
    """Accuracy by task: random and pretrained network in both poolings, and the statistics."""
    heads = ["task", "n"]
    for pooling in POOLINGS:
        heads += [f"random, {pooling}", f"pretrained, {pooling}", f"gain, {pooling}"]
    rows = []
    for index, line in enumerate(tables[head, POOLINGS[0]]):
        cells = [f"{line.name}: {line.what}", str(line.clips)]
        for pooling in POOLINGS:
            own = tables[head, pooling][index]
            cells += [percent(np.mean(own.random)), percent(np.mean(own.others[main])), points(own.gain(main))]
        rows.append(cells + [percent(np.mean(line.others[name])) for name in STATISTICS])
    last = ["**mean**", ""]
    for pooling in POOLINGS:
        found = tables[head, pooling]
        means = [percent(mean_accuracy(found)), percent(mean_accuracy(found, main))]
        last += [*means, f"**{points(mean_gain(found, main))}**"]
    last += [percent(mean_accuracy(tables[head, POOLINGS[0]], name)) for name in STATISTICS]
    return table([*heads, *(SYSTEM_NAMES[name] for name in STATISTICS)], [*rows, last])


def quoted() -> str:
    """The figures of others, by system."""
    rows = [[name, *(f"{v:.1f}" for v in values), f"{np.mean(values):.1f}"] for name, values in QUOTED.items()]
    return table(["", *(row.name for row in ROWS), "mean"], rows)


def over_budget(tables: Tables, done: Sequence[str]) -> str:
    """Gains over random weights by corpus and budget."""
    pitch = next(line for line in tables[RIDGE] if line.name == PITCH)
    rows = []
    for name in done:
        corpus, _, minutes = name.rpartition("-")
        gains = [points(mean_gain(t, name)) if name in t[0].others else "-" for t in tables.values()]
        rows.append((corpus, minutes, points(pitch.gain(name)), *gains))
    heads = [f"{HEAD_NAMES[head]}, {pooling}" for head, pooling in tables]
    return table(("heard", "minutes", "pitch, ridge, mean", *heads), rows)


def fine_tuned(sets: Sequence[Tuned]) -> str:
    """Accuracy after training all weights, from the pretrained network and from scratch."""
    rows = []
    for found in sets:
        for start in found.correct:
            if start != "scratch":
                values = [percent(np.mean(found.correct[name])) for name in ("scratch", start)]
                n = len(found.correct[start])
                rows.append((found.name, str(found.folds), str(n), start, *values, points(found.gain(start))))
    heads = ("data", "folds", "n", "pretraining", "from scratch", "pretrained", "difference, points")
    return table(heads, rows) if rows else ""


def results(bench: Bench, tables: Tables, done: Sequence[str], sets: Sequence[Tuned]) -> dict[str, Any]:
    """Everything as plain data."""
    frozen: dict[str, Any] = {}
    for (head, pooling), found in tables.items():
        systems = [s for s in (*STATISTICS, *done) if s in found[0].others]
        frozen[f"{head}, {pooling}"] = {
            "mean_gain": {s: mean_gain(found, s)._asdict() for s in systems},
            "tasks": {
                line.name: {
                    "clips": line.clips,
                    "random": [float(np.mean(run)) for run in line.random],
                    "accuracy": {s: float(np.mean(line.others[s])) for s in systems},
                    "gain": {s: line.gain(s)._asdict() for s in systems},
                }
                for line in found
            },
        }
    finetuned = {
        found.name: {
            start: {"accuracy": float(np.mean(correct)), "gain": found.gain(start)._asdict()}
            for start, correct in found.correct.items()
        }
        for found in sets
    }
    return {
        "command": command(bench),
        "settings": bench.settings,
        "environment": environment(),
        "frozen": frozen,
        "finetuned": finetuned,
        "quoted": QUOTED,
    }


@styled
def curves(tables: Tables, done: Sequence[str]) -> Figure:
    """Gain over random weights against minutes, a line per corpus: the mean under both heads, and pitch."""
    figure = new_figure(WIDTH, 3.1)
    panels = figure.subplots(1, 3)
    pitch = [line for line in tables[RIDGE] if line.name == PITCH]
    shown = (
        ("seven tasks: ridge, mean", tables[RIDGE]),
        ("seven tasks: logistic, mean+std", tables["linear", "mean+std"]),
        ("pitch alone: ridge, mean", pitch),
    )
    minutes = sorted({float(name.rpartition("-")[2]) for name in done})
    for axes, (title, found) in zip(panels, shown, strict=True):
        _panel(axes, title, found, [name for name in done if name in found[0].others])
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(minutes, [f"{m:g}" for m in minutes])
        axes.set_xlim(minutes[0] / 1.4, minutes[-1] * 1.4)
        axes.set_xlabel("minutes of pretraining")
    panels[0].set_ylabel("points above random weights")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _panel(axes: Axes, title: str, found: Sequence[Line], done: Sequence[str]) -> None:
    axes.set_title(title, fontsize=8, color=INK)
    axes.axhline(0, color=MUTED, linewidth=1)
    if "logmel" in found[0].others:
        level = 100 * mean_gain(found, "logmel").value
        axes.axhline(level, color=OTHERS, linewidth=1.2, linestyle=(0, (4, 3)), label="log-mel statistics")
    for index, corpus in enumerate(CORPORA):
        names = [name for name in done if name.startswith(f"{corpus}-")]
        if names:
            minutes = [float(name.rpartition("-")[2]) for name in names]
            value, low, high = 100 * np.array([mean_gain(found, name)[:3] for name in names]).T
            colour = PALETTE[index]
            # Whiskers beside each other: intervals of corpora overlap.
            places = np.array(minutes) * 1.05 ** (index - 1)
            axes.errorbar(places, value, (value - low, high - value), color=colour, linewidth=0, elinewidth=1.1)
            axes.plot(places, value, color=colour, marker=MARKERS[index], markersize=4, linewidth=1.5, label=corpus)
    axes.grid(axis="y")


def percent(share: float | np.floating[Any]) -> str:
    return f"{100 * float(share):.1f}"


def points(gain: Difference) -> str:
    """A difference in points with its interval."""
    return f"{100 * gain.value:+.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
