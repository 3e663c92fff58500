"""From scores of frames to events in time: median filters, and the stretches in which a score is above a threshold.

T frames, C classes, K thresholds, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from auricle.errors import ConfigError, DataError
from auricle.metrics._checks import Floats, float_array


class TimedEvent(Protocol):
    """Something that sounds from `onset` to `offset`, in seconds from the start of its file."""

    @property
    def onset(self) -> float: ...
    @property
    def offset(self) -> float: ...
    @property
    def label(self) -> str: ...


class Detection(NamedTuple):
    """An event that was found; `score` is the mean of its class's scores over its frames."""

    onset: float
    offset: float
    label: str
    score: float


@dataclass(frozen=True)
class FrameScores:
    """Scores of a file: `values` [T, C], higher means "more present"; frame t lasts from `edges[t]` to `edges[t + 1]`.

    Edges are in seconds from the start of the file.

    Raises:
        DataError: wrong shapes, scores that are not finite, edges that do not rise.
    """

    values: Floats
    edges: Floats

    def __post_init__(self) -> None:
        values = float_array(self.values, "frame scores", "TC")
        edges = float_array(self.edges, "edges of frames", "E")
        if len(edges) != len(values) + 1 or not (np.diff(edges) > 0).all():
            raise DataError(
                f"edges of frames: expected {len(values) + 1} rising times for {len(values)} frames, got {len(edges)}; "
                "give the start of each frame, and the end of the last."
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "edges", edges)

    def filtered(self, lengths: int | Sequence[int]) -> FrameScores:
        """The same with each class median-filtered; see `median_filter`."""
        return FrameScores(median_filter(self.values, lengths), self.edges)


class Runs(NamedTuple):
    """Stretches of neighbouring frames that are active: `row` [R], `first` frame [R], and `end` [R], the one behind."""

    row: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]
    end: npt.NDArray[np.intp]

    def spans(self, edges: Floats) -> Floats:
        """Start and end [R, 2] in seconds."""
        return np.stack([edges[self.first], edges[self.end]], axis=1)


def active_runs(active: npt.NDArray[np.bool_]) -> Runs:
    """The runs of each row of `active` [K, T], row after row, in order of time."""
    steps = np.diff(np.pad(active.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, first = np.nonzero(steps == 1)
    _, end = np.nonzero(steps == -1)
    return Runs(row, first, end)


def median_filter(values: npt.ArrayLike, lengths: int | Sequence[int]) -> Floats:
    """Median of `lengths` frames around each, for each class of [T, C]; the first and last frames repeat mirrored.

    Of an even number of frames it is the upper median of those from length / 2 before to length / 2 - 1 behind, as in
    scipy. As the filter only orders, filtering and then thresholding is thresholding and then filtering.

    Args:
        lengths: number of frames, for all classes or one for each; 1 changes nothing.

    Raises:
        DataError: wrong shape, or values that are not finite.
        ConfigError: a length below 1, or another number of lengths than classes.
    """
    array = float_array(values, "frame scores", "TC")
    each = [lengths] * array.shape[1] if isinstance(lengths, int) else list(lengths)
    if len(each) != array.shape[1]:
        raise ConfigError(f"median filter: expected {array.shape[1]} lengths, one per class, got {len(each)}.")
    if min(each) < 1:
        raise ConfigError(f"median filter: a length must be 1 frame or more, got {min(each)}.")
    columns = [
        column if length == 1 else ndimage.median_filter(column, size=length, mode="reflect")  # type: ignore[attr-defined]
        for column, length in zip(array.T, each, strict=True)
    ]
    return np.stack(columns, axis=1)


def detect_events(scores: FrameScores, classes: Sequence[str], thresholds: float | Sequence[float]) -> list[Detection]:
    """Events where a class's score is above its threshold, class after class, in order of time.

    Raises:
        DataError: another number of classes or thresholds than there are columns.
    """
    count = scores.values.shape[1]
    limits = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (count,)) if np.ndim(thresholds) == 0 else None
    limits = np.asarray(thresholds, dtype=np.float64) if limits is None else limits
    if len(classes) != count or limits.shape != (count,):
        raise DataError(f"frame scores have {count} columns, but {len(classes)} classes and {limits.size} thresholds.")
    runs = active_runs((scores.values > limits).T)
    return [
        Detection(float(on), float(off), classes[c], float(scores.values[first:end, c].mean()))
        for c, first, end, (on, off) in zip(*runs, runs.spans(scores.edges), strict=True)
    ]
