"""Optimizers, parameter groups and schedules; schedules are pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.errors import CheckpointError

# SSAST's warm-up moves only at multiples of this many steps (traintest.py, traintest_mask.py).
WARMUP_STRIDE = 50
# torch's ReduceLROnPlateau as traintest_mask.py sets it: patience 2, relative threshold 1e-4.
PATIENCE = 2
THRESHOLD = 1e-4


@dataclass(frozen=True)
class Clock:
    """Where a run stands before step `step` (from 0) of `total`.

    `scores` are (steps done, score) of its validations so far, higher is better.
    """

    step: int
    total: int
    steps_per_epoch: int = 1
    scores: Sequence[tuple[int, float]] = ()


def learning_rate_factor(clock: Clock, config: TrainConfig) -> float:
    """What the learning rate of a step is multiplied with: a pure function of the step, so a resumed run repeats it.

    After a linear warm-up over the first `warmup` of the run:
        cosine     to `final_lr`
        step       times `decay_factor` at `decay_start` and at every `decay_every` after it, fractions of the run
        constant   1
    SSAST's own, whose warm-up of `warmup_steps` overwrites earlier decays, as in its code:
        multistep  times `decay_factor` at the end of epoch `decay_start` and of every `decay_every` epochs after it
        plateau    times `decay_factor` whenever three validations in a row are not better than the best before
    """
    if config.schedule in ("multistep", "plateau"):
        return _ssast_factor(clock, config)
    step, total = clock.step, clock.total
    warmup = round(config.warmup * total)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "cosine":
        along = (step - warmup) / max(1, total - warmup)
        return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * along))
    if config.schedule == "step":
        along = step / total
        if along < config.decay_start - 1e-9:
            return 1.0
        # 0.6 - 0.3 is a little less than 3 * 0.1 in binary: without the tolerance a decay would come a step late.
        return config.decay_factor ** (1 + math.floor((along - config.decay_start) / config.decay_every + 1e-9))
    return 1.0


def _ssast_factor(clock: Clock, config: TrainConfig) -> float:
    base, anchor = 1.0, 0
    if config.warmup_steps:
        # The last step at which the warm-up set the learning rate; decays before it are forgotten.
        anchor = min(clock.step // WARMUP_STRIDE * WARMUP_STRIDE, config.warmup_steps)
        base = anchor / config.warmup_steps
    if config.schedule == "plateau":
        decays = sum(1 for done in plateaus(clock.scores) if done > anchor)
    else:
        per_epoch = clock.steps_per_epoch
        first, now = anchor // per_epoch + 1, clock.step // per_epoch + 1
        every = max(1, round(config.decay_every))
        decays = sum(1 for epoch in range(round(config.decay_start), now, every) if epoch >= first)
    return base * config.decay_factor**decays


def plateaus(scores: Sequence[tuple[int, float]]) -> list[int]:
    """Steps at which a plateau was noticed: more than PATIENCE validations in a row without a better score."""
    noticed, best, bad = [], -math.inf, 0
    for done, score in scores:
        # As torch has it: of negative scores, a flat one passes for better.
        if score > best * (1 + THRESHOLD):
            best, bad = score, 0
        else:
            bad += 1
        if bad > PATIENCE:
            noticed.append(done)
            bad = 0
    return noticed


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
        # The step count too: fused kernels read it where the parameter is (pytorch/pytorch#103256), others on the CPU.
        optimizer.state[parameter][what] = value.to(parameter.device, copy=True)
