"""The page and the picture: docs/ssast_real_data.md, made from the records and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.ssast_real_data.rows import PITCH, QUOTED, QUOTED_SOURCE
from benchmarks.ssast_real_data.stages import CORPORA, HEADS, STATISTICS, Bench, Settings
from benchmarks.ssast_real_data.tables import Line, Tuned, lines, mean_accuracy, mean_gain, read, tuned
from benchmarks.ssast_real_data.text import INTRODUCTION, TRIED
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from auricle.environment import environment
from auricle.evaluation.results import write_json, write_text
from auricle.evaluation.style import INK, MARKERS, MUTED, OTHERS, PALETTE, WIDTH, new_figure, png, styled
from auricle.metrics import Difference

SYSTEM_NAMES = {"mfcc": "MFCC statistics", "logmel": "log-mel statistics"}


def write_page(bench: Bench, folder: Path) -> Path:
    """Write `ssast_real_data.md` and `images/ssast_real_data.png` below `folder`; results.json below `out`."""
    minutes = bench.settings.minutes
    systems = [f"{corpus}-{m:g}" for corpus in CORPORA for m in minutes]
    tables = {head: lines(bench.out, head, [*STATISTICS, *systems]) for head in HEADS}
    done = [name for name in systems if name in tables["ridge"][0].others]
    # The run that the tables show: the longest on all audio (of one corpus, where the others were not run).
    main = [name for name in done if name.startswith(f"{CORPORA[0]}-")] or done
    tuned_sets = tuned(bench.out)
    write_json(bench.out / "results.json", results(bench, tables, done, tuned_sets))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images/ssast_real_data.png").write_bytes(png(curves(tables, done), dpi=160))
    parts = [
        INTRODUCTION.format(**facts(bench, main[-1])),
        verdict(tables, main[-1]),
        "## Frozen, read out by ridge\n",
        frozen(tables["ridge"], main[-1]),
        "## Frozen, read out by logistic regression\n",
        frozen(tables["linear"], main[-1], quoted=True),
        "## Over the budget, and over what was heard\n",
        "![Accuracy minus that of random weights over minutes of pretraining](images/ssast_real_data.png)\n",
        over_budget(tables, done),
        "## Fine-tuned\n" if tuned_sets else "",
        fine_tuned(tuned_sets),
        TRIED,
    ]
    return write_text(folder / "ssast_real_data.md", "\n".join(part for part in parts if part))


def facts(bench: Bench, main: str) -> dict[str, Any]:
    """The numbers of the page's first paragraphs."""
    corpus, _, minutes = main.rpartition("-")
    s, where = bench.settings, environment()
    record = read(bench.record("pretraining", main))
    generated = {"public": 0.0, "generated": record["hours"], "both": s.generated_hours}[corpus]
    missing = [f"{m:g}" for m in s.minutes if m > float(minutes)]
    return {
        "minutes": minutes,
        "steps": f"{round(float(minutes) * s.steps_per_minute):,}",
        "steps_per_minute": s.steps_per_minute,
        "parameters": f"{record['parameters'] / 1e6:.1f}",
        "public_hours": f"{record['hours'] - generated:.1f}",
        "generated_hours": f"{generated:.1f}",
        "command": command(bench),
        "machine": f"one core of an {where['processor']} in fp32",
        "not_run": f" Budgets of {', '.join(missing)} minutes were not run." if missing else "",
    }


