"""Bootstrap intervals: known distributions, coverage, pairing, groups, and determinism."""

from __future__ import annotations

import math

import numpy as np
import pytest

from auricle.errors import ConfigError, DataError
from auricle.metrics import bootstrap_interval, mean_over_tables, paired_bootstrap, unweighted_average_recall


def test_interval_of_a_mean_has_the_width_of_the_normal_approximation() -> None:
    correct = np.repeat([1, 0], [280, 120])
    value, low, high = bootstrap_interval(correct, n=20_000)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 400)
    assert value == pytest.approx(0.7)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.004)


def test_a_wider_level_gives_a_wider_interval() -> None:
    values = np.random.default_rng(0).normal(size=60)
    narrow, wide = (bootstrap_interval(values, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_intervals_cover_the_truth_about_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(400):
        _, low, high = bootstrap_interval(rng.random(100) < 0.6, n=400, seed=trial)
        hits += low <= 0.6 <= high
    assert 0.91 <= hits / 400 <= 0.98


def test_same_seed_same_interval_another_seed_another() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_order_of_items_and_names_of_groups_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=60), rng.integers(12, size=60)
    order = rng.permutation(60)
    # The value is a sum in another order.
    assert bootstrap_interval(values[order]) == pytest.approx(tuple(bootstrap_interval(values)), abs=1e-12)
    grouped = bootstrap_interval(values, groups=groups)
    renamed = np.array([f"speaker {99 - g}" for g in groups])[order]
    assert bootstrap_interval(values[order], groups=renamed) == pytest.approx(tuple(grouped), abs=1e-12)


def test_a_statistic_agrees_with_the_mean_it_computes() -> None:
    values = np.random.default_rng(0).random(80)
    direct = bootstrap_interval(values, n=4000)
    through = bootstrap_interval(lambda index: float(values[index].mean()), n_items=80, n=4000)
    assert through.value == pytest.approx(direct.value)
    assert through == pytest.approx(tuple(direct), abs=0.01)


def test_groups_widen_the_interval_of_dependent_items() -> None:
    # 20 speakers, all 10 clips of a speaker alike: there are only 20 independent outcomes.
    correct, speaker = np.repeat(np.arange(20) % 4 != 0, 10), np.repeat(np.arange(20), 10)
    clips, speakers = bootstrap_interval(correct), bootstrap_interval(correct, groups=speaker)
    ratio = (speakers.high - speakers.low) / (clips.high - clips.low)
    assert speakers.value == clips.value == 0.75
    assert ratio == pytest.approx(math.sqrt(10), rel=0.2)


def test_groups_of_one_item_are_items() -> None:
    values = np.random.default_rng(0).random(40)
    assert bootstrap_interval(values, groups=np.arange(40)) == bootstrap_interval(values)


def test_groups_of_different_size_weigh_by_their_items() -> None:
    groups = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 15])
    assert bootstrap_interval(np.full(30, 2.0), groups=groups) == (2.0, 2.0, 2.0)
    assert bootstrap_interval(groups == 5, groups=groups).value == 0.5


def test_p_is_two_sided() -> None:
    # Differences of mean 0.1 and standard error 0.07: z = 1.43.
    a, b = np.repeat([1, 0, 0], [30, 20, 50]), np.repeat([0, 1, 0], [30, 20, 50])
    z = 0.1 / (np.std(a - b) / 10)
    assert paired_bootstrap(a, b, n=20_000).p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.03)


def test_a_statistic_sees_whole_groups() -> None:
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    seen: list[np.ndarray] = []

    def statistic(index: np.ndarray) -> float:
        seen.append(index)
        return float(len(index))

    assert bootstrap_interval(statistic, groups=groups, n=50).value == 6
    for index in seen:
        counts = np.bincount(index, minlength=6)
        assert counts[0] == counts[2] == counts[5]
        assert counts[1] == counts[4]
        assert counts[0] + counts[1] + counts[3] == 3


def test_resamples_without_a_defined_statistic_are_left_out() -> None:
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])

    def recall_of_one(index: np.ndarray) -> float:
        chosen = labels[index] == 1
        return float((predicted[index] == 1)[chosen].mean()) if chosen.any() else math.nan

    assert bootstrap_interval(recall_of_one, n_items=4, n=200) == (1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="NaN on all 50"):
        bootstrap_interval(lambda index: math.nan, n_items=4, n=50)


def test_one_unit_has_a_value_but_no_interval() -> None:
    value, low, high = bootstrap_interval([1.0, 0.0], groups=["same", "same"])
    assert value == 0.5
    assert math.isnan(low)
    assert math.isnan(high)
    assert all(math.isnan(x) for x in paired_bootstrap([1.0], [0.0])[1:])


