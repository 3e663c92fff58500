"""Samplers of masked tokens. All return indices, and draw from a generator that they are given.

f rows, t columns, N = f * t tokens in frequency-major order (token = row * t + column), M masked tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# The side of a cluster is drawn once per clip from these (SSAST section 2.2; its CLI option is ignored by its code).
CLUSTER_SIDES = (3, 4, 5)
# About sixty blocks cover what ASiT covers. With an alignment, what is left of a short clip may be out of reach.
MOST_BLOCKS = 10_000


def random_mask(valid: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` of the valid tokens, uniformly; sorted. valid [f, t]."""
    candidates = np.flatnonzero(valid.ravel())
    return np.sort(rng.permutation(candidates)[:count]).astype(np.int64)


def cluster_mask(
    valid: NDArray[np.bool_], count: int, rng: np.random.Generator, sides: Sequence[int] = CLUSTER_SIDES
) -> NDArray[np.int64]:
    """`count` of the valid tokens in overlapping squares, whose side is one of `sides`; sorted. valid [f, t].

    Squares are placed in random order until enough tokens are covered, and the surplus is dropped at random. They may
    reach past the edges of the grid, so that every token lies in the same number of squares: unlike with the official
    sampler, none is safe, and no square wraps from the end of one row into the next. All tokens are masked about
    equally often (within 5 % where half or more are masked; a mask smaller than a square favours the edges).
    """
    side = int(rng.choice(sides))
    rows, columns = valid.shape
    # The square at (i, j) arrives at a random time; a token is covered when the first of its squares arrives.
    arrival = rng.random((rows + side - 1, columns + side - 1))
    covered = np.lib.stride_tricks.sliding_window_view(arrival, (side, side)).min(axis=(2, 3))
    # Tokens covered by the same last square tie; a random second key drops the surplus fairly.
    order = np.lexsort((rng.random(valid.size), np.where(valid, covered, np.inf).ravel()))
    return np.sort(order[: min(count, int(valid.sum()))]).astype(np.int64)


def official_cluster_mask(grid: tuple[int, int], count: int, side: int, starts: Iterator[int]) -> NDArray[np.int64]:
    """SSAST's own sampler, `ASTModel.gen_maskid_patch`, in its order and with its biases.

    Squares grow right and up from each start and wrap into the next row; token 0 is never masked; of the surplus, the
    highest ids are dropped, because CPython iterates a set of small integers in ascending order.

    Raises:
        ValueError: `count` >= N - 1, where the official loop does not end.
    """
    tokens = grid[0] * grid[1]
    if count >= tokens - 1:
        raise ValueError(f"the official sampler cannot mask {count} of {tokens} tokens; mask at most {tokens - 2}")
    masked: set[int] = set()
    while len(masked) <= count:
        start = next(starts)
        for row in range(side):
            for column in range(side):
                token = start + grid[1] * row + column
                if 0 < token < tokens:
                    masked.add(token)
    return np.array(list(masked)[:count], dtype=np.int64)


def official_frame_mask(tokens: int, count: int, rng: random.Random) -> NDArray[np.int64]:
    """SSAST's `ASTModel.gen_maskid_frame`: `random.sample`, in the order drawn."""
    return np.array(rng.sample(range(tokens), count), dtype=np.int64)


def span_mask(tokens: int, ratio: float, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Tokens of a sequence in spans of `length` that may overlap; sorted.

    As many spans begin as would mask the share `ratio` without overlap, at different tokens (fairseq's static spans,
    at least two): with 0.65 and 5, half of 250 tokens are masked. Unlike fairseq's, the last token may be masked too.
    At least one token is masked and, of two or more, one is not.
    """
    length = min(length, max(1, tokens - 1))
    places = tokens - length + 1
    spans = min(max(2, int(ratio * tokens / length + rng.random())), places)
    starts = rng.permutation(places)[:spans]
    masked = np.unique(starts[:, None] + np.arange(length))
    if len(masked) == tokens > 1:
        masked = np.delete(masked, int(rng.integers(tokens)))
    return masked.astype(np.int64)


def block_mask(
    size: tuple[int, int],
    share: float,
    draw: Callable[[int, int], int],
    *,
    align: int = 1,
    most: float = 0.3,
    stripes: Literal["", "rows", "columns"] = "",
) -> NDArray[np.bool_]:
    """Rectangles of pixels that may overlap, until `share` of them is covered: ASiT's groups of patches (GMML).

    A rectangle begins anywhere but in the last `align` rows and columns, and has up to `most` of both sides; what
    reaches beyond the edge is cut off. With `stripes`, it is widened to whole rows or columns. Drawn in the official
    order: row, column, height, width.

    Args:
        size: rows and columns.
        draw: gives a whole number from the first argument to below the second.
        align: places and sides are multiples of so many pixels.
    """
    rows, columns = size
    units = min(align, rows), min(align, columns)
    masked, covered = np.zeros(size, dtype=bool), 0
    for _ in range(MOST_BLOCKS):
        if covered >= share * masked.size:
            break
        # Of a side too short for any choice of lengths, the end could never be covered.
        starts = [side - unit + (int(side * most) <= unit) for side, unit in zip(size, units, strict=True)]
        first = [draw(0, start) // unit * unit for start, unit in zip(starts, units, strict=True)]
        drawn = [draw(unit, max(unit + 1, int(side * most))) for side, unit in zip(size, units, strict=True)]
        # Python's rounding, halves to even, as in the official code.
        high, wide = (
            round(min(length, side - start) / unit) * unit
            for length, side, start, unit in zip(drawn, size, first, units, strict=True)
        )
        block = masked[
            slice(None) if stripes == "columns" else slice(first[0], first[0] + high),
            slice(None) if stripes == "rows" else slice(first[1], first[1] + wide),
        ]
        covered += block.size - int(block.sum())
        block[:] = True
    return masked


def draws_of(rng: np.random.Generator) -> Callable[[int, int], int]:
    """Whole numbers for `block_mask`, drawn many at a time."""

    def endless() -> Iterator[float]:
        while True:
            yield from rng.random(256).tolist()

    uniform = endless()
    return lambda low, high: low + int(next(uniform) * (high - low))
