"""AdamW as transformers had it until version 5, with which ATST was pretrained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-6


class AdamWThenDecay(torch.optim.Optimizer):
    """Adam, then decay of what it made of the weights.

    It differs from torch's AdamW in two ways that matter where gradients are small: the epsilon is added before the
    second moment's bias is corrected, so that it weighs 1 / sqrt(1 - beta2 ** t) times as much, and the decay applies
    to the new weights.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step with the gradients that there are."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros((), device=p.device),
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            self._update(group, parameters)

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        first, second, steps = ([self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "step"))
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_add_(denominators, EPSILON)
        sizes = [-group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t) for t in (int(step) for step in steps)]
        torch._foreach_addcdiv_(parameters, first, denominators, sizes)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
