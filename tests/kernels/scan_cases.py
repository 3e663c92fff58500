"""Arguments of scans, and what a scan gives for them: shared by the tests of every implementation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from auricle.kernels import reference

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


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
    # Numbers that half precision holds, too.
    weights = [torch.randn(x.shape, generator=rng).bfloat16().to(x.dtype) for x in (out, last)]
    found = torch.autograd.grad((out * weights[0]).sum() + (last * weights[1]).sum(), list(leaves.values()))
    return {"out": out.detach(), "last": last.detach(), **dict(zip(leaves, found, strict=True))}


def truth(given: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    return gradients(reference.selective_scan, {name: x.double() for name, x in given.items()}, **options)


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], share: float = 3e-6) -> None:
    for name, value in wanted.items():
        worst = float((found[name].double() - value.double()).abs().max())
        assert worst <= share * max(1.0, float(value.abs().max())), f"{name}: {worst}"


def assert_padding_is_not_seen(scan: Any, given: dict[str, Tensor], junk: float, **options: Any) -> None:
    """What is in the padding, be it no number, changes no value and no gradient, and nothing comes out there."""
    length = given["u"].shape[-1]
    rows = given["u"].shape[0]
    lengths = torch.arange(rows).mul(29).remainder(length).add(1)
    padded = (torch.arange(length) >= lengths[:, None])[:, None]
    assert padded.any()
    masks = {name: padded if x.ndim == 3 else padded[:, None] for name, x in given.items() if x.shape[-1] == length}
    full = {name: x.clone().masked_fill_(masks[name], junk) if name in masks else x for name, x in given.items()}
    wanted = gradients(scan, given, lengths=lengths, **options)
    found = gradients(scan, full, lengths=lengths, **options)
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
        if name in masks or name == "out":
            assert not value.masked_select(masks.get(name, padded)).any(), name
