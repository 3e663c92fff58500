"""A glance at what a network in pretraining has learned: the accuracy of nearest neighbours on a few labelled clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from auricle.data.items import Item
from auricle.data.loader import read_item
from auricle.data.randomness import key
from auricle.data.splits import Fold
from auricle.errors import DataError
from auricle.evaluation.readout import probe_features, readable
from auricle.evaluation.task import Task
from auricle.methods.base import AudioEncoder
from auricle.tasks.windows import clip_means
from auricle.training.precision import autocast, resolve_precision

# What bounds the time of a look: ten minutes of audio.
CLIPS = 200
SECONDS = 3.0


class Monitor:
    """Called with an encoder, it returns `{"knn_accuracy": ...}`, by the head `knn` on the split that the data states.

    At most 200 clips are looked at, chosen by a hash of their ids so that classes are alike, and of each the first
    three seconds, pooled as the method pools. They are read once and stay in memory (at most 38 MB at 16 kHz). Nothing
    is drawn, and no weight is touched: a training goes the same way with and without it.

    Attributes:
        facts: what a run records about it: data, clips, classes, and the accuracy of guessing (`chance`).

    Raises:
        DataError: the data has no column `label`, one class, or too little of a fold to train and test on.
    """

    def __init__(self, data: str | Path | Sequence[str | Path]) -> None:
        task = Task.read([data] if isinstance(data, str | Path) else data)
        chosen = set(_choose(task))
        parts = [
            Fold(f.name, tuple(i for i in f.train if i in chosen), (), tuple(i for i in f.test if i in chosen))
            for f in task.folds
        ]
        usable = [f for f in parts if f.test and len({task.labels[i] for i in f.train}) > 1]
        if not usable:
            raise DataError(f"{task.manifest.source}: too few labelled clips to monitor with; give more or other data.")
        self.task = Task(task.manifest, task.label, task.labels, tuple(usable), task.protocol)
        self.rows = sorted({i for f in usable for i in (*f.train, *f.test)})
        classes = len({task.labels[i] for i in self.rows})
        self.facts: dict[str, Any] = {
            "data": task.manifest.source,
            "hash": task.manifest.hash,
            "split": task.protocol,
            "clips": len(self.rows),
            "classes": classes,
            "chance": 1 / classes,
        }
        self._waves: list[NDArray[np.float32]] = []

    def __call__(self, encoder: AudioEncoder) -> dict[str, float]:
        """The accuracy on the test items of all folds."""
        device = next(encoder.parameters()).device

        def read(items: Sequence[Item]) -> list[NDArray[np.float32]]:
            rate = encoder.sample_rate
            chosen = (items[i].hearing(encoder.channel) for i in self.rows)
            return [read_item(_beginning(item), rate) for item in chosen]

        self._waves = self._waves or readable(read, self.task)
        training = encoder.training
        encoder.eval()
        with torch.random.fork_rng(devices=[]), autocast(resolve_precision("auto", device), device):
            values = clip_means(encoder, self._waves, device, lambda e: e.pooled.float(), ())
        encoder.train(training)
        features = np.zeros((len(self.task.manifest), values.shape[1]), np.float32)
        features[self.rows] = values
        return {"knn_accuracy": float(probe_features(self.task, features, "knn").correct.mean())}


def _choose(task: Task) -> list[int]:
    """Up to CLIPS items; where one part is for training and one for testing, half of each as far as they go."""
    if len(task.folds) > 1:
        return _alike(task, range(len(task.manifest)), CLIPS)
    (fold,) = task.folds
    test = _alike(task, fold.test, max(CLIPS // 2, CLIPS - len(fold.train)))
    return test + _alike(task, fold.train, CLIPS - len(test))


def _alike(task: Task, indices: Sequence[int], count: int) -> list[int]:
    """`count` of the items, one class after the other, each in the order of a hash of the ids."""
    order = sorted(indices, key=lambda i: key(0, "monitor", task.manifest[i].id))
    place: dict[str, int] = {}
    turn = {}
    for i in order:
        turn[i] = place[task.labels[i]] = place.get(task.labels[i], -1) + 1
    return sorted(order, key=lambda i: (turn[i], key(0, "class", task.labels[i])))[:count]


def _beginning(item: Item) -> Item:
    ref = item.streams["audio"]
    end = ref.start + SECONDS
    if item.duration <= SECONDS or (ref.end is not None and ref.end <= end):
        return item
    return dataclasses.replace(item, streams={"audio": dataclasses.replace(ref, end=end)}, duration=SECONDS)
