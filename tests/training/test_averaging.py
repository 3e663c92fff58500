"""The mean of the weights at the ends of epochs, and the mean of the predictions so far."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from auricle.errors import ConfigError
from auricle.inference.model import load
from auricle.training import checkpoint as ckpt
from auricle.training import finetune
from auricle.training.averaging import WeightAverage

SETTINGS = {"epochs": 6, "batch_size": 4, "schedule": "multistep", "decay_start": 2, "decay_every": 1}


@pytest.fixture(scope="module")
def run(tones: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six epochs of three steps; the last four are averaged, and every step is kept."""
    plan = finetune.plan(pretrained, [tones], settings={**SETTINGS, "average_epochs": [3, 6]})
    out = tmp_path_factory.mktemp("runs") / "averaged"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ckpt, "prune", lambda *arguments: None)
        return finetune.finetune(plan, out, checkpoint_every=1, quiet=True)


def test_the_mean_is_that_of_the_weights_after_each_epoch(run: Path) -> None:
    saved = [load_file(run / ckpt.step_name(3 * epoch) / "weights.safetensors") for epoch in (3, 4, 5, 6)]
    mean = load_file(run / ckpt.AVERAGED / "weights.safetensors")
    for name, value in mean.items():
        assert torch.equal(value, (saved[0][name] + saved[1][name] + saved[2][name] + saved[3][name]) / 4)


def test_the_run_stands_for_its_mean_which_was_validated_once(run: Path) -> None:
    assert ckpt.resolve(run).path == run / ckpt.AVERAGED
    assert load(run).config["averaged_epochs"] == [3, 6]
    state = ckpt.resolve(run).state
    assert state["count"] == 4
    assert 0 <= state["metrics"]["val_accuracy"] <= 1


def test_a_schedule_of_epochs_is_validated_by_epochs(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "val_accuracy" in row] == [3, 6, 9, 12, 15, 18]


def test_the_score_of_the_mean_prediction_is_logged(run: Path, tones: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [row["val_ensemble"] for row in rows if "val_ensemble" in row]
    plan = finetune.plan(run, [tones])
    items = [plan.manifest[i] for i in plan.fold.val]
    truth = plan.labels.targets(plan.fold.val, plan.classes).argmax(1)
    total = np.zeros((len(items), len(plan.classes)))
    for epoch, value in enumerate(logged, start=1):
        total += load(run / ckpt.step_name(3 * epoch), precision="fp32").classify_items(items)
        assert value == pytest.approx((total.argmax(1) == truth).mean())


def test_a_run_that_ends_before_the_window_says_so(
    tones: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = finetune.plan(pretrained, [tones], settings={**SETTINGS, "epochs": 0, "average_epochs": [3, 6]}, steps=2)
    out = finetune.finetune(plan, tmp_path / "run", quiet=True)
    assert "nothing is averaged: the run ended before epoch 3 did." in capsys.readouterr().err
    assert not (out / ckpt.AVERAGED).exists()


def test_sums_survive_a_checkpoint() -> None:
    module = torch.nn.Linear(2, 2)
    first, second = WeightAverage(module, (1, 3), 5), WeightAverage(module, (1, 3), 5)
    for step in range(1, 12):
        first.after_step(step)
    second.load(first.tensors())
    with torch.no_grad():
        module.weight.fill_(7.0)
    for step in range(12, 30):
        first.after_step(step)
        second.after_step(step)
    assert first.count == second.count == 3
    assert torch.equal(first.mean()["weight"], second.mean()["weight"])


@pytest.mark.parametrize("epochs", [[0, 3], [5, 4]])
def test_windows_that_make_no_sense_are_refused(tones: Path, pretrained: Path, epochs: list[int]) -> None:
    with pytest.raises(ConfigError, match="average_epochs must be a first and a last epoch"):
        finetune.plan(pretrained, [tones], settings={"average_epochs": epochs})
