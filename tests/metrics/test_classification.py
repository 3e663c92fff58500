"""Single-label metrics: values worked out by hand, agreement with scikit-learn, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from auricle.errors import ConfigError, DataError
from auricle.metrics import (
    accuracy,
    class_precision_recall_f1,
    classification_metrics,
    cohen_kappa,
    confusion_matrix,
    f1_score,
    macro_one_vs_rest_auc,
    matthews_correlation,
    top_k_accuracy,
    unweighted_average_recall,
)

# Three of four "0" right, one of two "1" right, the only "2" called "0".
LABELS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 0])


def random_case(seed: int, n: int = 120, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    return rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels], labels


def test_accuracy_recall_and_confusion_by_hand() -> None:
    assert accuracy(PREDICTED, LABELS) == pytest.approx(4 / 7)
    assert unweighted_average_recall(PREDICTED, LABELS) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert confusion_matrix(PREDICTED, LABELS, 3).tolist() == [[3, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_precision_recall_f1_by_hand() -> None:
    scores = class_precision_recall_f1(confusion_matrix(PREDICTED, LABELS, 3))
    assert scores.precision.tolist() == pytest.approx([3 / 5, 1 / 2, 0])
    assert scores.recall.tolist() == pytest.approx([3 / 4, 1 / 2, 0])
    assert scores.f1.tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.support.tolist() == [4, 2, 1]


def test_a_class_that_never_occurs_lowers_macro_f1_but_not_recall() -> None:
    known, unused = (confusion_matrix(PREDICTED, LABELS, n) for n in (3, 4))
    assert f1_score(unused, "macro") == pytest.approx(f1_score(known, "macro") * 3 / 4)
    assert f1_score(unused, "weighted") == f1_score(known, "weighted")
    assert unweighted_average_recall(PREDICTED, LABELS, 4) == unweighted_average_recall(PREDICTED, LABELS, 3)


def test_micro_f1_is_accuracy() -> None:
    assert f1_score(confusion_matrix(PREDICTED, LABELS, 3), "micro") == accuracy(PREDICTED, LABELS)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(seed: int) -> None:
    logits, labels = random_case(seed)
    table = classification_metrics(logits, labels)
    predicted = logits.argmax(axis=1)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "macro_f1": reference.f1_score(labels, predicted, average="macro"),
        "weighted_f1": reference.f1_score(labels, predicted, average="weighted"),
        "mcc": reference.matthews_corrcoef(labels, predicted),
        "cohen_kappa": reference.cohen_kappa_score(labels, predicted),
        "nll": reference.log_loss(labels, probs),
        "macro_ovr_auc": reference.roc_auc_score(labels, probs, multi_class="ovr"),
        "top2_accuracy": reference.top_k_accuracy_score(labels, logits, k=2),
    }
    assert {name: table[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert table["confusion_rows_true"] == reference.confusion_matrix(labels, predicted).tolist()


def test_perfect_and_reversed_predictions() -> None:
    perfect, swapped = confusion_matrix([0, 1, 0, 1], [0, 1, 0, 1], 2), confusion_matrix([1, 0, 1, 0], [0, 1, 0, 1], 2)
    assert (matthews_correlation(perfect), cohen_kappa(perfect)) == (1, 1)
    assert (matthews_correlation(swapped), cohen_kappa(swapped)) == (-1, -1)


def test_one_class_everywhere_leaves_agreement_undefined() -> None:
    only = confusion_matrix([1, 1], [1, 1], 2)
    assert matthews_correlation(only) == 0
    assert math.isnan(cohen_kappa(only))


def test_top_k_prefers_the_lower_class_on_ties_like_argmax() -> None:
    scores = [[1.0, 1.0, 1.0]]
    assert [top_k_accuracy(scores, [label], k=2) for label in range(3)] == [1, 1, 0]
    assert top_k_accuracy(scores, [2], k=5) == 1
    odd_ones_tie = np.arange(200)[None] % 2
    assert [label for label in range(200) if top_k_accuracy(odd_ones_tie, [label], k=3)] == [1, 3, 5]


def test_auc_is_undefined_when_a_class_is_absent() -> None:
    assert math.isnan(macro_one_vs_rest_auc([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], [0, 1]))
    assert macro_one_vs_rest_auc([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], [0, 1, 1]) == 1


def test_table_does_not_depend_on_the_order_of_items() -> None:
    logits, labels = random_case(7)
    order = np.random.default_rng(1).permutation(len(labels))
    one, other = classification_metrics(logits, labels), classification_metrics(logits[order], labels[order])
    assert one["confusion_rows_true"] == other["confusion_rows_true"]
    for name, value in one.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, abs=1e-9), name


def test_table_only_depends_on_logit_differences_and_follows_renamed_classes() -> None:
    logits, labels = random_case(8)
    table = classification_metrics(logits, labels)
    assert classification_metrics(logits + 100, labels)["nll"] == pytest.approx(table["nll"])
    swap = np.array([4, 3, 2, 1, 0])
    mirrored = classification_metrics(logits[:, swap], swap[labels])
    assert mirrored["macro_f1"] == pytest.approx(table["macro_f1"])
    assert mirrored["per_class"][0]["f1"] == table["per_class"][4]["f1"]


def test_table_is_strict_json_even_when_values_are_undefined() -> None:
    table = classification_metrics([[2.0, 0.0], [1.0, 0.0]], [0, 0], ["dog", "cat"])
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert table["cohen_kappa"] is None
    assert table["macro_ovr_auc"] is None
    assert [entry["name"] for entry in table["per_class"]] == ["dog", "cat"]


def test_huge_logits_do_not_overflow() -> None:
    table = classification_metrics([[1e5, 0.0], [0.0, 1e5], [1e5, 0.0]], [0, 1, 1])
    assert table["nll"] == pytest.approx(1e5 / 3)


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (np.zeros((0, 3)), np.zeros(0, int), "no items"),
        ([[0.0, np.nan]], [0], r"nan at \(0, 1\)"),
        ([[0.0, -np.inf]], [0], "finite"),
        ([0.0, 1.0], [0, 1], r"expected shape \[N, C\]"),
        ([[0.0], [1.0]], [0, 0], "at least 2 classes"),
        ([[0.0, 1.0]], [0, 1], "one per item"),
        ([[0.0, 1.0]], [2], "0 to 1 for 2 classes, got 2 at item 0"),
        ([[0.0, 1.0]], [-1], "got -1"),
        ([[0.0, 1.0]], [0.5], "whole numbers"),
        ([[0.0, 1.0]], ["dog"], "whole numbers"),
        ([["a", "b"]], [0], "cannot be read"),
        ([[0.0, 1.0], [0.0]], [0, 0], "cannot be read"),
    ],
)
def test_unusable_input_is_refused(logits: object, labels: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification_metrics(logits, labels)  # type: ignore[arg-type]


def test_other_refusals() -> None:
    with pytest.raises(DataError, match="expected 2, one per column"):
        classification_metrics([[0.0, 1.0]], [0], ["only one"])
    with pytest.raises(DataError, match="at least one item"):
        accuracy([], [])
    with pytest.raises(DataError, match="one per item"):
        unweighted_average_recall([0, 1], [0])
    with pytest.raises(DataError, match="0 or above"):
        accuracy([0, -1], [0, 1])
    with pytest.raises(DataError, match="square table"):
        f1_score([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ConfigError, match="k must be at least 1"):
        top_k_accuracy([[0.0, 1.0]], [0], k=0)
    with pytest.raises(ConfigError, match="'macro', 'weighted' or 'micro'"):
        f1_score([[1, 0], [0, 1]], "median")  # type: ignore[arg-type]
