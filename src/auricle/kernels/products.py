"""Matrix products with weights on CPUs with AVX-512.

torch multiplies float32 by MKL, which uses AVX2 on processors of other makers than its own: half of what they can do.
oneDNN, which torch holds too, uses AVX-512 on all of them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.kernels.backends import eager


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, with its gradients, faster for float32 on a CPU where nothing is compiled.

    Args:
        x: [..., K]; weight: [N, K]; bias: [N].

    Returns:
        [..., N].

    Raises:
        RuntimeError: torch's, where shapes do not fit each other.
    """
    if not (_by_onednn(x, weight, bias) and _fit(x, weight, bias)):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(y is not None and y.requires_grad for y in (x, weight, bias)):
        differentiable: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return differentiable
    # oneDNN takes the bias for contiguous, whatever its stride.
    offset = None if bias is None else bias.contiguous()
    product: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(x), _dense(weight), offset, "none", [], "")
    return product


def _dense(x: Tensor) -> Tensor:
    """The tensor in a layout that oneDNN has fast code for: rows, or columns, one after the other."""
    return x if x.is_contiguous() or (x.ndim == 2 and x.t().is_contiguous()) else x.contiguous()


class _Linear(torch.autograd.Function):
    """The product for autograd: its gradients are products, too."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, len(weight))
        return (
            linear(grad, weight.t()) if wants_x else None,
            linear(rows.t(), x.reshape(-1, weight.shape[1]).t()) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _fit(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the shapes are those of `linear`: oneDNN's own words about others say nothing of shapes."""
    wide = x.ndim > 0 and weight.ndim == 2 and x.shape[-1] == weight.shape[1]
    return wide and (bias is None or bias.shape == weight.shape[:1])


def _by_onednn(*given: Tensor | None) -> bool:
    return (
        all(x is None or (x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0) for x in given)
        and not torch.is_autocast_enabled("cpu")
        and eager(*given)
        and _is_worth_it()
    )


@functools.cache
def _is_worth_it() -> bool:
    """Whether there is AVX-512, and the operator by which torch's compiler calls oneDNN: torch does not promise it."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
