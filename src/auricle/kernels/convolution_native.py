"""The causal convolution by the C++ kernels: tensors in and out.

K filters in one call (the directions of a block), B batch, E channels, L steps, W taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from auricle.kernels import native
from auricle.kernels.layout import room


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: Sequence[bool]
) -> Tensor:
    """x [B, E, L] by weight [K, E, W] and bias [K, E]: [K, B, E, L] in the type of x."""
    out = room(x.expand(len(reverse), *x.shape), x.dtype)
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
    """Gradients of x, in its type, and of weight and bias, in float32."""
    out_grad = native.readable(out_grad)
    batch, channels, _ = x.shape
    weight_grad = out_grad.new_empty(len(reverse), batch, channels, weight.shape[-1], dtype=torch.float32)
    bias_grad = out_grad.new_empty(len(reverse), batch, channels, dtype=torch.float32)
    problems, alive = _problems(x, weight, bias, lengths, silu, reverse)
    x_grad, partial = native.summed(problems, "x_grad", x, x.dtype)
    for k, problem in enumerate(problems):
        problem.out_grad = native.strided(out_grad[k])
        problem.weight_grad, problem.bias_grad = native.pointer(weight_grad[k]), native.pointer(bias_grad[k])
    native.run("convolution_backward", problems)
    del alive, partial
    return x_grad, weight_grad.sum(1), bias_grad.sum(1)


def _problems(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: Sequence[bool]
) -> tuple[list[native.Convolution], tuple[Tensor | None, ...]]:
    """The C structures, and the tensors that must live as long as they."""
    taps = weight.float().contiguous()
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
            lengths=native.pointer(valid),
        )
        for k, backward in enumerate(reverse)
    ]
    return problems, (taps, offset, valid)
