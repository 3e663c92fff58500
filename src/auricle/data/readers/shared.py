"""What all readers share: walking folders, finding the files that lists name, and making the manifest of them."""

from __future__ import annotations

import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auricle.audio.read import probe
from auricle.data.items import AudioRef, Event, Item, Manifest, Skipped
from auricle.errors import AudioError, DataError

# What libsndfile decodes, then what needs the extra `video`.
EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64")
COMPRESSED = (".m4a", ".aac", ".wma")
VIDEO = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")

# How sure a reader is: the user's own manifest; files that only this layout has; names of folders; nothing better.
OWN, CERTAIN, LIKELY, FALLBACK = 4, 3, 2, 1


@dataclass(frozen=True)
class Match:
    """A reader's claim on a path: how sure it is, and in words for the user what it saw."""

    confidence: int
    why: str


@dataclass(frozen=True)
class Entry:
    """One line of a corpus's own list, before its file was looked at.

    `file` is the absolute path, or None if it was not found; then `name` is where it should be, absolute or from the
    corpus's root. `end` and `duration` None: from the header of the file.
    """

    id: str
    name: str
    file: str | None
    labels: Mapping[str, str]
    events: tuple[Event, ...] = ()
    start: float = 0.0
    end: float | None = None
    duration: float | None = None
    channel: int | None = None


def manifest_of(
    source: Path, root: Path, entries: Iterable[Entry], published: Mapping[str, int] | None = None
) -> Manifest:
    """The manifest of a corpus's entries; files that are missing or unreadable are listed in `skipped`.

    `published` holds how many clips the corpus is known to have, by value of the column `split` ("clips": in all); the
    manifest's notes compare.
    """
    items: list[Item] = []
    skipped: dict[str, Skipped] = {}
    lengths: dict[str, float] = {}
    for entry in entries:
        if entry.file is None:
            place = os.path.normpath(root / entry.name)
            skipped[place] = Skipped(place, "missing")
            continue
        duration = entry.duration
        if duration is None and entry.end is not None:
            duration = entry.end - entry.start
        if duration is None:
            try:
                if entry.file not in lengths:
                    lengths[entry.file] = probe(entry.file).duration
            except AudioError as error:
                skipped[entry.file] = Skipped(entry.file, error.reason, error.detail)
                continue
            duration = lengths[entry.file] - entry.start
        reference = AudioRef(entry.file, entry.start, entry.end, entry.channel)
        labels = {name: label for name, label in entry.labels.items() if label}
        items.append(Item(entry.id, {"audio": reference}, labels, tuple(sorted(entry.events)), duration))
    have = {"clips": len(items), **Counter(item.labels.get("split", "") for item in items)}
    notes = (compare(have, published),) if published else ()
    return Manifest(tuple(items), root, str(source), tuple(skipped.values()), notes=notes)


def compare(have: Mapping[str, int], published: Mapping[str, int]) -> str:
    """Whether a corpus is complete, and how much of each of its parts is there: of the published counts, by name."""
    parts = [f"{have.get(name, 0):,} of {count:,} published {name}" for name, count in published.items()]
    complete = all(have.get(name, 0) == count for name, count in published.items())
    return ("complete: " if complete else "not the whole corpus: ") + ", ".join(parts)


# Finding files ---------------------------------------------------------------------------------------------------


def spellings(name: str, folders: Sequence[Path]) -> Iterator[str]:
    """Absolute paths that `name` may mean, from each folder: as written; without blanks around it; with slashes; in the
    Unicode forms of Linux and macOS."""
    slashes = name.strip().replace("\\", "/")
    unicode_forms = (unicodedata.normalize("NFC", slashes), unicodedata.normalize("NFD", slashes))
    for form in dict.fromkeys((name, name.strip(), slashes, *unicode_forms)):
        for folder in folders:
            yield os.path.normpath(folder / form)


class Finder:
    """Finds what lists call files, from some folders; the first folder that has the file is taken."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self._stems: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The absolute path of `name`, if need be with another extension: corpora get converted, or upper-cased."""
        tried = list(dict.fromkeys(spellings(name, self.folders)))
        for path in tried:
            if os.path.isfile(path):  # noqa: PTH113 (called a million times)
                return path
        for path in tried:
            folder, base = os.path.split(path)
            stem = os.path.splitext(base)[0] if is_sound(base) else base  # noqa: PTH122
            found = self._sounds(folder).get(unicodedata.normalize("NFC", stem))
            if found is not None:
                return os.path.join(folder, found)  # noqa: PTH118
        return None

    def _sounds(self, folder: str) -> dict[str, str]:
        """Sound files of a folder by name without extension."""
        if folder not in self._stems:
            try:
                names = sorted(os.listdir(folder), reverse=True)  # noqa: PTH208
            except OSError:
                names = []
            sounds = [name for name in names if is_sound(name) and not is_clutter(name)]
            self._stems[folder] = {stem_of(name): name for name in sounds}
        return self._stems[folder]


def stem_of(name: str) -> str:
    """A file name without its extension, in one Unicode form."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])  # noqa: PTH122


def relative_id(file: str, root: Path) -> str:
    """The POSIX path from `root`; of a file elsewhere, its absolute path."""
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def is_sound(name: str) -> bool:
    """Whether a file name ends like sound or video, in any case."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS + COMPRESSED + VIDEO  # noqa: PTH122


def is_clutter(name: str) -> bool:
    """Hidden files (macOS resource forks `._name` among them) and what macOS puts in zip archives."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(root: Path) -> Iterator[Path]:
    """Files below `root` in sorted order, through links but never twice through the same folder."""

    def stop(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}.")

    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not is_clutter(name))
        yield from (Path(folder, name) for name in sorted(names) if not is_clutter(name))


def visible(folder: Path, pattern: str) -> list[Path]:
    """Sorted matches of a pattern, without clutter; none where there is no such folder."""
    return sorted(
        path for path in folder.glob(pattern) if not any(is_clutter(p) for p in path.relative_to(folder).parts)
    )


# Cells -----------------------------------------------------------------------------------------------------------


def join_labels(labels: Iterable[str]) -> str:
    """Several labels in one cell, as `auricle.data.labels` takes them apart."""
    return ";".join(dict.fromkeys(label.strip() for label in labels if label.strip()))


def seconds(path: Path, line: int, *cells: str) -> tuple[float, ...]:
    """Cells that hold seconds.

    Raises:
        DataError: one is not a finite number.
    """
    try:
        values = tuple(float(cell) for cell in cells)
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"{path}: line {line}: expected seconds, got {', '.join(map(repr, cells))}.")
    return values


def event_of(where: str, onset: str, offset: str, label: str) -> Event:
    """An event from three cells; `where` they stand begins an error message ("x.csv: line 3").

    Raises:
        DataError: the times are no seconds or out of order, or there is no label.
    """
    try:
        event = Event(float(onset), float(offset), label)
    except ValueError:
        raise DataError(f"{where}: onset '{onset}' and offset '{offset}' must be seconds.") from None
    if not 0 <= event.onset < event.offset < math.inf:
        raise DataError(f"{where}: expected 0 <= onset < offset, got onset {onset} and offset {offset}.")
    if not label:
        raise DataError(f"{where}: the event has no label.")
    return event
