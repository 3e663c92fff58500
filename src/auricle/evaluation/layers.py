"""Which layers of a network a probe reads, and how the best one is chosen without looking at the test items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from auricle.data.splits import Fold, stratified_folds
from auricle.errors import ConfigError
from auricle.tasks.pooling import POOLINGS, Pooling, block_index

INNER_FOLDS = 3
Rows = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """What is taken from a network: indices of layers (0 is the first block), a pooling, and what to do with several.

    one   the embeddings of the only layer.
    best  each layer is probed; the one that is best on inner validation items predicts the test items.
    mix   a weighted sum of the layers, learned with the head.
    """

    layers: Rows
    pooling: Pooling
    use: Literal["one", "best", "mix"]

    def describe(self) -> str:
        """For a result: `last`, `all`, `mix` or the number of the block."""
        return {"best": "all", "mix": "mix"}.get(self.use, str(self.layers[0] + 1))


def reading(layers: str | int, pooling: str, depth: int) -> Reading:
    """Resolve `--layers` (last, all, mix, or a block from 1 on; -1 is the last) and `--pooling` for `depth` blocks.

    Without a pooling it is the method's own where only the last layer is read, and else the mean over tokens, since a
    paper's pooling is defined for the last layer only.

    Raises:
        ConfigError: no such layer or pooling, or the method's own pooling for other layers than the last.
    """
    text = str(layers)
    if text in ("all", "mix"):
        chosen, use = tuple(range(depth)), "best" if text == "all" else "mix"
    else:
        index = depth - 1 if text == "last" else block_index(text, depth)
        if index is None:
            raise ConfigError(
                f"--layers {text}: the network has {depth} blocks; give 1 to {depth}, -{depth} to -1, last, all or mix."
            )
        chosen, use = (index,), "one"
    only_last = chosen == (depth - 1,)
    pooling = pooling or ("own" if only_last else "mean")
    if pooling not in POOLINGS:
        raise ConfigError(f"no pooling '{pooling}'; the poolings are {', '.join(POOLINGS)}.")
    if pooling == "own" and not only_last:
        raise ConfigError("--pooling own is defined for the last layer only; take mean, rows or cls for others.")
    return Reading(chosen, pooling, use)  # type: ignore[arg-type]


def inner_folds(
    fold: Fold, folds: Sequence[Fold], ids: Sequence[str], labels: Sequence[str]
) -> list[tuple[Rows, Rows]]:
    """(train, validation) items within the training items of a fold.

    The data's own validation part where it has one; else its other folds, so that groups stay apart, in three lots;
    else three stratified folds. Parts with nothing to tell apart are left out.
    """
    if fold.val:
        found = [(fold.train, fold.val)]
    else:
        others = [set(other.test) for other in folds if other is not fold]
        lots = [set().union(*others[first::INNER_FOLDS]) for first in range(min(INNER_FOLDS, len(others)))]
        if len(lots) < 2:
            own_ids, own_labels = [ids[i] for i in fold.train], [labels[i] for i in fold.train]
            count = min(INNER_FOLDS, len(fold.train))
            dealt = stratified_folds(own_ids, own_labels, count=count)
            lots = [{fold.train[i] for i in inner.test} for inner in dealt]
        parts = [[tuple(i for i in fold.train if (i in lot) is inside) for inside in (False, True)] for lot in lots]
        found = [(train, val) for train, val in parts]
    return [(train, val) for train, val in found if val and len({labels[i] for i in train}) > 1]


def validate_layers(
    inner: Sequence[tuple[Rows, Rows]], layers: int, accuracy: Callable[[int, Rows, Rows], float]
) -> list[float]:
    """Mean of `accuracy(layer, train, val)` over the inner folds for each layer; zeros where there is no inner fold."""
    if not inner:
        return [0.0] * layers
    return [float(np.mean([accuracy(layer, train, val) for train, val in inner])) for layer in range(layers)]


def best_layer(accuracies: Sequence[float]) -> int:
    """The best layer; of equals the last, which is also the choice where nothing could be validated."""
    return len(accuracies) - 1 - int(np.argmax(accuracies[::-1]))
