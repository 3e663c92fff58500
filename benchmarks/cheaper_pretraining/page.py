"""The page and the picture: docs/cheaper_pretraining.md, made from the records and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.cheaper_pretraining.figures import Contest, contests
from benchmarks.cheaper_pretraining.stages import METHODS, TASKS, Settings, Study
from benchmarks.ssast_real_data.page import points, table
from benchmarks.ssast_real_data.stages import ROUNDS
from benchmarks.ssast_real_data.tables import read
from matplotlib.figure import Figure

from auricle.environment import environment
from auricle.evaluation.results import write_json, write_text
from auricle.evaluation.style import INK, MARKERS, MUTED, PALETTE, WIDTH, new_figure, png, styled
from auricle.training.precision import resolve_precision

NAME = "cheaper_pretraining"
NAMES = {"ssast": "SSAST", "asit": "ASiT", "atst-frame": "ATST-Frame"}
TASK_NAMES = {"paper": "the paper's task", "latent": "masked latent prediction"}

INTRODUCTION = """# What the same accuracy costs by masked latent prediction

Made by `{command}` on one core of an {processor} in {precision}. Killed and started again, that command goes on where
it was.

**What is compared.** The encoders of SSAST, ASiT and ATST-Frame, pretrained by their paper's own task (presets
`{paper_preset}`) and by [masked latent prediction](latent.md) (presets `{latent_preset}`). What is heard, and the
seven tasks on which the frozen networks are probed by ridge (mean over all tokens), are those of [SSAST's
benchmark](ssast_real_data.md).

**What it costs.** CPU seconds of one thread. Those of a step, without reading, are timed first: the least of {rounds}
rounds in which all take turns. Each budget is a training of its own from fresh weights, of as many steps as
it pays for, to the end of its schedule. The cost of an accuracy lies between budgets on a logarithmic scale.

**What the figures do not hold.** One pretraining seed each: intervals are over test clips alone. Both tasks' settings
were chosen on these same tasks, in short runs.
"""


def write_page(study: Study, folder: Path) -> Path:
    """Write the page and its picture in `images/` below `folder`; results.json below `out`."""
    found = contests(study)
    write_json(study.out / "results.json", results(study, found))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / f"images/{NAME}.png").write_bytes(png(curves(found), dpi=160))
    s = study.settings
    introduction = INTRODUCTION.format(
        command=command(s),
        processor=environment()["processor"],
        precision=resolve_precision("auto", torch.device("cpu")),
        **{f"{task}_preset": preset for task, preset in s.presets.items()},
        rounds=ROUNDS,
    )
    parts = [
        introduction,
        trained_at(study.out),
        costs(found),
        f"![Points above random weights over CPU seconds of pretraining](images/{NAME}.png)\n",
        "## At equal cost\n",
        at_equal_cost(found),
        "## By task\n",
        "Accuracy in percent at the largest budget, random weights (three seeds) beside it.\n",
        *(by_task(contest) for contest in found),
    ]
    return write_text(folder / f"{NAME}.md", "\n".join(parts))


def trained_at(out: Path) -> str:
    """Where in the project's history the networks were trained, as their runs say; empty where none does."""
    runs = [read(path).get("git") or {} for path in out.glob("*/pretraining/*/environment.json")]
    commits = sorted({run["commit"][:7] for run in runs if run.get("commit")})
    if not commits:
        return ""
    where = ", ".join(f"`{commit}`" for commit in commits)
    unknown = sum(not run.get("commit") for run in runs)
    rest = f"; {unknown} of {len(runs)}, outside of a checkout, do not say where" if unknown else ""
    return f"**When.** The networks were trained at {where}{rest}. Presets may have changed since.\n"


def command(settings: Settings) -> str:
    """The command that computes these figures: what differs from its defaults."""
    usual = Settings()
    options = {
        "--minutes": (",".join(f"{m:g}" for m in settings.minutes), ",".join(f"{m:g}" for m in usual.minutes)),
        "--generated-hours": (settings.generated_hours, usual.generated_hours),
        "--seed": (settings.seed, usual.seed),
    }
    given = [f"{name} {value}" for name, (value, default) in options.items() if value != default]
    given += [f"--set {key}={value}" for key, value in settings.latent.items() if usual.latent.get(key) != value]
    return " ".join([f"python -m benchmarks.{NAME}", *given, "--page"])


