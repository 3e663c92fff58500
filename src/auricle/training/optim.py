"""Optimizers, parameter groups and schedules; schedules are pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.errors import CheckpointError


def learning_rate_factor(step: int, total: int, config: TrainConfig) -> float:
    """What the learning rate of step `step` (from 0) of `total` is multiplied with.

    Linear warm-up over the first `warmup` of the run, then `cosine` to `final_lr`, or `step`: times `decay_factor` at
    `decay_start` and at every `decay_every` after it (fractions of the run), or `constant`.
    """
    warmup = round(config.warmup * total)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "cosine":
        along = (step - warmup) / max(1, total - warmup)
        return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * along))
    if config.schedule == "step":
        along = step / total
        if along < config.decay_start:
            return 1.0
        return config.decay_factor ** (1 + math.floor((along - config.decay_start) / config.decay_every))
    return 1.0


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW without decay on vectors and tokens, or Adam with L2 decay on everything (as SSAST's authors train).

    Parameters of the module's `head` learn at `lr * head_lr_factor`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            # Tokens and positions are [1, N, D]: like biases and norms, they say where, not how much.
            decays = config.optimizer == "adam" or (parameter.ndim > 1 and parameter.shape[0] > 1)
            groups.setdefault((name.startswith("head."), decays), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "factor": config.head_lr_factor if head else 1.0,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (head, decays), parameters in groups.items()
    ]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # One kernel for all parameters: the many small updates otherwise cost as much as a small network's forward pass.
    return kind(settings, lr=config.lr, betas=config.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors named `<what>.<parameter>`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        f"{what}.{names[id(parameter)]}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for what, value in state.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`.

    Raises:
        CheckpointError: the state belongs to parameters that this module does not have.
    """
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        what, _, name = key.partition(".")
        if name not in parameters:
            raise CheckpointError(f"the optimizer state names '{name}', which the network does not have.")
        parameter = parameters[name]
        on_device = value if what == "step" else value.to(parameter.device)
        optimizer.state[parameter][what] = on_device.clone()
