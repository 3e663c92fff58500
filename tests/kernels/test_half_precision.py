"""The C++ kernels read and write bfloat16 and float16 themselves: to the last bit as if converted before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from scan_cases import NAMES, inputs
from torch import Tensor

from auricle.kernels import bidirectional_conv1d, bidirectional_scan, causal_conv1d, native, selective_scan

HALVES = (torch.bfloat16, torch.float16)


def assert_only_rounded(run: Callable[..., Tensor | tuple[Tensor, Tensor]], given: Sequence[Tensor]) -> None:
    """Outputs and gradients are those of the same numbers in float32, rounded to the types of what is given."""
    results = []
    for leaves in ([x.clone() for x in given], [x.float() for x in given]):
        for x in leaves:
            x.requires_grad_()
        found = run(*leaves)
        outs = found if isinstance(found, tuple) else (found,)
        rng = torch.Generator().manual_seed(3)
        # Numbers that every type holds, so that the same gradient comes in.
        weights = [torch.randint(-8, 9, out.shape, generator=rng).to(out.dtype) for out in outs]
        results.append([*outs, *torch.autograd.grad(outs, leaves, weights)])
    for half, whole in zip(*results, strict=True):
        assert half.isfinite().all()
        assert torch.equal(half, whole.to(half.dtype))
    assert [x.dtype for x in results[0][-len(given) :]] == [x.dtype for x in given]


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_scan_only_rounds(instruction_set: str, dtype: torch.dtype, side_by_side: bool) -> None:
    given = [x.to(dtype) for x in inputs(2, 75, 6, 67, side_by_side=side_by_side).values()]

    def scan(*x: Tensor) -> Any:
        return selective_scan(*x[:8], True, True, initial_state=x[8], lengths=torch.tensor([41, 67]))

    assert_only_rounded(scan, given)


def test_types_may_be_mixed(instruction_set: str) -> None:
    types = {"u": torch.bfloat16, "delta": torch.float16, "B": torch.float16, "z": torch.bfloat16}
    given = [x.to(types.get(name, torch.float32)) for name, x in inputs(1, 20, 16, 40).items()]
    assert_only_rounded(lambda *x: selective_scan(*x[:8], True, True, initial_state=x[8], reverse=True), given)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_sum_of_two_directions_is_rounded_once(instruction_set: str, dtype: torch.dtype) -> None:
    one, two = inputs(2, 37, 16, 67), inputs(2, 37, 16, 67, seed=1)
    stacked = [one[name] if name == "z" else torch.stack([one[name], two[name]]) for name in NAMES[:8]]

    def scan(*x: Tensor) -> Tensor:
        return bidirectional_scan(*x, True, lengths=torch.tensor([67, 20]))

    assert_only_rounded(scan, [x.to(dtype) for x in stacked])


@pytest.mark.parametrize("dtype", HALVES)
def test_a_convolution_only_rounds(instruction_set: str, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(2, 70, 37, generator=rng).transpose(1, 2).to(dtype)
    weight, bias = torch.randn(2, 37, 4, generator=rng), torch.randn(2, 37, generator=rng)
    lengths = torch.tensor([70, 34])
    both = (x, weight.to(dtype), bias.to(dtype))
    assert_only_rounded(lambda *given: bidirectional_conv1d(*given, silu=True, lengths=lengths), both)
    assert_only_rounded(lambda *given: causal_conv1d(*given, silu=True, reverse=True), (x, weight[0], bias[0]))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_number_is_read_and_rounded_as_torch_does(instruction_set: str, dtype: torch.dtype) -> None:
    every = torch.arange(2**16).to(torch.uint16).view(dtype).expand(1, 16, -1)
    # Products with ties, with results that only the least numbers hold, and with results beyond the largest.
    steps = [1, 3, 5, 2**7 + 1, 2**8 + 1, 2**10 + 1, 2**11 + 1, 2**13 + 3]
    factors = torch.tensor([step * 2.0**power for step in steps for power in (-16, 0)])
    for x in (every, every.transpose(1, 2).contiguous().transpose(1, 2)):
        found = causal_conv1d(x, factors[:, None])
        wanted = (x.float() * factors[:, None] + 0.0).to(dtype)
        assert torch.equal(found.isnan(), wanted.isnan())
        assert torch.equal(found.nan_to_num(), wanted.nan_to_num())
        assert torch.equal(found.isinf(), wanted.isinf())


def test_long_tensors_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: x.bfloat16() if x.ndim == 3 else x for name, x in inputs(1, 16, 16, 50).items()}
    seen = []
    original = native.strided

    def spied(x: Tensor | None) -> native.Strided:
        if x is not None:
            seen.append((x.data_ptr(), x.dtype))
        return original(x)

    monkeypatch.setattr(native, "strided", spied)
    selective_scan(*[given[name] for name in NAMES[:8]], True)
    assert {(given[name].data_ptr(), torch.bfloat16) for name in ("u", "delta", "B", "C", "z")} <= set(seen)
    assert all(dtype == torch.bfloat16 for _, dtype in seen)