def test_pairing_removes_what_both_find_hard() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300) < 0.4
    b = ~hard
    a = b.copy()
    a[np.flatnonzero(hard)[:12]] = True
    difference = paired_bootstrap(a, b)
    assert difference.value == pytest.approx(12 / 300)
    assert 0 < difference.low < difference.high < 0.07
    assert difference.p < 0.01
    # Side by side, the intervals of A and B overlap.
    assert bootstrap_interval(a).low < bootstrap_interval(b).high


def test_difference_is_antisymmetric() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(100) < 0.7, rng.random(100) < 0.6
    forth, back = paired_bootstrap(a, b, n=5000), paired_bootstrap(b, a, n=5000)
    assert back.value == -forth.value
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=0.02)
    assert back.p == pytest.approx(forth.p, abs=0.03)


def test_equal_systems_do_not_differ() -> None:
    same = np.random.default_rng(0).random(50) < 0.5
    assert paired_bootstrap(same, same) == (0.0, 0.0, 0.0, 1.0)
    # Thirds that do not add up to one in floating point are still a tie.
    third = np.full((3, 9), 0.1) * [[1], [1], [1]]
    assert third[:, 0].mean() != 0.1
    assert paired_bootstrap(np.full(9, 0.1), third).p == 1.0
    assert paired_bootstrap(third, np.full(9, 0.1)).p == 1.0


def test_p_is_rarely_small_when_there_is_no_difference() -> None:
    rng = np.random.default_rng(6)
    small = sum(
        paired_bootstrap(rng.random(80) < 0.5, rng.random(80) < 0.5, n=300, seed=trial).p < 0.1 for trial in range(300)
    )
    assert 0.06 <= small / 300 <= 0.125


def test_several_runs_are_averaged_per_item() -> None:
    rng = np.random.default_rng(0)
    a, runs = rng.random(120) < 0.8, rng.random((3, 120)) < 0.6
    expected = paired_bootstrap(a, runs.mean(axis=0))
    assert paired_bootstrap(a, runs) == expected
    assert paired_bootstrap(a, [runs[0], runs[1], runs[2]]) == expected
    assert expected.value == pytest.approx(a.mean() - runs.mean())


def test_mean_over_tables_gives_every_table_the_same_weight() -> None:
    small = (np.ones(10), np.zeros(10))
    large = (np.repeat([1.0, 0.0], 500), np.repeat([1.0, 0.0], 500))
    assert mean_over_tables([small, large]).value == pytest.approx(0.5)


def test_mean_over_one_table_is_that_table() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.7, rng.random((3, 200)) < 0.6
    one, alone = mean_over_tables([(a, b)], n=8000), paired_bootstrap(a, b, n=8000)
    assert one[:3] == pytest.approx(alone[:3], abs=0.005)
    assert one.p == pytest.approx(alone.p, abs=0.04)


def test_independent_tables_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.7, rng.random(200) < 0.6
    one, nine = paired_bootstrap(a, b), mean_over_tables([(a, b)] * 9)
    assert nine.high - nine.low == pytest.approx((one.high - one.low) / 3, rel=0.15)


def test_mean_over_tables_uses_the_groups_of_each_table() -> None:
    a, b = np.repeat([1, 0, 1, 1], 25), np.repeat([0, 0, 1, 0], 25)
    plain = mean_over_tables([(a, b), (a, b)])
    grouped = mean_over_tables([(a, b), (a, b)], groups=[np.repeat(np.arange(4), 25), None])
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)


def test_a_difference_of_recalls_through_a_statistic() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [90, 10])
    a, b = labels, rng.integers(2, size=100)

    def difference(index: np.ndarray) -> float:
        return unweighted_average_recall(a[index], labels[index]) - unweighted_average_recall(b[index], labels[index])

    value, low, high = bootstrap_interval(difference, n_items=100, n=300)
    assert low < value < high
    assert low > 0


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: bootstrap_interval([]), DataError, "no items"),
        (lambda: bootstrap_interval([0.1, np.nan]), DataError, "finite"),
        (lambda: bootstrap_interval([[0.1, 0.2]]), DataError, r"expected shape \[N\]"),
        (lambda: bootstrap_interval([0.1], n=0), ConfigError, "at least 1 resample"),
        (lambda: bootstrap_interval([0.1], level=95), ConfigError, "between 0 and 1"),
        (lambda: bootstrap_interval([0.1, 0.2], groups=["a"]), DataError, "one per item"),
        (lambda: bootstrap_interval([0.1, 0.2], groups=np.array(["a", 1], object)), DataError, "mixture"),
        (lambda: bootstrap_interval(lambda index: 0.0), DataError, "how many items"),
        (lambda: paired_bootstrap([1, 0], [1]), DataError, "A has 2 items and B 1"),
        (lambda: paired_bootstrap([1, 0], [[1, 0], [1]]), DataError, "B: expected values"),
        (lambda: mean_over_tables([]), DataError, "at least one data set"),
        (lambda: mean_over_tables([([1], [0])], groups=[None, None]), DataError, "one entry per table"),
    ],
)
def test_unusable_input_is_refused(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
