"""The house style of the pictures: type, colours, and how a figure becomes bytes.

Figures have a white ground, so they read the same on a light page, a dark page and paper. One inch is 100 CSS pixels on
the page: most figures are 7 inches wide and their smallest text is legible there. Pyplot's global state is never
touched, and equal input gives equal bytes.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import matplotlib.style
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

WIDTH: Final = 7.0  # inches
INK, MUTED, AXIS, GRID = "#23272b", "#667079", "#aab2b8", "#e4e7e9"
OURS, OTHERS, MASKED = "#0b62a4", "#b7c0c7", "#c3cbd1"
# Okabe and Ito's colours without the yellow, which is too pale on white; told apart with every common colour blindness.
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d5459")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
HALO: Final = [withStroke(linewidth=3, foreground="white")]

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
def svg(figure: Figure) -> bytes:
    """The figure as SVG, its letters as outlines so that it needs no font."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


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
