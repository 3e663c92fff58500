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
    whole = 1.0 + small
    # log(1 + small), exact where adding 1 rounds small away.
    log = tl.where(whole == 1.0, small, tl.log(whole) * (small / tl.where(whole == 1.0, 1.0, whole - 1.0)))
    return tl.where(x > 20.0, x, tl.maximum(x, 0.0) + log)


@triton.jit
def sigmoid(x):
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, small) / (1.0 + small)
