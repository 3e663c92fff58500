"""What a data set is: items with streams, labels and events, and the manifest that lists them.

A manifest is saved as JSON Lines: one header line, then one line per item, with paths relative to the data's folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from auricle.audio.read import Channel
from auricle.errors import DataError, did_you_mean, plural, printable
from auricle.files import atomic_path, sha256

FORMAT = "auricle-manifest"
VERSION = 1


def absolute(path: Path | str) -> Path:
    """`path` from the root of the file system, without `..`; links stay, since their names are those the user knows."""
    return Path(os.path.normpath(Path.cwd() / path))


@dataclass(frozen=True)
class AudioRef:
    """A stretch of a sound file.

    `path` is absolute; `start` and `end` are seconds (`end` None: to the end of the file); `channel` None: all of them,
    mixed down.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    channel: int | None = None


@dataclass(frozen=True, order=True)
class Event:
    """Something that sounds from `onset` to `offset`, in seconds from the start of its item."""

    onset: float
    offset: float
    label: str


def events_between(events: Iterable[Event], start: float, end: float) -> tuple[Event, ...]:
    """The events that sound from `start` to `end`, cut to that stretch and timed from its start."""
    return tuple(
        Event(max(event.onset, start) - start, min(event.offset, end) - start, event.label)
        for event in events
        if event.onset < end and event.offset > start
    )


@dataclass(frozen=True)
class Item:
    """One example: `streams` by name (`audio`), `labels` by column, `events` in time order, `duration` in seconds."""

    id: str
    streams: Mapping[str, AudioRef]
    labels: Mapping[str, str]
    events: tuple[Event, ...]
    duration: float

    def hearing(self, channel: Channel) -> Item:
        """The item with `channel` where its reference leaves it open; "mean" leaves it open."""
        if channel == "mean":
            return self
        streams = {
            name: dataclasses.replace(ref, channel=channel if ref.channel is None else ref.channel)
            for name, ref in self.streams.items()
        }
        return dataclasses.replace(self, streams=streams)

    def beginning(self, seconds: float) -> Item:
        """The item, ended after so many seconds if it is longer."""
        if self.duration <= seconds:
            return self
        streams = {name: dataclasses.replace(ref, end=ref.start + seconds) for name, ref in self.streams.items()}
        return dataclasses.replace(self, streams=streams, duration=seconds)


