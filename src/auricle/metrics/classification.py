"""Metrics of single-label classification.

Every function takes what was predicted first and the labels second. Macro averages run over all classes of the model: a
class that never occurs and is never predicted counts as 0 in F1, and is left out of the unweighted average recall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.errors import ConfigError, DataError
from auricle.metrics import calibration
from auricle.metrics._checks import Floats, Ints, class_labels, class_scores, null_if_undefined
from auricle.metrics.ranking import roc_auc

Average = Literal["macro", "weighted", "micro"]


class ClassScores(NamedTuple):
    """One entry per class, each array [C]; 0 where a ratio has an empty denominator."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints


def accuracy(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of items [N] whose predicted class is the label.

    Raises:
        DataError: empty, different lengths, or not class indices.
    """
    guess, true = _pair(predicted, labels)
    return float((guess == true).mean())


def confusion_matrix(predicted: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int) -> Ints:
    """Counts [C, C]: rows are true classes, columns predicted ones.

    Raises:
        DataError: empty, different lengths, or a class outside 0..n_classes-1.
    """
    guess, true = _pair(predicted, labels, n_classes)
    return np.bincount(true * n_classes + guess, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def class_precision_recall_f1(confusion: npt.ArrayLike) -> ClassScores:
    """Precision, recall, F1 and number of items of each class, from counts [C, C] with true classes as rows."""
    counts = _counts(confusion)
    hits, support, guesses = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    return ClassScores(
        precision=_ratio(hits, guesses),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + guesses),
        support=support,
    )


def unweighted_average_recall(predicted: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int | None = None) -> float:
    """UAR, also called balanced accuracy: mean recall over the classes that occur in `labels`.

    Raises:
        DataError: empty, different lengths, or not class indices (below `n_classes`, if that is given).
    """
    guess, true = _pair(predicted, labels, n_classes)
    _, index, support = np.unique(true, return_inverse=True, return_counts=True)
    return float((np.bincount(index, weights=guess == true) / support).mean())


def f1_score(confusion: npt.ArrayLike, average: Average = "macro") -> float:
    """F1 over all classes, from counts [C, C] with true classes as rows.

    `average`: "macro" is the plain mean over classes, "weighted" by their items, "micro" over decisions (= accuracy).

    Raises:
        DataError: not a square table of counts.
        ConfigError: unknown average.
    """
    counts = _counts(confusion)
    scores = class_precision_recall_f1(counts)
    if average == "macro":
        return float(scores.f1.mean())
    if average == "weighted":
        return float((scores.f1 * scores.support).sum() / scores.support.sum())
    if average == "micro":
        return float(counts.trace() / counts.sum())
    raise ConfigError(f"average: expected 'macro', 'weighted' or 'micro', got '{average}'.")


def matthews_correlation(confusion: npt.ArrayLike) -> float:
    """Multi-class correlation of labels and predictions, -1..1; 0 when either of them never varies.

    Raises:
        DataError: not a square table of counts.
    """
    counts = _counts(confusion).astype(np.float64)
    total, true, guess = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    covariance = counts.trace() * total - true @ guess
    variances = (total**2 - true @ true) * (total**2 - guess @ guess)
    return float(covariance / math.sqrt(variances)) if variances else 0.0


def cohen_kappa(confusion: npt.ArrayLike) -> float:
    """Agreement beyond chance, at most 1; NaN when chance already agrees always (one class on both sides).

    Raises:
        DataError: not a square table of counts.
    """
    counts = _counts(confusion).astype(np.float64)
    total, true, guess = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    by_chance = true @ guess
    if by_chance == total**2:
        return math.nan
    return float((counts.trace() * total - by_chance) / (total**2 - by_chance))


def top_k_accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike, k: int = 2) -> float:
    """Share of items whose label is among the `k` highest of scores [N, C]; ties go to the lower class index.

    Raises:
        DataError: wrong shapes, NaN or infinite scores, labels out of range.
        ConfigError: k below 1.
    """
    values = class_scores(scores, "scores")
    true = class_labels(labels, *values.shape)
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    best = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return float((best == true[:, None]).any(axis=1).mean())


def macro_one_vs_rest_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean over classes of the ROC area of that class against the others; NaN if any class is absent (or alone).

    Raises:
        DataError: wrong shapes, NaN or infinite scores, labels out of range.
    """
    values = class_scores(scores, "scores")
    true = class_labels(labels, *values.shape)
    return float(np.mean([roc_auc(column, true == index) for index, column in enumerate(values.T)]))


def classification_metrics(
    logits: npt.ArrayLike, labels: npt.ArrayLike, class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Everything above in one JSON-ready table; an undefined value is None.

    Values "after temperature" use the temperature that is best on these same items: the most that a temperature could
    gain in likelihood, not what one fitted elsewhere will.

    Args:
        logits: [N, C] before the softmax, C at least 2.
        labels: [N], the true class of each item as an index.
        class_names: C names; "c0", "c1", ... if absent.

    Raises:
        DataError: wrong shapes, NaN or infinite logits, labels out of range, or another number of names than classes.
    """
    scores = class_scores(logits)
    n_classes = scores.shape[1]
    true = class_labels(labels, *scores.shape)
    names = [f"c{i}" for i in range(n_classes)] if class_names is None else [str(name) for name in class_names]
    if len(names) != n_classes:
        raise DataError(f"class_names: expected {n_classes}, one per column of the logits, got {len(names)}.")

    probs = calibration.probabilities(scores)
    predicted = scores.argmax(axis=1)
    confidence, correct = probs.max(axis=1), predicted == true
    confusion = confusion_matrix(predicted, true, n_classes)
    per_class = class_precision_recall_f1(confusion)
    temperature = calibration.optimal_temperature(scores, true)
    tempered = scores / temperature
    # torchmetrics keeps confidences in float32: near 1 they become exactly 1, which is a bin of its own there.
    single = confidence.astype(np.float32)
    return {
        "class_names": names,
        "accuracy": accuracy(predicted, true),
        "balanced_accuracy": unweighted_average_recall(predicted, true, n_classes),
        "macro_f1": f1_score(confusion, "macro"),
        "micro_f1": f1_score(confusion, "micro"),
        "weighted_f1": f1_score(confusion, "weighted"),
        "per_class": [
            {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(names, *per_class, strict=True)
        ],
        "confusion_rows_true": confusion.tolist(),
        "mcc": matthews_correlation(confusion),
        "cohen_kappa": null_if_undefined(cohen_kappa(confusion)),
        "nll": calibration.negative_log_likelihood(scores, true),
        "brier_sum_over_classes": calibration.brier_score(probs, true),
        "ece_15_equal_width": calibration.ece(confidence, correct),
        "mce_15_equal_width": calibration.mce(confidence, correct),
        "ece_15_equal_mass": calibration.ece(confidence, correct, scheme="equal_mass"),
        "reliability_bins_15": [list(astuple(b)) for b in calibration.reliability_bins(confidence, correct)],
        "torchmetrics": {
            "ece_l1_15": calibration.calibration_error(single, correct, "l1"),
            "ece_l2_15": calibration.calibration_error(single, correct, "l2"),
            "mce_max_15": calibration.calibration_error(single, correct, "max"),
        },
        "macro_ovr_auc": null_if_undefined(macro_one_vs_rest_auc(probs, true)),
        "top2_accuracy": top_k_accuracy(scores, true, k=2),
        "temperature_opt": temperature,
        "nll_after_temperature": calibration.negative_log_likelihood(tempered, true),
        "ece_15_after_temperature": calibration.ece(calibration.probabilities(tempered).max(axis=1), correct),
    }


def _pair(predicted: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int | None = None) -> tuple[Ints, Ints]:
    guess = np.asarray(predicted)
    if guess.ndim != 1 or not guess.size:
        raise DataError(f"predicted: expected class indices of shape [N] with at least one item, got {guess.shape}.")
    return class_labels(guess, len(guess), n_classes, "predicted"), class_labels(labels, len(guess), n_classes)


def _counts(confusion: npt.ArrayLike) -> Ints:
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu" or not counts.sum():
        raise DataError(
            f"confusion: expected a square table of counts with at least one item, got {counts.dtype} of shape "
            f"{counts.shape}; make it with confusion_matrix."
        )
    return counts.astype(np.int64)


def _ratio(part: Ints, whole: Ints) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)
