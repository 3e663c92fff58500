"""Evaluating a classifier: on the part that was asked for, against labels that it may not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from soundsets import PITCHES, save_classifier, save_pretrained, write_table, write_tones

from auricle.data.formats import read_data
from auricle.errors import CheckpointError, DataError
from auricle.evaluation.evaluate import evaluate
from auricle.inference.model import load


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
