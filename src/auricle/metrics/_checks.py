"""What every metric accepts: arrays of the right shape, finite, with labels in range.

A metric that returns a plausible number for broken input is worse than one that fails, so nothing is coerced silently.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from auricle.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def float_array(values: npt.ArrayLike, name: str, axes: str) -> Floats:
    """`values` as finite float64 with one axis per letter of `axes` ("N", "NC") and at least one item.

    Raises:
        DataError: not numeric, wrong number of axes, empty, NaN or infinite.
    """
    shape = f"[{', '.join(axes)}]"
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: expected numbers of shape {shape}, but they cannot be read as such: {error}."
        ) from None
    if array.ndim != len(axes):
        raise DataError(
            f"{name}: expected shape {shape}, got {array.shape}; give one entry per item on the first axis."
        )
    if not array.size:
        raise DataError(f"{name}: no items (shape {array.shape}); a metric needs at least one.")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{name}: expected finite numbers, got {array[where]} at {where}; look at what produced it.")
    return array


def class_scores(scores: npt.ArrayLike, name: str = "logits") -> Floats:
    """Finite scores [N, C] of at least two classes.

    Raises:
        DataError: see `float_array`, or fewer than two columns.
    """
    array = float_array(scores, name, "NC")
    if array.shape[1] < 2:
        raise DataError(
            f"{name}: expected at least 2 classes (columns), got {array.shape[1]}; one class has no metric."
        )
    return array


def in_unit_interval(values: npt.ArrayLike, name: str, axes: str = "N") -> Floats:
    """Finite numbers between 0 and 1, with one axis per letter of `axes`.

    Raises:
        DataError: see `float_array`, or a value outside 0..1.
    """
    array = float_array(values, name, axes)
    if array.min() < 0 or array.max() > 1:
        raise DataError(
            f"{name}: expected values between 0 and 1, got {array.min():g} to {array.max():g}; "
            "apply a softmax or sigmoid first."
        )
    return array


def class_labels(labels: npt.ArrayLike, n_items: int, n_classes: int | None, name: str = "labels") -> Ints:
    """Whole numbers [N] from 0, below `n_classes` if that is known, one for each of `n_items` items.

    Raises:
        DataError: not whole numbers, another length, or a label out of range.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise DataError(f"{name}: expected whole numbers, got {array.dtype}; map class names to their index first.")
    if array.shape != (n_items,):
        raise DataError(f"{name}: expected shape ({n_items},), one per item, got {array.shape}.")
    wrong = array < 0 if n_classes is None else (array < 0) | (array >= n_classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        expected = "0 or above" if n_classes is None else f"0 to {n_classes - 1} for {n_classes} classes"
        raise DataError(f"{name}: expected {expected}, got {array[at]} at item {at}.")
    return array.astype(np.int64)


def zero_one(values: npt.ArrayLike, shape: tuple[int, ...], name: str) -> npt.NDArray[np.bool_]:
    """Zeros and ones of exactly `shape`, as booleans.

    Raises:
        DataError: another shape, or a value other than 0 and 1.
    """
    array = np.asarray(values)
    if array.shape != shape:
        raise DataError(f"{name}: expected shape {shape}, the same as the scores, got {array.shape}.")
    if array.dtype.kind not in "iubf" or not np.isin(array, (0, 1)).all():
        raise DataError(f"{name}: expected only 0 and 1 (absent or present), got other values; binarise them first.")
    return array.astype(bool)


def null_if_undefined(value: float) -> float | None:
    """None for NaN: JSON has no NaN, and null says "undefined here" without breaking a strict reader."""
    return None if math.isnan(value) else float(value)


def mean_of_defined(values: Floats) -> float:
    """Mean of the entries that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
