"""Tagging metrics of resamples: the plain metrics of the items that were drawn."""

from __future__ import annotations

import numpy as np
import pytest

from auricle.errors import DataError
from auricle.metrics import tagging_intervals, tagging_metrics
from auricle.metrics.ranked import RankedColumns
from auricle.metrics.tagging import class_average_precision, class_roc_auc


def table(items: int, classes: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, with ties where there are few decimals, and truth; class 0 has no positive, class 1 nothing else."""
    rng = np.random.default_rng(items)
    scores, truth = rng.random((items, classes)).round(decimals), rng.random((items, classes)) < 0.3
    truth[:, 0], truth[:, 1] = False, True
    return scores, truth


@pytest.mark.parametrize("decimals", [1, 8], ids=["ties", "distinct"])
def test_areas_of_counts_are_those_of_the_items_repeated(decimals: int) -> None:
    scores, truth = table(40, 6, decimals)
    columns = RankedColumns(scores.T, truth.T, np.arange(40))
    for seed in range(5):
        drawn = np.random.default_rng(seed).integers(40, size=40)
        precision, auc = columns.areas(np.bincount(drawn, minlength=40).astype(float))
        np.testing.assert_allclose(precision, class_average_precision(scores[drawn], truth[drawn]), atol=1e-12)
        np.testing.assert_allclose(auc, class_roc_auc(scores[drawn], truth[drawn]), atol=1e-12)


def test_values_are_the_plain_metrics_and_intervals_hold_them() -> None:
    scores, truth = table(60, 5, 2)
    found, resamples = tagging_intervals(scores, truth, n=100)
    plain = tagging_metrics(scores, truth)
    names = {
        "mAP": "mAP",
        "micro_AP": "micro_AP_sklearn",
        "mAUC": "mAUC",
        "d_prime": "d_prime_of_mean_auc",
        "lwlrap": "lwlrap_own",
    }
    assert resamples == 100
    assert found.keys() == names.keys()
    for name, interval in found.items():
        assert interval.value == pytest.approx(plain[names[name]], abs=1e-12)
        assert interval.low < interval.value < interval.high
    assert found == tagging_intervals(scores, truth, n=100)[0]


def test_large_tables_are_resampled_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, truth = table(50, 4, 3)
    monkeypatch.setattr("auricle.metrics.ranked._WORK", 200 * 230)
    assert tagging_intervals(scores, truth)[1] == 230
    monkeypatch.setattr("auricle.metrics.ranked._WORK", 1)
    assert tagging_intervals(scores, truth)[1] == 200
    assert tagging_intervals(scores, truth, n=30)[1] == 30


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        tagging_intervals([[np.nan, 1.0]], [[0, 1]])
