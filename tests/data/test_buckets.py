"""Batches hold clips of like length: less is padded, and an epoch is still all of the data once."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from auricle.data.buckets import buckets_of, by_length
from auricle.data.items import AudioRef, Item
from auricle.data.loader import Loader

CROP = 4.0


def loader(durations: list[float], batch_size: int = 8, seed: int = 0) -> Loader:
    """A loader of clips that are never read."""
    items = [
        Item(f"{i:04d}", {"audio": AudioRef(f"/none/{i}.wav")}, {}, (), duration)
        for i, duration in enumerate(durations)
    ]
    return Loader(items, rate=8000, batch_size=batch_size, crop_seconds=CROP, seed=seed)


def mixed(count: int) -> list[float]:
    return np.random.default_rng(0).uniform(0.1, 4.5, count).tolist()


def padded_share(batches: list[list[float]]) -> float:
    heard = sum(sum(batch) for batch in batches)
    return 1 - heard / sum(len(batch) * max(batch) for batch in batches)


def taken(source: Loader, batches: int) -> list[list[int]]:
    return [[key.slot for key in keys] for keys in itertools.islice(source.keys(0), batches)]


def test_a_bucket_is_an_eighth_of_the_crop() -> None:
    lengths = np.array([0.01, 0.5, 0.51, 3.9, 4.0, 60.0])
    assert buckets_of(lengths, CROP).tolist() == [1, 1, 2, 8, 8, 8]


def test_clips_of_one_length_keep_their_order() -> None:
    same = by_length(np.full(100, 8), 8, 3, np.random.default_rng(2))
    assert same.tolist() == list(range(100))


@pytest.mark.parametrize(("count", "batch_size"), [(403, 8), (50, 16), (5, 8)])
def test_every_clip_comes_once_per_epoch(count: int, batch_size: int) -> None:
    source = loader(mixed(count), batch_size)
    numbers = itertools.chain.from_iterable(taken(source, 3 * count // batch_size + 1))
    for _ in range(3):
        assert Counter(itertools.islice(numbers, count)) == Counter(range(count))


def test_little_is_padded_in_the_first_epoch_and_in_later_ones() -> None:
    durations = mixed(803)
    heard = np.minimum(durations, CROP)
    batches = [[float(heard[slot]) for slot in batch] for batch in taken(loader(durations), 300)]
    order = np.random.default_rng(3).permutation(len(heard))
    random = [[float(heard[slot]) for slot in batch] for batch in order[:800].reshape(-1, 8)]
    assert padded_share(random) > 0.25
    for start in (0, 100, 200):
        assert padded_share(batches[start : start + 100]) < 0.12


def test_batches_come_in_no_order_of_length() -> None:
    durations = mixed(800)
    longest = [max(durations[slot] for slot in batch) for batch in taken(loader(durations), 16)]
    assert longest != sorted(longest)
    assert longest != [max(durations[slot] for slot in batch) for batch in taken(loader(durations, seed=1), 16)]


def test_any_position_can_be_the_first() -> None:
    source = loader(mixed(203))
    straight = list(itertools.islice(source.keys(0), 90))
    for start in (1, 24, 25, 26, 77):
        assert next(source.keys(start)) == straight[start]
