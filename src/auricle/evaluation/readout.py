"""A head trained and tested on each fold of a task, on one layer, the best layer, or a learned mix.

N clips, L layers, K values per clip and layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from auricle.data.items import Item
from auricle.data.splits import Fold
from auricle.errors import AudioError, DataError
from auricle.evaluation import heads
from auricle.evaluation.cache import Cache, embedding_key
from auricle.evaluation.classify import Predictions, mean_accuracy
from auricle.evaluation.layers import Reading, Rows, best_layer, inner_folds, validate_layers
from auricle.evaluation.results import quantity
from auricle.evaluation.task import Task
from auricle.inference.model import Model

Array = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Readout:
    """What a head found in one network: a run per seed, and a row for each layer where several were read.

    Rows of `best`: `layer` (from 1), `accuracy` on the test items, `validation` (mean accuracy on the inner validation
    items), `chosen` (in how many folds). Rows of `mix`: `layer`, and `weight` with its lowest and highest value over
    folds and seeds.
    """

    runs: tuple[Predictions, ...]
    layers: tuple[dict[str, Any], ...] = ()


def read_out(task: Task, features: Array, head: str, reading: Reading, seeds: Sequence[int] = (0,)) -> Readout:
    """Read features [N, L, K] of the reading's layers with a head.

    Raises:
        ConfigError: the head cannot train a mix.
        DataError: the training items of a fold are all of one class.
    """
    if reading.use == "best":
        return _best(task, features, head, reading, seeds)
    if reading.use == "one":
        return Readout(tuple(probe_features(task, features[:, 0], head, seed) for seed in seeds))
    runs, weights = [], []
    for seed in seeds:
        parts = [_fold(task, fold, features, head, seed) for fold in task.folds]
        runs.append(_join([predictions for predictions, _ in parts]))
        weights += [fitted.mixture for _, fitted in parts]
    table = np.stack([w for w in weights if w is not None])
    rows = [
        {"layer": layer + 1, "weight": quantity(column.mean(), column.min(), column.max())}
        for layer, column in zip(reading.layers, table.T, strict=True)
    ]
    return Readout(tuple(runs), tuple(rows))


def probe_features(task: Task, features: Array, head: str, seed: int = 0) -> Predictions:
    """Train the head on each fold's training items, predict its test items: every test item once.

    Features are [N, K], or [N, L, K] for a learned mix of layers.

    Raises:
        DataError: the training items of a fold are all of one class.
    """
    return _join([_fold(task, fold, features, head, seed)[0] for fold in task.folds])


def embed_task(model: Model, task: Task, reading: Reading | None = None, cache: Cache | None = None) -> Array:
    """Clip embeddings of all items: [N, K] as the method pools, or [N, L, K] of a reading's layers.

    Raises:
        AudioError: an item cannot be read.
    """
    layers = reading.layers if reading else (model.encoder.num_layers - 1,)
    pooling = reading.pooling if reading else "own"

    def compute() -> Array:
        return readable(lambda items: model.embed_layers(items, layers, pooling), task)

    found = cache.get(embedding_key(model, task.manifest, layers, pooling), compute) if cache else compute()
    return found if reading else found[:, 0]


def readable(embed: Callable[[Sequence[Item]], T], task: Task) -> T:
    """`embed` of all items; an unreadable one is refused with what to do about it."""
    try:
        return embed(task.manifest.items)
    except AudioError as error:
        # A probe on part of the clips would be another task: its result could not be compared.
        raise AudioError(
            error.path, error.reason, f"{error.detail} (remove the file from the data to probe without it)"
        ) from None


def _best(task: Task, features: Array, head: str, reading: Reading, seeds: Sequence[int]) -> Readout:
    """Each layer probed; the test items of a fold are predicted by the layer that its training items prefer."""
    count = len(reading.layers)

    def accuracy(layer: int, train: Rows, val: Rows) -> float:
        inner = Fold("inner", train, (), val)
        return float(_fold(task, inner, features[:, layer], head, seeds[0])[0].correct.mean())

    validation, chosen = [], []
    for fold in task.folds:
        inner = inner_folds(fold, task.folds, task.manifest.ids, task.labels)
        validation.append(validate_layers(inner, count, accuracy))
        chosen.append(best_layer(validation[-1]))
    # [seed][layer][fold]
    all_parts = [
        [[_fold(task, fold, features[:, layer], head, seed)[0] for fold in task.folds] for layer in range(count)]
        for seed in seeds
    ]
    runs = tuple(_join([parts[layer][fold] for fold, layer in enumerate(chosen)]) for parts in all_parts)
    rows = [
        {
            "layer": reading.layers[layer] + 1,
            "accuracy": mean_accuracy([_join(parts[layer]) for parts in all_parts]),
            "validation": float(np.mean([row[layer] for row in validation])),
            "chosen": chosen.count(layer),
        }
        for layer in range(count)
    ]
    return Readout(runs, tuple(rows))


def _fold(task: Task, fold: Fold, features: Array, head: str, seed: int) -> tuple[Predictions, heads.Fitted]:
    train, test = list(fold.train), list(fold.test)
    known = [task.labels[i] for i in train]
    if len(set(known)) < 2:
        raise DataError(
            f"fold '{fold.name}': all {len(train)} training items have the label '{known[0]}', so there is nothing "
            f"to tell apart; choose another --split-column or --group-column."
        )
    fitted = heads.fit(head, features[train], known, seed)
    values = fitted.scores(features[test])
    return Predictions(
        ids=tuple(task.manifest[i].id for i in test),
        truth=tuple(task.labels[i] for i in test),
        predicted=tuple(fitted.classes[i] for i in values.argmax(1)),
        scores=tuple(values.max(1).tolist()),
    ), fitted


def _join(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        ids=tuple(i for part in parts for i in part.ids),
        truth=tuple(t for part in parts for t in part.truth),
        predicted=tuple(p for part in parts for p in part.predicted),
        scores=tuple(s for part in parts for s in part.scores),
    )
