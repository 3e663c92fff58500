"""The causal convolution: native equals the reference, in values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from auricle.errors import ConfigError
from auricle.kernels import bidirectional_conv1d, causal_conv1d, reference


def gradients(convolve: Any, x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    out = convolve(*leaves, *([None] if bias is None else []), **options)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shape", [(2, 37, 131, 4), (1, 64, 2, 4), (3, 5, 1, 3), (2, 9, 64, 1), (1, 8, 66, 4)])
def test_native_equals_the_reference(shape: tuple[int, int, int, int], silu: bool, reverse: bool) -> None:
    batch, channels, length, taps = shape
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(batch, length, channels, generator=rng).transpose(1, 2)
    weight, bias = torch.randn(channels, taps, generator=rng), torch.randn(channels, generator=rng)
    lengths = torch.arange(batch).mul(29).remainder(length).add(1).flip(0)
    for offset in (bias, None):
        options = {"silu": silu, "reverse": reverse, "lengths": lengths}
        double = None if offset is None else offset.double()
        wanted = gradients(reference.causal_conv1d, x.double(), weight.double(), double, **options)
        for found, value in zip(gradients(causal_conv1d, x, weight, offset, **options), wanted, strict=True):
            torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-5)


def test_both_directions_in_one_call_are_two_convolutions() -> None:
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(2, 70, 9, generator=rng).transpose(1, 2)
    weight, bias = torch.randn(2, 9, 4, generator=rng), torch.randn(2, 9, generator=rng)
    lengths = torch.tensor([70, 66])

    def two_calls(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
        ways = zip(weight, bias, (False, True), strict=True)
        return torch.stack([reference.causal_conv1d(x, w, b, silu, lengths=lengths, reverse=r) for w, b, r in ways])

    wanted = gradients(two_calls, x.double(), weight.double(), bias.double(), silu=True)
    found = gradients(bidirectional_conv1d, x, weight, bias, silu=True, lengths=lengths)
    for value, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=1e-5, atol=1e-5)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="weight"):
        causal_conv1d(torch.zeros(1, 4, 9), torch.zeros(5, 4))
