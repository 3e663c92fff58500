"""`auricle finetune --held-out all`: a run for every fold, scored together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from auricle import api
from auricle.training import checkpoint as ckpt
from auricle.training.folds import fold_runs
from conftest import Outcome

OPTIONS = ("--group-column", "group", "--set", "epochs=4", "--set", "schedule=multistep", "--set", "batch_size=6")


@pytest.fixture(scope="module")
def arguments(tones: Path, pretrained: Path) -> tuple[object, ...]:
    return ("finetune", pretrained, tones, "--held-out", "all", *OPTIONS, "--quiet")


@pytest.fixture(scope="module")
def folds(arguments: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four groups, each left out by one run of four epochs."""
    from auricle.cli import main

    out = tmp_path_factory.mktemp("runs") / "folds"
    assert main([*map(str, arguments), "--out", str(out)]) == 0
    return out


def test_every_clip_is_tested_once_by_the_run_that_left_it_out(folds: Path, tones: Path) -> None:
    result = json.loads((folds / "result.json").read_text())
    assert [fold["fold"] for fold in result["protocol"]["folds"]] == ["g0", "g1", "g2", "g3"]
    assert len({item["id"] for item in result["items"]}) == len(result["items"]) == 24
    single = api.evaluate(fold_runs(folds)[2], tones)
    by_id = {item["id"]: item for item in result["items"]}
    assert len(single.items) == result["protocol"]["folds"][2]["tested"] == 6
    for item in single.items:
        assert by_id[item["id"]]["predicted"] == item["predicted"]
        assert by_id[item["id"]]["score"] == pytest.approx(item["score"], abs=1e-5)
    accuracies = [fold["accuracy"] for fold in result["protocol"]["folds"]]
    assert result["protocol"]["mean_over_folds"] == pytest.approx(np.mean(accuracies))
    assert result["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(accuracies))


def test_the_best_epoch_is_one_for_all_folds_and_the_last_stands_beside_it(folds: Path) -> None:
    protocol = json.loads((folds / "result.json").read_text())["protocol"]
    logs = [(run / "metrics.jsonl").read_text().splitlines() for run in fold_runs(folds)]
    scores = [[row["test_accuracy"] for row in map(json.loads, log) if "test_accuracy" in row] for log in logs]
    means = np.mean(scores, axis=0)
    assert len(means) == 4
    assert [row["mean"] for row in protocol["curve"]] == pytest.approx(means)
    assert protocol["best_epoch_over_folds"]["number"] == 1 + int(means.argmax())
    assert protocol["best_epoch_over_folds"]["mean"] == pytest.approx(means.max())
    assert protocol["last_epoch"]["mean"] == pytest.approx(means[-1]) == pytest.approx(protocol["mean_over_folds"])
    assert "these clips chose it" in protocol["notes"][0]
    assert "Curve of mean accuracy over the folds" in (folds / "report.html").read_text()


def test_the_left_out_fold_chooses_no_weights(folds: Path) -> None:
    for run in fold_runs(folds):
        newest, _ = ckpt.latest(run)
        assert newest is not None
        assert newest.state["best"] is None
        # A complete fold keeps one checkpoint: as many as there are folds fit on a disk.
        assert ckpt.steps_saved(run) == [newest.state["step"]]


def test_the_same_command_goes_on_with_what_is_there(
    folds: Path, arguments: tuple[object, ...], cli: Callable[..., Outcome]
) -> None:
    before = (folds / "result.json").read_text()
    untouched = [(run / "metrics.jsonl").read_bytes() for run in fold_runs(folds)]
    done = cli(*arguments, "--out", folds)
    assert done.code == 0, done.err
    assert [(run / "metrics.jsonl").read_bytes() for run in fold_runs(folds)] == untouched
    fresh = json.loads((folds / "result.json").read_text())
    assert fresh["metrics"] == json.loads(before)["metrics"]


def test_a_cross_validation_is_evaluated_and_joins_an_ensemble(
    folds: Path, tones: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    done = cli("evaluate", folds, tones, "--json", tmp_path / "alone.json")
    assert done.code == 0, done.err
    assert "note: mean accuracy over the folds" in done.err
    twin = Path(shutil.copytree(folds, tmp_path / "twin"))
    together = api.evaluate(folds, tones, ensemble=[twin])
    alone = json.loads((tmp_path / "alone.json").read_text())
    assert together.metrics == alone["metrics"]
    assert together.protocol["ensemble"] == 2


def test_mistakes_are_named(
    folds: Path, tones: Path, pretrained: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    common = ("finetune", pretrained, tones, "--held-out", "all", "--out")
    stated = cli(*common, tmp_path / "a")
    assert (stated.code, "states one train and one test part" in stated.err) == (2, True)
    minutes = cli(*common, tmp_path / "b", "--group-column", "group", "--max-minutes", 1)
    assert (minutes.code, "give --steps or epochs, not --max-minutes" in minutes.err) == (2, True)
    other = cli(*common, folds, "--group-column", "label", "--steps", 1)
    assert (other.code, "holds other folds than buzz, chirp, hiss" in other.err) == (2, True)
    run = cli(*common, fold_runs(folds)[0], "--group-column", "group", "--steps", 1)
    assert (run.code, "is not a cross-validation" in run.err) == (2, True)
    part = cli("evaluate", folds, tones, "--split", "train")
    assert (part.code, "not --split train" in part.err) == (2, True)


def test_a_dry_run_says_how_many_folds(
    tones: Path, pretrained: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    done = cli("finetune", pretrained, tones, "--held-out", "all", *OPTIONS, "--dry-run", "--out", tmp_path / "x")
    assert "folds       4, each as above" in done.out
    assert not (tmp_path / "x").exists()
