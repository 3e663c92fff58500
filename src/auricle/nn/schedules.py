"""How a number moves along a training: pure functions of the share that is done."""

from __future__ import annotations

import math


def cosine(first: float, last: float, share: float) -> float:
    """From `first` at share 0 to `last` at share 1, slowly at both ends."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


def linear(first: float, last: float, share: float) -> float:
    """From `first` at share 0 to `last` at share 1; beyond, `last`."""
    return first + (last - first) * min(1.0, share)
