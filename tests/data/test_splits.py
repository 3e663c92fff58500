from collections import Counter
from pathlib import Path

import pytest

from auricle.data.items import AudioRef, Item, Manifest
from auricle.data.splits import Fold, folds, holdout, stated_part, stratified_folds
from auricle.errors import ConfigError, DataError

ROOT = Path("/data")


def manifest_with(**columns: list[str]) -> Manifest:
    """Item i is called `00i` and has the i-th value of every column."""
    count = len(next(iter(columns.values())))
    items = (
        Item(
            f"{index:03d}",
            {"audio": AudioRef(f"/data/{index}.wav")},
            {name: values[index] for name, values in columns.items()},
            (),
            1.0,
        )
        for index in range(count)
    )
    return Manifest(tuple(items), ROOT, "data")


def test_train_and_test() -> None:
    manifest = manifest_with(split=["train", "test", "train", "val"])
    assert folds(manifest) == [Fold("test", (0, 2), (3,), (1,))]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev", "Dev"])
@pytest.mark.parametrize("test", ["test", "eval", "TEST"])
def test_other_names_of_the_parts(val: str, test: str) -> None:
    assert folds(manifest_with(split=["train", val, test])) == [Fold("test", (0,), (1,), (2,))]


def test_another_column_can_hold_the_split() -> None:
    manifest = manifest_with(split=["train", "test"], pitch_split=["test", "train"])
    assert folds(manifest, split_column="pitch_split") == [Fold("test", (1,), (), (0,))]
    with pytest.raises(DataError, match=r"no column 'pitch'.*did you mean 'pitch_split'"):
        folds(manifest, split_column="pitch")


def test_rows_of_neither_part_are_ignored_and_counted() -> None:
    (fold,) = folds(manifest_with(split=["train", "spk_train", "test", "spk_test", "spk_train"]))
    assert (fold.train, fold.test) == ((0,), (2,))
    assert fold.note == "3 of 5 items are not used: column 'split' holds spk_train (2), spk_test (1)."


def test_numbered_folds_in_their_order() -> None:
    found = folds(manifest_with(split=["fold10", "fold2", "fold1", "fold2"]))
    assert [fold.name for fold in found] == ["fold1", "fold2", "fold10"]
    assert found[1] == Fold("fold2", (0, 2), (), (1, 3))


def test_other_values_are_groups() -> None:
    found = folds(manifest_with(split=["spk03", "spk08", "spk03"]))
    assert found == [Fold("spk03", (1,), (), (0, 2)), Fold("spk08", (0, 2), (), (1,))]


def test_leave_one_group_out_passes_the_split_column_over() -> None:
    manifest = manifest_with(split=["train", "test", "train"], speaker=["b", "a", "b"])
    assert folds(manifest, group_column="speaker") == [Fold("a", (0, 2), (), (1,)), Fold("b", (1,), (), (0, 2))]


@pytest.mark.parametrize("values, lacks", [(["train", "train", "val"], "test"), (["test", "val"], "train")])
def test_half_a_split_is_refused(values: list[str], lacks: str) -> None:
    with pytest.raises(DataError, match=rf"column 'split' names no {lacks} items: it holds .*{values[0]} \(\d\)"):
        folds(manifest_with(split=values))


def test_nothing_but_training_items_is_no_split() -> None:
    manifest = manifest_with(split=["train"] * 10)
    assert [len(fold.test) for fold in folds(manifest)] == [2] * 5
    assert stated_part(manifest, "test") is None
    with pytest.raises(DataError, match="names no test items"):
        folds(manifest, split_column="split")


def test_a_split_mixed_with_folds_is_refused() -> None:
    with pytest.raises(DataError, match="mixes train, test with fold1"):
        folds(manifest_with(split=["train", "test", "fold2", "fold1"]))


