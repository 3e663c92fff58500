"""Reading events out of the time steps of a frozen network: ridge on each step, thresholds and filters as a detector's.

t time steps of a clip, D width of a step, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auricle.data.items import Event, Item
from auricle.data.loader import read_item
from auricle.data.targets import frame_targets
from auricle.evaluation.detection import DetectionOutcome
from auricle.evaluation.heads import RIDGE_ALPHAS
from auricle.inference.model import Model
from auricle.metrics import Collars, FrameScores, detect_events
from auricle.tasks.decoding import FILTERS, choose_decoding
from auricle.tasks.detection import FILTER_SECONDS, OFFSET_SHARE, THRESHOLD, joined, odd_frames, step_values

Array = NDArray[np.float64]
# Training clips are left out by turns in so many parts, to choose the penalty, and thresholds and filters.
PARTS = 4


@dataclass(frozen=True)
class Steps:
    """The time steps of a clip: `values` [t, D], of which step i lasts from `edges[i]` to `edges[i + 1]` seconds."""

    values: Array
    edges: Array


@dataclass(frozen=True)
class Clip:
    """A strongly labelled clip and what a network makes of it."""

    id: str
    events: tuple[Event, ...]
    steps: Steps


def embed_steps(model: Model, items: Sequence[Item]) -> Iterator[Steps]:
    """The last layer's time steps of each item, frequency rows side by side."""
    encoder = model.encoder
    for item in items:
        sound = read_item(item.hearing(encoder.channel), encoder.sample_rate)
        with model.autocast():
            yield Steps(*joined(step_values(encoder, [sound], model.device, lambda frames: frames)))


@dataclass(frozen=True)
class Moments:
    """What a ridge regression of y [C] on x [D] needs of time steps: their number, and sums of x, x x', y and x y'."""

    count: float
    x: Array
    xx: Array
    y: Array
    xy: Array

    @staticmethod
    def of(values: Array, targets: NDArray[np.float32]) -> Moments:
        y = targets.astype(np.float64)
        return Moments(len(values), values.sum(0), values.T @ values, y.sum(0), values.T @ y)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.x + other.x, self.xx + other.xx, self.y + other.y, self.xy + other.xy
        )

    def solutions(self, alphas: Sequence[float]) -> list[tuple[Array, Array]]:
        """Weights [D, C] and offsets [C] for each penalty, which counts in units of the mean variance of x."""
        mean, mean_y = self.x / self.count, self.y / self.count
        covariance = self.xx - self.count * np.outer(mean, mean)
        scale = float(np.trace(covariance)) / (len(mean) * self.count)
        values, vectors = np.linalg.eigh(covariance)
        turned = vectors.T @ (self.xy - self.count * np.outer(mean, mean_y))
        weights = [vectors @ (turned / (values.clip(min=0) + alpha * scale)[:, None]) for alpha in alphas]
        return [(w, mean_y - mean @ w) for w in weights]


def read_out(
    train: Sequence[Clip], test: Sequence[Clip], classes: Sequence[str], rate: float, collar: float
) -> DetectionOutcome:
    """Events of the test clips, by a ridge regression of the classes on each time step of the training clips.

    The penalty is that of the smallest squared error on training clips that were left out; on the same predictions
    thresholds and filters are chosen as a detector's are, by event-based F1.

    Args:
        rate: time steps per second, in which filters are counted.
        collar: seconds by which the ends of an event may be off.
    """
    targets = [frame_targets(clip.events, classes, clip.steps.edges) for clip in train]
    parts = [range(part, len(train), PARTS) for part in range(PARTS)]
    sums = [total([Moments.of(train[i].steps.values, targets[i]) for i in part]) for part in parts]
    errors = np.zeros(len(RIDGE_ALPHAS))
    # By penalty, what is said of each clip by a regression that does not know it.
    said: list[dict[int, Array]] = [{} for _ in RIDGE_ALPHAS]
    for part, held in enumerate(parts):
        rest = total([own for other, own in enumerate(sums) if other != part])
        for number, (weights, offset) in enumerate(rest.solutions(RIDGE_ALPHAS)):
            for i in held:
                said[number][i] = train[i].steps.values @ weights + offset
                errors[number] += float(((said[number][i] - targets[i]) ** 2).sum())
    best = int(errors.argmin())
    collars = Collars(collar, collar, OFFSET_SHARE)
    lengths = list(dict.fromkeys(odd_frames(seconds, rate) for seconds in FILTERS))
    known = [FrameScores(said[best][i], clip.steps.edges) for i, clip in enumerate(train)]
    thresholds, filters = choose_decoding([clip.events for clip in train], known, classes, lengths, collars)
    chosen = [
        (THRESHOLD, odd_frames(FILTER_SECONDS, rate)) if threshold is None else (threshold, length)
        for threshold, length in zip(thresholds, filters, strict=True)
    ]
    ((weights, offset),) = total(sums).solutions([RIDGE_ALPHAS[best]])
    filtered = [
        FrameScores(clip.steps.values @ weights + offset, clip.steps.edges).filtered([length for _, length in chosen])
        for clip in test
    ]
    limits = [threshold for threshold, _ in chosen]
    return DetectionOutcome(
        ids=tuple(clip.id for clip in test),
        classes=tuple(classes),
        truth=tuple(clip.events for clip in test),
        detected=tuple(tuple(detect_events(clip, classes, limits)) for clip in filtered),
        scores=tuple(filtered),
        collars=collars,
    )


def total(moments: Sequence[Moments]) -> Moments:
    """The moments of all."""
    result, *rest = moments
    for other in rest:
        result = result + other
    return result
