"""Batches of clips of like length, so that little of a batch is padding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Clips whose length falls into the same eighth of the longest may share a batch.
BUCKETS = 8
# Batches that are made from the same stretch of an epoch: the more, the purer a batch, the less random its clips.
POOL = 16


def buckets_of(seconds: NDArray[np.float64], longest: float) -> NDArray[np.int64]:
    """The bucket of each length; all that are `longest` or longer share the last one."""
    return np.ceil(np.minimum(seconds / longest, 1.0) * BUCKETS - 1e-9).astype(np.int64)


def by_length(buckets: NDArray[np.int64], batch_size: int, lead: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of an epoch in another order: within stretches of POOL batches, a batch holds neighbouring buckets.

    Batches of a stretch come in random order, and clips of one bucket in the order they had. Nothing is added or left
    out, and an epoch of a single bucket keeps its order.

    Args:
        buckets: the bucket of each clip, in the order drawn.
        batch_size: B.
        lead: how many of the first clips belong to a batch that began in the epoch before; they stay.
        rng: draws the order of the batches.
    """
    positions = np.arange(len(buckets))
    if np.ptp(buckets) == 0:
        return positions
    parts = [positions[:lead]]
    for start in range(lead, len(buckets), POOL * batch_size):
        pool = positions[start : start + POOL * batch_size]
        pool = pool[np.argsort(buckets[pool], kind="stable")]
        whole = len(pool) // batch_size * batch_size
        parts += [rng.permutation(pool[:whole].reshape(-1, batch_size)).ravel(), pool[whole:]]
    return np.concatenate(parts)