def test_missing_values_are_refused() -> None:
    with pytest.raises(DataError, match=r"column 'split' is empty for 1 of 3 items \(first: 001\)"):
        folds(manifest_with(split=["train", "", "test"]))


def test_one_group_is_refused() -> None:
    with pytest.raises(DataError, match="column 'speaker' holds only 's1'"):
        folds(manifest_with(speaker=["s1", "s1"]), group_column="speaker")


def test_both_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        folds(manifest_with(a=["x"], b=["y"]), split_column="a", group_column="b")


LABELS = ["cat"] * 23 + ["dog"] * 11 + ["owl"] * 3


def test_without_columns_five_stratified_folds() -> None:
    manifest = manifest_with(label=LABELS)
    found = folds(manifest)
    assert [fold.name for fold in found] == ["fold1", "fold2", "fold3", "fold4", "fold5"]
    assert sorted(index for fold in found for index in fold.test) == list(range(37))
    for fold in found:
        assert sorted(fold.train + fold.test) == list(range(37))
        assert len(fold.test) in (7, 8)
        counts = Counter(LABELS[index] for index in fold.test)
        assert counts["cat"] in (4, 5)
        assert counts["dog"] in (2, 3)
        assert counts["owl"] in (0, 1)
    assert folds(manifest) == found
    assert folds(manifest, seed=1) != found


def test_the_given_labels_are_what_is_balanced() -> None:
    other = ["x", "y"] * 18 + ["x"]
    found = folds(manifest_with(label=LABELS), labels=other)
    assert all(abs(Counter(other[i] for i in fold.test)["y"] - 18 / 5) < 1 for fold in found)
    assert found != folds(manifest_with(label=LABELS))


def test_stratified_folds_follow_the_ids_not_their_order() -> None:
    ids = [f"clip {index}" for index in range(len(LABELS))]
    forward = stratified_folds(ids, LABELS, seed=3)
    backward = stratified_folds(ids[::-1], LABELS[::-1], seed=3)
    assert [{ids[i] for i in fold.test} for fold in forward] == [{ids[::-1][i] for i in fold.test} for fold in backward]


def test_fewer_items_than_folds_are_refused() -> None:
    with pytest.raises(DataError, match="4 items cannot be divided into 5 folds"):
        folds(manifest_with(label=["a"] * 4))


IDS = [f"{index:03d}" for index in range(len(LABELS))]


def test_holdout_takes_a_share_of_every_label() -> None:
    held = holdout(range(37), LABELS, 0.2, 0, IDS)
    assert list(held) == sorted(set(held))
    counts = Counter(LABELS[index] for index in held)
    assert len(held) == 7
    assert 4 <= counts["cat"] <= 5
    assert 2 <= counts["dog"] <= 3
    assert counts["owl"] <= 1
    assert holdout(range(36, -1, -1), LABELS, 0.2, 0, IDS) == held
    assert holdout(range(37), LABELS, 0.2, 1, IDS) != held


def test_holdout_chooses_among_the_indices_only() -> None:
    indices = list(range(0, 37, 2))
    held = holdout(indices, LABELS, 0.3, 0, IDS)
    assert set(held) < set(indices)
    assert len(held) == round(0.3 * len(indices))


def test_holdout_never_takes_the_last_item_of_a_label() -> None:
    labels = ["a", "b", "c", "c"]
    for seed in range(5):
        held = holdout(range(4), labels, 0.9, seed, IDS)
        assert len(held) == 1
        assert labels[held[0]] == "c"
    assert holdout(range(2), labels, 0.5, 0, IDS) == ()


def test_holdout_is_exact_for_decimal_fractions() -> None:
    labels = [f"{index % 10}" for index in range(200)]
    held = holdout(range(200), labels, 0.1, 0, [str(index) for index in range(200)])
    assert set(Counter(labels[index] for index in held).values()) == {2}


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_holdout_refuses_other_fractions(fraction: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        holdout(range(4), LABELS, fraction, 0, IDS)
