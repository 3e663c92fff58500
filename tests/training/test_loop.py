"""The training loop: what a step is, what stops it, and what it must not touch."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import QUIET, equal, job_of, weights_of
from torch import Tensor, nn

from auricle.data.batch import Batch
from auricle.data.loader import Loader
from auricle.errors import NonFiniteLoss
from auricle.training import checkpoint as ckpt
from auricle.training import finetune, pretrain
from auricle.training.job import Job, Progress
from auricle.training.loop import train
from auricle.training.optim import (
    build_optimizer,
)
from auricle.training.run import read_metrics
from auricle.training.step import forward, take_step

# Learning -----------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_pretraining_falls(tones: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(job_of(tones, tmp_path, steps=60, lr=3e-3), checkpoint_every=60)
    train(job, QUIET)
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_a_classifier_learns_and_its_best_checkpoint_is_kept(finetuned: Path) -> None:
    rows = read_metrics(finetuned)
    assert np.mean([row["loss"] for row in rows[-10:]]) < 0.7 * np.mean([row["loss"] for row in rows[:10]])
    scores = {row["step"]: row["val_accuracy"] for row in rows if "val_accuracy" in row}
    assert list(scores) == list(range(6, 61, 6))
    best = max(scores.values())
    assert best > 0.5
    chosen = ckpt.resolve(finetuned)
    first = min(step for step, score in scores.items() if score == best)
    assert chosen.state["step"] == first
    assert chosen.state["best"] == {"step": first, "metric": "val_accuracy", "value": best}
    assert set(ckpt.steps_saved(finetuned)) == {first, 54, 60}


# A loss that is not finite ------------------------------------------------------------------------------------------


def spoil(module: nn.Module, at: int, how: Callable[[dict[str, Tensor]], Tensor]) -> list[tuple[str, ...]]:
    """From its `at`-th training forward on, the module's loss is `how(result)`; returns the ids of what it saw."""
    forward, seen = module.forward, []

    def spoiled(batch: Batch, progress: float) -> dict[str, Tensor]:
        result: dict[str, Tensor] = forward(batch, progress)
        seen.append(batch.ids)
        return result | {"loss": how(result)} if len(seen) > at else result

    module.forward = spoiled  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_files(
    tones: Path, tmp_path: Path, value: float
) -> None:
    job = job_of(tones, tmp_path)
    seen = spoil(job.module, 4, lambda result: result["loss"] * value)
    with pytest.raises(
        NonFiniteLoss, match=f"the loss is {value} at step 4;.*the checkpoint of step 4 is from before it; lower lr"
    ) as caught:
        train(job, QUIET)
    assert len(seen) == 5
    assert ", ".join(seen[4]) in str(caught.value)
    assert caught.value.exit_code == 1
    # The step before is saved, valid, and what the module still holds.
    newest, problems = ckpt.latest(tmp_path)
    assert newest is not None
    assert problems == []
    assert newest.state["step"] == 4
    assert equal(newest.weights(), weights_of(job.module))
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_gradient_that_is_not_finite_stops_before_the_step(tones: Path, tmp_path: Path) -> None:
    job = job_of(tones, tmp_path)
    # Zero, with a slope of infinity.
    spoil(job.module, 2, lambda result: result["loss"] + (result["loss"] - result["loss"].detach()).sqrt())
    with pytest.raises(NonFiniteLoss, match=r"a gradient is not finite at step 2; the batch was audio/"):
        train(job, QUIET)
    newest, _ = ckpt.latest(tmp_path)
    assert newest is not None
    assert newest.state["step"] == 2
    assert equal(newest.weights(), weights_of(job.module))


