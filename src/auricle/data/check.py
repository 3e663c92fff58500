"""What a data set really holds: every file decoded whole, measured, and compared with the others."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auricle import audio
from auricle.data.events import untaught
from auricle.data.fingerprint import MOST_SECONDS, Words, fingerprint, near_duplicates
from auricle.data.items import Item, Manifest
from auricle.data.labels import read_labels
from auricle.data.processes import detached, forkserver
from auricle.data.splits import SPLIT_COLUMN, role_of
from auricle.errors import AudioError, DataError

# Columns whose values say who or what was recorded: a value in two splits is a leak.
GROUP_COLUMNS = ("speaker", "speaker_id", "spk", "subject", "singer", "artist", "session", "source", "group")
FULL_SCALE = 0.999
SILENT_DB = -60.0
LEVEL_SECONDS = 0.025
# Shares and levels from which a sound is worth a look.
MOSTLY_SILENT, CLIPPED, OFFSET, STATED = 0.95, 0.001, 0.01, 0.1
BATCH = 16


@dataclass(frozen=True)
class Sound:
    """What decoding an item showed.

    Attributes:
        seconds: decoded length; `rate` in Hz, `channels` and `format` as the header says.
        peak, rms: dB below full scale, over all channels; -inf for digital silence.
        silent: share of its time below -60 dBFS; `clipped`: share of samples at full scale; `offset`: mean sample (DC).
        digest: of the decoded samples, whatever the container.
    """

    id: str
    path: str
    seconds: float
    rate: int
    channels: int
    format: str
    peak: float
    rms: float
    silent: float
    clipped: float
    offset: float
    digest: str
    words: Words


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used; `reason` is one of `auricle.audio.REASONS`, or "crash" where the decoder died.

    `path` is the name that opens the file, which may hold characters that cannot be printed.
    """

    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Duplicate:
    """Two items with the same sound: equal samples, or a near copy that differs in a share `bit_errors`."""

    first: str
    second: str
    splits: tuple[str, str]
    labels: tuple[str, str]
    bit_errors: float = 0.0
    offset: float = 0.0

    @property
    def across_splits(self) -> bool:
        return self.splits[0] != self.splits[1]


@dataclass(frozen=True)
class Leak:
    """Values of a column that occur in more than one split, and which."""

    column: str
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Findings:
    """Everything `check` found.

    `event_errors` are why a detector cannot be trained on the events, `event_notes` what it would leave out of them.
    """

    manifest: Manifest
    sounds: tuple[Sound, ...]
    bad: tuple[BadFile, ...]
    duplicates: tuple[Duplicate, ...]
    near_duplicates: tuple[Duplicate, ...]
    leaks: tuple[Leak, ...]
    event_errors: tuple[str, ...] = ()
    event_notes: tuple[str, ...] = ()

    @property
    def hours(self) -> float:
        return sum(sound.seconds for sound in self.sounds) / 3600

    @property
    def silent(self) -> list[Sound]:
        return [s for s in self.sounds if s.silent > MOSTLY_SILENT]

    @property
    def clipped(self) -> list[Sound]:
        return [s for s in self.sounds if s.clipped > CLIPPED]

    @property
    def shifted(self) -> list[Sound]:
        """Sounds with a DC offset."""
        return [s for s in self.sounds if abs(s.offset) > OFFSET]

    @property
    def misstated(self) -> list[tuple[Sound, float]]:
        """Sounds whose stated duration is wrong by more than 0.1 s, with what was stated."""
        stated = {item.id: item.duration for item in self.manifest}
        return [(s, stated[s.id]) for s in self.sounds if abs(s.seconds - stated[s.id]) > STATED]

    @property
    def usable(self) -> Manifest:
        """The data without the files that cannot be used."""
        sound = {s.id for s in self.sounds}
        items = tuple(item for item in self.manifest if item.id in sound)
        return dataclasses.replace(self.manifest, items=items, skipped=())

    def counts(self, column: str) -> dict[str, int]:
        """How many items have each value of a label column, the most frequent first."""
        return dict(Counter(item.labels.get(column, "") for item in self.manifest).most_common())


