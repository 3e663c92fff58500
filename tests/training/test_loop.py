"""The training loop: what a step is, what stops it, and what it must not touch."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.data.batch import Batch
from auricle.data.formats import read_data
from auricle.data.loader import Loader
from auricle.data.randomness import generator
from auricle.errors import ConfigError, DataError, NonFiniteLoss
from auricle.training import checkpoint as ckpt
from auricle.training import finetune, loop, precision, pretrain
from auricle.training.log import Console
from auricle.training.loop import Job, Progress, train
from auricle.training.optim import (
    Clock,
    build_optimizer,
    learning_rate_factor,
    load_optimizer,
    optimizer_tensors,
    plateaus,
)
from auricle.training.precision import has_fast_bf16, next_scale, resolve_precision
from auricle.training.run import read_metrics

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


def job_of(data: Path, run: Path, *, seed: int = 0, **settings: Any) -> Job:
    """A pretraining of preset `test`, without what surrounds the loop; a checkpoint after every step."""
    plan = pretrain.plan("ssast", [data], preset="test", settings={"steps": 6, **settings}, seed=seed)
    run.mkdir(exist_ok=True)
    c = plan.train
    loader = Loader(
        plan.train_items, rate=16000, batch_size=c.batch_size, crop_seconds=c.crop_seconds, seed=seed, cover=True
    )
    config = {"kind": "pretraining", "method": "ssast", "model": {}}
    return Job(pretrain.build(plan), loader, c, run, seed, config, checkpoint_every=1)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Learning ----------------------------------------------------------------------------------------------------------


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


# A loss that is not finite -----------------------------------------------------------------------------------------


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


# fp16 --------------------------------------------------------------------------------------------------------------


def test_the_scale_of_the_loss_is_halved_at_an_overflow_and_doubled_after_steady_steps() -> None:
    assert next_scale(256.0, 7, finite=False) == (128.0, 0)
    assert next_scale(256.0, 7, finite=True) == (256.0, 8)
    assert next_scale(256.0, precision.STEADY_STEPS - 1, finite=True) == (512.0, 0)


def test_fp16_trains_and_its_scale_does_not_change_the_gradient(tones: Path, tmp_path: Path) -> None:
    norms = []
    for scale in (1.0, 2.0**6):
        job, progress = job_of(tones, tmp_path), Progress(total=10, loss_scale=scale)
        batch, optimizer = next(iter(job.loader)), build_optimizer(job.module, job.config)
        norms.append(loop._step(job, job.module, optimizer, batch, progress, "fp16")["grad_norm"])
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


def test_a_scale_that_collapses_stops_the_run(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LEAST_SCALE", precision.FIRST_SCALE / 4)
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


# A step ------------------------------------------------------------------------------------------------------------


def gradients(job: Job, accumulate: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients of the first batch, and the scalars, without stepping or clipping."""
    config = dataclasses.replace(job.config, accumulate=accumulate, clip_norm=0.0, lr=1e-12)
    job = dataclasses.replace(job, config=config)
    optimizer = build_optimizer(job.module, config)
    batch = next(iter(dataclasses.replace(job).loader))
    job.loader.load_state_dict({"position": 0})
    scalars = loop._step(job, job.module, optimizer, batch, Progress(total=10), "fp32")
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
    scalars = loop._step(job, job.module, optimizer, next(iter(job.loader)), Progress(total=10), "fp32")
    norm = torch.cat([p.grad.flatten() for p in job.module.parameters() if p.grad is not None]).norm()
    assert scalars["grad_norm"] > 0.1
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


# Schedules ---------------------------------------------------------------------------------------------------------


def factor(step: int, total: int, **settings: Any) -> float:
    return learning_rate_factor(Clock(step, total), TrainConfig(**settings))


def test_cosine_schedule_at_points_computed_by_hand() -> None:
    def at(step: int) -> float:
        return factor(step, 110, schedule="cosine", warmup=10 / 110, final_lr=0.2)

    assert at(0) == pytest.approx(0.1)
    assert at(4) == pytest.approx(0.5)
    assert at(9) == pytest.approx(1.0)
    assert at(10) == pytest.approx(1.0)
    # A quarter, half and three quarters of the way down: 0.2 + 0.8 * (1 + cos) / 2.
    assert at(35) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert at(60) == pytest.approx(0.6)
    assert at(85) == pytest.approx(0.2 + 0.8 * (1 - math.sqrt(0.5)) / 2)
    assert at(109) == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("total", [10, 100, 1000])
