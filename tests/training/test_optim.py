"""Learning rates, parameter groups, and an optimizer that is loaded."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import equal, weights_of
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.errors import ConfigError
from auricle.training.adamw import AdamWThenDecay
from auricle.training.optim import (
    Clock,
    build_optimizer,
    clip_gradients,
    learning_rate_factor,
    load_optimizer,
    optimizer_tensors,
    plateaus,
    set_rates,
    weight_decay,
)


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


def test_a_dino_schedule_begins_at_zero_and_reaches_the_full_rate_at_the_end_of_its_warm_up() -> None:
    rates = [factor(step, 20, schedule="dino", warmup=0.25, final_lr=0.1) for step in range(20)]
    assert rates[:6] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert rates[5:] == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * i / 15)) / 2 for i in range(15)])
    assert factor(0, 20, schedule="dino", warmup=0.05) == 0


def test_weight_decay_is_constant_or_on_a_cosine() -> None:
    assert weight_decay(Clock(7, 20), TrainConfig(weight_decay=0.3)) == 0.3
    moving = TrainConfig(weight_decay=0.04, final_weight_decay=0.4)
    assert weight_decay(Clock(0, 20), moving) == pytest.approx(0.04)
    assert weight_decay(Clock(10, 20), moving) == pytest.approx(0.22)


def test_rates_reach_the_groups_by_their_factors() -> None:
    module = nn.Module()
    module.body, module.head = nn.Linear(3, 2), nn.Linear(2, 4)
    optimizer = build_optimizer(module, TrainConfig(head_lr_factor=10.0))
    set_rates(optimizer, 0.5, 0.2)
    found = {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert found == {(0.5, 0.2), (0.5, 0.0), (5.0, 0.2), (5.0, 0.0)}


def test_layers_learn_the_slower_the_earlier_they_come() -> None:
    module = nn.Module()
    module.encoder = nn.Module()
    module.encoder.patch, module.encoder.norm = nn.Linear(2, 2), nn.LayerNorm(2)
    module.encoder.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    module.head = nn.Linear(2, 2)
    optimizer = build_optimizer(module, TrainConfig(layer_decay=0.5))
    names = {id(p): name for name, p in module.named_parameters() if name.endswith("bias")}
    found = {names[id(p)]: g["factor"] for g in optimizer.param_groups for p in g["params"] if id(p) in names}
    assert found == {
        "encoder.patch.bias": 0.125,
        "encoder.blocks.0.bias": 0.125,
        "encoder.blocks.1.bias": 0.25,
        "encoder.blocks.2.bias": 0.5,
        "encoder.norm.bias": 0.5,
        "head.bias": 1.0,
    }
    with pytest.raises(ConfigError, match="layer_decay needs a network whose layers are named blocks"):
        build_optimizer(nn.Linear(2, 2), TrainConfig(layer_decay=0.5))


def test_tokens_are_decayed_if_asked_for() -> None:
    module = nn.Linear(3, 2)
    module.token = nn.Parameter(torch.zeros(1, 1, 3))
    for asked in (False, True):
        groups = build_optimizer(module, TrainConfig(decay_tokens=asked)).param_groups
        assert [g["decays"] for g in groups if any(p is module.token for p in g["params"])] == [asked]


def test_adam_then_decay_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = AdamWThenDecay([weight], lr=0.1, betas=(0.9, 0.999), weight_decay=0.5)
    for gradient in (torch.tensor([1e-6, 3.0]), torch.tensor([2e-6, -1.0])):
        weight.grad = gradient
        optimizer.step()
    first, second, want = torch.zeros(2).double(), torch.zeros(2).double(), torch.tensor([1.0, -2.0]).double()
    for t, gradient in enumerate((torch.tensor([1e-6, 3.0]).double(), torch.tensor([2e-6, -1.0]).double()), start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        rate = 0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        want = (want - rate * first / (second.sqrt() + 1e-6)) * (1 - 0.1 * 0.5)
    torch.testing.assert_close(weight.detach().double(), want, atol=1e-6, rtol=1e-6)


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
@pytest.mark.parametrize("kind", ["adamw", "adamw-hf", "adam", "sgd"])
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
    if kind != "sgd":
        assert float(after["step.weight"]) == 6


@pytest.mark.parametrize("sign", [1, -1])
def test_plateaus_are_those_of_torchs_own_scheduler(sign: int) -> None:
    rng = random.Random(0)
    scores = [sign * rng.choice([0.5, 0.5, 0.50001, 0.52, 0.4]) for _ in range(60)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=2, eps=0.0)
    noticed = []
    for done, score in enumerate(scores):
        before = optimizer.param_groups[0]["lr"]
        theirs.step(score)
        noticed += [done] * (optimizer.param_groups[0]["lr"] < before)
    assert plateaus(list(enumerate(scores))) == noticed
    assert noticed


def test_gradients_are_clipped_together_or_each_by_itself() -> None:
    def clipped(**settings: Any) -> list[Tensor]:
        gradients = [torch.tensor([3.0, 4.0]), torch.tensor([0.6]), torch.tensor([[12.0]])]
        norm = nn.utils.get_total_norm(gradients)
        clip_gradients(gradients, norm, TrainConfig(**settings))
        return gradients

    whole = (25 + 0.36 + 144) ** 0.5
    for got, want in zip(clipped(clip_norm=2.0), ([3.0, 4.0], [0.6], [[12.0]]), strict=True):
        torch.testing.assert_close(got, torch.tensor(want) * 2 / whole)
    each = clipped(clip_norm=2.0, clip_each=True)
    for got, want in zip(each, ([1.2, 1.6], [0.6], [[2.0]]), strict=True):
        torch.testing.assert_close(got, torch.tensor(want))
    assert clipped(clip_norm=0.0, clip_each=True)[2].item() == 12
