"""The causal depthwise convolution of Mamba, with SiLU behind it or without.

K filters in one call, B batch, E channels, L steps, W taps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor, library

from auricle.errors import ConfigError
from auricle.kernels import arguments, convolution_native, reference
from auricle.kernels.backends import backend, eager, fast, numbers_only, refuse_batches
from auricle.kernels.layout import room
from auricle.kernels.native import MAX_TAPS


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
        ConfigError: shapes, types or devices that do not fit each other.
    """
    _check(x, weight, bias, lengths, ())
    return _convolve(x, weight[None], None if bias is None else bias[None], silu, lengths, (reverse,))[0]


def bidirectional_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    silu: bool = False,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Both directions in one call: `weight` [2, E, W] and `bias` [2, E] hold those of the first, which sees what is
    before a step, and of the second, which sees what is after it; with `reverse`, the other way round.

    Returns:
        [2, B, E, L] in the type of `x` [B, E, L].

    Raises:
        ConfigError: shapes, types or devices that do not fit each other.
    """
    _check(x, weight, bias, lengths, (2,))
    return _convolve(x, weight, bias, silu, lengths, (reverse, not reverse))


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, front: tuple[int, ...]) -> None:
    """`front` is (2,) where weight and bias are those of two directions."""
    if x.ndim != 3 or weight.shape[:-1] != (*front, x.shape[1]) or not weight.shape[-1]:
        raise ConfigError(
            f"x must be [B, E, L] and weight [E, W], for both directions [2, E, W]; got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}."
        )
    given = {"x": x, "weight": weight, "bias": bias, "lengths": lengths}
    arguments.check(given, {"bias": weight.shape[:-1], "lengths": (x.shape[0],)}, "x and weight")


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, lengths: Tensor | None, reverse: Sequence[bool]
) -> Tensor:
    if x.dtype != torch.float64 and weight.shape[-1] <= MAX_TAPS and fast(x.device.type):
        convolution: Callable[..., Tensor] = _convolution
        if eager(x, weight, bias, lengths):
            keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
            convolution = _Differentiable.apply if keep else _convolution_numbers
        return convolution(x, weight, bias, lengths, silu, list(reverse))
    offsets = [None] * len(reverse) if bias is None else list(bias)
    each = [
        reference.causal_conv1d(x, taps, offset, silu, lengths=lengths, reverse=backward)
        for taps, offset, backward in zip(weight, offsets, reverse, strict=True)
    ]
    return torch.stack(each)


def _convolution_numbers(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: Sequence[bool]
) -> Tensor:
    out: Tensor = _kernels(x).forward(x, weight, bias, lengths, silu, reverse)
    return out


_convolution = library.custom_op(
    "auricle::causal_conv1d", _convolution_numbers, mutates_args=(), device_types=("cpu", "cuda")
)


def _kernels(x: Tensor) -> ModuleType:
    """The module that computes: it has `forward` and `backward`."""
    if backend(x.device.type) == "triton":
        from auricle.kernels import convolution_triton

        return convolution_triton
    return convolution_native


@_convolution.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, silu: bool, reverse: Sequence[bool]
) -> Tensor:
    return room(x.expand(len(reverse), *x.shape), x.dtype)


def _gradients(
    out_grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    reverse: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (as if there were one)."""
    x_grad, weight_grad, bias_grad = _kernels(x).backward(out_grad, x, weight, bias, lengths, silu, reverse)
    return x_grad.to(x.dtype), weight_grad.to(weight.dtype), bias_grad.to(weight.dtype if bias is None else bias.dtype)


_convolution_backward = library.custom_op(
    "auricle::causal_conv1d_backward", _gradients, mutates_args=(), device_types=("cpu", "cuda")
)


@_convolution_backward.register_fake
def _(out_grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
    taps = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return room(x, x.dtype), taps, (weight if bias is None else bias).new_empty(weight.shape[:2])


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: torch.autograd.function.FunctionCtx, out_grad: Tensor) -> tuple:
    refuse_batches(out_grad)
    x, weight, bias, lengths = ctx.saved_tensors  # type: ignore[attr-defined]
    gradients = _gradients if numbers_only(out_grad, x, weight, bias) else _convolution_backward
    grads = gradients(out_grad, x, weight, bias, lengths, ctx.silu, ctx.reverse)  # type: ignore[attr-defined]
    return (*grads[:2], None if bias is None else grads[2], None, None, None)


_convolution.register_autograd(_differentiate, setup_context=_remember)


class _Differentiable(torch.autograd.Function):
    """The operator without its registration, for `eager` tensors of which some want gradients."""

    forward = staticmethod(_convolution_numbers)
    setup_context = staticmethod(_remember)
    backward = staticmethod(_differentiate)
