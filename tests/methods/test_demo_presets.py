"""What short teacher-student pretrainings are for: a network that tells more than its own random weights.

The loss of a network that has collapsed is low, so neither its fall nor its height says that something was learned.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import auricle
from auricle.data.synth import write_scenes
from auricle.evaluation.readout import embed_task, probe_features
from auricle.evaluation.task import Task
from auricle.inference.model import Model, load, random_model
from auricle.methods import get_preset

METHODS = ("asit", "atst-clip", "atst-frame")


@pytest.mark.parametrize("method", METHODS)
def test_demo_networks_begin_as_short_trainings_need_it(method: str) -> None:
    """Positions that differ, and weights wide enough for attention to choose: SSAST's demo needs the same."""
    model = get_preset(method, "demo").model
    assert (model.position_init, model.init_std) == ("sincos", 0.06)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS)
def test_outputs_stay_apart_in_a_short_training(method: str, tones: Path, tmp_path: Path) -> None:
    run = auricle.pretrain(method, tones, tmp_path / "run", preset="test", steps=60, quiet=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    watched = [line for line in lines if "effective_rank" in line]
    assert watched[-1]["effective_rank"] > 2
    assert watched[-1]["feature_spread"] > 0.2 * watched[0]["feature_spread"]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_demo_pretraining_tells_more_than_random_weights(method: str, tmp_path: Path) -> None:
    """Kinds of generated sounds, read out of the frozen network by ridge; some minutes of a core."""
    heard = write_scenes(tmp_path / "heard", 400, 2.2, 1, classes=None)
    task = Task.read([write_scenes(tmp_path / "labelled", 300, 1.5, 2, classes=8)])
    run = auricle.pretrain(method, heard, tmp_path / "run", preset="demo", steps=400, quiet=True)
    gain = accuracy(load(run), task) - np.mean([accuracy(random_model(run, seed), task) for seed in range(3)])
    assert gain > 0


def accuracy(model: Model, task: Task) -> float:
    return float(np.mean(probe_features(task, embed_task(model, task), "ridge").correct))
