"""The causal convolution by the C++ kernels: tensors in and out.

K filters in one call (the directions of a block), B batch, E channels, L steps, W taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from auricle.kernels import native
from auricle.kernels.layout import add_up, room


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: Sequence[bool]
) -> Tensor:
    """x [B, E, L] by weight [K, E, W] and bias [K, E]: [K, B, E, L]."""
    out = room(x.expand(len(reverse), *x.shape), torch.float32)
    problems, alive = _problems(x, weight, bias, lengths, silu, reverse)
    for k, problem in enumerate(problems):
        problem.out = native.strided(out[k])
    native.run("convolution_forward", problems)
    del alive
    return out


def backward(
    out_grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    reverse: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, in float32."""
    out_grad = out_grad.float()
    batch, channels, _ = x.shape
    x_grads = [room(x, torch.float32) for _ in reverse]
    weight_grad = out_grad.new_empty(len(reverse), batch, channels, weight.shape[-1])
    bias_grad = out_grad.new_empty(len(reverse), batch, channels)
    problems, alive = _problems(x, weight, bias, lengths, silu, reverse)
    for k, problem in enumerate(problems):
        problem.out_grad, problem.x_grad = native.strided(out_grad[k]), native.strided(x_grads[k])
        problem.weight_grad, problem.bias_grad = native.pointer(weight_grad[k]), native.pointer(bias_grad[k])
    native.run("convolution_backward", problems)
    del alive
    return add_up(x_grads), weight_grad.sum(1), bias_grad.sum(1)


def _problems(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: Sequence[bool]
) -> tuple[list[native.Convolution], tuple[Tensor | None, ...]]:
    """The C structures, and the tensors that must live as long as they."""
    x, taps = x.float(), weight.float().contiguous()
    offset = None if bias is None else bias.float().contiguous()
    valid = native.steps(lengths, x.shape[2])
    problems = [
        native.Convolution(
            batch=x.shape[0],
            channels=x.shape[1],
            length=x.shape[2],
            width=weight.shape[-1],
            silu=silu,
            reverse=backward,
            x=native.strided(x),
            weight=native.pointer(taps[k]),
            bias=None if offset is None else native.pointer(offset[k]),
            lengths=native.integers(valid),
        )
        for k, backward in enumerate(reverse)
    ]
    return problems, (x, taps, offset, valid)
