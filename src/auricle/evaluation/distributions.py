"""Pictures of what a data set holds: histograms and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from auricle.evaluation.style import INK, OTHERS, OURS, WIDTH, label_text, new_figure, nothing, styled

MOST_BARS = 40


@styled
def histograms(series: Mapping[str, Sequence[float]], unit: str, logarithmic: bool = False) -> Figure:
    """One panel per series of finite values, on a common axis in `unit`; `logarithmic` for values over decades."""
    values = {name: np.asarray(v, dtype=float) for name, v in series.items() if len(v)}
    if not values:
        return nothing("Nothing was measured.")
    everything = np.concatenate(list(values.values()))
    low, high = float(everything.min()), float(everything.max())
    logarithmic = logarithmic and low > 0 and high > 20 * low
    if logarithmic:
        edges = np.geomspace(low, high * 1.0001, 41)
    else:
        edges = np.linspace(low, high if high > low else low + 1.0, 41)
    figure = new_figure(WIDTH, 0.5 + 1.4 * len(values))
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, v) in zip(panels, values.items(), strict=True):
        axes.hist(v, bins=edges.tolist(), color=OURS)
        axes.set_title(label_text(name, 60), fontweight="bold")
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
    panels[-1].set_xlabel(unit)
    return figure


@styled
def counts(values: Mapping[str, int], what: str) -> Figure:
    """A bar for each of the first 40 values, longest names cut; the rest is summed in a last bar."""
    if not values:
        return nothing(f"No {what}.")
    entries = list(values.items())
    shown, rest = entries[:MOST_BARS], entries[MOST_BARS:]
    rows = [(label_text(name or "(none)", 30), count, OURS) for name, count in shown]
    if rest:
        rows.append((f"{len(rest)} others", sum(count for _, count in rest), OTHERS))
    figure = new_figure(WIDTH, 0.5 + 0.2 * len(rows))
    axes = figure.subplots()
    axes.barh(range(len(rows)), [count for _, count, _ in rows], color=[colour for _, _, colour in rows], height=0.7)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="x")
    axes.set_xlabel(what)
    return figure
