"""Pictures of log-mel spectrograms. T frames, F bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from auricle.errors import DataError
from auricle.evaluation.style import INK, MASKED, MUTED, WIDTH, label_text, new_figure, nothing, styled

Array = npt.NDArray[Any]


@styled
def reconstruction(
    original: Sequence[npt.ArrayLike],
    masked: Sequence[npt.ArrayLike],
    reconstructed: Sequence[npt.ArrayLike],
    titles: Sequence[str],
    frame_seconds: float = 0.01,
) -> Figure:
    """Log-mel spectrograms [T, F], one row of original, masked and reconstructed for each clip, on one colour scale.

    `masked` is a mask [T, F], true or 1 where the network saw nothing, or a log-mel with NaN there. Band 0 is at the
    bottom.

    Raises:
        DataError: lists of different length, arrays that are not [T, F] or not of one shape, no mask in `masked`.
    """
    if not len(original) == len(masked) == len(reconstructed) == len(titles):
        sizes = f"{len(original)}, {len(masked)}, {len(reconstructed)} and {len(titles)}"
        raise DataError(f"reconstruction: original, masked, reconstructed and titles must be as many, got {sizes}.")
    if not len(titles):
        return nothing("No clips.")
    clips = []
    for title, *arrays in zip(titles, original, masked, reconstructed, strict=True):
        before, hidden, after = map(np.asarray, arrays)
        if before.ndim != 2 or not before.size or not before.shape == hidden.shape == after.shape:
            shapes = f"{before.shape}, {hidden.shape} and {after.shape}"
            raise DataError(f"reconstruction of {title}: expected three arrays of one shape [T, F], got {shapes}.")
        clips.append((title, before, _mask(hidden, title), after))
    energies = np.concatenate([before[np.isfinite(before)].ravel() for _, before, _, _ in clips])
    low, high = np.percentile(energies, [1, 99.7]) if energies.size else (0.0, 1.0)
    high = max(high, low + 1e-6)
    figure = new_figure(WIDTH, 0.45 + 1.45 * len(clips))
    grid = figure.subplots(len(clips), 3, sharey="row", squeeze=False)
    cmap = colormaps["magma"].with_extremes(bad=MASKED)
    for row, (title, before, hidden, after) in zip(grid, clips, strict=True):
        frames, bands = before.shape
        triple = (
            (before, label_text(title, 30)),
            (np.ma.array(before, mask=hidden), "masked in grey"),
            (after, "reconstructed"),
        )
        for axes, (values, name) in zip(row, triple, strict=True):
            # Silence is log 0: it belongs at the dark end, not in the colour of the mask.
            filled = np.ma.array(np.nan_to_num(values, nan=low, neginf=low, posinf=high), mask=np.ma.getmask(values))
            image = axes.imshow(
                filled.T,
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                extent=(0, frames * frame_seconds, 0, bands),
                cmap=cmap,
                vmin=low,
                vmax=high,
            )
            axes.set_title(name, fontsize=8.5, color=INK if axes is row[0] else MUTED, pad=4)
            axes.spines[:].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.set_yticks([0, bands // 2, bands])
        row[0].set_ylabel("mel band")
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    scale = figure.colorbar(image, ax=grid, aspect=12 * len(clips), pad=0.015, fraction=0.04)
    scale.set_label("log-mel energy", fontsize=8)
    scale.outline.set_visible(False)
    return figure


@styled
def spectrogram(log_mel: npt.ArrayLike, frame_seconds: float = 0.01) -> Figure:
    """One log-mel spectrogram [T, F], band 0 at the bottom; its colours reach from its 1st to its 99.7th percentile."""
    values = np.asarray(log_mel, dtype=float)
    low, high = np.percentile(values, [1, 99.7])
    figure = new_figure(WIDTH, 1.7)
    axes = figure.subplots()
    axes.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, len(values) * frame_seconds, 0, values.shape[1]),
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1e-6),
    )
    axes.spines[:].set_visible(False)
    axes.set(xlabel="seconds", ylabel="mel band")
    return figure


def _mask(masked: Array, title: str) -> npt.NDArray[np.bool_]:
    nan = np.isnan(masked)
    if nan.any():
        return nan
    if not np.isin(masked, (0, 1)).all():
        raise DataError(
            f"reconstruction of {title}: `masked` must be a mask of 0 and 1, or hold NaN where it hides; got neither."
        )
    return masked.astype(bool)
