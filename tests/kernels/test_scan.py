"""The selective scan: every implementation equals the reference, in values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scan_cases import NAMES, assert_equal, assert_padding_is_not_seen, gradients, inputs, truth
from torch import Tensor

from auricle.errors import ConfigError
from auricle.kernels import backends, bidirectional_scan, chunked, reference, selective_scan


def front_door(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    return selective_scan(*args, return_last_state=True, **options)  # type: ignore[return-value]


def plain_torch(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    defaults: dict[str, Any] = {"initial_state": None, "lengths": None, "reverse": False}
    return chunked.selective_scan(*args, **(defaults | options))


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


@pytest.mark.parametrize(("of_b", "of_c"), [(2, 2), (4, 6), (None, 3)])
def test_groups_of_channels_are_scans_of_the_fast_kernels(
    of_b: int | None, of_c: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(2, 24, 5, 70)
    rng = torch.Generator().manual_seed(1)
    for name, groups in (("B", of_b), ("C", of_c)):
        if groups:
            given[name] = torch.randn(2, groups, 5, 70, generator=rng)
    options: dict[str, Any] = {"lengths": torch.tensor([70, 41]), "reverse": True}
    wanted = truth(given, **options)
    monkeypatch.setattr(reference, "selective_scan", None)
    assert_equal(gradients(front_door, given, **options), wanted)


def test_constant_maps_go_by_the_reference() -> None:
    rng = torch.Generator().manual_seed(1)
    given = inputs(2, 9, 5, 30) | {name: torch.randn(9, 5, generator=rng) for name in ("B", "C")}
    assert_equal(gradients(front_door, given), truth(given))


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


JUNK = pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e30])


@JUNK
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("scan", [front_door, plain_torch, reference.selective_scan])
def test_what_is_in_the_padding_is_not_seen(scan: Any, reverse: bool, junk: float) -> None:
    assert_padding_is_not_seen(scan, inputs(3, 9, 5, 70), junk, reverse=reverse)


@JUNK
@pytest.mark.parametrize("groups", [{"B": 3}, {"B": 3, "C": 1}, {"C": None}])
def test_what_is_in_the_padding_is_not_seen_by_groups_and_constants(groups: dict[str, int | None], junk: float) -> None:
    given = inputs(3, 9, 5, 70)
    rng = torch.Generator().manual_seed(1)
    for name, many in groups.items():
        given[name] = torch.randn(*((3, many, 5, 70) if many else (9, 5)), generator=rng)
    assert_padding_is_not_seen(front_door, given, junk, reverse=True)
    assert_padding_is_not_seen(front_door, {name: x.double() for name, x in given.items()}, junk)


@JUNK
def test_what_is_in_the_padding_is_not_seen_in_half_precision(junk: float) -> None:
    given = {name: x.bfloat16() for name, x in inputs(3, 9, 5, 70).items()}
    for kernels in ("native", "torch"):
        with backends.use(kernels):
            assert_padding_is_not_seen(front_door, given, junk)


def both_ways(seed: int = 0, **changes: Tensor) -> dict[str, Tensor]:
    """Arguments of two scans that share z, the second dimension of everything else being its own."""
    one, two = inputs(3, 37, 16, 67, seed), inputs(3, 37, 16, 67, seed + 1)
    stacked = {name: x if name == "z" else torch.stack([x, two[name]]) for name, x in one.items()}
    del stacked["initial_state"]
    return stacked | changes


def two_directions(*tensors: Any, lengths: Tensor | None = None, **_: None) -> tuple[Tensor, Tensor]:
    """The sum of both, and no state."""
    out = bidirectional_scan(*tensors[:8], True, lengths=lengths)
    return out, out.new_zeros(1)


@pytest.mark.parametrize("absent", [(), ("z",), NAMES[5:]])
def test_both_directions_in_one_call_are_two_scans(instruction_set: str, absent: tuple[str, ...]) -> None:
    given = {name: x for name, x in both_ways().items() if name not in absent}
    lengths = torch.tensor([67, 1, 64])

    def two_calls(*tensors: Any, initial_state: None) -> tuple[Tensor, Tensor]:
        out = 0
        for k, reverse in ((0, False), (1, True)):
            parts = [x if x is None or index == NAMES.index("z") else x[k] for index, x in enumerate(tensors[:8])]
            out = out + reference.selective_scan(*parts, True, lengths=lengths, reverse=reverse)[0]
        return out, out.new_zeros(1)  # type: ignore[attr-defined]

    wanted = gradients(two_calls, {name: x.double() for name, x in given.items()})
    assert_equal(gradients(two_directions, given, lengths=lengths), wanted)


def test_float64_in_both_directions_stays_float64() -> None:
    given = {name: x.double() for name, x in both_ways().items()}
    out = bidirectional_scan(*[given[name] for name in NAMES[:8]], True)
    assert out.dtype == torch.float64
    torch.testing.assert_close(
        bidirectional_scan(*[given[name].float() for name in NAMES[:8]], True).double(), out, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["u", "A", "B", "D", "z"])
def test_shapes_of_two_directions_that_do_not_fit(name: str) -> None:
    given = both_ways()
    given[name] = given[name][..., :-1]
    with pytest.raises(ConfigError, match=name):
        bidirectional_scan(*[given[n] for n in NAMES[:8]], True)


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
    given, both = inputs(2, 200, 16, 150), both_ways()
    before = torch.get_num_threads()
    results = []
    try:
        # More threads than there are rows and blocks: those of the second direction wait for the first.
        for threads in (1, 2, 5, 16):
            torch.set_num_threads(threads)
            sums = gradients(two_directions, both)
            results.append(gradients(front_door, given) | {f"both {name}": x for name, x in sums.items()})
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


@pytest.mark.parametrize(
    ("name", "shape"), [("delta", (1, 8, 29)), ("A", (7, 16)), ("B", (1, 15, 30)), ("D", (9,)), ("delta_bias", (1, 8))]
)
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...]) -> None:
    given = inputs(1, 8, 16, 30) | {name: torch.zeros(shape)}
    with pytest.raises(ConfigError, match=name):
        selective_scan(*[given[n] for n in NAMES[:8]], True)


@pytest.mark.parametrize("name", [*NAMES[:8], "lengths"])
def test_tensors_of_another_device_are_refused_in_a_sentence(name: str) -> None:
    given = inputs(1, 8, 16, 30) | {"lengths": torch.tensor([30])}
    # A device that every machine has, and whose tensors have no memory either.
    given[name] = given[name].to("meta")
    with pytest.raises(ConfigError, match=f"{'A' if name == 'u' else name} is on '.*' and u on '.*'; move them"):
        selective_scan(*[given[n] for n in NAMES[:8]], True, lengths=given["lengths"])


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_another_type_are_refused_in_a_sentence(name: str, dtype: torch.dtype) -> None:
    given = inputs(1, 8, 16, 30)
    given[name] = given[name].to(dtype)
    with pytest.raises(ConfigError, match=f"{name} must be of float32, bfloat16, float16 or float64, not {dtype}"):
        front_door(*[given[n] for n in NAMES[:8]], True, initial_state=given["initial_state"])


def test_lengths_are_whole_numbers() -> None:
    given = [inputs(1, 8, 16, 30)[name] for name in NAMES[:8]]
    whole = selective_scan(*given, True, lengths=torch.tensor([17]))
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(selective_scan(*given, True, lengths=torch.tensor([17], dtype=dtype)), whole)
    with pytest.raises(ConfigError, match="lengths must be whole numbers"):
        selective_scan(*given, True, lengths=torch.tensor([17.0]))