def test_step_schedule_decays_on_the_step_it_should(total: int) -> None:
    tenth = total // 10
    settings = {"schedule": "step", "warmup": 0.0, "decay_start": 0.3, "decay_every": 0.1, "decay_factor": 0.5}
    for k in range(3, 10):
        assert factor(k * tenth, total, **settings) == 0.5 ** (k - 2)
        assert factor(k * tenth - 1, total, **settings) == (1.0 if k == 3 else 0.5 ** (k - 3))
    assert factor(0, total, **settings) == 1.0


def test_constant_schedule_and_no_warm_up() -> None:
    assert [factor(s, 10, schedule="constant", warmup=0.2) for s in range(10)] == [0.5] + 9 * [1.0]
    assert factor(0, 10, schedule="constant", warmup=0.0) == 1.0
    assert factor(0, 1, schedule="cosine", warmup=0.1) == 1.0


def test_plateaus_are_three_validations_without_a_better_one() -> None:
    assert plateaus([(1, 0.5), (2, 0.4), (3, 0.4), (4, 0.5), (5, 0.6), (6, 0.1), (7, 0.1), (8, 0.1), (9, 0.1)]) == [
        4,
        8,
    ]
    # Better by less than a ten-thousandth is not better; scores below zero count alike.
    assert plateaus([(1, 0.5), (2, 0.50004), (3, 0.5), (4, 0.50004)]) == [4]
    assert plateaus([(1, -5.0), (2, -4.0), (3, -3.0), (4, -2.0)]) == []
    config = TrainConfig(schedule="plateau", warmup=0.0, decay_factor=0.5)
    scores = [(10, 0.5), (20, 0.4), (30, 0.4), (40, 0.4)]
    assert learning_rate_factor(Clock(39, 100, 10, scores[:3]), config) == 1.0
    assert learning_rate_factor(Clock(40, 100, 10, scores), config) == 0.5


