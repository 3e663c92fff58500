"""Whether a classifier's confidence is the chance that it is right.

Two bin conventions occur in the field and both are here. `reliability_bins` closes bins on the right, (lo, hi], the
first also on the left. `calibration_error` follows torchmetrics: [lo, hi), plus one bin for a confidence of exactly 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from auricle.errors import ConfigError
from auricle.metrics._checks import Floats, class_labels, class_scores, in_unit_interval, zero_one

BinScheme = Literal["equal_width", "equal_mass"]
Norm = Literal["l1", "l2", "max"]


@dataclass(frozen=True)
class Bin:
    """Items of similar confidence: their mean confidence and how often they were right."""

    index: int
    count: int
    confidence: float
    accuracy: float


def probabilities(logits: npt.ArrayLike) -> Floats:
    """Softmax over the last axis of logits [N, C], in float64 whatever the input.

    Raises:
        DataError: wrong shape, or NaN or infinite logits.
    """
    return np.exp(_log_probabilities(class_scores(logits)))


def negative_log_likelihood(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean of -log p(label) in nats, for logits [N, C] and labels [N].

    Raises:
        DataError: wrong shapes, NaN or infinite logits, labels out of range.
    """
    scores = class_scores(logits)
    true = class_labels(labels, *scores.shape)
    return float(-_log_probabilities(scores)[np.arange(len(true)), true].mean())


def brier_score(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean over items of the squared distance to the one-hot label, summed over classes: 0 (best) to 2.

    Raises:
        DataError: wrong shapes, NaN probabilities, labels out of range.
    """
    p = in_unit_interval(probs, "probabilities", "NC")
    true = class_labels(labels, *p.shape)
    one_hot = np.eye(p.shape[1])[true]
    return float(((p - one_hot) ** 2).sum(axis=1).mean())


def reliability_bins(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = 15, scheme: BinScheme = "equal_width"
) -> list[Bin]:
    """The non-empty bins of a reliability diagram, in order of confidence.

    Args:
        confidence: [N] in 0..1: of the top label, or the probability of the positive class.
        correct: [N], 0 or 1: whether the top label was right, or whether the item is positive.
        n_bins: number of bins.
        scheme: "equal_width" divides 0..1 evenly; "equal_mass" gives each bin the same number of items (within one).

    Raises:
        DataError: wrong shapes or values.
        ConfigError: unknown scheme, or n_bins below 1.
    """
    values = in_unit_interval(confidence, "confidence")
    outcome = zero_one(correct, values.shape, "correct").astype(np.float64)
    _check_bins(n_bins)
    if scheme == "equal_width":
        assigned = np.searchsorted(np.linspace(0.0, 1.0, n_bins + 1), values, side="left") - 1
        groups = [np.flatnonzero(np.clip(assigned, 0, n_bins - 1) == index) for index in range(n_bins)]
    elif scheme == "equal_mass":
        groups = np.array_split(np.argsort(values, kind="stable"), n_bins)
    else:
        raise ConfigError(f"bin scheme: expected 'equal_width' or 'equal_mass', got '{scheme}'.")
    return [
        Bin(index, len(items), float(values[items].mean()), float(outcome[items].mean()))
        for index, items in enumerate(groups)
        if len(items)
    ]


def ece(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = 15, scheme: BinScheme = "equal_width"
) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over bins, weighted by their items.

    Arguments and errors as `reliability_bins`. Few items per bin inflate it: a perfectly calibrated classifier does not
    score 0 on a small set.
    """
    bins = reliability_bins(confidence, correct, n_bins, scheme)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / sum(b.count for b in bins)


def mce(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, n_bins: int = 15, scheme: BinScheme = "equal_width"
) -> float:
    """Maximum calibration error: the largest gap of any bin. Arguments and errors as `reliability_bins`."""
    return max(abs(b.accuracy - b.confidence) for b in reliability_bins(confidence, correct, n_bins, scheme))


def calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, norm: Norm = "l1", n_bins: int = 15) -> float:
    """Calibration error with the bins, norms and arithmetic of torchmetrics (no debiasing).

    torchmetrics adds up one item after the other in the precision of the confidences, and keeps those of a multi-class
    problem in float32: pass them as float32 for its exact figure. From 1000 items on, the rounding reaches 1e-6.

    Args:
        confidence: [N] in 0..1; float32 is summed in float32, everything else in float64.
        correct: [N], 0 or 1.
        norm: "l1" the expected, "max" the largest gap, "l2" the root of the mean squared gap.
        n_bins: number of equal-width bins.

    Raises:
        DataError: wrong shapes or values.
        ConfigError: unknown norm, or n_bins below 1.
    """
    values = in_unit_interval(confidence, "confidence")
    outcome = zero_one(correct, values.shape, "correct")
    _check_bins(n_bins)
    dtype = np.float32 if np.asarray(confidence).dtype == np.float32 else np.float64
    # One bin more than n_bins: exactly 1 lies at the last edge, right of every half-open bin.
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    assigned = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, n_bins)
    counts = np.bincount(assigned, minlength=n_bins + 1)
    total_confidence, total_correct = np.zeros((2, n_bins + 1), dtype)
    np.add.at(total_confidence, assigned, values.astype(dtype))
    np.add.at(total_correct, assigned, outcome.astype(dtype))
    share = (counts / len(values)).astype(dtype)
    size = np.maximum(counts, 1).astype(dtype)
    gaps = np.abs(total_correct / size - total_confidence / size)
    if norm == "l1":
        return float((gaps * share).sum())
    if norm == "l2":
        return float(np.sqrt((gaps**2 * share).sum()))
    if norm == "max":
        return float(gaps.max())
    raise ConfigError(f"norm: expected 'l1', 'l2' or 'max', got '{norm}'.")


def optimal_temperature(
    logits: npt.ArrayLike, labels: npt.ArrayLike, bounds: tuple[float, float] = (0.05, 20.0)
) -> float:
    """The temperature T that minimises the negative log-likelihood of logits / T, within `bounds`.

    Fit it on validation items: on the items it is judged by, it flatters. Returns the nearer bound when the optimum
    lies outside (all items right, or worse than chance), and 1 when T makes no difference.

    Args:
        logits: [N, C].
        labels: [N].
        bounds: lowest and highest temperature.

    Raises:
        DataError: wrong shapes, NaN or infinite logits, labels out of range.
        ConfigError: bounds that are not 0 < low < high.
    """
    scores = class_scores(logits)
    true = class_labels(labels, *scores.shape)
    low, high = bounds
    if not 0 < low < high:
        raise ConfigError(f"temperature bounds: expected 0 < low < high, got {bounds}.")
    from scipy.optimize import brentq

    own = scores[np.arange(len(true)), true]

    def slope(inverse: float) -> float:
        expected = (np.exp(_log_probabilities(scores * inverse)) * scores).sum(axis=1)
        return float((expected - own).mean())

    # In 1/T the loss is convex, so its slope has at most one sign change: a root is exact where a minimiser of the flat
    # valley would stop at the square root of the precision.
    at_low, at_high = slope(1 / low), slope(1 / high)
    if at_low == at_high == 0:
        return 1.0
    if at_low <= 0:
        return low
    if at_high >= 0:
        return high
    return float(1 / brentq(slope, 1 / high, 1 / low, xtol=1e-14))  # type: ignore[no-untyped-call]


def _log_probabilities(scores: Floats) -> Floats:
    return np.asarray(log_softmax(scores, axis=1), dtype=np.float64)


def _check_bins(n_bins: int) -> None:
    if n_bins < 1:
        raise ConfigError(f"n_bins must be at least 1, got {n_bins}.")
