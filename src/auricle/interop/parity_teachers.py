"""What the parity cases of teachers and students share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from auricle.config import TrainConfig
from auricle.nn.schedules import cosine
from auricle.training.optim import Clock, learning_rate_factor


def cosine_schedule(given: Mapping[str, float]) -> list[float]:
    """`base` to `final` in steps or epochs of so many, after a warm-up: a learning rate; without one, a momentum."""
    each = int(given.get("iterations_per_epoch", 1))
    total = int(given.get("max_steps", given.get("epochs", 0))) * each
    warmup = int(given.get("warmup_steps", given.get("warmup_epochs", 0))) * each
    base, final = given["base"], given["final"]
    if not warmup:
        return [cosine(base, final, step / total) for step in range(total)]
    config = TrainConfig(schedule="dino", warmup=warmup / total, final_lr=final / base)
    return [base * learning_rate_factor(Clock(step, total), config) for step in range(total)]


def asked(outputs: Mapping[str, Tensor], meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of what was computed, what the case names: of the gradients, it holds some."""
    return {name: value for name, value in outputs.items() if name in meta["tensors"]}
