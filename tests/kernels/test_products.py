"""Products with weights equal torch's, whoever computes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from auricle.kernels import linear, products


def given(*shape: int, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, weight [5, K] and bias that want gradients."""
    torch.manual_seed(0)
    x, weight = torch.randn(*shape, requires_grad=True), torch.randn(5, shape[-1], requires_grad=True)
    return x, weight, torch.randn(5, requires_grad=True) if bias else None


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (1, 1), (2, 0, 7)])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_equal_torchs(shape: tuple[int, ...], bias: bool) -> None:
    x, weight, offset = given(*shape, bias=bias)
    wanted = [y for y in (x, weight, offset) if y is not None]
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, offset), F.linear(x, weight, offset))
    ours, theirs = linear(x, weight, offset), F.linear(x, weight, offset)
    torch.testing.assert_close(ours, theirs)
    # One gradient for all outputs, as that of a sum, is a tensor without memory of its own.
    for gradient in (torch.randn_like(ours), torch.ones(()).expand_as(ours)):
        found = torch.autograd.grad(ours, wanted, gradient, retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(theirs, wanted, gradient, retain_graph=True))


def test_slices_and_transposed_tensors_are_multiplied_as_they_are() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4, 20), torch.randn(20, 16)
    for part in (x[..., 3:15], x[:, 1:3, :12], x.transpose(0, 1)[..., :12]):
        for map in (weight[:12].t(), weight.t()[:, 2:14], weight[:3].t().repeat(1, 4)):
            torch.testing.assert_close(linear(part, map), F.linear(part, map))


def test_a_bias_may_have_any_stride() -> None:
    x, weight, _ = given(3, 7)
    for offset in (torch.arange(10.0)[::2], torch.tensor(2.0).expand(5), torch.tensor([3.0])):
        torch.testing.assert_close(linear(x, weight, offset), F.linear(x, weight, offset))


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [((3, 20), (5, 9), None), ((2, 3, 20), (5, 9), (5,)), ((3, 9), (5, 9), (4,)), ((3, 9), (5, 9, 1), None)],
)
def test_shapes_that_do_not_fit_are_told_as_torch_tells_them(
    x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None
) -> None:
    arguments = (torch.ones(x), torch.ones(weight), None if bias is None else torch.ones(bias))
    with pytest.raises(RuntimeError) as ours:
        linear(*arguments)
    with pytest.raises(RuntimeError) as theirs:
        F.linear(*arguments)
    assert str(ours.value) == str(theirs.value)


def test_without_the_operator_the_product_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one that torch does not promise to keep."""
    x, weight, offset = given(3, 7)
    products._is_worth_it.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    try:
        assert not products._is_worth_it()
        assert torch.equal(linear(x, weight, offset), F.linear(x, weight, offset))
    finally:
        products._is_worth_it.cache_clear()


def test_gradients_of_gradients_are_there() -> None:
    x, weight, offset = given(3, 7)
    second = []
    for multiply in (linear, F.linear):
        (first,) = torch.autograd.grad(multiply(x, weight, offset).square().sum(), x, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), (x, weight)))
    torch.testing.assert_close(*second, rtol=1e-4, atol=1e-5)


def test_only_what_wants_a_gradient_gets_one() -> None:
    x, weight, offset = given(3, 7)
    linear(x.detach(), weight, offset).sum().backward()
    assert x.grad is None
    assert weight.grad is not None
    assert not linear(x.detach(), weight.detach()).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_torchs(dtype: torch.dtype) -> None:
    x, weight, offset = (y.to(dtype) for y in given(3, 7) if y is not None)
    assert torch.equal(linear(x, weight, offset), F.linear(x, weight, offset))


def test_autocast_decides_the_type() -> None:
    x, weight, offset = given(3, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(x, weight, offset), F.linear(x, weight, offset))


@pytest.mark.parametrize("train", [False, True])
def test_who_counts_operations_sees_them(train: bool) -> None:
    x, weight, _ = given(3, 7)
    with torch.set_grad_enabled(train), FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * 3 * 7 * 5


def test_a_compiled_product_is_one_graph() -> None:
    x, weight, offset = given(3, 7)
    compiled = torch.compile(linear, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, offset), F.linear(x, weight, offset))


@pytest.mark.skipif(not products._is_worth_it(), reason="only AVX-512 is worth another library")
def test_where_it_is_worth_it_the_product_is_onednns(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, offset = given(3, 7)

    def refuse(*_: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(F, "linear", refuse)
    linear(x, weight, offset).sum().backward()
