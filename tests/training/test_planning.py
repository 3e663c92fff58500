"""The minutes of a training are planned with all that takes time: steps, validations and saves."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import QUIET, equal, job_of, weights_of
from torch import Tensor

from auricle.methods.base import Trainable
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.training import job as jobs
from auricle.training import planning
from auricle.training.checkpoint import save_checkpoint
from auricle.training.job import Rhythm
from auricle.training.loop import train
from auricle.training.planning import Costs, affordable, measure_costs
from auricle.training.run import read_metrics


@pytest.mark.parametrize("total", [1, 7, 19, 20, 100, 101])
@pytest.mark.parametrize("validate_every", [0, 1, 3, 10])
@pytest.mark.parametrize("save_every", [1, 4, 10])
@pytest.mark.parametrize("saves_best", [False, True])
def test_a_rhythm_counts_what_it_says_step_by_step(
    total: int, validate_every: int, save_every: int, saves_best: bool
) -> None:
    rhythm = Rhythm(total, validate_every, save_every, saves_best)
    steps = range(1, total + 1)
    assert rhythm.validations == sum(rhythm.validates(step) for step in steps)
    most = sum(rhythm.saves(step) or (saves_best and rhythm.validates(step)) for step in steps)
    assert rhythm.most_saves == most
    assert rhythm.saves(total)


@pytest.mark.parametrize(
    ("asked", "checkpoint_every", "saved"), [(0, 0, 10), (4, 0, 4), (30, 0, 10), (4, 7, 7), (0, 7, 7)]
)
def test_a_rhythm_of_validations_is_one_of_checkpoints(
    tones: Path, tmp_path: Path, asked: int, checkpoint_every: int, saved: int
) -> None:
    job = job_of(tones, tmp_path / "run", validate_every=asked)
    assert dataclasses.replace(job, checkpoint_every=checkpoint_every).rhythm(100).save_every == saved


def test_the_steps_are_the_most_that_fit() -> None:
    costs = Costs(step=0.5, validation=2.0, save=1.0)

    def rhythm(total: int) -> Rhythm:
        return Rhythm(total, validate_every=10, save_every=20)

    steps = affordable(60, costs, rhythm)
    assert costs.of(rhythm(steps)) <= 60 < costs.of(rhythm(steps + 1))
    # Without the validations and saves it would be 120; with them, ten steps take 7.5 seconds.
    assert steps == 80
    assert affordable(0.1, costs, rhythm) == 1
    # As many validations as a training of that length has.
    assert affordable(60, Costs(0.5, 5.0), lambda total: Rhythm(total, max(1, total // 10), total)) == 20


def test_a_small_network_with_slow_validations_ends_its_schedule_in_time(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock that goes on by so much with every step, validation and save, beside the time that really passes.
    clock, passed = time.monotonic, [0.0]
    monkeypatch.setattr(planning.time, "monotonic", lambda: clock() + passed[0])
    forward = MaskedPatchObjective.forward

    def step(self: MaskedPatchObjective, *given: Any) -> dict[str, Tensor]:
        passed[0] += 1.0
        return forward(self, *given)

    def look(module: Trainable) -> dict[str, float]:
        passed[0] += 60.0
        return {}

    def write(run: Path, name: str, **parts: Any) -> Path:
        passed[0] += 30.0
        return save_checkpoint(run, name, **parts)

    monkeypatch.setattr(MaskedPatchObjective, "forward", step)
    monkeypatch.setattr(jobs.ckpt, "save_checkpoint", write)
    job = dataclasses.replace(job_of(tones, tmp_path), validate=look, checkpoint_every=0)
    began = time.monotonic()
    progress = train(dataclasses.replace(job, max_minutes=20, started=began), QUIET)
    # 1200 s, of which 93 % are planned with, less some 100 for the trial: ten validations and saves take 900.
    assert progress.step == progress.total
    assert 70 < progress.total < 130
    assert 0.9 * 1200 < time.monotonic() - began < 1200
    budget = json.loads((tmp_path / "budget.json").read_text())
    assert budget["steps"] == progress.total
    assert budget["seconds_per_validation"] == pytest.approx(60, abs=1)
    assert budget["seconds_per_save"] == pytest.approx(30, abs=1)
    assert read_metrics(tmp_path)[-1]["lr"] < 0.1 * job.config.lr


class Counting:
    """Counts the validations, as the predictions of a fine-tuning do."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, module: Trainable) -> dict[str, float]:
        self.count += 1
        # A validation may hurt the network it is given; it must not be the run's own.
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        return {}

    def tensors(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.count = int(tensors["count"])


def test_a_trial_leaves_the_job_as_it_was(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "TRIAL_SECONDS", 0.05)
    watch = Counting()
    job = dataclasses.replace(job_of(tones, tmp_path), validate=watch, carried=[watch])
    before, position, state = weights_of(job.module), job.loader.state_dict(), torch.get_rng_state()
    costs = measure_costs(job)
    assert costs.step > 0
    assert equal(weights_of(job.module), before)
    assert job.loader.state_dict() == position
    assert torch.equal(torch.get_rng_state(), state)
    assert watch.count == 0
    assert list(tmp_path.iterdir()) == []
