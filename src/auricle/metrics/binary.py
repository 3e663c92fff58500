"""Metrics of a probability for one of two classes, such as "this clip is spoofed"."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from auricle.metrics import calibration
from auricle.metrics._checks import Floats, float_array, in_unit_interval, null_if_undefined, zero_one
from auricle.metrics.ranking import average_precision, roc_auc


def log_loss(prob: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean of -log p(label) in nats, for prob [N] of the positive class and labels [N]; finite even for 0 and 1.

    Raises:
        DataError: wrong shapes, or values outside 0..1.
    """
    p, positive = _pair(prob, labels)
    p = _open_interval(p)
    return float(-np.log(np.where(positive, p, 1 - p)).mean())


def f1_positive(prob: npt.ArrayLike, labels: npt.ArrayLike, threshold: float = 0.5) -> float:
    """F1 of the positive class, decided where prob > threshold; 0 when it neither occurs nor is predicted.

    Raises:
        DataError: wrong shapes, or values outside 0..1.
    """
    p, positive = _pair(prob, labels)
    guess = p > threshold
    relevant = guess.sum() + positive.sum()
    return float(2 * (guess & positive).sum() / relevant) if relevant else 0.0


def cllr(llr: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Cost of log-likelihood ratios in bits: 0 is perfect, 1 is "no idea" (all zero); NaN unless both classes occur.

    Args:
        llr: [N] natural-log likelihood ratios, positive speaks for label 1.
        labels: [N], 0 or 1.

    Raises:
        DataError: wrong shapes, or NaN or infinite ratios.
    """
    ratios = float_array(llr, "llr", "N")
    positive = zero_one(labels, ratios.shape, "labels")
    if positive.all() or not positive.any():
        return math.nan
    # logaddexp(0, x) = log(1 + exp(x)) without overflow.
    nats = (np.logaddexp(0, -ratios[positive]).mean() + np.logaddexp(0, ratios[~positive]).mean()) / 2
    return float(nats / math.log(2))


def binary_probability_metrics(prob: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, Any]:
    """Quality of decisions, ranking and calibration in one JSON-ready table; an undefined value is None.

    Decisions are prob > 0.5, as the argmax of (1 - prob, prob) makes them. Calibration here compares the probability of
    the positive class with how often it occurs, not the confidence of the decision with its accuracy.
    `cllr_bits_from_logit` takes the log odds as log-likelihood ratios, which assumes a training prior of one half.

    Args:
        prob: [N], probability of class 1.
        labels: [N], 0 or 1.

    Raises:
        DataError: wrong shapes, NaN, probabilities outside 0..1, labels other than 0 and 1.
    """
    p, positive = _pair(prob, labels)
    return {
        "accuracy": float(((p > 0.5) == positive).mean()),
        "f1_positive": f1_positive(p, positive),
        "brier": float(((p - positive) ** 2).mean()),
        "log_loss": log_loss(p, positive),
        "roc_auc": null_if_undefined(roc_auc(p, positive)),
        "average_precision": null_if_undefined(average_precision(p, positive)),
        "ece_15_positive_class": calibration.ece(p, positive),
        "mce_15_positive_class": calibration.mce(p, positive),
        "reliability_bins_15": [list(astuple(b)) for b in calibration.reliability_bins(p, positive)],
        "torchmetrics_binary_ece_l1_15": calibration.calibration_error(p, positive, "l1"),
        "cllr_bits_from_logit": null_if_undefined(cllr(logit(_open_interval(p)), positive)),
    }


def _pair(prob: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    p = in_unit_interval(prob, "prob")
    return p, zero_one(labels, p.shape, "labels")


def _open_interval(p: Floats) -> Floats:
    # One certain mistake would otherwise make the mean infinite; scikit-learn clips its log loss at the same distance.
    tiny = np.finfo(np.float64).eps
    return np.clip(p, tiny, 1 - tiny)
