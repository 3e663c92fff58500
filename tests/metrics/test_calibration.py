"""Calibration: bins and errors by hand, the two bin conventions, and the optimal temperature."""

from __future__ import annotations

import numpy as np
import pytest

from auricle.errors import ConfigError, DataError
from auricle.metrics import (
    Bin,
    brier_score,
    calibration_error,
    ece,
    mce,
    negative_log_likelihood,
    optimal_temperature,
    probabilities,
    reliability_bins,
)


def test_bins_by_hand() -> None:
    bins = reliability_bins([0.1, 0.3, 0.9, 0.7], [0, 1, 1, 1], n_bins=2)
    assert bins == [Bin(0, 2, 0.2, 0.5), Bin(1, 2, 0.8, 1.0)]
    assert ece([0.1, 0.3, 0.9, 0.7], [0, 1, 1, 1], n_bins=2) == pytest.approx((2 * 0.3 + 2 * 0.2) / 4)
    assert mce([0.1, 0.3, 0.9, 0.7], [0, 1, 1, 1], n_bins=2) == pytest.approx(0.3)


def test_bins_are_closed_on_the_right_and_the_first_on_both_sides() -> None:
    assert [(b.index, b.count) for b in reliability_bins([0.0, 0.5, 0.75, 1.0], [0, 0, 0, 0], n_bins=4)] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 1),
    ]


def test_equal_mass_bins_hold_the_same_number_of_items() -> None:
    rng = np.random.default_rng(0)
    bins = reliability_bins(rng.random(47) ** 4, rng.random(47) < 0.5, n_bins=15, scheme="equal_mass")
    assert sorted({b.count for b in bins}) == [3, 4]
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)


def test_fewer_items_than_equal_mass_bins() -> None:
    assert [b.count for b in reliability_bins([0.4, 0.2], [1, 0], scheme="equal_mass")] == [1, 1]


def test_torchmetrics_gives_certain_items_a_bin_of_their_own() -> None:
    # 0.9 and 1.0 share our last bin, where their gaps of +0.1 and -1.0 partly cancel.
    assert ece([0.9, 1.0], [1, 0], n_bins=2) == pytest.approx(0.45)
    assert calibration_error([0.9, 1.0], [1, 0], "l1", n_bins=2) == pytest.approx((0.1 + 1.0) / 2)
    assert calibration_error([0.9, 1.0], [1, 0], "l2", n_bins=2) == pytest.approx(np.sqrt((0.01 + 1.0) / 2))
    assert calibration_error([0.9, 1.0], [1, 0], "max", n_bins=2) == pytest.approx(1.0)


def test_torchmetrics_bins_are_closed_on_the_left() -> None:
    # 0.5 joins 0.4 when bins are closed on the right, 0.6 when they are closed on the left.
    confidence, correct = [0.4, 0.5, 0.6], [1, 0, 1]
    assert ece(confidence, correct, n_bins=2) == pytest.approx((2 * 0.05 + 0.4) / 3)
    assert calibration_error(confidence, correct, "l1", n_bins=2) == pytest.approx((0.6 + 2 * 0.05) / 3)


def test_calibrated_confidences_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, size=20_000)
    correct = rng.random(20_000) < confidence
    assert ece(confidence, correct) < 0.01
    assert ece(np.full(20_000, 0.999), correct) == pytest.approx(0.999 - correct.mean())


def test_brier_and_likelihood_by_hand() -> None:
    assert brier_score([[0.7, 0.3], [0.0, 1.0]], [0, 0]) == pytest.approx((2 * 0.09 + 2) / 2)
    assert negative_log_likelihood(np.log([[0.7, 0.3], [0.2, 0.8]]), [0, 1]) == pytest.approx(
        -np.log([0.7, 0.8]).mean()
    )


def test_probabilities_are_float64_and_sum_to_one() -> None:
    p = probabilities(np.array([[1000.0, 0.0, -1000.0]], dtype=np.float32))
    assert p.dtype == np.float64
    assert p.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_optimal_temperature_undoes_a_scale(scale: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(300, 4))
    labels = np.array([rng.choice(4, p=p) for p in probabilities(logits)])
    unscaled = optimal_temperature(logits, labels)
    assert optimal_temperature(scale * logits, labels) == pytest.approx(scale * unscaled, rel=1e-8)


def test_optimal_temperature_is_a_minimum() -> None:
    rng = np.random.default_rng(4)
    logits, labels = 3 * rng.normal(size=(100, 3)), rng.integers(3, size=100)
    logits[np.arange(100), labels] += 1
    best = optimal_temperature(logits, labels)
    at_best = negative_log_likelihood(logits / best, labels)
    assert all(negative_log_likelihood(logits / (best * step), labels) > at_best for step in (0.99, 1.01))


def test_optimal_temperature_without_an_inner_optimum() -> None:
    assert optimal_temperature([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0.05
    assert optimal_temperature([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 20.0
    assert optimal_temperature([[1.0, 1.0]], [0]) == 1.0
    # So certain that the loss is exactly flat at the low end.
    assert optimal_temperature([[100.0, 0.0]], [0]) == 0.05


def test_refusals() -> None:
    with pytest.raises(DataError, match="between 0 and 1, got -3 to 2"):
        ece([-3.0, 2.0], [0, 1])
    with pytest.raises(DataError, match=r"got -3 to 0\.5"):
        ece([-3.0, 0.5], [0, 1])
    with pytest.raises(DataError, match="only 0 and 1"):
        ece([0.5, 0.5], [0, 2])
    with pytest.raises(DataError, match="same as the scores"):
        calibration_error([0.5, 0.5], [0])
    with pytest.raises(DataError, match="no items"):
        ece([], [])
    with pytest.raises(ConfigError, match="n_bins must be at least 1"):
        ece([0.5], [1], n_bins=0)
    with pytest.raises(ConfigError, match="'equal_width' or 'equal_mass'"):
        ece([0.5], [1], scheme="quantile")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'l1', 'l2' or 'max'"):
        calibration_error([0.5], [1], "l3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="0 < low < high"):
        optimal_temperature([[0.0, 1.0]], [0], bounds=(2.0, 1.0))
