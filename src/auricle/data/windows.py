"""Long audio as windows that cover all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


def cut_windows(
    blocks: Iterable[NDArray[np.float32]], window: int, hop: int, least: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first sample, samples) of windows over a stream of blocks, in constant memory.

    Windows of `window` samples start every `hop` (<= window) samples. The last one holds what is left; where that is
    fewer than `least` samples, it reaches back to hold `least`, or the whole stream if that is shorter still.
    Every sample lies in a window; the overlap `window - hop` is what an analysis window needs to continue evenly.
    """
    held = np.zeros(0, dtype=np.float32)
    start = 0
    fresh = 0
    for block in blocks:
        held = np.concatenate([held, block])
        # `held` may begin up to `least` samples before `start`, kept in case the last window must reach back.
        while len(held) - fresh > window:
            yield start, held[fresh : fresh + window]
            start += hop
            keep = min(fresh + hop, least)
            held = held[fresh + hop - keep :]
            fresh = keep
    rest = len(held) - fresh
    covered_before = window - hop if start else 0
    if rest <= 0 or (start and rest <= covered_before):
        return
    back = min(max(0, least - rest), fresh)
    yield start - back, held[fresh - back :]
