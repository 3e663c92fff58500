"""The selective scan: every implementation equals the reference, in values and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, library

from auricle.errors import ConfigError
from auricle.kernels import chunked, native, reference, selective_scan
from auricle.kernels.scan import _scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
SETS = ("portable", "avx2", "avx512")


def inputs(
    batch: int, channels: int, states: int, length: int, seed: int = 0, side_by_side: bool = True
) -> dict[str, Tensor]:
    """Random arguments; with `side_by_side`, channels are neighbours in memory."""
    rng = torch.Generator().manual_seed(seed)

    def sequence(width: int) -> Tensor:
        if side_by_side:
            return torch.randn(batch, length, width, generator=rng).transpose(1, 2)
        return torch.randn(batch, width, length, generator=rng)

    return {
        "u": sequence(channels),
        "delta": sequence(channels),
        "A": -4 * torch.rand(channels, states, generator=rng),
        "B": sequence(states),
        "C": sequence(states),
        "D": torch.randn(channels, generator=rng),
        "z": sequence(channels),
        "delta_bias": torch.randn(channels, generator=rng),
        "initial_state": torch.randn(batch, channels, states, generator=rng),
    }


def gradients(scan: Any, given: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """out, last state and the gradient of everything given, for a fixed random loss."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
    positional = [leaves.get(name) for name in NAMES[:8]]
    out, last = scan(*positional, True, initial_state=leaves.get("initial_state"), **options)
    rng = torch.Generator().manual_seed(99)
    weights = torch.randn(out.shape, generator=rng).to(out.dtype), torch.randn(last.shape, generator=rng).to(last.dtype)
    found = torch.autograd.grad((out * weights[0]).sum() + (last * weights[1]).sum(), list(leaves.values()))
    return {"out": out.detach(), "last": last.detach(), **dict(zip(leaves, found, strict=True))}