class Skipped(NamedTuple):
    """A file that was left out before it was decoded.

    `path` is absolute; `reason` one of `auricle.audio.REASONS`, `detail` a sentence on it, or empty.
    """

    path: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return printable(self.path) + f": {self.reason}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class Manifest:
    """The items of a data set, always in the order of their ids, so that an index means the same item on every machine.

    Attributes:
        root: the folder of the data; of several sources, the nearest folder that holds them all.
        source: what was read, in words for the user.
        skipped: the files that were left out because they are missing or cannot be read.
        roots: the folder of every source; a path enters the hash relative to the one that holds it.
        notes: what its reader has to say, a sentence each; neither saved nor in the hash.

    Raises:
        DataError: two items share an id.
    """

    items: tuple[Item, ...]
    root: Path
    source: str = ""
    skipped: tuple[Skipped, ...] = ()
    roots: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        # Sorted here, not by each reader: equal hashes promise equal order, on which resuming a run relies.
        object.__setattr__(self, "items", tuple(sorted(self.items, key=lambda item: item.id)))
        object.__setattr__(self, "roots", self.roots or (self.root,))
        repeated = [name for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise DataError(
                f"{self.source or self.root}: ids must be unique, but {len(repeated)} of them occur more than once "
                f"(first: '{repeated[0]}'); keep one entry for each."
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(item.id for item in self.items)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the label columns that any item has, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for item in self.items for name in item.labels))

    @property
    def hours(self) -> float:
        return sum(item.duration for item in self.items) / 3600

    @cached_property
    def hash(self) -> str:
        """64 hex digits over ids, references, file sizes, labels (splits among them) and events.

        Neither the order in which the data were listed nor the place of their folder changes it. It is quick, and does
        not see a file that was altered without a change of its size: `audio_hash` does.

        Raises:
            DataError: a file is gone.
        """
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(self._description(item))
        return digest.hexdigest()

    def hearing(self, channel: Channel) -> Manifest:
        """The manifest with `channel` in all references that leave it open."""
        return dataclasses.replace(self, items=tuple(item.hearing(channel) for item in self.items))

    @cached_property
    def audio_hash(self) -> str:
        """64 hex digits over what is heard: every byte of every file, and each item's stretch and channel, in order.

        Labels, ids, names and places do not enter it.

        Raises:
            DataError: a file is gone.
        """
        contents: dict[str, str] = {}
        digest = hashlib.sha256()
        for item in self.items:
            for name, ref in sorted(item.streams.items()):
                if ref.path not in contents:
                    contents[ref.path] = _content(ref.path)
                digest.update(json.dumps([name, contents[ref.path], ref.start, ref.end, ref.channel]).encode() + b"\n")
        return digest.hexdigest()

    def fingerprints(self) -> dict[str, str]:
        """12 hex digits for every id, over the same as `hash`: they tell which items differ between two manifests.

        Raises:
            DataError: a file is gone.
        """
        return {item.id: hashlib.sha256(self._description(item)).hexdigest()[:12] for item in self.items}

    def _description(self, item: Item) -> bytes:
        streams = {
            name: [self._relative(ref.path)[1], ref.start, ref.end, ref.channel, _size(ref.path)]
            for name, ref in item.streams.items()
        }
        events = [dataclasses.astuple(event) for event in item.events]
        line = json.dumps([item.id, streams, dict(item.labels), events], sort_keys=True)
        return line.encode() + b"\n"

    def require_all(self, purpose: str) -> None:
        """Refuse data of which a part cannot be read, for a `purpose` whose result is about all of it.

        Raises:
            DataError: files were left out; up to five are named.
        """
        if self.skipped:
            named = "; ".join(f"{printable(path)}: {reason}" for path, reason, _ in self.skipped[:5])
            raise DataError(
                f"{self.source}: {plural(len(self.skipped), 'file')} cannot be read ({named}); repair or remove them, "
                f"since {purpose} on the rest would be another task."
            )

    def labels_of(self, column: str) -> tuple[str, ...]:
        """The label of every item in `column`.

        Raises:
            DataError: no item has this column, or an item has nothing in it.
        """
        if column not in self.columns:
            have = (
                f"the columns are {', '.join(self.columns)}"
                if self.columns
                else "this data has no label columns: put a manifest.csv (path,label) there, or a folder per class"
            )
            raise DataError(f"{self.source}: no column '{column}'{did_you_mean(column, self.columns)}; {have}.")
        labels = tuple(item.labels.get(column, "") for item in self.items)
        empty = [item.id for item, label in zip(self.items, labels, strict=True) if not label]
        if empty:
            raise DataError(
                f"{self.source}: column '{column}' is empty for {len(empty)} of {len(self)} items (first: {empty[0]}); "
                f"fill these cells or remove these rows."
            )
        return labels

    def save(self, path: Path | str) -> None:
        """Write the manifest as JSON Lines, atomically.

        Saved inside or above the folder of the data, it moves with it; elsewhere, it holds the folder's absolute path.
        """
        path = absolute(path)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "root": _portable(self.root, path.parent),
            "roots": [_portable(root, path.parent) for root in self.roots],
            "skipped": [[*self._relative(name), *why] for name, *why in self.skipped],
        }
        with atomic_path(path) as partial, partial.open("w", encoding="ascii") as file:
            file.write(json.dumps(header) + "\n")
            for item in self.items:
                entry = dataclasses.asdict(item)
                for stream in entry["streams"].values():
                    stream["root"], stream["path"] = self._relative(stream["path"])
                file.write(json.dumps(entry) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Manifest:
        """Read what `save` wrote; the files it names are not looked at.

        Raises:
            DataError: the file is missing, is not such a manifest, or is damaged.
        """
        path = absolute(path)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise DataError(f"{path}: not a manifest: it is not text.") from None
        header = _parse(lines[0], path, 1) if lines else {}
        if header.get("format") != FORMAT:
            raise DataError(
                f'{path}: not a manifest of auricle: its first line must hold "format": "{FORMAT}"; '
                f"give a file that Manifest.save wrote, a CSV file or a folder."
            )
        if header.get("version") != VERSION:
            raise DataError(
                f"{path}: written as version {header.get('version')}, but this auricle reads version {VERSION}; "
                f"make it again from the data."
            )
        line = 1
        try:
            roots = tuple(Path(_join(path.parent, root)) for root in header["roots"])
            root = Path(_join(path.parent, header["root"]))
            # Version 1 began without details.
            skipped = tuple(Skipped(_join(roots[index], name), *why) for index, name, *why in header["skipped"])
            source = str(header["source"])
            items = []
            for line, text in enumerate(lines[1:], start=2):
                items.append(_item(_parse(text, path, line), roots))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(
                f"{path}: line {line} is not as auricle wrote it ({type(error).__name__}: {error}); "
                f"make the manifest again from the data."
            ) from None
        return cls(tuple(items), root, source, skipped, roots)

    def _relative(self, path: str) -> tuple[int, str]:
        """The index of the innermost root that holds `path` (the first, if none does) and the POSIX path from there."""
        holders = [index for index, root in enumerate(self.roots) if Path(path).is_relative_to(root)]
        index = max(holders, key=lambda i: len(self.roots[i].parts), default=0)
        try:
            return index, Path(os.path.relpath(path, self.roots[index])).as_posix()
        except ValueError:  # another drive than the root's
            return index, Path(path).as_posix()


def _item(entry: Mapping[str, Any], roots: tuple[Path, ...]) -> Item:
    streams = {
        str(name): AudioRef(_join(roots[ref["root"]], ref["path"]), ref["start"], ref["end"], ref["channel"])
        for name, ref in entry["streams"].items()
    }
    labels = {str(column): str(label) for column, label in entry["labels"].items()}
    events = tuple(Event(event["onset"], event["offset"], event["label"]) for event in entry["events"])
    return Item(str(entry["id"]), streams, labels, events, float(entry["duration"]))


def _parse(text: str, path: Path, line: int) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except json.JSONDecodeError:
        entry = None
    if not isinstance(entry, dict):
        raise DataError(f"{path}: line {line} is not a JSON object; it may be cut off or not a manifest of auricle.")
    return entry


def _portable(root: Path, folder: Path) -> str:
    """`root` relative to `folder` where one lies in the other and both are likely to move together; else absolute."""
    if root.is_relative_to(folder) or folder.is_relative_to(root):
        return Path(os.path.relpath(root, folder)).as_posix()
    return root.as_posix()


def _join(root: Path, path: str) -> str:
    return os.path.normpath(root / path)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise _gone(path, error) from None


def _content(path: str) -> str:
    try:
        return sha256(Path(path))
    except OSError as error:
        raise _gone(path, error) from None


def _gone(path: str, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror}; restore the file or read the data again.")
