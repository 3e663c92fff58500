"""The selective scan by itself: our kernel, a loop over the steps, and what the machine would need at least.

E channels, S states, L steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from auricle.kernels import reference, selective_scan

CHANNELS, STATES = 384, 16


@dataclass(frozen=True)
class Scan:
    """Seconds at one length: `ours` and the `loop`, forward alone and with the backward pass; `least` as counted."""

    steps: int
    ours: float
    loop: float
    ours_both: float
    loop_both: float
    least: float


def inputs(steps: int) -> list[Tensor]:
    """u, delta, A, B, C, D, z and the step size's bias of one direction of SSAMBA-tiny, batch 1."""
    torch.manual_seed(0)
    wide = [torch.randn(1, steps, CHANNELS).transpose(1, 2) for _ in range(3)]
    maps = [torch.randn(1, steps, STATES).transpose(1, 2) for _ in range(2)]
    rates = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)
    return [wide[0], wide[1], rates, *maps, torch.ones(CHANNELS), wide[2], torch.full((CHANNELS,), -4.0)]


def best(run: Callable[[], object], repeats: int) -> float:
    """The quickest of some runs, after one that is not timed."""
    if repeats > 1:
        run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def scan(steps: int, repeats: int = 5) -> Scan:
    """Time both; the loop once, as it takes so much longer that a repetition would change nothing."""
    tensors = inputs(steps)

    def ahead(function: Callable[..., object]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return function(*tensors, delta_softplus=True)

        return run

    def both(function: Callable[..., object]) -> Callable[[], object]:
        leaves = [x.clone().requires_grad_() for x in tensors]

        def run() -> object:
            out = function(*leaves, delta_softplus=True)
            out = out[0] if isinstance(out, tuple) else out
            return torch.autograd.grad(out.sum(), leaves)  # type: ignore[attr-defined]

        return run

    return Scan(
        steps,
        best(ahead(selective_scan), repeats),
        best(ahead(reference.selective_scan), 1),
        best(both(selective_scan), repeats),
        best(both(reference.selective_scan), 1),
        least_seconds(steps),
    )


def counts(steps: int) -> tuple[int, int]:
    """Exponentials and bytes of a forward scan: one for each state, two for the softplus (with its logarithm) and one
    for the gate of each channel; every input is read once and the output written once, 4 bytes each."""
    exponentials = steps * CHANNELS * (STATES + 3)
    return exponentials, 4 * steps * (4 * CHANNELS + 2 * STATES)


def least_seconds(steps: int) -> float:
    """What the exponentials and the bytes take at the rates that torch reaches here, whichever is more."""
    exponentials, bytes_ = counts(steps)
    rate, bandwidth = peak_rates()
    return max(exponentials / rate, bytes_ / bandwidth)


def peak_rates() -> tuple[float, float]:
    """Exponentials and bytes per second: of numbers that stay in the cache, and of a copy that does not fit into it."""
    small, large = torch.randn(64 * 1024), torch.randn(16 * 2**20)
    out, copy = torch.empty_like(small), torch.empty_like(large)
    exponentials = len(small) * 50 / best(lambda: [torch.exp(small, out=out) for _ in range(50)], 5)
    return exponentials, 2 * 4 * len(large) / best(lambda: copy.copy_(large), 5)
