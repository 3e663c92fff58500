"""The house style of the pictures: type, colours, and how a figure becomes bytes.

As PNG, figures have a white ground. As SVG they have none, and their colours are those of the page that shows them,
light or dark (`DARK`). One inch is 100 CSS pixels on the page: most figures are 7 inches wide and their smallest text
is legible there. Pyplot's global state is never touched, and equal input gives equal bytes.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import matplotlib.style
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

WIDTH: Final = 7.0  # inches
INK, MUTED, AXIS, GRID = "#23272b", "#667079", "#aab2b8", "#e4e7e9"
OURS, OTHERS, MASKED = "#0b62a4", "#b7c0c7", "#c3cbd1"
# Okabe and Ito's colours without the yellow, which is too pale on white; told apart with every common colour blindness.
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d5459")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
# What is drawn in the colour of the ground: told apart from true white by its last digit.
PAPER: Final = "#fffffe"
HALO: Final = [withStroke(linewidth=3, foreground=PAPER)]
# The colours of a dark page; one that is not here, such as white letters on a filled cell, stays as it is.
DARK: Final = {
    PAPER: "#1b2024",
    INK: "#e3e5e6",
    MUTED: "#9aa3aa",
    AXIS: "#5d666d",
    GRID: "#30373c",
    OURS: "#4c9bd8",
    OTHERS: "#5d6870",
    "#0072b2": "#3f9fdb",
    "#4d5459": "#a9b1b7",
}
# Shares from nothing to all, over a ground of any colour.
TINT: Final = LinearSegmentedColormap.from_list("tint", [(*to_rgb(OURS), 0.0), (*to_rgb(OURS), 1.0)])

# DejaVu comes with matplotlib, so pictures look alike on every machine; the rest is for scripts that it lacks.
_FONTS: Final = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Arial Unicode MS")
_STYLE: Final[dict[str, Any]] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": AXIS,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": AXIS,
    "ytick.color": AXIS,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.facecolor": "none",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "svg.fonttype": "path",
    "svg.hashsalt": "auricle",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run `draw` in the house style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.style.context(["default", {**_STYLE, "font.family": list(_fonts()[0])}]):
            result = draw(*args, **kwargs)
            if isinstance(result, Figure):
                # Ticks are made at the first draw, in the style of that moment; so draw once while the style holds.
                result.draw_without_rendering()
                result.set_layout_engine("none")
            return result

    return inner


@styled
def svg(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as SVG, its letters as outlines so that it needs no font, in the colours of a light or dark page.

    `dpi` is that of pictures and of what is rasterized (`with_pixels`) inside.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=dpi, facecolor="none", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode("utf-8")
    names = {colour: f"--c{number}" for number, colour in enumerate(DARK)}
    # Only inside styles is a colour a colour: elsewhere it may be the name of a shape.
    text = re.sub(
        r"(?<=: )#[0-9a-f]{6}\b", lambda match: f"var({names[match[0]]})" if match[0] in names else match[0], text
    )
    light, dark = (
        "".join(f"{name}:{colours[colour]};" for colour, name in names.items())
        for colours in ({colour: colour for colour in DARK}, DARK)
    )
    scheme = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>\n"
    return text.replace(" <defs>", f" {scheme} <defs>", 1).encode("utf-8")


def with_pixels(figure: Figure) -> Figure:
    """The figure with its clouds of points made of pixels when it is written as SVG; words and axes stay sharp."""
    for axes in figure.axes:
        for cloud in axes.collections:
            cloud.set_rasterized(True)
    return figure


@styled
def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG; `dpi` 200 is two image pixels for each CSS pixel."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def nothing(message: str) -> Figure:
    figure = new_figure(4.8, 0.8)
    figure.text(0.5, 0.5, label_text(message, 60), ha="center", va="center", color=MUTED)
    return figure


@functools.cache
def _fonts() -> tuple[tuple[str, ...], frozenset[int]]:
    """The fonts of `_FONTS` that are installed, and the code points that one of them has both regular and bold."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    names = tuple(name for name in _FONTS if name in installed)
    return names, frozenset().union(*(_code_points(name, "normal") & _code_points(name, "bold") for name in names))


def _code_points(family: str, weight: str) -> frozenset[int]:
    file = font_manager.findfont(font_manager.FontProperties(family=[family], weight=weight))
    return frozenset(font_manager.get_font(file).get_charmap())


def label_text(label: object, limit: int = 24) -> str:
    """One line that the fonts can draw; a long label loses its middle, as prefix and suffix tell labels apart."""
    line = "".join(c if ord(c) in _fonts()[1] else "□" for c in " ".join(str(label).split()))
    return line if len(line) <= limit else f"{line[: limit // 2]}…{line[len(line) - (limit - limit // 2 - 1) :]}"