def front_door(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    return selective_scan(*args, return_last_state=True, **options)  # type: ignore[return-value]


def truth(given: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    return gradients(reference.selective_scan, {name: x.double() for name, x in given.items()}, **options)


def plain_torch(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    defaults: dict[str, Any] = {"initial_state": None, "lengths": None, "reverse": False}
    return chunked.selective_scan(*args, **(defaults | options))


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    if native.kernels() is None:
        pytest.fail("the C++ kernels are not built: pip install -e . where there is a compiler")
    try:
        native.set_instruction_set(request.param)
    except ConfigError:
        # What the processor lacks runs as the best that it has: the test is then one that ran already.
        native.set_instruction_set("")
    yield request.param
    native.set_instruction_set("")


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], share: float = 3e-6) -> None:
    for name, value in wanted.items():
        worst = float((found[name].double() - value.double()).abs().max())
        assert worst <= share * max(1.0, float(value.abs().max())), f"{name}: {worst}"


SHAPES = [(2, 37, 16, 131), (1, 64, 16, 64), (3, 9, 5, 1), (2, 130, 16, 67), (1, 3, 1, 200)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_native_equals_the_reference(instruction_set: str, shape: tuple[int, ...], reverse: bool) -> None:
    given = inputs(*shape, side_by_side=shape[3] % 2 == 1)
    lengths = torch.arange(shape[0]).mul(29).remainder(shape[3]).add(1).flip(0)
    wanted = truth(given, lengths=lengths, reverse=reverse)
    assert_equal(gradients(front_door, given, lengths=lengths, reverse=reverse), wanted)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_plain_torch_equals_the_reference(shape: tuple[int, ...], reverse: bool) -> None:
    given = inputs(*shape)
    lengths = torch.arange(shape[0]).mul(29).remainder(shape[3]).add(1).flip(0)
    wanted = truth(given, lengths=lengths, reverse=reverse)
    assert_equal(gradients(plain_torch, given, lengths=lengths, reverse=reverse), wanted)


@pytest.mark.parametrize("absent", [("z",), ("D",), ("delta_bias",), ("initial_state",), NAMES[5:]])
def test_optional_arguments(absent: tuple[str, ...]) -> None:
    given = {name: x for name, x in inputs(2, 20, 16, 70).items() if name not in absent}
    wanted = truth(given)
    assert_equal(gradients(front_door, given), wanted)


@pytest.mark.parametrize("delta", [-200.0, -20.0, 19.99, 20.01, 200.0])
def test_extreme_delta(delta: float) -> None:
    given = inputs(1, 8, 16, 33)
    given["delta"] = torch.full_like(given["delta"], delta)
    given["delta_bias"] = torch.zeros(8)
    wanted = truth(given)
    assert_equal(gradients(front_door, given), wanted, share=1e-5)


def test_the_reference_has_right_gradients() -> None:
    given = inputs(1, 2, 3, 5)
    leaves = [given[name].double().requires_grad_() for name in NAMES]

    def scan(*x: Tensor) -> Any:
        return reference.selective_scan(*x[:8], True, initial_state=x[8], lengths=torch.tensor([4]))

    assert torch.autograd.gradcheck(scan, leaves)


def test_a_padded_row_equals_the_clip_alone(instruction_set: str) -> None:
    given = inputs(3, 24, 16, 90)
    lengths = torch.tensor([90, 1, 71])
    for reverse in (False, True):
        whole = gradients(front_door, given, lengths=lengths, reverse=reverse)
        for row, length in enumerate(lengths.tolist()):
            alone = {
                name: x[row : row + 1, ..., :length] if name in ("u", "delta", "B", "C", "z") else x
                for name, x in given.items()
            }
            alone["initial_state"] = given["initial_state"][row : row + 1]
            single = front_door(
                *[alone[n] for n in NAMES[:8]], True, initial_state=alone["initial_state"], reverse=reverse
            )
            assert torch.equal(whole["out"][row, :, :length], single[0][0])
            assert torch.equal(whole["last"][row], single[1][0])
            assert not whole["out"][row, :, length:].any()
            assert not whole["u"][row, :, length:].any()


def test_a_state_carried_from_piece_to_piece_equals_one_scan() -> None:
    given = inputs(2, 16, 16, 101)
    whole, last = front_door(*[given[n] for n in NAMES[:8]], True, initial_state=given["initial_state"])
    state, pieces = given["initial_state"], []
    for start, stop in ((0, 1), (1, 40), (40, 101)):
        part = {n: x[..., start:stop] if n in ("u", "delta", "B", "C", "z") else x for n, x in given.items()}
        out, state = front_door(*[part[n] for n in NAMES[:8]], True, initial_state=state)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 2), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)


def test_nothing_depends_on_the_number_of_threads() -> None:
    given = inputs(2, 200, 16, 150)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(gradients(front_door, given))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(value, other[name]) for name, value in results[0].items())


def test_not_a_number_stays_not_a_number() -> None:
    given = inputs(1, 8, 16, 30)
    given["u"][0, 3, 10] = float("nan")
    out, _ = front_door(*[given[n] for n in NAMES[:8]], True)
    assert out[0, 3, 10:].isnan().all()
    assert not out[0, :3].isnan().any()
    assert not out[0, 3, :10].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out(dtype: torch.dtype) -> None:
    given = {name: x.to(dtype) for name, x in inputs(1, 16, 16, 50).items()}
    out, last = front_door(*[given[n] for n in NAMES[:8]], True)
    wanted, _ = front_door(*[given[n].float() for n in NAMES[:8]], True)
    assert out.dtype == dtype
    assert last.dtype == torch.float32
    torch.testing.assert_close(out, wanted.to(dtype))


def test_the_operator_is_well_behaved() -> None:
    given = inputs(1, 6, 4, 9)
    arguments = [given[n].requires_grad_() for n in NAMES]
    library.opcheck(_scan, (*arguments, torch.tensor([7]), True, False))
    library.opcheck(_scan, (*arguments[:5], None, None, None, None, None, True, True))


@pytest.mark.parametrize(
    ("name", "shape"), [("delta", (1, 8, 29)), ("A", (7, 16)), ("B", (1, 15, 30)), ("D", (9,)), ("delta_bias", (1, 8))]
)
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...]) -> None:
    given = inputs(1, 8, 16, 30) | {name: torch.zeros(shape)}
    with pytest.raises(ConfigError, match=name):
        selective_scan(*[given[n] for n in NAMES[:8]], True)
