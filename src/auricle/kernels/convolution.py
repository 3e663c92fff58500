"""The causal depthwise convolution of Mamba, with SiLU behind it or without.

B batch, E channels, L steps, W taps.
"""

from __future__ import annotations

import torch
from torch import Tensor, library

from auricle.errors import ConfigError
from auricle.kernels import native, reference

MAX_TAPS = 16


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    silu: bool = False,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Depthwise convolution in which a step sees itself and the W - 1 steps before it (after it, with `reverse`).

    Args:
        x: [B, E, L].
        weight: [E, W]; bias: [E].
        lengths: [B] valid steps of each row: what comes after them is not seen, and 0 comes out there.

    Returns:
        [B, E, L] in the type of `x`.

    Raises:
        ConfigError: shapes that do not fit each other.
    """
    if x.ndim != 3 or weight.ndim != 2 or weight.shape[0] != x.shape[1]:
        raise ConfigError(f"x must be [B, E, L] and weight [E, W], got {tuple(x.shape)} and {tuple(weight.shape)}.")
    if x.device.type != "cpu" or x.dtype == torch.float64 or weight.shape[1] > MAX_TAPS or native.kernels() is None:
        return reference.causal_conv1d(x, weight, bias, silu, lengths=lengths, reverse=reverse)
    with torch.autocast("cpu", enabled=False):
        out = _convolution(x.float(), weight.float(), None if bias is None else bias.float(), lengths, silu, reverse)
    return out.to(x.dtype)


@library.custom_op("auricle::causal_conv1d", mutates_args=(), device_types="cpu")
def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: bool
) -> Tensor:
    struct, alive = _problem(x, weight, bias, lengths, silu, reverse)
    out = torch.empty_like(x)
    struct.out = native.strided(out)
    native.run("convolution_forward", [struct])
    del alive
    return out


@_convolution.register_fake
def _(x: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(x)


def _problem(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: bool
) -> tuple[native.Convolution, tuple[Tensor | None, ...]]:
    """The C structure, and the tensors that must live as long as it."""
    taps = weight.contiguous()
    offset = None if bias is None else bias.contiguous()
    valid = None if lengths is None else lengths.clamp(0, x.shape[2]).to(torch.int64).contiguous()
    struct = native.Convolution(
        batch=x.shape[0],
        channels=x.shape[1],
        length=x.shape[2],
        width=weight.shape[1],
        silu=silu,
        reverse=reverse,
        x=native.strided(x),
        weight=native.pointer(taps),
        bias=native.pointer(offset),
        lengths=native.integers(valid),
    )
    return struct, (x, taps, offset, valid)


@library.custom_op("auricle::causal_conv1d_backward", mutates_args=(), device_types="cpu")
def _convolution_backward(
    out_grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    struct, alive = _problem(x, weight, bias, lengths, silu, reverse)
    x_grad = torch.empty_like(x)
    weight_grad, bias_grad = x.new_empty(x.shape[0], *weight.shape), x.new_empty(x.shape[0], x.shape[1])
    struct.out_grad, struct.x_grad = native.strided(out_grad), native.strided(x_grad)
    struct.weight_grad, struct.bias_grad = native.pointer(weight_grad), native.pointer(bias_grad)
    native.run("convolution_backward", [struct])
    del alive
    return x_grad, weight_grad.sum(0), bias_grad.sum(0)


@_convolution_backward.register_fake
def _(out_grad: Tensor, x: Tensor, weight: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[0])


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: torch.autograd.function.FunctionCtx, out_grad: Tensor) -> tuple:
    x, weight, bias, lengths = ctx.saved_tensors  # type: ignore[attr-defined]
    grads = _convolution_backward(out_grad, x, weight, bias, lengths, ctx.silu, ctx.reverse)  # type: ignore[attr-defined]
    return (*grads[:2], None if bias is None else grads[2], None, None, None)


_convolution.register_autograd(_differentiate, setup_context=_remember)