def test_parameter_groups(finetuned: Path) -> None:
    module = nn.Module()
    module.body, module.head = nn.Linear(3, 2), nn.Linear(2, 4)
    module.token = nn.Parameter(torch.zeros(1, 1, 3))
    groups = build_optimizer(module, TrainConfig(lr=1.0, weight_decay=0.3, head_lr_factor=10.0)).param_groups
    found = {
        name: (group["factor"], group["weight_decay"])
        for group in groups
        for p in group["params"]
        for name, q in module.named_parameters()
        if p is q
    }
    assert found == {
        "body.weight": (1.0, 0.3),
        "body.bias": (1.0, 0.0),
        "token": (1.0, 0.0),
        "head.weight": (10.0, 0.3),
        "head.bias": (10.0, 0.0),
    }


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_an_optimizer_that_is_loaded_goes_on_with_the_same_bits_where_its_parameters_are(
    device: str, kind: Any
) -> None:
    config = TrainConfig(optimizer=kind, lr=0.1)

    def steps(module: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(number)
            module(torch.randn(5, 3, generator=generator).to(device)).square().mean().backward()
            optimizer.step()

    straight = nn.Linear(3, 2).to(device)
    optimizer = build_optimizer(straight, config)
    steps(straight, optimizer, range(3))
    # A checkpoint holds tensors of the CPU.
    saved = {name: value.cpu().clone() for name, value in optimizer_tensors(optimizer, straight).items()}
    resumed = nn.Linear(3, 2).to(device)
    resumed.load_state_dict(straight.state_dict())
    again = build_optimizer(resumed, config)
    load_optimizer(again, resumed, saved)
    for parameter in resumed.parameters():
        for value in again.state[parameter].values():
            assert value.device == parameter.device
            assert value.dtype == torch.float32
    steps(straight, optimizer, range(3, 6))
    steps(resumed, again, range(3, 6))
    assert equal(weights_of(straight), weights_of(resumed))
    after = optimizer_tensors(again, resumed)
    assert equal(optimizer_tensors(optimizer, straight), after)
    assert float(after["step.weight"]) == 6


# Determinism -------------------------------------------------------------------------------------------------------


def global_states() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002


def test_no_global_generator_is_moved(tones: Path, pretrained: Path, tmp_path: Path) -> None:
    before = global_states()
    job = job_of(tones, tmp_path)
    assert global_states() == before, "planning and building"
    iterator = iter(job.loader)
    batch = next(iterator)
    assert global_states() == before, "a batch"
    loop._step(job, job.module, build_optimizer(job.module, job.config), batch, Progress(total=10), "fp32")
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
        seen.append(loop.forward(Dropping(), batch, 0.0, keys, "fp32")["drawn"].tolist())  # type: ignore[arg-type]
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


# Unreadable files --------------------------------------------------------------------------------------------------


def damaged(tones: Path, folder: Path, *names: str) -> Path:
    """A copy of the data whose files `names` have a good header and are cut: only decoding finds out."""
    shutil.copytree(tones, folder)
    for name in names:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    return folder


def test_an_unreadable_file_is_replaced_by_rule_and_listed_once(
    tones: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    data = damaged(tones, tmp_path / "data", "audio/hiss2.wav")
    manifest = read_data(data)
    loader = Loader(manifest.items, rate=16000, batch_size=8, crop_seconds=0.5, seed=3)
    bad = manifest.ids.index("audio/hiss2.wav")
    replaced = 0
    for batch, keys in zip(loader, loader.keys(0), strict=False):
        for row, key in enumerate(keys):
            if key.slot == bad:
                # By chance the first stand-in may be the same file again.
                drawn = [
                    int(generator(3, "replace", key.epoch, key.index, k).integers(len(manifest))) for k in range(9)
                ]
                tries = next(k for k, slot in enumerate(drawn) if slot != bad)
                assert batch.ids[row] == manifest.ids[drawn[tries]]
                assert batch.replaced == (tries + 1) * ((str(data / "audio/hiss2.wav"), "truncated"),)
                replaced += 1
            else:
                assert batch.ids[row] == manifest.ids[key.slot]
        if key.epoch == 4:
            break
    assert replaced == 4

    end = cli("pretrain", "ssast", data, "--preset", "test", "--steps", 12, "--out", tmp_path / "run")
    assert end.code == 0, end.err
    assert end.err.count("hiss2.wav") == 1
    # When it is met, not at the end.
    named = end.err.index(f"warning: {data / 'audio/hiss2.wav'}: truncated; another clip stands in for it")
    assert named < end.err.index("step 12/12") < end.err.index("1 file could not be read.")
    newest, _ = ckpt.latest(tmp_path / "run")
    assert newest is not None
    assert newest.state["bad_files"] == [[str(data / "audio/hiss2.wav"), "truncated"]]


def test_too_many_unreadable_files_stop_the_run(tones: Path, tmp_path: Path) -> None:
    names = ("audio/hiss2.wav", "audio/buzz4.wav", "audio/chirp6.flac")
    data = damaged(tones, tmp_path / "data", *names)
    with pytest.raises(
        DataError, match=r"[23] files cannot be read, more than the 1 allowed \(.*truncated.*\); repair"
    ):
        train(job_of(data, tmp_path / "run", steps=20), QUIET)
    progress = train(job_of(data, tmp_path / "other", steps=20, max_bad_fraction=0.2), QUIET)
    assert progress.step == 20
    assert sorted(Path(path).name for path, _ in progress.bad_files) == sorted(Path(name).name for name in names)


def test_data_of_which_nothing_can_be_read_say_so(tones: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    names = [row.split(",")[0] for row in (tones / "manifest.csv").read_text().splitlines()[1:]]
    data = damaged(tones, tmp_path / "data", *names)
    end = cli("pretrain", "ssast", data, "--preset", "test", "--steps", 2, "--out", tmp_path / "run")
    assert end.code == 2
    assert "of 23 clips none can be read, such as " in end.err
    assert [line.split(":")[0] for line in end.err.splitlines()] == ["data", "error"]


# What is measured on the way ----------------------------------------------------------------------------------------


def test_clips_are_held_out_of_small_sets_too(tones: Path) -> None:
    items = read_data(tones).items
    for count, fraction, held in (
        *((3, 0.5, 0), (4, 0.02, 1), (4, 1.0, 2), (24, 0.02, 1), (24, 0.25, 6), (24, 0.0, 0)),
        *((48, 0.02, 1), (240, 0.02, 5), (240, 1.0, 64)),
    ):
        several = [dataclasses.replace(item, id=f"{item.id}-{n}") for n in range(10) for item in items][:count]
        train_items, val_items = pretrain.hold_out(several, fraction, 0)
        assert len(val_items) == held
        assert {item.id for item in (*train_items, *val_items)} == {item.id for item in several}
        assert len(train_items) + len(val_items) == count


def test_what_is_measured_on_clips_that_are_trained_on_is_not_called_validation(tones: Path, tmp_path: Path) -> None:
    for fraction, name, other in ((0.0, "train", "val"), (0.2, "val", "train")):
        settings = {"val_fraction": fraction, "validate_every": 2}
        run = tmp_path / name
        pretrain.pretrain(pretrain.plan("ssast", [tones], preset="test", settings=settings, steps=4), run, quiet=True)
        rows = read_metrics(run)
        assert [row["step"] for row in rows if f"{name}_loss" in row] == [2, 4]
        assert f"{name}_score" in rows[-1]
        assert not any(key.startswith(f"{other}_") for row in rows for key in row)


@pytest.mark.parametrize("key, value", [("mixup", 0.5), ("mask_time", 8), ("noise", True), ("head_lr_factor", 10.0)])
def test_pretraining_refuses_what_it_would_ignore(tones: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^pretraining does not use {key}; leave out --set {key}\.$"):
        pretrain.plan("ssast", [tones], preset="test", settings={key: value})


def test_settings_of_another_schedule_or_without_clips_to_validate_on_are_refused(
    tones: Path, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^final_lr has no effect under schedule=constant; .*schedule=cosine\.$"):
        pretrain.plan("ssast", [tones], preset="test", settings={"schedule": "constant", "final_lr": 0.5})
    with pytest.raises(ConfigError, match=r"warmup_steps has no effect under schedule=cosine; .*=multistep or plateau"):
        finetune.plan(pretrained, [tones], settings={"warmup_steps": 50})
    with pytest.raises(ConfigError, match="the data has a validation part of its own"):
        finetune.plan(pretrained, [tones], settings={"val_fraction": 0.1})
    for settings, name in (({"schedule": "plateau"}, "schedule=plateau"), ({"validate_every": 3}, "validate_every")):
        with pytest.raises(ConfigError, match=f"^{name} needs clips to validate on; take some with"):
            finetune.plan(pretrained, [tones], group_column="group", settings=settings)
        finetune.plan(pretrained, [tones], group_column="group", settings={**settings, "val_fraction": 0.2})


def test_a_plateau_of_the_validation_accuracy_lowers_the_learning_rate_of_a_finetuning(
    tones: Path, pretrained: Path, tmp_path: Path
) -> None:
    settings = {"schedule": "plateau", "decay_factor": 0.5, "validate_every": 1, "lr": 1e-9}
    finetune.finetune(finetune.plan(pretrained, [tones], settings=settings, steps=8), tmp_path / "run", quiet=True)
    # So small a rate that nothing is learned.
    assert len({row["val_accuracy"] for row in read_metrics(tmp_path / "run")}) == 1
    assert [row["lr"] for row in read_metrics(tmp_path / "run")] == 4 * [1e-9] + 3 * [5e-10] + [2.5e-10]


# Precision ---------------------------------------------------------------------------------------------------------


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


# What is logged ----------------------------------------------------------------------------------------------------


def test_metrics_are_one_json_object_per_step_and_a_cut_line_is_ignored(pretrained: Path, tmp_path: Path) -> None:
    text = (pretrained / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert {"loss", "nce", "mse", "accuracy", "lr", "grad_norm", "val_loss", "effective_rank"} <= rows[-1].keys()
    (tmp_path / "metrics.jsonl").write_text(text[:-20])
    assert read_metrics(tmp_path) == rows[:-1]
    assert read_metrics(tmp_path / "nowhere") == []
