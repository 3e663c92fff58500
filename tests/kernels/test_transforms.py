"""Whatever torch does with functions (transforms, forward mode, tracers, modes, subclasses), a front door gives what
plain torch gives, or refuses in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scan_cases import NAMES, inputs
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from auricle.errors import ConfigError
from auricle.kernels import backends, bidirectional_scan, causal_conv1d, linear, selective_scan

Function = Callable[[Tensor], Tensor]
# Over the end of a chunk. Drawn once: a transform may refuse randomness, and a trace would hold it.
GIVEN = inputs(2, 6, 4, 70)
TWICE = [GIVEN[name] if name == "z" else torch.stack([GIVEN[name]] * 2) for name in NAMES[1:8]]
TAPS, PRODUCT = torch.randn(6, 4), torch.randn(5, 70)
LENGTHS = torch.tensor([70, 66])


def scan(u: Tensor) -> Tensor:
    out: Any = selective_scan(u, *[GIVEN[name].to(u.dtype) for name in NAMES[1:8]], True, lengths=LENGTHS)
    return out


def both_scans(u: Tensor) -> Tensor:
    return bidirectional_scan(torch.stack([u, 2 * u]), *[x.to(u.dtype) for x in TWICE], True, lengths=LENGTHS)


def convolution(u: Tensor) -> Tensor:
    return causal_conv1d(u, TAPS.to(u.dtype), TAPS[:, 0].to(u.dtype), True, lengths=LENGTHS)


def product(u: Tensor) -> Tensor:
    return linear(u, PRODUCT.to(u.dtype), PRODUCT[:, 0].to(u.dtype))


FUNCTIONS = pytest.mark.parametrize("function", [scan, both_scans, convolution, product])


def place(seed: int = 0) -> Tensor:
    return torch.randn(2, 6, 70, generator=torch.Generator().manual_seed(seed))


def forward_mode(function: Function, u: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(u, place(3).to(u.dtype)))).tangent


def gradient_of_gradient(function: Function, u: Tensor) -> Tensor:
    def slope(x: Tensor) -> Tensor:
        return torch.func.grad(lambda y: function(y).square().sum())(x)

    return torch.func.jvp(slope, (u,), (place(3).to(u.dtype),))[1]


TRANSFORMS: dict[str, Callable[[Function, Tensor], Tensor]] = {
    "jvp": lambda f, u: torch.func.jvp(f, (u,), (place(3).to(u.dtype),))[1],
    "forward mode": forward_mode,
    "vmap": lambda f, u: torch.func.vmap(f)(torch.stack([u, place(3).to(u.dtype)])),
    "grad": lambda f, u: torch.func.grad(lambda x: f(x).square().sum())(u),
    "gradients of each": lambda f, u: torch.func.vmap(torch.func.grad(lambda x: f(x).square().sum()))(
        torch.stack([u, place(3).to(u.dtype)])
    ),
    "forward over reverse": gradient_of_gradient,
}


@FUNCTIONS
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_give_what_float64_gives(
    transform: Callable[[Function, Tensor], Tensor], function: Function
) -> None:
    wanted = transform(function, place().double())
    found = transform(function, place())
    assert found.dtype == torch.float32
    assert wanted.abs().max() > 0
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@FUNCTIONS
def test_tangents_of_weights_are_there(function: Function) -> None:
    """A parameter has the type that computing at once allows; its tangent must not be dropped for that."""
    with forward_ad.dual_level():
        u = torch.nn.Parameter(place())
        tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(u, u.detach()))).tangent
    assert tangent is not None
    assert tangent.abs().max() > 0


@FUNCTIONS
def test_numbers_that_are_negated_when_read_are(function: Function) -> None:
    u = place()
    lazy = torch.complex(u, u).conj().imag
    assert lazy.is_neg()
    torch.testing.assert_close(function(lazy), function(-u), rtol=1e-5, atol=1e-5)
    wanted, found = (u.clone().requires_grad_() for _ in range(2))
    out = function(wanted)
    gradient = torch.complex(out.detach(), out.detach()).conj().imag
    out.backward(-out.detach())
    function(found).backward(gradient)
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-5, atol=1e-5)


@FUNCTIONS
def test_zeros_that_are_nowhere_are_zeros(function: Function) -> None:
    u = place()
    nowhere = torch._efficientzerotensor(u.shape)
    torch.testing.assert_close(function(nowhere), function(torch.zeros_like(u)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("function", [scan, both_scans, convolution])
def test_a_tracer_is_refused_in_a_sentence(function: Function) -> None:
    with pytest.raises(ConfigError, match=r"torch\.jit\.trace cannot hold the kernels; use torch\.export"):
        torch.jit.trace(function, place(), check_trace=False)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@FUNCTIONS
def test_a_trace_of_plain_torch_is_right(function: Function) -> None:
    with backends.use("torch"):
        traced = torch.jit.trace(function, place(), check_trace=False)
        torch.testing.assert_close(traced(place(1)), function(place(1)))


@pytest.mark.parametrize("function", [scan, both_scans, convolution])
def test_gradients_in_batches_are_refused_in_a_sentence(function: Function) -> None:
    u = place().requires_grad_()
    out = function(u)
    with pytest.raises(ConfigError, match="one gradient at a time"):
        torch.autograd.grad(out, u, torch.randn(3, *out.shape), is_grads_batched=True)


def test_gradients_of_products_come_in_batches() -> None:
    u = place().requires_grad_()
    out = product(u)
    many = torch.randn(3, *out.shape)
    (found,) = torch.autograd.grad(out, u, many, is_grads_batched=True, retain_graph=True)
    for one, each in zip(found, many, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(out, u, each, retain_graph=True)[0])


class Names(TorchFunctionMode):
    """The names of the functions that are called."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("function", "called", "operator"),
    [
        (scan, "auricle.selective_scan", "auricle.selective_scan"),
        (convolution, "auricle.causal_conv1d", "auricle.causal_conv1d"),
        (product, "linear", "aten.mm"),
    ],
)
def test_modes_see_the_operators(function: Function, called: str, operator: str) -> None:
    u = place()
    wanted = function(u)
    functions, operators = Names(), Operators()
    with torch.no_grad(), functions:
        torch.testing.assert_close(function(u), wanted)
    with torch.no_grad(), operators:
        torch.testing.assert_close(function(u), wanted)
    assert any(called in name for name in functions.seen), functions.seen
    assert any(operator in name for name in operators.seen), operators.seen


class Named(Tensor):
    """A tensor of somebody's own."""


@FUNCTIONS
def test_tensors_of_another_class_stay_so(function: Function) -> None:
    given = place().as_subclass(Named)
    found = function(given)
    assert type(found) is Named
    torch.testing.assert_close(found.as_subclass(Tensor), function(place()))


def test_a_product_in_a_transform_is_torchs() -> None:
    weight = torch.randn(5, 7)
    second = torch.func.hessian(lambda w: linear(torch.ones(2, 7), w).square().sum())
    plain = torch.func.hessian(lambda w: F.linear(torch.ones(2, 7), w).square().sum())
    torch.testing.assert_close(second(weight), plain(weight))
