"""Metrics of an ordering: area under the ROC curve, average precision, d'.

NaN marks a class where the metric is undefined; scikit-learn would warn there and, for average precision, return 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from auricle.metrics._checks import Floats, float_array, zero_one


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN unless both occur.

    Args:
        scores: [N], higher means "more positive".
        labels: [N], 0 or 1.

    Raises:
        DataError: wrong shape, NaN scores or labels other than 0 and 1.
    """
    values = float_array(scores, "scores", "N")
    positive = zero_one(labels, values.shape, "labels")
    if positive.all() or not positive.any():
        return math.nan
    # Imported here: it takes over a second, which importing auricle should not.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, values))


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the precision-recall staircase (no interpolation); NaN if there is no positive.

    Args:
        scores: [N], higher means "more positive".
        labels: [N], 0 or 1.

    Raises:
        DataError: wrong shape, NaN scores or labels other than 0 and 1.
    """
    values = float_array(scores, "scores", "N")
    positive = zero_one(labels, values.shape, "labels")
    if not positive.any():
        return math.nan
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, values))


def d_prime(auc: npt.ArrayLike) -> Floats:
    """Distance of two unit normals whose ROC curve has this area; any shape; infinite at 0 and 1, NaN stays NaN."""
    return np.asarray(math.sqrt(2) * ndtri(np.asarray(auc, dtype=np.float64)), dtype=np.float64)
