"""The causal convolution: native equals the reference, in values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from auricle.errors import ConfigError
from auricle.kernels import backends, bidirectional_conv1d, causal_conv1d, reference


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


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_what_is_in_the_padding_is_not_seen(kernels: str, reverse: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(*shape, generator=rng) for shape in ((2, 9, 70), (9, 4), (9,)))
    lengths = torch.tensor([66, 1])
    padded = (torch.arange(70) >= lengths[:, None])[:, None]
    options = {"silu": True, "lengths": lengths, "reverse": reverse}
    with backends.use(kernels):
        wanted = gradients(causal_conv1d, x, weight, bias, **options)
        found = gradients(causal_conv1d, x.masked_fill(padded, float("nan")), weight, bias, **options)
    for value, right in zip(found, wanted, strict=True):
        assert torch.equal(value, right)
    for value in found[:2]:
        assert not value.masked_select(padded).any()


FITTING: dict[str, Tensor] = {
    "x": torch.zeros(2, 6, 37),
    "weight": torch.zeros(6, 4),
    "bias": torch.zeros(6),
    "lengths": torch.tensor([37, 3]),
}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("x", torch.zeros(6, 37), r"x must be \[B, E, L\]"),
        ("weight", torch.zeros(5, 4), "weight"),
        ("weight", torch.zeros(6, 0), "weight"),
        ("weight", torch.tensor(1.0), "weight"),
        ("bias", torch.zeros(1), r"bias must have the shape \(6,\) to fit x and weight, got \(1,\)"),
        ("bias", torch.zeros(5), "bias must have the shape"),
        ("bias", torch.tensor(1.0), "bias must have the shape"),
        ("lengths", torch.tensor([3]), r"lengths must have the shape \(2,\)"),
        ("lengths", torch.tensor([3, 4, 5]), "lengths must have the shape"),
        ("lengths", torch.tensor([3.5, 4.0]), r"lengths must be whole numbers, as of torch\.int64, not torch\.float32"),
        ("x", torch.zeros(2, 6, 37, dtype=torch.int64), "x must be of float32"),
        ("weight", torch.zeros(6, 4, dtype=torch.complex64), "weight must be of float32"),
        ("bias", torch.zeros(6, device="meta"), "bias is on 'meta' and x on 'cpu'; move them to one device"),
        ("lengths", torch.zeros(2, dtype=torch.int64, device="meta"), "lengths is on 'meta'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(name: str, value: Tensor, sentence: str) -> None:
    causal_conv1d(**FITTING)
    with pytest.raises(ConfigError, match=sentence):
        causal_conv1d(**FITTING | {name: value})


@pytest.mark.parametrize(
    ("name", "shape"), [("weight", (6, 4)), ("weight", (3, 6, 4)), ("bias", (6,)), ("bias", (2, 5))]
)
def test_both_directions_have_weights_and_biases_of_their_own(name: str, shape: tuple[int, ...]) -> None:
    both = {n: t if n in ("x", "lengths") else torch.stack([t, t]) for n, t in FITTING.items()}
    bidirectional_conv1d(**both)
    with pytest.raises(ConfigError, match=name):
        bidirectional_conv1d(**both | {name: torch.zeros(shape)})
