"""Maps of embeddings: clips that a network finds alike lie together. N clips, D width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from auricle.errors import DataError
from auricle.evaluation.style import GRID, HALO, INK, MARKERS, PALETTE, WIDTH, label_text, new_figure, nothing, styled

Array = npt.NDArray[Any]
PERPLEXITY = 30.0


def project(embeddings: npt.ArrayLike) -> Array:
    """Embeddings [N, D] to places [N, 2] by t-SNE (van der Maaten and Hinton, 2008) of their first 30 components.

    It starts from the first two, and draws nothing. Fewer than five clips, or such that do not differ, are placed by
    the first two alone.
    """
    from sklearn.manifold import TSNE

    x = np.asarray(embeddings, dtype=np.float64)
    x = x - x.mean(0)
    left, sizes, _ = np.linalg.svd(x, full_matrices=False)
    components = np.zeros((len(x), max(2, min(30, len(sizes)))))
    components[:, : len(sizes)] = (left * sizes)[:, : components.shape[1]]
    spread = components[:, 0].std()
    if len(x) < 5 or spread < 1e-9:
        return components[:, :2]
    # As scikit-learn's own start from the components: small, so that the early steps are not stuck.
    start = (1e-4 / spread * components[:, :2]).astype(np.float32)
    tsne = TSNE(perplexity=min(PERPLEXITY, (len(x) - 1) / 3), init=start, learning_rate="auto", random_state=0)
    return np.asarray(tsne.fit_transform(components.astype(np.float32)), dtype=np.float64)


def places(figure: Figure, points: npt.ArrayLike) -> Array:
    """Where points [N, 2] of an `embedding_map` lie on its picture [N, 2], in shares from the left and from the top."""
    pixels = figure.axes[0].transData.transform(np.asarray(points, dtype=float))
    shares = pixels / np.array(figure.bbox.size)
    return np.stack([shares[:, 0], 1 - shares[:, 1]], axis=1)


@styled
def embedding_map(points2d: npt.ArrayLike, labels: Sequence[str]) -> Figure:
    """Points [N, 2] of a projection, with each class named at its median, or beside its only point.

    The axes of such projections have no unit, so none is shown. A name that would cover another, or the only point of a
    class, is left out and counted below the map.

    Raises:
        DataError: not one point [x, y] for each label.
    """
    points = np.asarray(points2d, dtype=float)
    if not len(labels):
        return nothing("No points.")
    if points.shape != (len(labels), 2):
        raise DataError(f"embedding_map: expected points of shape [{len(labels)}, 2], got {points.shape}.")
    names = np.array([str(label) for label in labels])
    finite = np.isfinite(points).all(axis=1)
    classes, sizes = np.unique(names, return_counts=True)
    figure = new_figure(WIDTH, 5.2)
    axes = figure.subplots()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(GRID)
    area = float(np.clip(9000 / len(points), 7, 40))
    for index, name in enumerate(classes.tolist()):
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index // len(PALETTE) % len(MARKERS)]
        own = points[(names == name) & finite]
        dots = axes.scatter(own[:, 0], own[:, 1], s=area, c=colour, marker=marker, alpha=0.7, linewidths=0)
        dots.set_rasterized(len(points) > 1500)
    axes.margins(0.05)
    axes.set_aspect("equal", adjustable="datalim")
    # Keeps the line of the notes free while the names are placed.
    axes.set_xlabel(" ", fontsize=8, loc="left")
    figure.draw_without_rendering()
    lonely = points[finite & np.isin(names, classes[sizes == 1])]
    radius = np.sqrt(area) / 2 * figure.dpi / 72
    taken = [Bbox.from_extents(*(at - radius), *(at + radius)) for at in axes.transData.transform(lonely)]
    skipped = 0
    for index in np.argsort(-sizes, kind="stable").tolist():
        own = points[(names == classes[index]) & finite]
        placed = bool(len(own)) and _place(axes, classes[index], np.median(own, axis=0), taken)
        skipped += not placed
    notes = [f"{skipped} of {len(classes)} classes not named for lack of space"] if skipped else []
    notes += [f"{np.sum(~finite)} points without finite coordinates left out"] if not finite.all() else []
    axes.set_xlabel("; ".join(notes) or " ", fontsize=8, loc="left")
    return figure


def _place(axes: Axes, name: str, centre: Array, taken: list[Bbox]) -> bool:
    """Write a class name near `centre` where it covers none of `taken`; False when there is no such place."""
    text = axes.annotate(label_text(name), (float(centre[0]), float(centre[1])), (0, 0), textcoords="offset points")
    text.set(ha="center", va="center", fontsize=8, fontweight="bold", color=INK, path_effects=HALO)
    base = text.get_window_extent()
    points = 72 / axes.figure.dpi
    width, height = base.width * points, base.height * points
    for dx, dy in ((0, 0), (0, 1), (0, -1), (0.6, 0.6), (-0.6, 0.6), (0.6, -0.6), (-0.6, -0.6), (0, 2), (0, -2)):
        text.set_position((dx * width, dy * height))
        box = text.get_window_extent().padded(1.5)
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return True
    text.remove()
    return False
