"""Which numbers are computed with, and the scaled loss of fp16."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import CPU, QUIET, equal, job_of, weights_of
from torch import Tensor, nn

from auricle.data.batch import Batch
from auricle.errors import ConfigError, NonFiniteLoss
from auricle.training import checkpoint as ckpt
from auricle.training import precision
from auricle.training import step as steps
from auricle.training.job import Job, Progress
from auricle.training.loop import train
from auricle.training.optim import (
    build_optimizer,
)
from auricle.training.precision import has_fast_bf16, next_scale, resolve_precision
from auricle.training.run import read_metrics
from auricle.training.step import take_step

# Precision ----------------------------------------------------------------------------------------------------------


def test_precision_is_resolved_or_refused() -> None:
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("auto", CPU) == ("bf16" if has_fast_bf16(CPU) else "fp32")
    assert resolve_precision("auto", torch.device("meta")) == "fp32"
    assert resolve_precision("fp16", CPU) == "fp16"
    for name in ("half", "float32", "", "BF16"):
        with pytest.raises(ConfigError, match=f"precision must be auto, fp32, bf16 or fp16, got '{name}'"):
            resolve_precision(name, CPU)


def test_bf16_learns_what_fp32_learns(tones: Path, tmp_path: Path) -> None:
    losses = {}
    for kind in ("fp32", "bf16"):
        job = job_of(tones, tmp_path / kind, steps=30, precision=kind, lr=3e-3)
        train(dataclasses.replace(job, checkpoint_every=30), QUIET)
        losses[kind] = [row["loss"] for row in read_metrics(tmp_path / kind)]
    assert losses["fp32"] != losses["bf16"]
    assert np.mean(losses["bf16"][-10:]) == pytest.approx(np.mean(losses["fp32"][-10:]), rel=0.02)


# fp16 ---------------------------------------------------------------------------------------------------------------


def test_the_scale_of_the_loss_is_halved_at_an_overflow_and_doubled_after_steady_steps() -> None:
    assert next_scale(256.0, 7, finite=False) == (128.0, 0)
    assert next_scale(256.0, 7, finite=True) == (256.0, 8)
    assert next_scale(256.0, precision.STEADY_STEPS - 1, finite=True) == (512.0, 0)


def test_fp16_trains_and_its_scale_does_not_change_the_gradient(tones: Path, tmp_path: Path) -> None:
    norms = []
    for scale in (1.0, 2.0**6):
        job, progress = job_of(tones, tmp_path), Progress(total=10, loss_scale=scale)
        batch, optimizer = next(iter(job.loader)), build_optimizer(job.module, job.config)
        norms.append(take_step(job, job.module, optimizer, batch, progress, "fp16")["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)
    job = dataclasses.replace(job_of(tones, tmp_path / "run", steps=40, lr=3e-3, precision="fp16"), checkpoint_every=40)
    train(job, QUIET)
    rows = read_metrics(tmp_path / "run")
    assert np.mean([row["loss"] for row in rows[-10:]]) < 0.95 * np.mean([row["loss"] for row in rows[:10]])
    assert rows[-1]["loss_scale"] == precision.FIRST_SCALE


def overflow(module: nn.Module, *steps: int) -> None:
    """In these steps, of one micro-batch each, a gradient is infinite."""
    forward, calls = module.forward, []

    def overflowing(batch: Batch, progress: float) -> dict[str, Tensor]:
        result: dict[str, Tensor] = forward(batch, progress)
        calls.append(None)
        if len(calls) - 1 in steps:
            result["loss"] = result["loss"] + (result["loss"] - result["loss"].detach()).sqrt()
        return result

    module.forward = overflowing  # type: ignore[method-assign]


def test_an_overflow_in_fp16_skips_the_step_and_nothing_else(tones: Path, tmp_path: Path) -> None:
    job = job_of(tones, tmp_path, precision="fp16")
    overflow(job.module, 2, 4)
    stepped = []
    job.module.after_step = lambda share: stepped.append(weights_of(job.module))  # type: ignore[assignment]
    progress = train(job, QUIET)
    rows = read_metrics(tmp_path)
    assert [row.get("skipped", 0.0) for row in rows] == [0, 0, 1, 0, 1, 0]
    first = precision.FIRST_SCALE
    assert [row["loss_scale"] for row in rows] == [first, first, first, first / 2, first / 2, first / 4]
    assert (progress.step, progress.loss_scale, progress.steady) == (6, first / 4, 1)
    assert len(stepped) == 4
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("method", ["asit", "atst-clip"])
def test_a_skipped_step_moves_no_centre_and_no_running_statistic(method: str, tones: Path, tmp_path: Path) -> None:
    job = job_of(tones, tmp_path, method=method, precision="fp16")
    batches, optimizer = iter(job.loader), build_optimizer(job.module, job.config)
    progress = Progress(total=10)

    def step() -> dict[str, float]:
        return take_step(job, job.module, optimizer, next(batches), progress, "fp16")

    overflow(job.module, 1)
    step()
    # Those too that checkpoints do not hold, such as the rows that a centre has noted.
    buffers = list(job.module.buffers())
    before, weights = [buffer.clone() for buffer in buffers], weights_of(job.module)
    assert step()["skipped"] == 1.0
    assert all(map(torch.equal, buffers, before))
    assert equal(weights_of(job.module), weights)
    assert "skipped" not in step()
    assert not all(map(torch.equal, buffers, before))


@pytest.mark.parametrize("method", ["asit", "atst-clip"])
def test_a_run_resumed_after_a_skipped_step_ends_with_the_same_bits(
    method: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ckpt, "prune", lambda *arguments: None)
    straight = job_of(tones, tmp_path / "straight", method=method, precision="fp16")
    overflow(straight.module, 2)
    train(straight, QUIET)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    for step in (4, 5, 6):
        shutil.rmtree(tmp_path / "resumed" / ckpt.step_name(step))
    resumed = job_of(tones, tmp_path / "resumed", method=method, precision="fp16")
    train(resumed, QUIET)
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("straight", "resumed")]
    assert b'"skipped": 1.0' in metrics[0]
    assert metrics[0] == metrics[1]
    assert equal(weights_of(straight.module), weights_of(resumed.module))


def test_a_scale_that_collapses_stops_the_run(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LEAST_SCALE", precision.FIRST_SCALE / 4)
    job = job_of(tones, tmp_path, precision="fp16")
    overflow(job.module, *range(1, 9))
    with pytest.raises(NonFiniteLoss, match="a gradient is not finite at step 3"):
        train(job, QUIET)


def test_the_scale_belongs_to_what_is_resumed(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "STEADY_STEPS", 2)
    monkeypatch.setattr(ckpt, "prune", lambda *arguments: None)

    def run(folder: Path) -> Job:
        job = job_of(tones, folder, precision="fp16")
        train(job, QUIET)
        return job

    straight = run(tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    for step in (4, 5, 6):
        shutil.rmtree(tmp_path / "resumed" / ckpt.step_name(step))
    resumed = run(tmp_path / "resumed")
    assert equal(weights_of(straight.module), weights_of(resumed.module))
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("straight", "resumed")]
    assert metrics[0] == metrics[1]
    scales = [row["loss_scale"] for row in read_metrics(tmp_path / "resumed")]
    assert scales == [precision.FIRST_SCALE * 2.0 ** (step // 2) for step in range(6)]
