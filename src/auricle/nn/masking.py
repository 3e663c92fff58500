"""Samplers of masked tokens. All return indices, and draw from a generator that they are given.

f rows, t columns, N = f * t tokens in frequency-major order (token = row * t + column), M masked tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# The side of a cluster is drawn once per clip from these (SSAST section 2.2; its CLI option is ignored by its code).
CLUSTER_SIDES = (3, 4, 5)


def random_mask(valid: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` of the valid tokens, uniformly; sorted. valid [f, t]."""
    candidates = np.flatnonzero(valid.ravel())
    return np.sort(rng.permutation(candidates)[:count]).astype(np.int64)


def cluster_mask(valid: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` of the valid tokens in overlapping squares of side 3, 4 or 5; sorted. valid [f, t].

    Squares are placed in random order until enough tokens are covered, and the surplus is dropped at random. They may
    reach past the edges of the grid, so that every token lies in the same number of squares: unlike with the official
    sampler, none is safe, and no square wraps from the end of one row into the next. All tokens are masked about
    equally often (within 5 % where half or more are masked; a mask smaller than a square favours the edges).
    """
    side = int(rng.choice(CLUSTER_SIDES))
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
