"""The picture: what each method gains on clips, and how well events are found in its frozen and fine-tuned networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.ssast_real_data.stages import HEADS
from benchmarks.ssast_real_data.tables import Line, mean_gain
from benchmarks.teacher_student.events import interval
from benchmarks.teacher_student.systems import COMBINED, METHODS, NAMES, SETS
from benchmarks.teacher_student.tables import EventScores, System
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from auricle.evaluation.style import AXIS, INK, MUTED, OTHERS, PALETTE, WIDTH, new_figure, styled

HEIGHT = 3.4
READINGS = (("frozen", PALETTE[0]), ("tuned", PALETTE[1]))
READING_NAMES = {"frozen": "frozen", "tuned": "fine-tuned"}
HEAD_COLOURS = dict(zip(HEADS, (PALETTE[0], PALETTE[2]), strict=True))


@styled
def picture(clips: Mapping[str, Mapping[System, list[Line]]], found: EventScores, budget: str) -> Figure:
    """Left the gain on clips over random weights, and beside it event F1 on each set, with random weights in grey."""
    figure = new_figure(WIDTH, HEIGHT)
    panels = figure.subplots(1, 1 + len(SETS), width_ratios=(1, *[1] * len(SETS)))
    names = [NAMES[method] for method in METHODS]
    gains, *others = panels
    gains.set_title("clips: points above random", fontsize=8, color=INK)
    gains.axvline(0, color=AXIS, linewidth=1)
    for shift, head in zip((-0.14, 0.14), HEADS, strict=True):
        label = {"ridge": "ridge", "linear": "logistic regression"}[head]
        for row, method in enumerate(METHODS):
            gain = mean_gain(clips[head][System(method, "mean")], budget)
            mark(gains, row + shift, gain[:3], HEAD_COLOURS[head], label if not row else "")
    for axes, events in zip(others, SETS, strict=True):
        axes.set_title(f"{events.folder}: event F1, %", fontsize=8, color=INK)
        for shift, (reading, colour) in zip((-0.14, 0.14), READINGS, strict=True):
            for row, method in enumerate((*METHODS, COMBINED)):
                marks = (
                    (found.random(reading, method, events), OTHERS, "random weights"),
                    (found.pretrained(reading, method, events), colour, READING_NAMES[reading]),
                )
                for of, used, label in marks:
                    if of:
                        mark(axes, row + shift, interval(of["event_f1"]), used, label if not row else "")
    finish(gains, names)
    for axes in others:
        finish(axes, [*names, NAMES[COMBINED]], bare=True)
    seen: dict[str, object] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, handle)
    figure.legend(
        list(seen.values()), list(seen), loc="outside lower center", ncols=5, frameon=False, fontsize=8, labelcolor=INK
    )
    return figure


def mark(axes: Axes, row: float, values: Sequence[float], colour: str, label: str) -> None:
    """A dot with its interval, in percent."""
    value, low, high = (100 * v for v in values)
    axes.plot([low, high], [row, row], color=colour, linewidth=1.2)
    axes.plot([value], [row], color=colour, marker="o", markersize=4.5, linewidth=0, label=label or None)


def finish(axes: Axes, names: list[str], bare: bool = False) -> None:
    """Names of methods down the side (all panels share them), a grid of scores."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names if not bare or len(names) > 4 else [""] * len(names))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x")
    axes.set_xlabel("points" if not bare else "", color=MUTED)
