"""Binary probabilities and multi-label tagging: values by hand, invariances, and what is refused or undefined."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from auricle.errors import DataError
from auricle.metrics import (
    argmax_accuracy,
    average_precision,
    binary_probability_metrics,
    class_average_precision,
    class_roc_auc,
    cllr,
    d_prime,
    f1_positive,
    log_loss,
    lwlrap,
    roc_auc,
    tagging_metrics,
)


def test_roc_auc_by_hand() -> None:
    assert roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(3 / 4)
    assert roc_auc([0.5, 0.5], [0, 1]) == pytest.approx(0.5)
    assert math.isnan(roc_auc([0.1, 0.2], [1, 1]))


def test_average_precision_by_hand() -> None:
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0.1, 0.2], [1, 1]) == 1
    assert math.isnan(average_precision([0.1, 0.2], [0, 0]))


def test_d_prime_of_chance_one_deviation_and_certainty() -> None:
    assert d_prime(0.5) == pytest.approx(0)
    # Two unit normals one apart: their difference has deviation sqrt(2).
    assert d_prime(0.5 * (1 + math.erf(1 / 2))) == pytest.approx(1)
    assert d_prime([0.0, 1.0]).tolist() == [-math.inf, math.inf]


def test_cllr_by_hand() -> None:
    assert cllr([0.0, 0.0], [0, 1]) == pytest.approx(1)
    assert cllr([-math.log(3), math.log(3)], [0, 1]) == pytest.approx(math.log2(4 / 3))
    assert cllr([1000.0, -1000.0], [0, 1]) == pytest.approx(1000 / math.log(2))
    assert math.isnan(cllr([1.0], [1]))


def test_binary_decisions_by_hand() -> None:
    prob, labels = [0.9, 0.5, 0.6, 0.2], [1, 1, 0, 0]
    # 0.5 is not above the threshold, as the argmax of (0.5, 0.5) is class 0.
    assert f1_positive(prob, labels) == pytest.approx(2 / 4)
    table = binary_probability_metrics(prob, labels)
    assert table["accuracy"] == 0.5
    assert table["brier"] == pytest.approx((0.01 + 0.25 + 0.36 + 0.04) / 4)
    assert table["log_loss"] == pytest.approx(-np.log([0.9, 0.5, 0.4, 0.8]).mean())
    assert table["reliability_bins_15"][0] == [2, 1, 0.2, 0.0]


def test_binary_agrees_with_scikit_learn_and_ignores_order() -> None:
    rng = np.random.default_rng(0)
    prob = rng.random(200)
    labels = (rng.random(200) < prob).astype(int)
    table = binary_probability_metrics(prob, labels)
    assert table["f1_positive"] == pytest.approx(reference.f1_score(labels, prob > 0.5))
    assert table["log_loss"] == pytest.approx(reference.log_loss(labels, prob))
    assert table["brier"] == pytest.approx(reference.brier_score_loss(labels, prob))
    order = rng.permutation(200)
    shuffled = binary_probability_metrics(prob[order], labels[order])
    bins, same_bins = table.pop("reliability_bins_15"), shuffled.pop("reliability_bins_15")
    assert shuffled == pytest.approx(table, abs=1e-12)
    assert np.allclose(bins, same_bins, rtol=0, atol=1e-12)


def test_certain_mistakes_cost_much_but_stay_finite() -> None:
    prob, labels = [0.0, 1.0, 1.0], [1, 0, 1]
    assert log_loss(prob, labels) == pytest.approx(reference.log_loss(labels, prob))
    assert binary_probability_metrics(prob, labels)["cllr_bits_from_logit"] == pytest.approx(38.9, abs=0.2)


def test_binary_with_one_class_is_strict_json() -> None:
    table = binary_probability_metrics([0.2, 0.3], [0, 0])
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    undefined = [name for name, value in table.items() if value is None]
    assert undefined == ["roc_auc", "average_precision", "cllr_bits_from_logit"]


@pytest.mark.parametrize(
    "prob, labels, message",
    [
        ([], [], "no items"),
        ([0.2, np.nan], [0, 1], "finite"),
        ([0.2, 1.2], [0, 1], "between 0 and 1"),
        ([[0.2, 0.8]], [0], r"expected shape \[N\]"),
        ([0.2, 0.8], [0], "same as the scores"),
        ([0.2, 0.8], [0, 2], "only 0 and 1"),
    ],
)
def test_unusable_binary_input_is_refused(prob: object, labels: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        binary_probability_metrics(prob, labels)  # type: ignore[arg-type]


SCORES = np.array([[0.9, 0.2, 0.4], [0.3, 0.8, 0.1], [0.6, 0.5, 0.7], [0.1, 0.4, 0.2]])
TARGETS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_tagging_by_hand() -> None:
    assert class_average_precision(SCORES, TARGETS).tolist() == pytest.approx([1, 1, 1 / 2])
    assert class_roc_auc(SCORES, TARGETS).tolist() == pytest.approx([1, 1, 2 / 3])
    assert tagging_metrics(SCORES, TARGETS)["mAP"] == pytest.approx(2.5 / 3)
    # Row 3 has no class and counts as class 0; row 2 peaks at an absent class.
    assert argmax_accuracy(SCORES, TARGETS) == pytest.approx(2 / 4)


def test_lwlrap_by_hand() -> None:
    # Item 0 ranks 0, 2, 1: both labels on top. Item 1: on top. Item 2 ranks 2, 0, 1: 1/2 and 2/3.
    overall, per_class = lwlrap(SCORES, TARGETS)
    assert per_class.tolist() == pytest.approx([(1 + 1 / 2) / 2, (1 + 2 / 3) / 2, 1])
    assert overall == pytest.approx((1 + 1 + 1 + 1 / 2 + 2 / 3) / 5)


def test_lwlrap_of_items_with_one_label_each_is_the_mean_reciprocal_rank() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 6)), rng.integers(6, size=50)
    ranks = (scores >= scores[np.arange(50), labels][:, None]).sum(axis=1)
    assert lwlrap(scores, np.eye(6)[labels]).overall == pytest.approx((1 / ranks).mean())


def test_tagging_ignores_order_and_monotone_changes_of_scores() -> None:
    rng = np.random.default_rng(1)
    scores, targets = rng.normal(size=(80, 5)), rng.random((80, 5)) < 0.3
    table, order = tagging_metrics(scores, targets), rng.permutation(80)
    for other in (tagging_metrics(scores[order], targets[order]), tagging_metrics(1 / (1 + np.exp(-scores)), targets)):
        for name, value in table.items():
            assert other[name] == pytest.approx(value, abs=1e-12), name


def test_classes_that_never_occur_are_left_out_of_means() -> None:
    scores, targets = np.c_[SCORES, [0.5, 0.2, 0.3, 0.4]], np.c_[TARGETS, [0, 0, 0, 0]]
    table, without = tagging_metrics(scores, targets), tagging_metrics(SCORES, TARGETS)
    assert table["per_class_AP"][3] is None
    assert table["per_class_AUC"][3] is None
    assert table["lwlrap_per_class_own"][3] is None
    assert (table["mAP"], table["mAUC"]) == (without["mAP"], without["mAUC"])


def test_tagging_without_any_label_is_undefined_not_zero() -> None:
    table = tagging_metrics(SCORES, np.zeros((4, 3)))
    assert table["mAP"] is None
    assert table["d_prime_of_mean_auc"] is None
    assert table["lwlrap_own"] is None
    assert table["micro_AP_sklearn"] is None


def test_d_prime_of_the_mean_is_not_the_mean_of_d_primes() -> None:
    rng = np.random.default_rng(2)
    targets = rng.random((200, 2)) < 0.5
    table = tagging_metrics(rng.normal(size=(200, 2)) + targets * [0.2, 2.5], targets)
    assert table["d_prime_of_mean_auc"] == pytest.approx(float(d_prime(np.mean(table["per_class_AUC"]))))
    assert table["mean_of_per_class_d_prime"] > table["d_prime_of_mean_auc"] + 0.05


@pytest.mark.parametrize(
    "scores, targets, message",
    [
        (np.zeros((0, 3)), np.zeros((0, 3)), "no items"),
        ([[0.1, np.nan]], [[0, 1]], "finite"),
        ([0.1, 0.2], [0, 1], r"expected shape \[N, C\]"),
        ([[0.1, 0.2]], [[0, 1, 0]], "same as the scores"),
        ([[0.1, 0.2]], [[0, 0.5]], "only 0 and 1"),
        ([[0.1, 0.2]], [[0, np.nan]], "only 0 and 1"),
    ],
)
def test_unusable_tagging_input_is_refused(scores: object, targets: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tagging_metrics(scores, targets)  # type: ignore[arg-type]
