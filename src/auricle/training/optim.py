"""Optimizers, parameter groups and schedules; schedules are pure functions of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.errors import CheckpointError, ConfigError
from auricle.nn.schedules import cosine
from auricle.training.adamw import AdamWThenDecay

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
        dino       to `final_lr`, after a warm-up whose first step is at 0, as in DINO's code and its descendants'
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
        return step / max(1, warmup - 1) if config.schedule == "dino" else (step + 1) / warmup
    if config.schedule in ("cosine", "dino"):
        return cosine(1.0, config.final_lr, (step - warmup) / max(1, total - warmup))
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


def weight_decay(clock: Clock, config: TrainConfig) -> float:
    """The weight decay of a step: constant, or on a cosine from `weight_decay` to `final_weight_decay`."""
    if config.final_weight_decay is None:
        return config.weight_decay
    return cosine(config.weight_decay, config.final_weight_decay, clock.step / clock.total)


def layer_scales(decay: float, depth: int) -> list[float]:
    """What the learning rate of each depth is multiplied with: what comes before the layers and the first one share the
    least, `decay ** depth`, each later layer learns `1 / decay` times as fast, and the head, which is last, at 1.
    """
    return [decay ** (depth - layer) for layer in range(depth + 1)]


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of a config over the parameters of a module that take gradients.

    adamw     AdamW without decay on vectors; tokens and positions are spared too, unless `decay_tokens`
    adamw-hf  the same as transformers had it: decay after the step, and an epsilon of 1e-6 that is not rescaled
    sgd       stochastic gradient descent with momentum `betas[0]`; decay as for adamw
    adam      Adam with L2 decay on everything (as SSAST's authors train)

    Parameters of the module's `head` learn at `lr * head_lr_factor`, those of the encoder's layers at `layer_scales`.

    Raises:
        ConfigError: `layer_decay` for a network without layers that are named `blocks`.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    factors = _learning_rate_factors(module, config)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            # Tokens and positions are [1, N, D]: like biases and norms, they say where, not how much.
            weight = parameter.ndim > 1 and (config.decay_tokens or parameter.shape[0] > 1)
            groups.setdefault((factors[name], config.optimizer == "adam" or weight), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "factor": factor,
            "decays": decays,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (factor, decays), parameters in groups.items()
    ]
    # One kernel for all parameters: the many small updates otherwise cost as much as a small network's forward pass.
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=config.lr, momentum=config.betas[0], fused=True)
    if config.optimizer == "adamw-hf":
        return AdamWThenDecay(settings, lr=config.lr, betas=config.betas)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(settings, lr=config.lr, betas=config.betas, fused=True)


def _learning_rate_factors(module: nn.Module, config: TrainConfig) -> dict[str, float]:
    names = [name for name, _ in module.named_parameters()]
    blocks = {name: int(match[1]) for name in names if (match := re.match(r"encoder\.blocks\.(\d+)\.", name))}
    if config.layer_decay != 1 and not blocks:
        raise ConfigError("layer_decay needs a network whose layers are named blocks; leave out --set layer_decay.")
    depth = 1 + max(blocks.values(), default=-1)
    scales = layer_scales(config.layer_decay, depth)
    factors = {}
    for name in names:
        if name.startswith("head."):
            factors[name] = config.head_lr_factor
        elif name.startswith("encoder.norm"):
            # What follows the last layer goes with it.
            factors[name] = scales[max(0, depth - 1)]
        else:
            factors[name] = scales[blocks.get(name, 0)]
    return factors


def set_rates(optimizer: torch.optim.Optimizer, lr: float, decay: float) -> None:
    """Give every group `lr` times its own factor, and `decay` if its parameters are decayed."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
        group["weight_decay"] = decay if group["decays"] else 0.0


@torch.no_grad()
def clip_gradients(gradients: Sequence[Tensor], norm: Tensor, config: TrainConfig) -> None:
    """Scale gradients of the total `norm` down to `clip_norm`, or with `clip_each` every tensor by its own norm."""
    if not config.clip_norm:
        return
    norms = torch._foreach_norm(list(gradients)) if config.clip_each else [norm] * len(gradients)
    factors = [(config.clip_norm / (size + 1e-6)).clamp(max=1.0) for size in norms]
    torch._foreach_mul_(list(gradients), factors)


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors named `<what>.<parameter>`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        f"{what}.{names[id(parameter)]}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for what, value in state.items()
        if value is not None
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