def test_only_the_micro_batch_at_fault_is_named(tones: Path, tmp_path: Path) -> None:
    job = job_of(tones, tmp_path, accumulate=4)
    seen = spoil(job.module, 6, lambda result: result["loss"] * math.nan)
    with pytest.raises(NonFiniteLoss, match="at step 1;") as caught:
        train(job, QUIET)
    assert len(seen[6]) == 2
    assert all(name in str(caught.value) for name in seen[6])
    assert f"the batch was {', '.join(seen[6])};" in str(caught.value)


def test_weights_that_are_not_finite_and_a_huge_learning_rate_are_noticed(
    tones: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    job = job_of(tones, tmp_path / "nan")
    with torch.no_grad():
        next(job.module.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteLoss, match="at step 0"):
        train(job, QUIET)
    assert ckpt.steps_saved(tmp_path / "nan") == []
    options = ("--preset", "test", "--checkpoint-every", 1, "--set", "lr=1e30", "--set", "warmup=0")
    end = cli("pretrain", "ssast", tones, *options, "--out", tmp_path / "huge")
    assert end.code == 1
    last = end.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "audio/" in last
    newest, _ = ckpt.latest(tmp_path / "huge")
    assert newest is not None
    assert all(bool(torch.isfinite(value).all()) for value in newest.weights().values())


def test_a_validation_that_is_not_finite_stops_before_anything_is_saved(tones: Path, tmp_path: Path) -> None:
    job = job_of(tones, tmp_path, validate_every=2)
    scores = iter([0.5, math.nan])
    job = dataclasses.replace(job, validate=lambda module: {"val_loss": next(scores)}, best_metric="val_loss")
    with pytest.raises(
        NonFiniteLoss, match=r"val_loss is nan in the validation after step 4; the checkpoint of step 3 is"
    ):
        train(job, QUIET)
    assert max(ckpt.steps_saved(tmp_path)) == 3
    assert read_metrics(tmp_path)[-1]["step"] == 3


def test_weights_that_overflow_in_the_last_step_are_not_saved(tones: Path, tmp_path: Path) -> None:
    # Nothing after the last step would notice but the validation, whose embeddings then have no rank.
    plan = pretrain.plan("ssast", [tones], preset="test", settings={"lr": 3e38, "warmup": 0.0, "clip_norm": 0}, steps=1)
    with pytest.raises(NonFiniteLoss, match=r"is (nan|inf).* in the validation after step 1; no checkpoint had been"):
        pretrain.pretrain(plan, tmp_path / "run", quiet=True)
    assert ckpt.steps_saved(tmp_path / "run") == []


# A step -------------------------------------------------------------------------------------------------------------


def gradients(job: Job, accumulate: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients of the first batch, and the scalars, without stepping or clipping."""
    config = dataclasses.replace(job.config, accumulate=accumulate, clip_norm=0.0, lr=1e-12)
    job = dataclasses.replace(job, config=config)
    optimizer = build_optimizer(job.module, config)
    batch = next(iter(dataclasses.replace(job).loader))
    job.loader.load_state_dict({"position": 0})
    scalars = take_step(job, job.module, optimizer, batch, Progress(total=10), "fp32")
    return {n: p.grad.clone() for n, p in job.module.named_parameters() if p.grad is not None}, scalars


@pytest.mark.parametrize("what", ["pretraining", "classifier"])
def test_accumulation_gives_the_gradients_of_the_whole_batch(
    tones: Path, pretrained: Path, tmp_path: Path, what: str
) -> None:
    # The clips differ in length, so that micro-batches hold different numbers of masked tokens.
    job = job_of(tones, tmp_path, batch_size=8)
    if what == "classifier":
        plan = finetune.plan(pretrained, [tones], settings={"mask_freq": 16, "noise": True})
        items = [plan.manifest[i] for i in plan.fold.train]
        targets = plan.labels.targets(plan.fold.train, plan.classes)
        loader = Loader(items, rate=16000, batch_size=8, crop_seconds=0.655, seed=0, targets=targets, mixup=0.5)
        job = dataclasses.replace(job, module=finetune.build(plan), loader=loader)
    whole, scalars = gradients(job, 1)
    assert len(whole) > 20
    for parts in (2, 4, 8):
        split, split_scalars = gradients(job, parts)
        assert split.keys() == whole.keys()
        scale = max(float(g.abs().max()) for g in whole.values())
        assert max(float((split[n] - whole[n]).abs().max()) for n in whole) < 1e-6 * max(1.0, scale)
        assert split_scalars == pytest.approx(scalars, rel=1e-5, abs=1e-7)


def test_clipping_limits_the_norm_of_the_step(tones: Path, tmp_path: Path) -> None:
    job = job_of(tones, tmp_path, clip_norm=0.01)
    optimizer = build_optimizer(job.module, job.config)
    scalars = take_step(job, job.module, optimizer, next(iter(job.loader)), Progress(total=10), "fp32")
    norm = torch.cat([p.grad.flatten() for p in job.module.parameters() if p.grad is not None]).norm()
    assert scalars["grad_norm"] > 0.1
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


# Determinism --------------------------------------------------------------------------------------------------------


def global_states() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002


def test_no_global_generator_is_moved(tones: Path, pretrained: Path, tmp_path: Path) -> None:
    before = global_states()
    job = job_of(tones, tmp_path)
    assert global_states() == before, "planning and building"
    iterator = iter(job.loader)
    batch = next(iterator)
    assert global_states() == before, "a batch"
    take_step(job, job.module, build_optimizer(job.module, job.config), batch, Progress(total=10), "fp32")
    assert global_states() == before, "a step"
    finetune.finetune(finetune.plan(pretrained, [tones], steps=4), tmp_path / "run", quiet=True)
    assert global_states() == before, "a fine-tuning with validation"


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tones: Path, tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002
        random.seed(number)
        job = job_of(tones, tmp_path / str(number), seed=seed)
        train(job, QUIET)
        runs.append((weights_of(job.module), (tmp_path / str(number) / "metrics.jsonl").read_bytes()))
    assert equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not equal(runs[0][0], runs[2][0])
    assert runs[0][1] != runs[2][1]


def test_dropout_is_drawn_from_seed_step_and_micro_batch(tones: Path, tmp_path: Path) -> None:
    batch = next(iter(job_of(tones, tmp_path).loader))

    class Dropping(nn.Module):
        def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
            return {"loss": nn.functional.dropout(torch.ones(50), 0.5).sum(), "drawn": torch.rand(4)}

    def drawn(*keys: int) -> list[float]:
        torch.manual_seed(len(seen))
        seen.append(forward(Dropping(), batch, 0.0, keys, "fp32")["drawn"].tolist())  # type: ignore[arg-type]
        return seen[-1]

    seen: list[list[float]] = []
    assert drawn(0, 5, 0) == drawn(0, 5, 0)
    assert len({tuple(drawn(*keys)) for keys in ((0, 5, 0), (1, 5, 0), (0, 6, 0), (0, 5, 1))}) == 4


def test_it_trains_outside_the_main_thread(tones: Path, tmp_path: Path) -> None:
    # Signals belong to the main thread there, and are left alone.
    done: list[Progress] = []
    job = job_of(tones, tmp_path)
    thread = threading.Thread(target=lambda: done.append(train(job, QUIET)))
    thread.start()
    thread.join(60)
    assert done[0].step == 6


# What is logged -----------------------------------------------------------------------------------------------------


def test_metrics_are_one_json_object_per_step_and_a_cut_line_is_ignored(pretrained: Path, tmp_path: Path) -> None:
    text = (pretrained / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert {"loss", "nce", "mse", "accuracy", "lr", "grad_norm", "val_loss", "effective_rank"} <= rows[-1].keys()
    (tmp_path / "metrics.jsonl").write_text(text[:-20])
    assert read_metrics(tmp_path) == rows[:-1]
    assert read_metrics(tmp_path / "nowhere") == []
