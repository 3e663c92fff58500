"""Randomness as a pure function of named keys.

Every crop, partner, augmentation and mask is drawn from `generator(seed, stream, epoch, index)`. Nothing else is
state, so the number of workers, the composition of a batch, the number of processes and an interruption cannot change
what is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def key(*parts: int | str) -> int:
    """A 128-bit key from the parts, the same in every process and Python version."""
    text = "/".join(str(part) for part in parts)
    # Names of files may hold bytes that are no UTF-8.
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).digest(), "little")


def generator(seed: int, stream: str, *parts: int | str) -> np.random.Generator:
    """A NumPy generator of its own for `(seed, stream, *parts)`."""
    return np.random.Generator(np.random.Philox(key=key(seed, stream, *parts)))


def torch_seed(seed: int, stream: str, *parts: int | str) -> int:
    """A seed that `torch.manual_seed` takes."""
    return key(seed, stream, *parts) & (2**63 - 1)


@dataclass(frozen=True)
class Draw:
    """The randomness of one batch: row `b` is sample `indices[b]` of epoch `epochs[b]`."""

    seed: int
    epochs: Sequence[int]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def rng(self, stream: str, row: int) -> np.random.Generator:
        """The generator of one row for one purpose, e.g. `draw.rng("mask", 3)`."""
        return generator(self.seed, stream, self.epochs[row], self.indices[row])
