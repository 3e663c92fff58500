"""Label columns with one label per cell, and with several; drawing clips so that rare labels come often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from auricle.data.items import AudioRef, Item, Manifest
from auricle.data.labels import balancing_weights, read_labels, split_cells
from auricle.data.loader import Loader
from auricle.errors import ConfigError, DataError


def manifest(*cells: str) -> Manifest:
    items = tuple(Item(f"{i:03}", {"audio": AudioRef(f"/{i}.wav")}, {"label": c}, (), 1.0) for i, c in enumerate(cells))
    return Manifest(items, Path("/"))


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("dog", ("dog",)),
        ("dog;rain", ("dog", "rain")),
        (" dog ; rain;", ("dog", "rain")),
        ("dog,rain", ("dog", "rain")),
        ("/m/09x0r,/t/dd00088", ("/m/09x0r", "/t/dd00088")),
        ("rain;dog;rain", ("rain", "dog")),
        ("Child speech, kid speaking", ("Child speech, kid speaking",)),
        ("Child speech, kid speaking;Dog", ("Child speech, kid speaking", "Dog")),
    ],
)
def test_a_cell_is_divided_at_semicolons_or_at_commas_without_a_blank(cell: str, labels: tuple[str, ...]) -> None:
    assert split_cells([cell]) == (labels,)


def test_in_a_column_with_semicolons_commas_belong_to_names() -> None:
    assert split_cells(["one,two", "a;b"]) == (("one,two",), ("a", "b"))


def test_several_labels_in_any_cell_make_it_tagging_unless_the_task_is_given() -> None:
    several, single = manifest("dog", "dog;rain"), manifest("dog", "rain")
    assert read_labels(several, "label").task == "tagging"
    assert read_labels(single, "label").task == "classification"
    assert read_labels(single, "label", "tagging").task == "tagging"
    whole = read_labels(several, "label", "classification")
    assert whole.sets == (("dog",), ("dog;rain",))
    assert str(read_labels(several, "label")) == "tagging: 2 classes in column 'label', 1.5 labels per clip"


def test_single_labels_that_look_like_several_are_told() -> None:
    whole = read_labels(manifest("dog;rain", "dog", "rain;wind", "dog;rain"), "label", "classification")
    assert whole.compound.startswith("column 'label' seems to name several labels in 3 of 4 cells (first: 'dog;rain')")
    assert "makes 3 classes;" in whole.compound
    assert "--task tagging" in whole.compound
    for labels in (read_labels(manifest("dog", "rain, heavy"), "label"), read_labels(manifest("a;b", "b"), "label")):
        assert labels.compound == ""


def test_targets_have_a_one_for_each_label_that_is_a_class() -> None:
    labels = read_labels(manifest("dog;rain", "rain", "wind;dog"), "label")
    assert labels.classes([0, 1]) == ("dog", "rain")
    np.testing.assert_array_equal(labels.targets([0, 1, 2], ("dog", "rain")), [[1, 1], [0, 1], [1, 0]])


def test_items_are_divided_by_their_rarest_label() -> None:
    assert read_labels(manifest("dog;rain", "rain", "wind;rain", "wind"), "label").strata == (
        "dog",
        "rain",
        "wind",
        "wind",
    )


def test_labels_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(DataError, match=r"only delimiters for 1 items \(first: 001\)"):
        read_labels(manifest("dog;rain", ";"), "label")
    with pytest.raises(ConfigError, match="the task must be one of classification, tagging, detection, got 'both'"):
        read_labels(manifest("dog", "rain"), "label", "both")


# Class-balanced sampling ------------------------------------------------------------------------------------------


def test_weights_are_those_of_the_official_code() -> None:
    # gen_weight_file.py: 1000 / (count + 0.01) per label, summed over an item's labels.
    targets = np.array([[1, 0], [1, 0], [1, 1]], dtype=np.float32)
    common, rare = 1000 / 3.01, 1000 / 1.01
    np.testing.assert_allclose(balancing_weights(targets), [common, common, common + rare])


def balanced_loader(workers: int = 0, seed: int = 0) -> Loader:
    items = list(manifest(*(["common"] * 95 + ["rare"] * 5)))
    labels = read_labels(manifest(*(["common"] * 95 + ["rare"] * 5)), "label")
    targets = labels.targets(range(100), ("common", "rare"))
    weights = balancing_weights(targets)
    return Loader(items, rate=8000, batch_size=10, crop_seconds=1.0, seed=seed, weights=weights, workers=workers)


def slots(loader: Loader, batches: int) -> list[int]:
    keys = loader.keys(loader.position)
    return [key.slot for _ in range(batches) for key in next(keys)]


def test_rare_labels_are_drawn_as_often_as_common_ones() -> None:
    drawn = np.array(slots(balanced_loader(), 400))
    assert abs((drawn >= 95).mean() - 0.5) < 0.03
    assert len(set(drawn.tolist())) == 100


def test_drawing_by_weight_depends_on_the_seed_and_the_position_alone() -> None:
    whole, resumed = balanced_loader(), balanced_loader()
    resumed.load_state_dict({"position": 25})
    assert slots(whole, 40)[250:] == slots(resumed, 15)
    assert slots(balanced_loader(), 10) != slots(balanced_loader(seed=1), 10)
    first, second = np.array(slots(whole, 20)).reshape(2, 100)
    assert not np.array_equal(first, second)
