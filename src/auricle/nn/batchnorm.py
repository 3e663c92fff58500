"""Batch normalisation over the whole batch, however many processes share it.

Symptom: a loss with batch normalisation has another value on four processes than on one. Cause: each process normalises
by the statistics of its own rows. torch's SyncBatchNorm mends that on GPUs and refuses the CPU. Here the sums are added
up over the processes, and so are their gradients, on any device.

N rows, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def processes() -> int:
    """How many processes train together; 1 outside torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    """Every process gets the sum, so the gradient of a summand is the sum of what each process has for the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of `x` over the processes that train together, with its gradient; all of them must call it."""
    if processes() == 1:
        return x
    summed: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return summed


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [N, D] with the statistics of all rows of all processes.

    The state dict is that of `nn.BatchNorm1d`. Rows may be shared unevenly. Unlike torch's, it takes a single row: what
    does not vary becomes the bias. It computes in fp32 under autocast too. In evaluation mode the running statistics
    serve, and processes do not wait for each other.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            together = processes() > 1
            if not self.training or (len(x) > 1 and not together):
                normalised: Tensor = super().forward(x)
                return normalised
            mean, variance, rows = batch_statistics(x)
            self._remember(mean.detach(), variance.detach(), rows)
            normalised = (x - mean) * torch.rsqrt(variance + self.eps)
            return normalised * self.weight + self.bias if self.affine else normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, rows: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (rows / (rows - 1).clamp(min=1)), self.momentum)


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [D] and biased variance [D] of the rows [N, D] of all processes, and how many [] they are."""
    count = torch.full((1,), float(len(x)), device=x.device)
    summed = sum_over_processes(torch.cat([x.sum(0), count]))
    rows = summed[-1].detach()
    mean = summed[:-1] / rows
    # Squares of deviations, not of values: the variance of a large mean would drown.
    variance = sum_over_processes((x - mean).square().sum(0)) / rows
    return mean, variance, rows
