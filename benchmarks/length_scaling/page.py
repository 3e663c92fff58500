"""docs/length_scaling.md and its picture, from the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from benchmarks.length_scaling.contestants import LOOPED, SSAMBA, SSAST, STORED
from benchmarks.length_scaling.series import MOST_MB, MOST_SECONDS, Point, crossover
from benchmarks.timing import machine, table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from auricle.evaluation.style import INK, MARKERS, MUTED, PALETTE, WIDTH, new_figure, png, styled

# The lengths at which the paper and the specification of the CPU path state theirs.
PAPER_TOKENS, LOOP_TOKENS = 22528, 2048
# Batch 4 on an L40, against attention that stores its matrix.
PAPER = {"seconds": 92.7, "mb": 95.4}


def write_page(points: Sequence[Point], folder: Path, threads: int) -> Path:
    """The page and, beside it or in its images, the picture."""
    images = folder / "images" if (folder / "images").is_dir() else folder
    name = "length_scaling" + ("_gpu" if torch.cuda.is_available() else "")
    picture = images / f"{name}.png"
    picture.write_bytes(png(curves(points)))
    page = folder / f"{name}.md"
    page.write_text(text(points, threads, picture.relative_to(folder).as_posix()), encoding="utf-8")
    return page


def text(points: Sequence[Point], threads: int, picture: str) -> str:
    """The page."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else machine(threads)
    parts = [
        "# Time and memory by length",
        f"Made by `python -m benchmarks.length_scaling --threads {threads} --page`: {where}. "
        "fp32, random weights, features of noise, "
        "patches of 16 x 16. A training step is a forward and a backward pass with a head of 50 classes. Memory is "
        "what a fresh process grows by at its peak, from after a pass over a very short clip; a time is the median of "
        f"up to three passes{', in CPU time' if threads == 1 and not torch.cuda.is_available() else ''}.",
        f"*Slanted* figures were not run: a pass would take more than {MOST_SECONDS:.0f} s or {MOST_MB / 1000:.0f} GB, "
        "so they follow from the two lengths before them by a power law whose exponent lies between 1 and 2. What took "
        "longer than that at the second length has a first figure only.",
        f"![Seconds and memory by tokens, double logarithmic]({picture})",
        *summary(points),
        "The scan by itself, beside a loop, llama.cpp and what the machine could do: [kernels](kernels.md#measured).",
    ]
    for (size, batch, training), found in grouped(points).items():
        work = "Training step" if training else "Inference"
        parts += [f"## {work}, {size}, batch {batch}", lengths(found)]
    return "\n\n".join(parts) + "\n"


def grouped(points: Sequence[Point]) -> dict[tuple[str, int, bool], list[Point]]:
    """Points by size, batch and work, in the order in which they were measured."""
    found: dict[tuple[str, int, bool], list[Point]] = {}
    for point in points:
        found.setdefault((point.series.size, point.series.batch, point.series.training), []).append(point)
    return found


