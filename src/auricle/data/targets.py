"""From labels to what a classifier is trained towards.

C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def multi_hot(labels: Sequence[Sequence[str]], classes: Sequence[str]) -> NDArray[np.float32]:
    """Float targets [N, C]: 1 for every label of an item, 0 elsewhere; labels that are no class are left out."""
    number = {name: column for column, name in enumerate(classes)}
    targets = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, own in enumerate(labels):
        targets[row, [number[name] for name in own if name in number]] = 1.0
    return targets


def mix_targets(first: NDArray[np.float32], second: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Targets [C] of two mixed clips, `weight` of the first: a label that both have adds up to 1 (SSAST's loader)."""
    return np.asarray(weight * first + (1 - weight) * second, dtype=np.float32)
