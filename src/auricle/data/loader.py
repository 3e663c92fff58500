"""A loader whose batches are a pure function of (seed, step).

The samples of an epoch are `slots`: each clip once, or, to pretrain on clips of very different lengths, once per crop
that fits into it; or as many clips drawn by weight, so that rare classes come as often as common ones. Step s of a run
takes slots `s * B ... s * B + B - 1` of an endless sequence of epochs in random order, so a position is one number, and
any number of workers delivers the same batches in the same order. Where clips are of different lengths, a batch holds
clips of like length (`data/buckets.py`).
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from auricle import audio
from auricle.audio.augment import central_crop, mix_waveforms
from auricle.audio.read import Channel
from auricle.data.batch import Batch, Stream
from auricle.data.buckets import buckets_of, by_length
from auricle.data.items import AudioRef, Event, Item, events_between
from auricle.data.randomness import Draw, generator
from auricle.data.targets import mix_targets
from auricle.data.workers import doing, read_ahead
from auricle.errors import AudioError, ConfigError, DataError

# Clips up to this length are read whole and kept; of longer ones, only the crop is read.
WHOLE_SECONDS = 60.0
# Durations written in a manifest are often rounded; a crop keeps this many seconds from the stated end.
DURATION_ROUNDING = 0.05
REPLACEMENT_TRIES = 20

# Samples, target and events of a clip.
Clip = tuple[NDArray[np.float32], NDArray[np.float32] | None, tuple[Event, ...] | None]


@dataclass(frozen=True)
class Sample:
    """One clip as a worker returns it."""

    wave: NDArray[np.float32]
    target: NDArray[np.float32] | None
    events: tuple[Event, ...] | None
    id: str
    epoch: int
    index: int
    replaced: tuple[tuple[str, str], ...]
    partners: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class Key:
    """Which sample: slot `slot` of the data, drawn as number `index` of `epoch`."""

    epoch: int
    index: int
    slot: int


class ClipDataset:
    """Reads, crops and mixes one clip; lives in the workers."""

    def __init__(
        self,
        items: Sequence[Item],
        slots: NDArray[np.int64],
        *,
        rate: int,
        crop_seconds: float,
        seed: int,
        targets: NDArray[np.float32] | None,
        events: Sequence[tuple[Event, ...] | None] | None,
        mixup: float,
        mixup_alpha: float,
        partners: int,
        central: bool,
        cache_mb: int,
    ) -> None:
        self.items, self.slots, self.targets, self.events = list(items), slots, targets, events
        self.partners, self.central, self.alpha = partners, central, mixup_alpha
        self.rate, self.crop, self.seed, self.mixup = rate, round(crop_seconds * rate), seed, mixup
        self.kinds = _annotations(len(items), targets, events)
        self.alike = {int(kind): np.flatnonzero(self.kinds == kind) for kind in np.unique(self.kinds)}
        self.cache = WaveCache(cache_mb * 2**20)

    def __getitem__(self, key: Key) -> Sample:
        """The sample of a key; an unreadable file is replaced by another slot, chosen by a rule of the key alone."""
        item = int(self.slots[key.slot])
        replaced: list[tuple[str, str]] = []
        for attempt in range(REPLACEMENT_TRIES):
            try:
                heard = self._read_mixed(item, key, attempt)
                partners = tuple(self._read_partner(number, key, attempt) for number in range(self.partners))
                break
            except AudioError as error:
                replaced.append((error.path, error.reason))
                rng = generator(self.seed, "replace", key.epoch, key.index, attempt)
                item = int(self.slots[rng.integers(len(self.slots))])
        else:
            first = "; ".join(f"{path}: {reason}" for path, reason in replaced[:3])
            raise DataError(f"{REPLACEMENT_TRIES} files in a row cannot be read, the first ones being {first}.")
        return Sample(*heard, self.items[item].id, key.epoch, key.index, tuple(replaced), partners)

    def _read_mixed(self, item: int, key: Key, attempt: int) -> Clip:
        wave, target, events = self._read_crop(item, generator(self.seed, "crop", key.epoch, key.index))
        rng = generator(self.seed, "mixup", key.epoch, key.index, *_retry(attempt))
        if self.mixup and rng.random() < self.mixup:
            # SSAST draws the partner from the whole set and the weight from Beta(10, 10), the default (section 1.4).
            # Clips of unlike annotation are not mixed: what is known of one of them would be lost.
            alike = self.alike[int(self.kinds[item])]
            partner, weight = int(alike[rng.integers(len(alike))]), float(rng.beta(self.alpha, self.alpha))
            other, others_target, more = self._read_crop(partner, rng)
            wave = mix_waveforms(wave, other, weight)
            if target is not None and others_target is not None:
                # What sounds is detected however loud it is.
                loud = np.maximum(target, others_target)
                target = mix_targets(target, others_target, weight) if self.events is None else loud
            seconds = len(wave) / self.rate
            events = None if events is None or more is None else (*events, *events_between(more, 0.0, seconds))
        return wave, target, events

    def _read_partner(self, number: int, key: Key, attempt: int) -> Sample:
        """Another clip, drawn and cropped as any."""
        rng = generator(self.seed, "partner", key.epoch, key.index, number, *_retry(attempt))
        item = int(self.slots[rng.integers(len(self.slots))])
        return Sample(*self._read_crop(item, rng), self.items[item].id, key.epoch, key.index, ())

    def _read_crop(self, index: int, rng: np.random.Generator) -> Clip:
        """The samples of a crop, its target, and its events where they are known."""
        wave, start = self._read_stretch(index, rng)
        target = None if self.targets is None else self.targets[index]
        events = None if self.events is None else self.events[index]
        if events is not None:
            events = events_between(events, start, start + len(wave) / self.rate)
        return wave, target, events

    def _read_stretch(self, index: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], float]:
        """The samples of a crop, and where it begins in its item, in seconds."""
        ref = self.items[index].streams["audio"]
        doing(f"reading {ref.path}")
        duration = self.items[index].duration
        if duration > WHOLE_SECONDS and self.crop / self.rate < duration:
            place = 0.5 if self.central else rng.random()
            within = place * max(0.0, duration - self.crop / self.rate - DURATION_ROUNDING)
            start = ref.start + within
            wave = read_stretch(ref, self.rate, start, start + self.crop / self.rate)
            return wave[: self.crop], within
        wave = self.cache.get(self.items[index], self.rate)
        if len(wave) <= self.crop:
            return wave, 0.0
        if self.central:
            return central_crop(wave, self.crop), (len(wave) - self.crop) // 2 / self.rate
        start_sample = int(rng.integers(len(wave) - self.crop + 1))
        return wave[start_sample : start_sample + self.crop], start_sample / self.rate


def _annotations(
    items: int, targets: NDArray[np.float32] | None, events: Sequence[tuple[Event, ...] | None] | None
) -> NDArray[np.int64]:
    """What is known of each clip [items]: its events (0), only what sounds in it (1), or nothing (2); else all 0."""
    if events is None or targets is None:
        return np.zeros(items, dtype=np.int64)
    timed = np.array([known is not None for known in events])
    return np.where(timed, 0, np.where(np.isnan(targets).any(1), 2, 1))


def _retry(attempt: int) -> tuple[int, ...]:
    """What makes each attempt a draw of its own: otherwise an unreadable partner would come back every time."""
    return (attempt,) if attempt else ()


class WaveCache:
    """Decoded clips, the least recently used dropped when they exceed `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.waves: OrderedDict[tuple[object, ...], NDArray[np.float32]] = OrderedDict()

    def get(self, item: Item, rate: int) -> NDArray[np.float32]:
        """The whole clip of an item, mono, at `rate`; raises AudioError where it cannot be read."""
        ref = item.streams["audio"]
        key = (ref.path, ref.start, ref.end, ref.channel, rate)
        if key in self.waves:
            self.waves.move_to_end(key)
            return self.waves[key]
        wave = read_item(item, rate)
        self.waves[key] = wave
        self.size += wave.nbytes
        while self.size > self.limit and self.waves:
            self.size -= self.waves.popitem(last=False)[1].nbytes
        return wave


def read_item(item: Item, rate: int) -> NDArray[np.float32]:
    """All of an item's audio, mono at `rate`: [samples] float32."""
    ref = item.streams["audio"]
    return read_stretch(ref, rate, ref.start, ref.end)


def read_stretch(ref: AudioRef, rate: int, start: float, end: float | None) -> NDArray[np.float32]:
    """The seconds [start, end) of a reference's file, in its channel, at `rate`: [samples] float32."""
    channel: Channel = "mean" if ref.channel is None else ref.channel
    wave: NDArray[np.float32] = audio.read(ref.path, rate=rate, start=start, end=end, channel=channel)[0]
    return wave


class Loader:
    """Endless deterministic batches for training.

    Args:
        items: the clips.
        rate: Hz of the waveforms in the batches.
        batch_size: B, over all processes.
        crop_seconds: longer clips are cropped at random.
        seed: of everything that is drawn.
        targets: [items, C] float targets, or None.
        events: for detection, those of each item, or None where they are not known.
        cover: give long clips as many slots per epoch as crops fit into them (pretraining), instead of one.
        mixup: probability of mixing a clip with another; where `events` are known of some, with one of its own kind.
        mixup_alpha: the clip's weight is drawn from Beta(alpha, alpha).
        partners: how many other clips, drawn at random, come with each as `Batch.partners`.
        central: crop the middle of a longer clip, not a random part.
        weights: [items], how often a clip is drawn relative to the others: as many per epoch as there are, with
            repetition. None: each once.
        workers: processes that read ahead; 0 reads in this one.
        share: (r, n) gives only the r-th of n parts of each batch, to the r-th of n processes that train together.
        cache_mb: memory for decoded clips, per process.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        rate: int,
        batch_size: int,
        crop_seconds: float,
        seed: int,
        targets: NDArray[np.float32] | None = None,
        events: Sequence[tuple[Event, ...] | None] | None = None,
        cover: bool = False,
        mixup: float = 0.0,
        mixup_alpha: float = 10.0,
        partners: int = 0,
        central: bool = False,
        weights: NDArray[np.float64] | None = None,
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
        cache_mb: int = 512,
    ) -> None:
        if not items:
            raise DataError("there is nothing to train on: the data holds no usable clip.")
        if workers < 0:
            raise ConfigError(f"workers must be 0 or more, got {workers}.")
        part, parts = share
        if batch_size < parts:
            raise ConfigError(
                f"a batch of {batch_size} cannot be shared by {parts} processes; raise batch_size or start fewer."
            )
        repeats = [max(1, math.ceil(item.duration / crop_seconds)) if cover else 1 for item in items]
        self.slots = np.repeat(np.arange(len(items), dtype=np.int64), repeats)
        self.rate, self.batch_size, self.seed, self.workers = rate, batch_size, seed, workers
        self.rows = slice(part * batch_size // parts, (part + 1) * batch_size // parts)
        self.steps_per_epoch = max(1, len(self.slots) // batch_size)
        self.buckets = buckets_of(np.array([item.duration for item in items]), crop_seconds)[self.slots]
        self.position = 0
        # Upper ends of the slots' shares of [0, 1).
        self.shares = None if weights is None else np.cumsum(weights[self.slots]) / weights[self.slots].sum()
        self.dataset = ClipDataset(
            items,
            self.slots,
            rate=rate,
            crop_seconds=crop_seconds,
            seed=seed,
            targets=targets,
            events=events,
            mixup=mixup,
            mixup_alpha=mixup_alpha,
            partners=partners,
            central=central,
            cache_mb=cache_mb,
        )

    def state_dict(self) -> dict[str, int]:
        """Everything there is to remember: how many batches have been taken."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def keys(self, start: int) -> Iterator[list[Key]]:
        """The keys of batch `start` and all after it."""
        epoch, order, indices = -1, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        slots = len(self.slots)
        step = start
        while True:
            keys = []
            for number in range(step * self.batch_size, (step + 1) * self.batch_size):
                if number // slots != epoch:
                    epoch = number // slots
                    order = self._order(epoch)
                    lead, rng = -epoch * slots % self.batch_size, generator(self.seed, "batches", epoch)
                    indices = by_length(self.buckets[order], self.batch_size, lead, rng)
                # The index is that of the order drawn: what a sample is does not depend on the batch it is in.
                index = int(indices[number % slots])
                keys.append(Key(epoch, index, int(order[index])))
            yield keys
            step += 1

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The slots of an epoch: each once, or drawn by their weights."""
        rng, slots = generator(self.seed, "order", epoch), len(self.slots)
        if self.shares is None:
            return rng.permutation(slots)
        # The last share may fall short of 1 by rounding.
        return np.minimum(np.searchsorted(self.shares, rng.random(slots), side="right"), slots - 1)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position on, without end."""
        start = self.position
        for samples in read_ahead(self.samples, self.workers, start) if self.workers else self.samples(start, 1):
            self.position += 1
            yield self.collate(samples)

    def samples(self, first: int, step: int) -> Iterator[list[Sample]]:
        """Batch number `first` of the run, and every `step`-th after it, not yet collated."""
        for keys in itertools.islice(self.keys(first), 0, None, step):
            yield [self.dataset[key] for key in keys[self.rows]]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples to a zero-padded batch."""
        lengths = torch.tensor([len(s.wave) for s in samples])
        waves = torch.zeros(len(samples), int(lengths.max()))
        for row, sample in enumerate(samples):
            waves[row, : len(sample.wave)] = torch.from_numpy(sample.wave)
        targets = [s.target for s in samples if s.target is not None]
        return Batch(
            streams={"audio": Stream(waves, lengths, self.rate)},
            draw=Draw(self.seed, tuple(s.epoch for s in samples), tuple(s.index for s in samples)),
            ids=tuple(s.id for s in samples),
            targets=torch.from_numpy(np.stack(targets)) if targets else None,
            events=None if self.dataset.events is None else tuple(s.events for s in samples),
            replaced=tuple(pair for s in samples for pair in s.replaced),
            partners=tuple(self.collate(others) for others in zip(*(s.partners for s in samples), strict=True)),
        )