def check(
    manifest: Manifest,
    *,
    label: str = "label",
    split_column: str = SPLIT_COLUMN,
    group_columns: Sequence[str] = GROUP_COLUMNS,
    processes: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Findings:
    """Decode every item and look for what spoils training or its evaluation.

    Args:
        group_columns: columns with speakers, sources and the like; a value in two splits is a leak.
        processes: how many decode at once; 0: one for each core.
        progress: called with the number of items done, now and then.
    """
    sounds: list[Sound] = []
    bad = [BadFile(*skipped) for skipped in manifest.skipped]
    for done, outcome in enumerate(decode_all(manifest.items, processes or os.cpu_count() or 1), start=1):
        if isinstance(outcome, Sound):
            sounds.append(outcome)
        else:
            bad.append(outcome)
        progress(done)
    items = {item.id: item for item in manifest}
    heard = [s for s in sounds if s.peak > -math.inf]

    def duplicate(first: Sound, second: Sound, bit_errors: float = 0.0, offset: float = 0.0) -> Duplicate:
        pair = items[first.id], items[second.id]
        splits = pair[0].labels.get(split_column, ""), pair[1].labels.get(split_column, "")
        labels = pair[0].labels.get(label, ""), pair[1].labels.get(label, "")
        return Duplicate(first.id, second.id, splits, labels, bit_errors, offset)

    same: dict[str, list[Sound]] = defaultdict(list)
    for sound in heard:
        same[sound.digest].append(sound)
    equal = [duplicate(group[0], other) for group in same.values() for other in group[1:]]
    # Of sounds that are equal, one stands for all.
    distinct = [group[0] for group in same.values()]
    near = [
        duplicate(distinct[m.first], distinct[m.second], m.bit_errors, m.offset)
        for m in near_duplicates([s.words for s in distinct])
    ]
    leaks = tuple(_leaks(manifest, split_column, group_columns))
    bad.sort(key=lambda b: b.path)
    events = _event_troubles(manifest, label, split_column)
    return Findings(manifest, tuple(sounds), tuple(bad), tuple(equal), tuple(near), leaks, *events)


def _event_troubles(manifest: Manifest, label: str, split_column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not any(item.events for item in manifest):
        return (), ()
    try:
        labels = read_labels(manifest, label, "detection")
    except DataError as error:
        return (str(error),), ()
    notes = list(labels.notes)
    if split_column in manifest.columns:
        parts: dict[str | None, list[int]] = defaultdict(list)
        for index, item in enumerate(manifest):
            parts[role_of(item.labels.get(split_column, ""))].append(index)
        if parts["train"]:
            notes.append(untaught(labels.classes(labels.strong(parts["test"])), labels.classes(parts["train"])))
    return (), tuple(note for note in notes if note)


def _leaks(manifest: Manifest, split_column: str, group_columns: Sequence[str]) -> Iterator[Leak]:
    if split_column not in manifest.columns:
        return
    known = {column.lower(): column for column in manifest.columns if column != split_column}
    for column in (known[name.lower()] for name in group_columns if name.lower() in known):
        splits: dict[str, set[str]] = defaultdict(set)
        for item in manifest:
            if item.labels.get(column):
                splits[item.labels[column]].add(item.labels.get(split_column, ""))
        shared = {value: tuple(sorted(found)) for value, found in splits.items() if len(found) > 1}
        if shared:
            yield Leak(column, shared)


def decode_all(items: Sequence[Item], processes: int) -> Iterator[Sound | BadFile]:
    """`inspect` each item, in order, several at a time, in memory that does not grow with their number.

    Decoders are C code, and a broken file may end the process that reads it: then its batch is gone through again, each
    file in a process of its own, to find which it was.
    """
    batches = [items[at : at + BATCH] for at in range(0, len(items), BATCH)]
    done = 0
    while done < len(batches):
        try:
            for outcomes in _decode_batches(batches[done:], processes):
                yield from outcomes
                done += 1
        except BrokenProcessPool:
            yield from map(_inspect_alone, batches[done])
            done += 1


def _decode_batches(batches: Sequence[Sequence[Item]], processes: int) -> Iterator[list[Sound | BadFile]]:
    with ProcessPoolExecutor(processes, mp_context=forkserver(__name__)) as pool:
        ahead: deque[Future[list[Sound | BadFile]]] = deque()
        for batch in batches:
            with detached():
                ahead.append(pool.submit(_inspect_batch, batch))
            if len(ahead) > 4 * processes:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _inspect_alone(item: Item) -> Sound | BadFile:
    with ProcessPoolExecutor(1, mp_context=forkserver(__name__)) as pool:
        try:
            with detached():
                future = pool.submit(inspect, item)
            return future.result()
        except BrokenProcessPool:
            return BadFile(item.streams["audio"].path, "crash", "the decoder crashed or was killed on this file")


def _inspect_batch(items: Sequence[Item]) -> list[Sound | BadFile]:
    return [inspect(item) for item in items]


def inspect(item: Item) -> Sound | BadFile:
    """Decode one item whole, in blocks, and measure it."""
    ref = item.streams["audio"]
    digest, meter, beginning = hashlib.sha256(), _Meter(), _Beginning()
    try:
        with audio.decoded(ref.path, start=ref.start, end=ref.end) as (info, blocks):
            for block in blocks:
                digest.update(np.ascontiguousarray(block).data)
                meter.add(block, info.rate)
                beginning.add(block, info.rate)
    except AudioError as error:
        return BadFile(ref.path, error.reason, error.detail)
    return Sound(
        item.id,
        ref.path,
        seconds=meter.frames / info.rate,
        rate=info.rate,
        channels=info.channels,
        format=f"{info.format} {info.subtype}",
        peak=_decibels(meter.peak),
        rms=_decibels(math.sqrt(meter.energy / meter.samples)),
        silent=meter.silent / meter.windows,
        clipped=meter.clipped / meter.samples,
        offset=meter.total / meter.samples,
        digest=digest.hexdigest()[:32],
        words=fingerprint(beginning.wave(), info.rate),
    )


class _Meter:
    """Levels of a sound that arrives in blocks [frames, channels]."""

    def __init__(self) -> None:
        self.frames = self.samples = self.clipped = self.windows = self.silent = 0
        self.peak = self.energy = self.total = 0.0

    def add(self, block: NDArray[np.float32], rate: int) -> None:
        size = np.abs(block)
        self.frames += len(block)
        self.samples += block.size
        self.clipped += int((size >= FULL_SCALE).sum())
        self.peak = max(self.peak, float(size.max()))
        self.energy += float(np.vdot(block, block))
        self.total += float(block.sum(dtype=np.float64))
        window = max(1, round(LEVEL_SECONDS * rate))
        edges = np.arange(0, len(block), window)
        energy = np.add.reduceat(np.einsum("tc,tc->t", block, block), edges)
        energy /= block.shape[1] * np.diff(np.r_[edges, len(block)])
        self.windows += len(edges)
        self.silent += int((energy < 10 ** (SILENT_DB / 10)).sum())


class _Beginning:
    """What of a sound has a fingerprint that arrives in blocks, mixed down."""

    def __init__(self) -> None:
        self.parts: list[NDArray[np.float32]] = []
        self.frames = 0

    def add(self, block: NDArray[np.float32], rate: int) -> None:
        if self.frames < MOST_SECONDS * rate:
            self.parts.append(audio.one_channel(block))
            self.frames += len(block)

    def wave(self) -> NDArray[np.float32]:
        return np.concatenate(self.parts)


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