def command(bench: Bench) -> str:
    """The command that computes these figures: what differs from its defaults."""
    s, usual = bench.settings, Settings()
    options = {
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


def verdict(tables: dict[str, list[Line]], main: str) -> str:
    """The bars of this benchmark, and what was reached."""
    ridge, linear = (mean_gain(tables[head], main) for head in HEADS)
    worse = [line.name for line in tables["ridge"] if line.gain(main).high < 0]
    over_logmel = mean_gain(tables["linear"], main, "logmel")
    pitch = next(line for line in tables["ridge"] if line.name == PITCH).gain(main)
    rows = [
        ("ridge, mean over the tasks above random weights", "+4, interval clear of 0; aim +8", points(ridge)),
        ("ridge, tasks significantly below random weights", "none but pitch", ", ".join(worse) or "none"),
        ("ridge, pitch above random weights", "aim: not below", points(pitch)),
        ("logistic regression, mean above random weights", "-", points(linear)),
        ("logistic regression, mean above log-mel statistics", "aim: above", points(over_logmel)),
    ]
    return table(("what", "bar", "reached, points"), rows)


def frozen(found: Sequence[Line], main: str, quoted: bool = False) -> str:
    """Accuracy of every system by task, the pretrained one with its gain over random weights."""
    systems = [name for name in STATISTICS if name in found[0].others]
    heads = ["task", "n", "random weights", *(SYSTEM_NAMES[s] for s in systems), "pretrained", "gain, points"]
    heads += [f"{name} *" for name in QUOTED] if quoted else []
    rows = []
    for index, line in enumerate(found):
        cells = [f"{line.name}: {line.what}", str(line.clips), percent(np.mean(line.random))]
        cells += [percent(np.mean(line.others[s])) for s in (*systems, main)] + [points(line.gain(main))]
        rows.append([*cells, *(f"{values[index]:.1f}" for values in QUOTED.values())] if quoted else cells)
    means = [percent(mean_accuracy(found)), *(percent(mean_accuracy(found, s)) for s in (*systems, main))]
    last = ["**mean**", "", *means, f"**{points(mean_gain(found, main))}**"]
    rows.append([*last, *(f"{np.mean(values):.1f}" for values in QUOTED.values())] if quoted else last)
    note = f"\\* quoted from the {QUOTED_SOURCE}, not computed here; emodb there is unweighted average recall.\n"
    return table(heads, rows) + (note if quoted else "")


def over_budget(tables: dict[str, list[Line]], done: Iterable[str]) -> str:
    """Gains over random weights by corpus and budget."""
    rows = []
    for name in done:
        corpus, _, minutes = name.rpartition("-")
        pitch = next(line for line in tables["ridge"] if line.name == PITCH)
        gains = [points(mean_gain(tables[head], name)) for head in HEADS]
        rows.append((corpus, minutes, *gains, points(pitch.gain(name))))
    return table(("heard", "minutes", "mean, ridge", "mean, logistic regression", "pitch, ridge"), rows)


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


def results(bench: Bench, tables: dict[str, list[Line]], done: Sequence[str], sets: Sequence[Tuned]) -> dict[str, Any]:
    """Everything as plain data."""
    systems = [*STATISTICS, *done]
    return {
        "settings": bench.settings,
        "environment": environment(),
        "command": command(bench),
        "frozen": {
            head: {
                line.name: {
                    "clips": line.clips,
                    "random": [float(np.mean(run)) for run in line.random],
                    "accuracy": {s: float(np.mean(line.others[s])) for s in systems if s in line.others},
                    "gain": {s: line.gain(s)._asdict() for s in systems if s in line.others},
                }
                for line in found
            }
            for head, found in tables.items()
        },
        "mean_gain": {
            head: {s: mean_gain(found, s)._asdict() for s in systems if s in found[0].others}
            for head, found in tables.items()
        },
        "quoted": QUOTED,
        "finetuned": {
            found.name: {
                start: {"accuracy": float(np.mean(correct)), "gain": found.gain(start)._asdict()}
                for start, correct in found.correct.items()
            }
            for found in sets
        },
    }


@styled
def curves(tables: dict[str, list[Line]], done: Sequence[str]) -> Figure:
    """Gain over random weights against minutes, a line per corpus: the mean under both heads, and pitch."""
    figure = new_figure(WIDTH, 2.9)
    panels = figure.subplots(1, 3)
    titles = ("mean of 7 tasks, ridge", "mean of 7 tasks, logistic regression", "pitch of unseen instruments, ridge")
    pitch = [line for line in tables["ridge"] if line.name == PITCH]
    for axes, title, found in zip(panels, titles, (tables["ridge"], tables["linear"], pitch), strict=True):
        _panel(axes, title, found, done)
    panels[0].set_ylabel("points above random weights")
    panels[0].legend(frameon=False, fontsize=8, loc="best", labelcolor=INK)
    return figure


def _panel(axes: Axes, title: str, found: Sequence[Line], done: Sequence[str]) -> None:
    axes.set_title(title, fontsize=8, color=INK)
    axes.axhline(0, color=MUTED, linewidth=1)
    if "logmel" in found[0].others:
        level = 100 * mean_gain(found, "logmel").value
        axes.axhline(level, color=OTHERS, linewidth=1.2, linestyle=(0, (4, 3)), label="log-mel statistics")
    ticks = set()
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
            ticks |= set(minutes)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(sorted(ticks), [f"{m:g}" for m in sorted(ticks)])
    axes.set_xlabel("minutes of pretraining")
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
