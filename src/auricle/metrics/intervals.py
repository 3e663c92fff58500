"""How far a figure could be off because the test set was small: bootstrap intervals.

What they cover: the draw of the test items (or of the groups, such as speakers, when `groups` is given).
What they do not cover: the training run, its seed, the choice of the test corpus, or items that depend on each other
without `groups` saying so. All are percentile intervals, which are a little too narrow below about 30 units (items or
groups) and collapse where every unit has the same value: 20 of 20 right gives [1, 1].

Results depend on `seed` and, for means of items, not on the order of the items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.errors import ConfigError, DataError
from auricle.metrics._checks import Floats, float_array

Statistic = Callable[[npt.NDArray[np.intp]], float]

# Counts held in memory at once.
_CHUNK = 4_000_000
# Below this a difference is rounding: (1/3 + 1/3 + 1/3) - 1 must count as a tie.
_TIE = 1e-12


class Interval(NamedTuple):
    """A figure and its interval; the bounds are NaN when there is only one unit to resample."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A minus B with its interval, and the two-sided p of "no difference"; NaN when there is one unit to resample."""

    value: float
    low: float
    high: float
    p: float


def bootstrap_interval(
    values: npt.ArrayLike | Statistic,
    *,
    n_items: int | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> Interval:
    """The mean of per-item values, or any statistic of the items, with its bootstrap interval.

    Covers the draw of the test items (or groups), nothing else; see the module. Resamples where a statistic is NaN (a
    ROC area without a positive, say) are left out, so the interval then holds given that the statistic is defined.

    For a difference of statistics that are not means of items, such as two UARs, pass a function that computes the
    difference on the drawn items.

    Args:
        values: [N], such as 1 where an item is right and 0 elsewhere, for their mean; or a function from indices of
            items (repeated as drawn) to the statistic, called once per resample.
        n_items: N, needed with a function unless `groups` tells.
        n: number of resamples.
        level: share of resamples inside the interval.
        seed: of the resampling.
        groups: [N] names or numbers; whole groups are resampled, for items that come in groups (clips of a speaker).

    Raises:
        DataError: wrong shapes, NaN values, no items, or a statistic that is NaN on every resample.
        ConfigError: n below 1, or a level not between 0 and 1.
    """
    _check_options(n, level)
    rng = np.random.default_rng(seed)
    if not callable(values):
        units = _Units.of(float_array(values, "values", "N"), groups)
        return Interval(units.mean, *_bounds(units.resampled_means(n, rng), level, units.n_units))
    count = len(np.asarray(groups)) if n_items is None and groups is not None else n_items
    if count is None or count < 1:
        raise DataError(f"n_items: expected how many items the statistic is over (at least 1), got {n_items}.")
    n_units, items_of = _drawing(count, groups)
    draws = (rng.integers(n_units, size=n_units) for _ in range(n))
    resamples = np.array([values(items_of(draw)) for draw in draws], dtype=np.float64)
    resamples = resamples[~np.isnan(resamples)]
    if not resamples.size:
        raise DataError(f"statistic: NaN on all {n} resamples; it needs more items, or items of every class.")
    return Interval(float(values(np.arange(count))), *_bounds(resamples, level, n_units))


def bootstrap_table(
    statistics: Callable[[npt.NDArray[np.intp]], dict[str, float]],
    n_items: int,
    *,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Several statistics of the same resampled items, by name; each as `bootstrap_interval` gives it for a function.

    A statistic that is NaN on all items, or on every resample, has NaN bounds.

    Raises:
        ConfigError: n below 1, or a level not between 0 and 1.
    """
    _check_options(n, level)
    rng = np.random.default_rng(seed)
    value = statistics(np.arange(n_items))
    rows = [statistics(rng.integers(n_items, size=n_items)) for _ in range(n)]
    found = {}
    for name in value:
        resamples = np.array([row[name] for row in rows], dtype=np.float64)
        resamples = resamples[~np.isnan(resamples)]
        bounds = _bounds(resamples, level, n_items if resamples.size else 0)
        found[name] = Interval(value[name], *bounds)
    return found


def paired_bootstrap(
    correct_a: npt.ArrayLike,
    correct_b: npt.ArrayLike,
    *,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> Difference:
    """Mean of A minus mean of B on the same items: "A is better than B" holds when the interval lies above 0.

    Pairing removes what both find hard, so the interval is narrower than those of A and B suggest. Several runs (seeds)
    of a side are averaged per item first: the interval is about the mean of exactly these runs, not about a fresh seed.
    Covers the draw of the test items (or groups), nothing else; see the module.

    Args:
        correct_a: [N] values of A per item, or [R, N] for R runs; higher is better.
        correct_b: the same for B, with its own number of runs.
        n: number of resamples.
        level: share of resamples inside the interval.
        seed: of the resampling.
        groups: [N] names or numbers; whole groups are resampled.

    Returns:
        Difference. `p` is two-sided: twice the smaller share of resamples at or beyond 0, at least 2 / (n + 1).

    Raises:
        DataError: wrong shapes, NaN values, no items, or A and B of different length.
        ConfigError: n below 1, or a level not between 0 and 1.
    """
    _check_options(n, level)
    units = _Units.of(_item_differences(correct_a, correct_b), groups)
    return _difference(units.mean, units.resampled_means(n, np.random.default_rng(seed)), level, units.n_units)


def mean_over_tables(
    tables: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    *,
    groups: Sequence[npt.ArrayLike | None] | None = None,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean over data sets of "A minus B", every set with the same weight whatever its size.

    Each set is resampled on its own. Covers the draw of items within these sets, not the choice of the sets: it says
    nothing about a set that is not among them.

    Args:
        tables: for each data set, A and B as `paired_bootstrap` takes them.
        groups: for each data set, its groups or None.
        n, level, seed: as in `paired_bootstrap`.

    Raises:
        DataError: no table, another number of groups than tables, or what `paired_bootstrap` raises.
        ConfigError: n below 1, or a level not between 0 and 1.
    """
    _check_options(n, level)
    if not tables:
        raise DataError("tables: expected at least one data set, got none.")
    if groups is not None and len(groups) != len(tables):
        raise DataError(
            f"groups: expected one entry per table ({len(tables)}), got {len(groups)}; use None for no groups."
        )
    sets = [
        _Units.of(_item_differences(a, b), None if groups is None else groups[index])
        for index, (a, b) in enumerate(tables)
    ]
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(len(sets))]
    resamples = np.mean([units.resampled_means(n, rng) for units, rng in zip(sets, streams, strict=True)], axis=0)
    value = float(np.mean([units.mean for units in sets]))
    return _difference(value, resamples, level, min(units.n_units for units in sets))


class _Units(NamedTuple):
    """What is drawn: items, or groups of them, with equal ones merged.

    Drawing how often each distinct (sum, size) occurs is the same as drawing units one by one, costs little for 0/1
    outcomes, and does not depend on the order of the items.
    """

    sums: Floats
    sizes: Floats
    frequency: npt.NDArray[np.intp]

    @classmethod
    def of(cls, values: Floats, groups: npt.ArrayLike | None) -> _Units:
        sums, sizes = values, np.ones(len(values))
        if groups is not None:
            index = _group_index(groups, len(values))
            # Sorted first, so that rounding does not depend on the order of the items either.
            order = np.lexsort((values, index))
            sums = np.bincount(index[order], weights=values[order]).astype(np.float64)
            sizes = np.bincount(index).astype(np.float64)
        distinct, frequency = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
        return cls(distinct[:, 0], distinct[:, 1], frequency)

    @property
    def n_units(self) -> int:
        return int(self.frequency.sum())

    @property
    def mean(self) -> float:
        return float(self.frequency @ self.sums / (self.frequency @ self.sizes))

    def resampled_means(self, n: int, rng: np.random.Generator) -> Floats:
        share = self.frequency / self.n_units
        means = np.empty(n)
        step = max(1, _CHUNK // len(share))
        for start in range(0, n, step):
            counts = rng.multinomial(self.n_units, share, size=min(step, n - start))
            means[start : start + step] = counts @ self.sums / (counts @ self.sizes)
        return means


def _group_index(groups: npt.ArrayLike, n_items: int) -> npt.NDArray[np.intp]:
    names = np.asarray(groups)
    if names.shape != (n_items,):
        raise DataError(f"groups: expected shape ({n_items},), one per item, got {names.shape}.")
    try:
        return np.unique(names, return_inverse=True)[1]
    except TypeError as error:
        raise DataError(f"groups: expected all names or all numbers, got a mixture: {error}.") from None


def _drawing(
    n_items: int, groups: npt.ArrayLike | None
) -> tuple[int, Callable[[npt.NDArray[np.intp]], npt.NDArray[np.intp]]]:
    """How many units there are, and the function from drawn units to the items they hold."""
    if groups is None:
        return n_items, lambda draw: draw
    index = _group_index(groups, n_items)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    return len(members), lambda draw: np.concatenate([members[unit] for unit in draw])


def _item_differences(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    of_a, of_b = _mean_of_runs(a, "A"), _mean_of_runs(b, "B")
    if of_a.shape != of_b.shape:
        raise DataError(f"paired values: A has {len(of_a)} items and B {len(of_b)}; both need the same items in order.")
    return of_a - of_b


def _mean_of_runs(values: npt.ArrayLike, name: str) -> Floats:
    try:
        runs = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: expected values [N], or [R, N] for R runs of equal length: {error}.") from None
    if runs.ndim == 1:
        runs = runs[None]
    return np.asarray(float_array(runs, name, "RN").mean(axis=0))


def _check_options(n: int, level: float) -> None:
    if n < 1:
        raise ConfigError(f"n: expected at least 1 resample, got {n}.")
    if not 0 < level < 1:
        raise ConfigError(f"level: expected a share between 0 and 1 such as 0.95, got {level}.")


def _bounds(resamples: Floats, level: float, n_units: int) -> tuple[float, float]:
    # The only resample of a single unit is itself: a width of zero would claim certainty where there is none.
    if n_units < 2:
        return math.nan, math.nan
    low, high = np.quantile(resamples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _difference(value: float, resamples: Floats, level: float, n_units: int) -> Difference:
    low, high = _bounds(resamples, level, n_units)
    if n_units < 2:
        return Difference(value, low, high, math.nan)
    # One is added to both counts, as the observed difference is itself one of the possible ones: p is never 0.
    beyond = min((resamples <= _TIE).sum(), (resamples >= -_TIE).sum())
    return Difference(value, low, high, min(1.0, float(2 * (beyond + 1) / (len(resamples) + 1))))
