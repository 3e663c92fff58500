"""How a number moves along a training: pure functions of the share that is done."""

from __future__ import annotations

import math


def cosine(first: float, last: float, share: float) -> float:
    """From `first` at share 0 to `last` at share 1, slowly at both ends."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


def linear(first: float, last: float, share: float) -> float:
    """From `first` at share 0 to `last` at share 1; beyond, `last`."""
    return first + (last - first) * min(1.0, share)


def sigmoid_ramp(share: float, length: float) -> float:
    """From e^-5 at share 0 to 1 at `length` and after: exp(-5 (1 - share / length)^2) (Tarvainen and Valpola 2017)."""
    return math.exp(-5.0 * (1.0 - min(1.0, share / length)) ** 2) if length > 0 else 1.0