def lines(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points with figures of each contestant, by length. What follows from a single length is left out: how time
    and memory grow is then not known."""
    found: dict[str, list[Point]] = {}
    for point in points:
        if point.seconds:
            found.setdefault(point.series.contestant, []).append(point)
    by_length = {name: sorted(own, key=lambda p: p.tokens) for name, own in found.items()}
    return {name: own if len(ran(own)) > 1 else ran(own) for name, own in by_length.items()}


def ran(points: Sequence[Point]) -> list[Point]:
    """Those that were not predicted."""
    return [p for p in points if not p.predicted]


def lengths(points: Sequence[Point]) -> str:
    """A table: a row per length, a column per contestant."""
    found = lines(points)
    rows = []
    for tokens in sorted({p.tokens for own in found.values() for p in own}):
        row: list[object] = [f"{tokens:,}"]
        for own in found.values():
            point = next((p for p in own if p.tokens == tokens), None)
            row.append(cell(point))
        rows.append(row)
    return table(["tokens", *found], rows)


def cell(point: Point | None) -> str:
    """Seconds and MB, slanted where predicted."""
    if point is None:
        return ""
    figures = f"{number(point.seconds)} s, {number(point.mb)} MB"
    return f"*{figures}*" if point.predicted else figures


def number(value: float) -> str:
    """Two significant digits, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def summary(points: Sequence[Point]) -> list[str]:
    """Where the curves cross, the paper's figure, and what the kernels are worth."""
    said = []
    for (size, batch, training), found in grouped(points).items():
        by_name = lines(found)
        work = "training" if training else "inference"
        if SSAMBA not in by_name:
            continue
        for other in (SSAST, STORED):
            if other in by_name:
                clauses = [clause(by_name[SSAMBA], by_name[other], name) for name in ("seconds", "mb")]
                said.append(f"- {work}, {size}, batch {batch}: SSAMBA is {clauses[0]} and {clauses[1]} than {other}.")
                said += claim(by_name[SSAMBA], by_name[other], other, work, size, batch)
        if LOOPED in by_name and (ratio := at(by_name[LOOPED], by_name[SSAMBA], LOOP_TOKENS)):
            said.append(
                f"- {work}, {size}: operation by operation, as the official code computes on a CPU, it takes "
                f"{ratio:.0f} times as long at {LOOP_TOKENS:,} tokens."
            )
        said += growth(ran(by_name[SSAMBA]), size, batch) if training else []
    return ["\n".join(said)] if said else []


def growth(run: Sequence[Point], size: str, batch: int) -> list[str]:
    """How training memory grows with the length, from the middle one on, where the network's own part is small."""
    first, last = run[len(run) // 2], run[-1]
    if first is last:
        return []
    more = f"{last.tokens / first.tokens:.1f} times the tokens ({first.tokens:,} to {last.tokens:,})"
    return [f"- training, {size}, batch {batch}: for {more} SSAMBA takes {last.mb / first.mb:.1f} times the memory."]


def clause(ours: Sequence[Point], theirs: Sequence[Point], name: str) -> str:
    """From where on ours is faster or leaner."""
    what, where = {"seconds": "faster", "mb": "leaner"}[name], crossover(ours, theirs, name)
    if where is None:
        return f"not {what} at any length here"
    return f"{what} from about {where:,.0f} tokens on" if where else f"{what} at every length"


def at(theirs: Sequence[Point], ours: Sequence[Point], tokens: int, name: str = "seconds") -> float | None:
    """How many times as much theirs takes at a length."""
    pair = [next((getattr(p, name) for p in points if p.tokens == tokens), 0.0) for points in (theirs, ours)]
    return pair[0] / pair[1] if all(pair) else None


def claim(ours: Sequence[Point], theirs: Sequence[Point], other: str, work: str, size: str, batch: int) -> list[str]:
    """The share that is saved at the paper's length, for its network and work."""
    saved = {name: at(theirs, ours, PAPER_TOKENS, name) for name in PAPER}
    if work != "inference" or size != "tiny" or not all(saved.values()):
        return []
    predicted = any(p.predicted for points in (ours, theirs) for p in points if p.tokens == PAPER_TOKENS)
    shares = {name: 100 * (1 - 1 / (ratio or 1)) for name, ratio in saved.items()}
    paper = f" (the paper, on a GPU: {PAPER['seconds']} % and {PAPER['mb']} %)" if other == STORED else ""
    return [
        f"  At {PAPER_TOKENS:,} tokens it takes {shares['seconds']:.1f} % less time and {shares['mb']:.1f} % less "
        f"memory{', part of that predicted' if predicted else ''}{paper}."
    ]


@styled
def curves(points: Sequence[Point]) -> Figure:
    """Seconds and MB by tokens for inference and training of the first size, batch 1."""
    figure = new_figure(WIDTH, 6.0)
    panels = figure.subplots(2, 2, sharex=True)
    size = next((size for size, batch, _ in grouped(points) if batch == 1), "")
    shown = {t: lines(grouped(points).get((size, 1, t), [])) for t in (False, True)}
    names = list(dict.fromkeys(name for found in shown.values() for name in found))
    for column, training in enumerate((False, True)):
        for row, (field, unit) in enumerate((("seconds", "seconds"), ("mb", "MB"))):
            axes = panels[row][column]
            _panel(axes, shown[training], names, field)
            axes.set_ylabel(unit if column == 0 else "")
            if row == 0:
                axes.set_title(f"{'training step' if training else 'inference'}, {size}", color=INK)
            else:
                axes.set_xlabel("tokens")
    handles, labels = panels[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _panel(axes: Axes, found: Mapping[str, Sequence[Point]], names: Sequence[str], field: str) -> None:
    for name, points in found.items():
        index = names.index(name)
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        run = ran(points)
        guessed = [*run[-1:], *(p for p in points if p.predicted)]
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4}
        axes.plot([p.tokens for p in run], [getattr(p, field) for p in run], label=name, **style)  # type: ignore[arg-type]
        if len(guessed) > 1:
            axes.plot(
                [p.tokens for p in guessed],
                [getattr(p, field) for p in guessed],
                linestyle=(0, (3, 3)),
                markerfacecolor="white",
                markevery=slice(1 if run else 0, None),
                **style,  # type: ignore[arg-type]
            )
    if SSAMBA in found and SSAST in found and (where := crossover(found[SSAMBA], found[SSAST], field)):
        axes.axvline(where, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(f"{where:,.0f}", (where, 0.02), xycoords=("data", "axes fraction"), fontsize=7, color=MUTED)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=4, subs=(2.0,)))
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1024:g}k")
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.grid(True)
