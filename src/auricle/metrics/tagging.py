"""Metrics of multi-label tagging: several classes may be present in one item.

A class without a positive has no average precision, one without a positive and a negative no ROC area: they are NaN in
the arrays, None in the table, and left out of means.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.metrics._checks import Floats, float_array, mean_of_defined, null_if_undefined, zero_one
from auricle.metrics.ranking import average_precision, d_prime, roc_auc


class Lwlrap(NamedTuple):
    """Label-weighted label-ranking average precision, overall and per class [C]."""

    overall: float
    per_class: Floats


def class_average_precision(scores: npt.ArrayLike, targets: npt.ArrayLike) -> Floats:
    """Average precision of each class [C]; its mean over defined classes is mAP.

    Args:
        scores: [N, C], higher means "more present"; probabilities or logits.
        targets: [N, C], 0 or 1.

    Raises:
        DataError: wrong shapes, NaN scores, targets other than 0 and 1.
    """
    values, present = _pair(scores, targets)
    return np.array([average_precision(s, t) for s, t in zip(values.T, present.T, strict=True)])


def class_roc_auc(scores: npt.ArrayLike, targets: npt.ArrayLike) -> Floats:
    """Area under the ROC curve of each class [C]. Arguments and errors as `class_average_precision`."""
    values, present = _pair(scores, targets)
    return np.array([roc_auc(s, t) for s, t in zip(values.T, present.T, strict=True)])


def lwlrap(scores: npt.ArrayLike, targets: npt.ArrayLike) -> Lwlrap:
    """How high the present labels rank within their item.

    Each present label gets the share of present labels among those ranked at or above it; a class gets the mean over
    its labels, the overall value is the mean over all labels. Ties rank in order of class. Arguments and errors as
    `class_average_precision`.
    """
    values, present = _pair(scores, targets)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(present, order, axis=1)
    precision_at = np.cumsum(ranked, axis=1) / np.arange(1, values.shape[1] + 1)
    precision = np.zeros_like(values)
    np.put_along_axis(precision, order, precision_at, axis=1)
    precision[~present] = 0.0
    labels = present.sum(axis=0)
    per_class = np.where(labels > 0, precision.sum(axis=0) / np.maximum(labels, 1), math.nan)
    return Lwlrap(float(precision.sum() / labels.sum()) if labels.any() else math.nan, per_class)


def argmax_accuracy(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Share of items whose highest score is at their first present class; meant for single-label targets.

    An item without any class counts as class 0, as in the SSAST evaluation. Arguments and errors as
    `class_average_precision`.
    """
    values, present = _pair(scores, targets)
    return float((values.argmax(axis=1) == present.argmax(axis=1)).mean())


def tagging_metrics(scores: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, Any]:
    """Everything above in one JSON-ready table; an undefined value is None, the d' of a perfect ranking infinite.

    `d_prime_of_mean_auc` is what published AudioSet figures call d'; the mean of the classes' own d' usually comes out
    larger and stands beside it so that the two are not confused.

    Args:
        scores: [N, C], higher means "more present"; probabilities or logits.
        targets: [N, C], 0 or 1.

    Raises:
        DataError: wrong shapes, NaN scores, targets other than 0 and 1.
    """
    values, present = _pair(scores, targets)
    aps, aucs = class_average_precision(values, present), class_roc_auc(values, present)
    ranking = lwlrap(values, present)
    mean_auc = mean_of_defined(aucs)
    return {
        "mAP": null_if_undefined(mean_of_defined(aps)),
        "per_class_AP": [null_if_undefined(ap) for ap in aps],
        "mAUC": null_if_undefined(mean_auc),
        "per_class_AUC": [null_if_undefined(auc) for auc in aucs],
        "d_prime_of_mean_auc": null_if_undefined(float(d_prime(mean_auc))),
        "mean_of_per_class_d_prime": null_if_undefined(mean_of_defined(d_prime(aucs))),
        "argmax_accuracy": argmax_accuracy(values, present),
        "lwlrap_own": null_if_undefined(ranking.overall),
        "lwlrap_per_class_own": [null_if_undefined(value) for value in ranking.per_class],
        "micro_AP_sklearn": null_if_undefined(average_precision(values.ravel(), present.ravel())),
    }


def _pair(scores: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values = float_array(scores, "scores", "NC")
    return values, zero_one(targets, values.shape, "targets")
