"""What a dry run says about a training before it is begun."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from auricle.config import TrainConfig
from auricle.errors import ConfigError
from auricle.methods import get_method
from auricle.training import estimate, finetune, memory, planning, pretrain, step
from auricle.training.memory import enough_memory


def number(text: str, name: str) -> int:
    """The first number of the line that begins with `name`."""
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return int(re.findall(r"[\d,]+", line)[0].replace(",", ""))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "TRIAL_SECONDS", 0.0)


def test_a_pretraining_is_counted_without_being_begun(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    plan = pretrain.plan("ssast", [tones], preset="test", settings={"steps": 0, "epochs": 3})
    text = estimate.pretraining(plan)
    assert torch.equal(torch.get_rng_state(), state)
    assert number(text, "parameters") == sum(p.numel() for p in pretrain.build(plan).parameters())
    assert "23 clips" in text
    # 23 clips (one is held out) of 0.3 to 2 s in crops of 0.655 s, eight at a time.
    per_epoch = sum(-(-item.duration // 0.655) for item in plan.train_items) // 8
    assert f"{per_epoch:.0f} steps per epoch" in text
    assert number(text, "steps") == 3 * per_epoch

    monkeypatch.setattr(estimate, "measure", lambda *job: estimate.Cost(0.5, 0.0, 0.0))
    assert number(estimate.pretraining(plan, max_minutes=10), "steps") == int(600 * planning.PLANNED_SHARE / 0.5)


def test_a_finetuning_is_counted_without_being_begun(tones: Path, pretrained: Path) -> None:
    plan = finetune.plan(pretrained, [tones], steps=7, settings={"mixup": 0.5})
    text = estimate.finetuning(plan)
    assert number(text, "parameters") == sum(p.numel() for p in finetune.build(plan).parameters())
    assert number(text, "steps") == 7
    assert "12 clips, 1 step per epoch" in text


def test_a_teacher_has_no_gradients_and_no_optimizer(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "measure", lambda *job: estimate.Cost(0.5, 0.0, 0.0))
    plan = pretrain.plan("asit-test", [tones])
    assert (plan.method, plan.preset) == ("asit", "test")
    text, module = estimate.pretraining(plan), pretrain.build(plan)
    learned, count = (sum(p.numel() for p in module.parameters() if p.requires_grad or also) for also in (False, True))
    assert f"{learned:,} that learn)" in text
    assert f"with gradients and optimizer {(4 * count + 12 * learned) / 2**20:.0f} MB" in text


def test_parameters_are_counted_without_allocating_them() -> None:
    method = get_method("ssast")
    small, base = method.PRESETS["test"].model, method.PRESETS["base-patch"].model
    assert estimate.parameters(method, small) == sum(p.numel() for p in method.build_encoder(small).parameters())
    # The paper's base model has 89 million parameters with its heads.
    assert 85e6 < estimate.parameters(method, base) < 90e6


def test_a_batch_is_extrapolated_from_one_and_two_clips(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In bf16, copies of the weights are kept besides, however small the batch.
    plan = pretrain.plan("ssast", [tones], preset="test", settings={"batch_size": 12, "precision": "fp32"})
    # Clips at least as long as a crop, so that all batches are alike.
    plan = dataclasses.replace(plan, train_items=tuple(i for i in plan.train_items if i.duration > 0.7))
    module, loader = pretrain.build(plan), pretrain.build_loader(plan)
    seen: list[int] = []
    monkeypatch.setattr(
        estimate, "forward", lambda m, batch, *rest: (seen.append(len(batch)), step.forward(m, batch, *rest))[1]
    )
    cost = estimate.measure(module, loader, plan.train, 0, torch.device("cpu"))
    assert set(seen) == {1, 2}
    # What a whole batch really keeps and takes.
    begin = time.monotonic()
    whole = estimate._forward_backward(module, next(iter(loader)), 0, "fp32")
    took = time.monotonic() - begin
    assert cost.memory(12) == pytest.approx(whole, rel=0.1)
    # A busy machine takes several times as long.
    assert took / 10 < cost.seconds < took * 10
    # A micro-batch is what is held at once.
    accumulated = dataclasses.replace(plan.train, accumulate=6)
    pair = estimate.measure(module, loader, accumulated, 0, torch.device("cpu"))
    assert pair.memory(2) == pytest.approx(whole / 6, rel=0.1)
    text = estimate.pretraining(plan)
    assert "for 12 clips at once, extrapolated from one and two" in text
    assert number(text, "memory") > whole / 2**20


ALLOCATION = (
    "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
)


@pytest.mark.parametrize(
    "error", [RuntimeError(ALLOCATION), torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=type
)
def test_memory_that_runs_out_is_one_sentence_of_advice(
    tones: Path, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    expected = (
        "error: memory is not enough for 8 clips of 0.655 s at once; raise accumulate (--set accumulate=2), "
        "or lower batch_size (--set batch_size=4), or shorten crop_seconds (--set crop_seconds=0.3275).\n"
    )
    command = ("pretrain", "ssast", tones, "--preset", "test", "--quiet", "--out", tmp_path / "run")
    monkeypatch.setattr(estimate, "forward", fail)
    outcome = cli(*command, "--dry-run")
    assert (outcome.code, outcome.err) == (2, expected)
    monkeypatch.setattr(step, "forward", fail)
    outcome = cli(*command)
    assert (outcome.code, outcome.err) == (2, expected)


def test_a_dry_run_says_when_memory_will_not_do_and_what_would(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"batch_size": 24, "precision": "fp32"}
    plan = pretrain.plan("ssast", [tones], preset="test", settings=settings)
    assert "too much" not in estimate.pretraining(plan)
    learned = 12 * sum(p.numel() for p in pretrain.build(plan).parameters()) / 2**20
    monkeypatch.setattr(estimate, "peak_mb", lambda: 100.0)
    monkeypatch.setattr(estimate, "measure", lambda *job: estimate.Cost(0.5, 30 * 2**20, 20 * 2**20))

    def advice(room: float) -> str:
        """What is said when clips may take so many MB."""
        monkeypatch.setattr(estimate, "available_mb", lambda device: 100 + learned + room)
        (line,) = (line for line in estimate.pretraining(plan).splitlines() if line.startswith("too much"))
        return line.partition(" available: ")[2]

    # Where five fit, 24 is cut into six pieces, as it has no five equal ones. Crops of 27 ms are no remedy.
    shorter = ", or shorten crop_seconds (--set crop_seconds=0.1364)"
    for room, accumulate, batch_size, more in ((111.0, 6, 5, shorter), (30.0, 24, 1, "")):
        assert advice(room) == (
            f"raise accumulate (--set accumulate={accumulate}), "
            f"or lower batch_size (--set batch_size={batch_size}){more}"
        )
    assert advice(15.0) == "take one clip at a time, shorter (--set accumulate=24 and --set crop_seconds=0.3275)"
    assert advice(-5.0) == "the network alone does not fit; take a smaller preset, or a machine with more memory"


def test_advice_on_memory_can_be_followed() -> None:
    config = TrainConfig(batch_size=30, accumulate=3, crop_seconds=4.0)
    for fits in (1.0, 2.0, 4.0, 7.0, 9.0):
        text = memory.remedies(config, fits)
        accumulate, batch_size = (int(re.findall(rf"{name}=(\d+)", text)[0]) for name in ("accumulate", "batch_size"))
        assert 30 / TrainConfig(batch_size=30, accumulate=accumulate).accumulate <= fits
        assert TrainConfig(batch_size=batch_size, accumulate=3).batch_size / 3 <= fits
    assert "accumulate=" not in memory.remedies(config, 4.0, whole_batch=True)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    inner = tmp_path / "v2" / "jobs" / "mine"
    inner.mkdir(parents=True)
    own.write_text("0::/jobs/mine\n")
    assert memory._group_mb(tmp_path / "v2", own) == math.inf
    for folder, limit in ((inner, "max"), (inner.parent, str(500 * 2**20))):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{200 * 2**20}\n")
    assert memory._group_mb(tmp_path / "v2", own) == 300
    old = tmp_path / "v1" / "memory" / "job"
    old.mkdir(parents=True)
    own.write_text("4:memory:/job\n3:cpuset:/\n")
    (old / "memory.limit_in_bytes").write_text(f"{90 * 2**20}\n")
    (old / "memory.usage_in_bytes").write_text(f"{30 * 2**20}\n")
    assert memory._group_mb(tmp_path / "v1", own) == 60


def test_an_allocation_that_the_allocator_refuses_is_that_sentence_too(tones: Path, tmp_path: Path) -> None:
    plan = pretrain.plan("ssast", [tones], preset="test", settings={"batch_size": 1})
    with (
        pytest.raises(ConfigError, match=r"for 1 clip of 0\.655 s at once; shorten crop_seconds"),
        enough_memory(plan.train),
    ):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="shape"), enough_memory(plan.train):
        raise RuntimeError("shapes do not fit")