def costs(found: Sequence[Contest]) -> str:
    """For each encoder: a step's cost, the paper's end, and when masked latent prediction is there."""
    heads = (
        *("encoder", "CPU ms of a step: paper, latent", "the paper's task ends at", "after CPU seconds, steps"),
        *("latent is there after CPU seconds, steps", "times cheaper"),
    )
    rows = []
    for contest in found:
        paper, latent = (1000 * contest.step_seconds[task] for task in TASKS)
        reached = contest.reached
        there = "not within its budgets", "-"
        if reached is not None:
            first = reached == contest.curves["latent"][0].minutes
            bound = "at most " if first else ""
            there = (
                f"{bound}{60 * reached:.0f}, {60 * reached / contest.step_seconds['latent']:,.0f}",
                f"{'at least ' if first else ''}{contest.aim.minutes / reached:.1f}",
            )
        rows.append(
            (
                NAMES[contest.method],
                f"{paper:.0f}, {latent:.0f}",
                f"{points(contest.aim.gain)}",
                f"{60 * contest.aim.minutes:.0f}, {contest.aim.steps:,}",
                *there,
            )
        )
    return table(heads, rows)


def at_equal_cost(found: Sequence[Contest]) -> str:
    """Gains over random weights by budget, and the difference."""
    rows = []
    for contest in found:
        for paper, latent in zip(*(contest.curves[task] for task in TASKS), strict=False):
            steps = f"{paper.steps:,}, {latent.steps:,}"
            gains = points(paper.gain), points(latent.gain), points(contest.difference(paper.minutes))
            rows.append((NAMES[contest.method], f"{60 * paper.minutes:.0f}", steps, *gains))
    return table(("encoder", "CPU seconds", "steps: paper, latent", *TASK_NAMES.values(), "difference"), rows)


def by_task(contest: Contest) -> str:
    """Accuracy on each of the seven tasks."""
    names = [f"{task}-{contest.aim.minutes:g}" for task in TASKS]
    rows = [
        (line.name, f"{100 * np.mean(line.random):.1f}", *(f"{100 * np.mean(line.others[n]):.1f}" for n in names))
        for line in contest.lines
    ]
    return table((NAMES[contest.method], "random weights", *TASK_NAMES.values()), rows)


def results(study: Study, found: Sequence[Contest]) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "command": command(study.settings),
        "settings": study.settings,
        "environment": environment(),
        "encoders": {
            contest.method: {
                "step_seconds": contest.step_seconds,
                "curves": {
                    task: [asdict(point) | {"gain": point.gain._asdict()} for point in curve]
                    for task, curve in contest.curves.items()
                },
                "latent_reaches_the_papers_end_after_minutes": contest.reached,
            }
            for contest in found
        },
    }


@styled
def curves(found: Sequence[Contest]) -> Figure:
    """Gain over random weights against CPU seconds: a panel for each encoder, a line for each task."""
    figure = new_figure(WIDTH, 2.9)
    panels = figure.subplots(1, len(METHODS), sharey=True)
    for axes, contest in zip(panels, found, strict=False):
        axes.set_title(NAMES[contest.method], fontsize=8, color=INK)
        axes.axhline(100 * contest.aim.gain.value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for index, task in enumerate(TASKS):
            seconds = np.array([60 * point.minutes for point in contest.curves[task]])
            value, low, high = 100 * np.array([point.gain[:3] for point in contest.curves[task]]).T
            # Whiskers beside each other: intervals overlap.
            places, colour = seconds * 1.05 ** (index - 0.5), PALETTE[index]
            axes.errorbar(places, value, (value - low, high - value), color=colour, linewidth=0, elinewidth=1.1)
            style: dict[str, Any] = {"color": colour, "marker": MARKERS[index], "markersize": 4, "linewidth": 1.5}
            axes.plot(places, value, label=TASK_NAMES[task], **style)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(seconds, [f"{s:.0f}" for s in seconds])
        axes.set_xlim(seconds[0] / 1.4, seconds[-1] * 1.4)
        axes.set_xlabel("CPU seconds of pretraining")
        axes.grid(axis="y")
    panels[0].set_ylabel("points above random weights")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    return figure
