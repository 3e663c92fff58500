"""Evaluating a classifier: on the part that was asked for, against labels that it may not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from soundsets import PITCHES, save_classifier, save_pretrained, write_table, write_tones

from auricle.data.formats import read_data
from auricle.errors import CheckpointError, DataError
from auricle.evaluation.evaluate import evaluate
from auricle.evaluation.tagging import TagPredictions
from auricle.inference.model import load
from auricle.metrics import tagging_intervals


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"), clips=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("run"), sorted(PITCHES), held_out="test")


@pytest.mark.parametrize("split, tested", [("train", 9), ("test", 3), ("all", 12)])
def test_the_part_that_was_asked_for_is_evaluated(run: Path, tones: Path, split: str, tested: int) -> None:
    result = evaluate(run, [tones], split=split)
    by_id = {item.id: item for item in read_data([tones])}
    assert len(result.items) == tested
    if split != "all":
        assert {by_id[entry["id"]].labels["split"] for entry in result.items} == {split}
    model = load(run)
    for entry in result.items:
        prediction = model.classify(by_id[entry["id"]].streams["audio"].path)
        assert (entry["predicted"], entry["label"]) == (prediction.label, by_id[entry["id"]].labels["label"])
        assert entry["score"] == pytest.approx(prediction.score, abs=1e-5)
    right = np.mean([entry["predicted"] == entry["label"] for entry in result.items])
    assert result.metrics["accuracy"]["value"] == pytest.approx(right)
    assert (result.task, result.protocol["split"], result.protocol["tested"]) == ("classification", split, tested)


def test_a_checkpoint_of_unknown_origin_is_tested_on_everything_and_says_so(run: Path, tones: Path) -> None:
    result = evaluate(run, [tones], group_column="speaker")
    assert len(result.items) == 12
    assert result.protocol["chosen_by"] == "all clips, as neither the data nor the checkpoint states a test part"
    assert "does not say what it was trained on" in result.protocol["notes"][0]


def test_labels_that_the_model_does_not_know_count_as_wrong_and_are_listed(tones: Path, tmp_path: Path) -> None:
    run = save_classifier(tmp_path, ("high", "low"))
    result = evaluate(run, [tones], split="all")
    assert result.protocol["unknown_labels"] == ["middle"]
    assert all(entry["predicted"] != "middle" for entry in result.items)
    assert (result.metrics["accuracy"]["value"] or 0) <= 8 / 12


def test_what_cannot_be_evaluated_is_refused(run: Path, tones: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no classifier; fine-tune it first"):
        evaluate(save_pretrained(tmp_path), [tones])
    with pytest.raises(DataError, match=r"the part 'val' of .* is empty"):
        evaluate(run, [tones], split="val")
    with pytest.raises(DataError, match="--split must be one of train, val, test, all, got 'dev'"):
        evaluate(run, [tones], split="dev")
    items = read_data([tones])
    rows = [{"path": i.streams["audio"].path, "label": "cat" if n % 2 else "dog"} for n, i in enumerate(items)]
    with pytest.raises(DataError, match=r"none of the labels \(cat, dog\) is known to the model"):
        evaluate(run, [write_table(tmp_path, rows)], split="all")


def test_a_note_says_where_classes_are_so_rare_that_the_interval_of_map_leans() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 4), bool)
    for column, positives in enumerate((0, 4, 5, 20)):
        truth[rng.permutation(40)[:positives], column] = True
    tags = TagPredictions(tuple(map(str, range(40))), ("a", "b", "c", "d"), truth, rng.random((40, 4)))
    assert tags.notes() == ["the interval of mAP leans upwards, with fewer than 5 positives in 1 of 4 classes"]
    often = TagPredictions(tags.ids, ("c", "d"), truth[:, 2:], tags.scores[:, 2:])
    assert often.notes() == []


def test_the_interval_of_map_leans_upwards_where_classes_are_rare_and_that_of_the_area_does_not() -> None:
    """What docs/design.md says; a better interval would make the note needless."""
    rng = np.random.default_rng(0)
    lean: dict[str, list[float]] = {"mAP": [], "mAUC": []}
    for _ in range(8):
        truth = rng.random((32, 11)) < 0.1
        truth[:11] |= np.eye(11, dtype=bool)
        found, _ = tagging_intervals(rng.normal(size=truth.shape) + truth, truth, n=200)
        for name, leans in lean.items():
            value, low, high = found[name]
            leans.append(((low + high) / 2 - value) / (high - low))
    assert np.mean(lean["mAP"]) > 0.15
    assert abs(np.mean(lean["mAUC"])) < 0.05
