"""The pictures of an evaluation.

Every function returns a matplotlib Figure in the house style of `style.py`, which also turns it into SVG or PNG bytes.
Empty input gives a small figure that says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from auricle.errors import DataError
from auricle.evaluation.style import (
    AXIS,
    HALO,
    INK,
    MUTED,
    OTHERS,
    OURS,
    PALETTE,
    PAPER,
    TINT,
    WIDTH,
    label_text,
    new_figure,
    nothing,
    styled,
)
from auricle.metrics import Bin

Array = npt.NDArray[Any]


@styled
def loss_curves(
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    x: str = "step",
    level: tuple[str, float] | None = None,
    least: float | None = None,
) -> Figure:
    """Training histories in one plot: `rows` are log lines, `keys` the values to draw over `x`.

    A row may lack a key (validation is rarer than training); null and non-finite values are left out. Long series are
    drawn smoothed (centred mean) over their faint raw values. The axis is logarithmic when values span two decades.
    `level` is the name and height of a line to compare with; `least` is where the axis begins,
    unless a value is below it; otherwise it begins near the values.
    """
    series = {key: _points(rows, x, key) for key in keys}
    drawn = {key: points for key, points in series.items() if len(points)}
    if not drawn:
        return nothing(f"No values of {', '.join(keys) or 'anything'} were recorded.")
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    axes.grid(True)
    axes.set_xlabel(label_text(x))
    ends: list[tuple[float, str, str]] = []
    for index, (key, points) in enumerate(drawn.items()):
        colour = PALETTE[index % len(PALETTE)]
        steps, raw = points.T
        smooth = _smooth(raw, window=len(raw) // 40 * 2 + 1)
        if len(raw) > 40:
            axes.plot(steps, raw, color=colour, alpha=0.22, linewidth=0.8, rasterized=len(raw) > 2000)
        marker = "o" if len(raw) <= 40 else ""
        axes.plot(steps, smooth, color=colour, linewidth=1.7, marker=marker, markersize=3)
        ends.append((float(smooth[-1]), f"{label_text(key)}  {smooth[-1]:.3g}", colour))
    values = np.concatenate([points[:, 1] for points in drawn.values()])
    if values.min() > 0 and values.max() > 100 * values.min():
        axes.set_yscale("log")
        # The default labels are mathematical text, which the house style reads as it stands.
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if level is not None:
        axes.axhline(level[1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        ends.append((level[1], f"{level[0]}  {level[1]:.3g}", MUTED))
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if least is not None:
        # Room for a marker above the highest value, of the axis as it is drawn; a flat curve gets an axis all the same.
        bottom = min(least, float(values.min()))
        axes.set_ylim(bottom, bottom + 1.06 * max(float(values.max()) - bottom, 0.5))
    _name_ends(axes, ends)
    return figure


@styled
def layer_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy by layer: `rows` hold `layer`, `accuracy` with its interval, `validation` and `chosen`.

    Layers that were chosen are filled, the others hollow.
    """
    if not rows:
        return nothing("No layers.")
    layers = [row["layer"] for row in rows]
    figure = new_figure(WIDTH, 3.2)
    axes = figure.subplots()
    axes.grid(True)
    axes.set_xlabel("layer")
    axes.set_ylabel("accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    bounds = [[_finite(row["accuracy"][end]) for end in ("value", "low", "high")] for row in rows]
    value, low, high = np.array(bounds, dtype=float).T
    axes.fill_between(layers, low, high, color=OURS, alpha=0.12, linewidth=0)
    axes.plot(layers, value, color=OURS, linewidth=1.7)
    for row, height in zip(rows, value, strict=True):
        face = OURS if row["chosen"] else PAPER
        axes.plot(row["layer"], height, "o", color=OURS, markerfacecolor=face, markersize=6)
    validation = np.array([_finite(row["validation"]) for row in rows], dtype=float)
    axes.plot(layers, validation, color=PALETTE[1], linewidth=1.4, linestyle=(0, (4, 2)))
    axes.margins(x=0.04)
    _name_ends(axes, [(value[-1], "test", OURS), (validation[-1], "validation", PALETTE[1])])
    return figure


@styled
def confusion(matrix: npt.ArrayLike, labels: Sequence[str]) -> Figure:
    """Counts [K, K] with true classes as rows; colours are shares of each row, zeros stay blank.

    Raises:
        DataError: the matrix is not square or not of the size of `labels`.
    """
    counts = np.nan_to_num(np.asarray(matrix, dtype=float))
    size = len(labels)
    if counts.shape != (size, size):
        raise DataError(f"confusion: expected counts of shape [{size}, {size}] for {size} labels, got {counts.shape}.")
    if not size:
        return nothing("No classes.")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    cell = min(0.55, (5.2 if size <= 30 else 7.4) / size)  # inches
    side = max(cell * size, 1.1)
    cell = side / size
    figure = Figure(figsize=(side + 4, side + 4))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((2 / (side + 4), 2 / (side + 4), side / (side + 4), side / (side + 4)))
    image = axes.imshow(shares, cmap=TINT, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    names = [label_text(label) for label in labels]
    font = min(8.0, cell * 72 * 0.85)
    upright = max(map(len, names)) * font * 0.65 > cell * 72
    axes.set_xticks(range(size), names, rotation=90 if upright else 0, fontsize=font, color=INK)
    axes.set_yticks(range(size), names, fontsize=font, color=INK)
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("true", labelpad=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    if size <= 30:
        axes.set_xticks(np.arange(0.5, size - 1), minor=True)
        axes.set_yticks(np.arange(0.5, size - 1), minor=True)
        axes.grid(which="minor", color=PAPER, linewidth=1)
        axes.tick_params(which="minor", length=0)
    texts = {(i, j): _count(counts[i, j], short=size > 15) for i, j in np.argwhere(counts).tolist()}
    for (i, j), text in texts.items():
        colour = "white" if shares[i, j] > 0.55 else INK
        small = min(9.0, cell * 72 * 0.62, cell * 72 / (0.72 * len(text)))
        axes.text(j, i, text, ha="center", va="center_baseline", fontsize=small, color=colour)
    _fit(figure, axes, side)
    width, height = figure.get_size_inches()
    bar = axes.get_position()
    bar_axes = figure.add_axes((bar.x1 + 0.14 / width, bar.y0, 0.11 / width, min(side, 2.0) / height))
    scale = figure.colorbar(image, cax=bar_axes, format=PercentFormatter(1, 0), ticks=[0, 0.5, 1])
    scale.outline.set_visible(False)
    bar_axes.set_ylabel("share of the true class", fontsize=8)
    bar_axes.tick_params(length=0)
    return figure


@styled
def bars(rows: Iterable[tuple[str, float | None, float | None, float | None, str]], ours: str | None = None) -> Figure:
    """Systems compared on one or several data sets: `rows` are (name, value, low, high, group), a panel per group.

    Whiskers run from low to high (95 % intervals); an unknown bound leaves them out. Bars start at 0, and panels share
    one scale when every value lies in 0..1. `ours` is the highlighted name, by default that of the first row.
    """
    entries = [
        (str(name), _finite(value), _finite(low), _finite(high), str(group)) for name, value, low, high, group in rows
    ]
    if not entries:
        return nothing("Nothing to compare.")
    names = list(dict.fromkeys(entry[0] for entry in entries))
    groups = list(dict.fromkeys(entry[4] for entry in entries))
    highlighted = names[0] if ours is None else ours
    columns = min(len(groups), 3)
    lines = math.ceil(len(groups) / columns)
    figure = new_figure(WIDTH, lines * (0.27 * len(names) + 0.62) + 0.1)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    reach = [bound for entry in entries for bound in entry[1:4] if bound is not None]
    common = (0.0, 1.0) if all(0 <= bound <= 1 for bound in reach) else None
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    for axes, group in zip(grid.flat, groups, strict=False):
        axes.set_title(label_text(group, 34), fontweight="bold", pad=6)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(axis="x")
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(names)), [label_text(name, 28) for name in names], color=INK, fontsize=8.5)
        axes.set_ylim(len(names) - 0.4, -0.6)
        for name, label in zip(names, axes.get_yticklabels(), strict=True):
            label.set_fontweight("bold" if name == highlighted else "normal")
    figure.draw_without_rendering()
    for axes, group in zip(grid.flat, groups, strict=False):
        panel = [(names.index(n), v, lo, hi, n == highlighted) for n, v, lo, hi, g in entries if g == group]
        _bars(axes, panel, common)
    return figure


@styled
def calibration(bins: Sequence[Bin]) -> Figure:
    """Reliability diagram of `metrics.reliability_bins`, with the number of items below.

    The expected calibration error is the count-weighted mean of |accuracy - confidence|.
    """
    table = np.array([(b.confidence, b.accuracy, b.count) for b in bins if b.count], dtype=float).reshape(-1, 3)
    if not len(table):
        return nothing("No predictions to calibrate.")
    confidence, accuracy, count = table[np.argsort(table[:, 0], kind="stable")].T
    error = float(np.average(np.abs(accuracy - confidence), weights=count))
    figure = new_figure(4.8, 5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    upper.vlines(confidence, confidence, accuracy, color=PALETTE[1], linewidth=3, alpha=0.35)
    upper.plot(confidence, accuracy, color=OURS, marker="o", markersize=5, linewidth=1.4)
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="accuracy")
    upper.set_title(f"expected calibration error {error:.3f}", fontweight="bold")
    upper.text(0.98, 0.04, "below the line: overconfident", color=MUTED, fontsize=8, ha="right")
    upper.grid(True)
    lower.bar(confidence, count, width=0.8 / max(len(bins), 10), color=OTHERS)
    lower.set(xlabel="confidence", ylabel="items")
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    lower.grid(axis="y")
    return figure


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        return None
    return float(value)


def _points(rows: Sequence[Mapping[str, Any]], x: str, key: str) -> Array:
    pairs = [(_finite(row.get(x)), _finite(row.get(key))) for row in rows]
    points = np.array([pair for pair in pairs if None not in pair], dtype=float).reshape(-1, 2)
    return points[np.argsort(points[:, 0], kind="stable")]


def _smooth(values: Array, window: int) -> Array:
    """Centred mean over `window` (odd) values.

    It narrows towards the steep start, so as not to lag; at the end it takes what exists, so as to stay calm.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(window // 2, index)
    first, last = index - half, np.minimum(index + half + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write (height, text, colour) of each curve beside its end, apart from each other."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    heights = axes.transAxes.inverted().transform([axes.transData.transform((0, end)) for end, _, _ in ends])[:, 1]
    for place, (_, text, colour) in zip(_spread(heights, gap=0.07), ends, strict=True):
        axes.text(1.015, place, text, color=colour, transform=axes.transAxes, va="center", fontsize=8.5)


def _spread(heights: Array, gap: float) -> list[float]:
    """Move `heights` apart, as little as possible and in order, until neighbours differ by `gap`."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    # Least squares under "each at least `gap` above the last" is isotonic regression of the heights less their steps.
    blocks: list[list[float]] = []
    for height in heights[order] - steps:
        blocks.append([float(height)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    settled = [float(np.mean(block)) for block in blocks for _ in block]
    places = np.empty(len(heights))
    places[order] = np.array(settled) + steps
    return [float(place) for place in places]


def _count(value: float, short: bool) -> str:
    if short and value >= 1000:
        return f"{value / 1000:.0f}k" if value >= 9950 else f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def _fit(figure: Figure, axes: Axes, side: float) -> None:
    """Shrink the figure to its square axes of `side` inches, their labels and room for a colour bar."""
    figure.draw_without_rendering()
    outer = axes.get_tightbbox()
    assert outer is not None
    left, bottom = (np.array(axes.bbox.min) - np.array(outer.min)) / figure.dpi + 0.08
    width, height = left + side + 0.85, bottom + side + 0.12
    figure.set_size_inches(width, height)
    axes.set_position((left / width, bottom / height, side / width, side / height))


def _bars(axes: Axes, panel: Sequence[tuple[int, Any, Any, Any, bool]], common: tuple[float, float] | None) -> None:
    """Draw one panel of `bars`: (line, value, low, high, ours)."""
    reach = [v for _, *bounds, _ in panel for v in bounds if v is not None] + [0.0]
    left, right = common or (min(reach), max(reach))
    if left == right:
        right = left + 1.0
    largest = max(map(abs, reach))
    decimals = 3 if largest <= 1.5 else 2 if largest < 10 else 1
    labels = ["no value" if v is None else f"{v:.{decimals}f}".replace("-", "−") for _, v, *_ in panel]
    # Room for the numbers beyond the ends of the bars, as a share of the panel; a bold digit is 5.6 points wide.
    room = min(0.4, (5.6 * max(map(len, labels)) + 9) * axes.figure.dpi / 72 / axes.bbox.width)
    before = room if left < 0 else 0.0
    span = (right - left) / (1 - room - before)
    axes.set_xlim(left - span * before, right + span * room)
    ticks = [0, 0.5, 1] if common else MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(left, right)
    axes.set_xticks([tick for tick in ticks if left <= tick <= right])
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.axvline(0, color=AXIS, linewidth=0.8)
    for (line, value, low, high, ours), label in zip(panel, labels, strict=True):
        value, tip = value or 0.0, value or 0.0
        if low is not None and high is not None:
            axes.hlines(line, low, high, color=INK, linewidth=1.3, path_effects=HALO)
            tip = max(value, high) if value >= 0 else min(value, low)
        axes.barh(line, value, height=0.62, color=OURS if ours else OTHERS)
        axes.annotate(
            label,
            (tip, line),
            (5 if value >= 0 else -5, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center",
            fontsize=8,
            fontweight="bold" if ours else "normal",
        )
