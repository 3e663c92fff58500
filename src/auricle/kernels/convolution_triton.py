"""The causal convolution by Triton: a program computes a block of steps and channels.

K filters in one call, B batch, E channels, L steps, W taps. The gradient of the input is the convolution, in the other
direction, of the gradient before SiLU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from auricle.kernels.layout import room
from auricle.kernels.native import steps
from auricle.kernels.triton_steps import bits, position, sigmoid, valid_steps

STEPS, CHANNELS = 64, 32


@triton.jit
def _seen(x, i, e, valid, backward, stride_e, stride_l, here):
    """[T, E] of x at steps i; zeros outside the valid ones."""
    ok = ((i >= 0) & (i < valid))[:, None] & here[None, :]
    at = e[None, :] * stride_e + position(i, valid, backward)[:, None].to(tl.int64) * stride_l
    return tl.load(x + at, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _convolve(
    x, weight, bias, lengths, y_grad, out, weight_grad, bias_grad,
    rows, channels, length, backward_bits, x_k, x_b, x_e, x_l, o_k, o_b, o_e, o_l, g_k, g_b, g_e, g_l,
    WIDTH: tl.constexpr, SILU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, GRADIENT: tl.constexpr,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """`out` becomes the convolution or, with GRADIENT, the gradient before SiLU, with sums for weight and bias."""
    row, k = (tl.program_id(2) % rows).to(tl.int64), (tl.program_id(2) // rows).to(tl.int64)
    e = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    i = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    here = e < channels
    backward = (backward_bits >> k.to(tl.int32)) & 1
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    x += k * x_k + row * x_b
    total = tl.zeros((STEPS, CHANNELS), tl.float32)
    total += tl.load(bias + k * channels + e, mask=here & HAS_BIAS, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(WIDTH):
        w = tl.load(weight + (k * channels + e) * WIDTH + tap, mask=here, other=0.0).to(tl.float32)
        total += w[None, :] * _seen(x, i - (WIDTH - 1) + tap, e, valid, backward, x_e, x_l, here)
    if GRADIENT:
        y = _seen(y_grad + k * g_k + row * g_b, i, e, valid, backward, g_e, g_l, here)
        if SILU:
            gate = sigmoid(total)
            y *= gate * (1.0 + total * (1.0 - gate))
        of_channel = ((k * rows + row) * tl.num_programs(1) + tl.program_id(1)) * channels + e
        tl.store(bias_grad + of_channel, tl.sum(y, axis=0), mask=here)
        for tap in tl.static_range(WIDTH):
            seen = _seen(x, i - (WIDTH - 1) + tap, e, valid, backward, x_e, x_l, here)
            tl.store(weight_grad + of_channel * WIDTH + tap, tl.sum(y * seen, axis=0), mask=here)
    else:
        y = total * sigmoid(total) if SILU else total
    at = e[None, :] * o_e + position(i, valid, backward)[:, None].to(tl.int64) * o_l
    tl.store(out + k * o_k + row * o_b + at, y.to(out.dtype.element_ty), mask=(i < valid)[:, None] & here[None, :])


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: Sequence[bool]
) -> Tensor:
    """As `convolution_native.forward`, in the type of x."""
    out = room(x.expand(len(reverse), *x.shape), x.dtype)
    _run(x[None].expand(len(reverse), *x.shape), weight, bias, lengths, silu, reverse, out)
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
    """As `convolution_native.backward`."""
    each = x.expand(len(reverse), *x.shape)
    before_silu, x_grad = room(each, torch.float32), room(each, torch.float32)
    weight_grad, bias_grad = _run(each, weight, bias, lengths, silu, reverse, before_silu, out_grad)
    _run(before_silu, weight, None, lengths, False, [not way for way in reverse], x_grad)
    return x_grad.sum(0), weight_grad.sum((1, 2)), bias_grad.sum((1, 2))


def _run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    reverse: Sequence[bool],
    out: Tensor,
    out_grad: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    scans, rows, channels, length = x.shape
    blocks, width = triton.cdiv(length, STEPS), weight.shape[-1]
    parts = blocks if out_grad is not None else 0
    weight_grad = x.new_empty(scans, rows, parts, channels, width, dtype=torch.float32)
    bias_grad = x.new_empty(scans, rows, parts, channels, dtype=torch.float32)
    if lengths is not None:
        out.zero_()
    valid, y_grad = steps(lengths, length), x if out_grad is None else out_grad
    _convolve[(triton.cdiv(channels, CHANNELS), blocks, scans * rows)](
        *(x, weight.contiguous(), x if bias is None else bias.contiguous(), x if valid is None else valid, y_grad),
        *(out, weight_grad, bias_grad, rows, channels, length, bits(reverse)),
        *(*x.stride(), *out.stride(), *y_grad.stride()),
        *(width, silu, bias is not None, valid is not None, out_grad is not None, STEPS, CHANNELS),
        num_warps=8,
    )
    return weight_grad, bias_grad
