"""What Triton's kernels share: where the steps of a scan are in memory, and elementary functions."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

# A tensor of more channels than these is worked on by several programs.
CHANNELS = 8


def bits(reverse: Sequence[bool]) -> int:
    """The directions of K scans as one number: bit k is set where scan k runs from the end."""
    return sum(1 << k for k, backward in enumerate(reverse) if backward)


@triton.jit
def valid_steps(lengths, row, length, HAS_LENGTHS: tl.constexpr):
    valid = length
    if HAS_LENGTHS:
        valid = tl.minimum(tl.maximum(tl.load(lengths + row).to(tl.int32), 0), length)
    return valid


@triton.jit
def position(i, valid, backward):
    """Where step i of a scan is in memory."""
    return tl.where(backward != 0, valid - 1 - i, i)


@triton.jit
def softplus(x):
    """As torch: the identity above 20."""
    small = tl.exp(-tl.abs(x))
    # log(1 + small) = 2 artanh(small / (2 + small)), which stays exact where adding 1 would round small away.
    part = small / (2.0 + small)
    square = part * part
    series = 1.0 / 11.0 + square * (1.0 / 13.0 + square * (1.0 / 15.0))
    series = 1.0 / 5.0 + square * (1.0 / 7.0 + square * (1.0 / 9.0 + square * series))
    log = 2.0 * part * (1.0 + square * (1.0 / 3.0 + square * series))
    return tl.where(x > 20.0, x, tl.maximum(x, 0.0) + log)


@triton.jit
def sigmoid(x):
    # The bound is for the exponential alone, which must not overflow: beyond it, the result is below 1e-34.
    return 1.0 / (1.0 + tl.exp(tl.minimum(-x, 80.0)))
