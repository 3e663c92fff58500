"""From labels and events to what a network is trained towards.

N items, C classes, T frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from auricle.data.items import Event


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


def frame_targets(events: Iterable[Event], classes: Sequence[str], edges: NDArray[np.float64]) -> NDArray[np.float32]:
    """Float targets [T, C] of frames: 1 where an event of the class touches the frame, however little, 0 elsewhere.

    Labels that are no class are left out, and so is what lies outside of the frames.

    Args:
        edges: [T + 1] the start of each frame, and the end of the last, in the unit of the events (seconds).
    """
    number = {name: column for column, name in enumerate(classes)}
    targets = np.zeros((len(edges) - 1, len(classes)), dtype=np.float32)
    for event in events:
        if event.label in number:
            first = max(0, int(np.searchsorted(edges, event.onset, side="right")) - 1)
            targets[first : int(np.searchsorted(edges, event.offset, side="left")), number[event.label]] = 1.0
    return targets
