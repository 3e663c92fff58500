"""Readers of what people have: one module per layout, each with `detect(path)` and `read(path)`.

A reader is chosen by what lies in a folder or stands at the beginning of a file. The surest claim wins: the user's own
manifest before files that only one layout has, before the names of folders, before any folder or table. Where two
claims are equally sure, nothing is guessed: the reader must be named.

Third parties add a reader by an entry point of the group `auricle.readers`, whose value is such a module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn, Protocol, cast

from auricle.data.items import Manifest
from auricle.data.readers.shared import Match, relative_id
from auricle.errors import ConfigError, DataError, did_you_mean, plural, printable

# By name, as `--format` takes it: the module, and what it looks for.
READERS = {
    "esc50": ("esc50", "meta/esc50.csv with the columns filename, fold, target, category"),
    "speech-commands": ("speech_commands", "validation_list.txt, testing_list.txt and a folder per word"),
    "fsd50k": ("fsd50k", "FSD50K.ground_truth/dev.csv or eval.csv"),
    "audioset": ("audioset", "lists called *_segments.csv or audioset_*_strong.tsv"),
    "hear": ("hear", "task_metadata.json and a JSON file for each split"),
    "desed": ("desed", "lists of DCASE (*.tsv) below metadata/, and audio/"),
    "iemocap": ("iemocap", "folders Session1 ... with dialog/EmoEvaluation/"),
    "voxceleb": ("voxceleb", "folders of speakers called id1xxxx, or iden_split.txt"),
    "manifest": ("manifest", "a JSON Lines file that auricle convert wrote"),
    "csv": ("table", "a table with a column of paths, or a folder with manifest.csv"),
    "ssast": ("ssast", 'a JSON file that holds {"data": [{"wav": ..., "labels": ...}]}'),
    "kaldi": ("kaldi", "a folder with wav.scp"),
    "nemo": ("nemo", "a JSON Lines file whose lines have audio_filepath"),
    "fairseq": ("fairseq", "*.tsv with a folder in the first line, then paths and numbers of samples"),
    "audiofolder": ("audiofolder", "metadata.csv or metadata.jsonl with file_name, or folders train, test ..."),
    "folder": ("folder", "a folder of sound files"),
}
GROUP = "auricle.readers"
SHOWN = 5


class Reader(Protocol):
    """What a module of this package offers.

    One with `MAY_MISS_FILES = True` reads corpora of which people have parts: missing files are counted. For any other,
    files that its list names and that are missing are an error.
    """

    def detect(self, path: Path) -> Match | None:
        """Whether this is the layout, by a glance; None if not."""

    def read(self, path: Path) -> Manifest:
        """Read it; raises DataError."""


def reader_names() -> list[str]:
    """Names of all readers, our own first."""
    return [*READERS, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in READERS)]


def get_reader(name: str) -> Reader:
    """The reader of that name.

    Raises:
        ConfigError: there is none.
    """
    if name in READERS:
        return cast(Reader, import_module(f"{__name__}.{READERS[name][0]}"))
    for point in entry_points(group=GROUP, name=name):
        return cast(Reader, point.load())
    names = reader_names()
    raise ConfigError(f"no format '{name}'{did_you_mean(name, names)}; the formats are {', '.join(names)}.")


def detect(path: Path) -> tuple[str, Match]:
    """The name of the reader with the surest claim on a path, and the claim.

    Raises:
        DataError: two claims are equally sure.
    """
    claims = [(name, match) for name in reader_names() if (match := get_reader(name).detect(path)) is not None]
    best = max((match.confidence for _, match in claims), default=0)
    chosen = [(name, match) for name, match in claims if match.confidence == best]
    if not chosen:
        raise DataError(f"{path}: no format is known for it; give a folder, a CSV or TSV file, or a manifest.")
    if len(chosen) > 1:
        claimed = "; ".join(f"{name} ({match.why})" for name, match in chosen)
        raise DataError(f"{path}: it may be read in several ways: {claimed}; choose one with --format.")
    return chosen[0]


def read(path: Path, format: str = "", exclude: frozenset[str] = frozenset(), keep_going: bool = False) -> Manifest:
    """Read a data source by the reader called `format`, or else the one that `detect` finds.

    The manifest's note says which reader it was and why, what it found, and what is missing of a known corpus.

    Args:
        exclude: absolute paths of files to leave out.
        keep_going: go on without the missing files of any list, and where none can be read.

    Raises:
        DataError: files are missing from a list, or nothing is left.
    """
    if format:
        name, why, manifest = format, "as asked", _read_as_asked(path, format)
    else:
        name, match = detect(path)
        why, manifest = match.why, get_reader(name).read(path)
    if exclude:
        items = tuple(i for i in manifest if exclude.isdisjoint(ref.path for ref in i.streams.values()))
        skipped = tuple(entry for entry in manifest.skipped if entry.path not in exclude)
        manifest = dataclasses.replace(manifest, items=items, skipped=skipped)
    missing = [entry.path for entry in manifest.skipped if entry.reason == "missing"]
    may_miss = getattr(get_reader(name), "MAY_MISS_FILES", False)
    nothing = len(missing) == len(manifest.skipped) and not manifest.items
    if missing and not keep_going and (nothing or not may_miss):
        _raise_missing(manifest, missing)
    if not manifest.items and not (keep_going and manifest.skipped):
        _raise_empty(manifest)
    return dataclasses.replace(manifest, notes=(_note(name, why, manifest, len(missing)),))


def _read_as_asked(path: Path, name: str) -> Manifest:
    """Read what is said to be of this layout; what it lacks to be so is told in terms of the layout."""
    reader = get_reader(name)
    try:
        manifest = reader.read(path)
        if manifest.items or manifest.skipped:
            return manifest
    except DataError as error:
        # What is wrong with a line of a file is told best by who read it.
        if reader.detect(path) is not None or str(error).startswith(f"{path}: line "):
            raise
    expected = f", which looks for {READERS[name][1]}" if name in READERS else ""
    raise DataError(f"{path}: it cannot be read as {name}{expected}; leave out --format to detect what it is.")


def _note(name: str, why: str, manifest: Manifest, missing: int) -> str:
    unreadable = len(manifest.skipped) - missing
    lost = "".join(f", {count:,} {what}" for count, what in ((missing, "missing"), (unreadable, "unreadable")) if count)
    return "; ".join(
        (f"{manifest.source}: read as {name} ({why}): {plural(len(manifest), 'item')}{lost}", *manifest.notes)
    )


def _raise_missing(manifest: Manifest, missing: Sequence[str]) -> NoReturn:
    root, total = manifest.root, len(manifest) + len(manifest.skipped)
    shown = ", ".join(printable(relative_id(file, root)) for file in missing[:SHOWN])
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    raise DataError(
        f"{manifest.source}: {len(missing)} of the {total} listed files are missing: {shown}{more}; "
        f"relative paths start at {root}."
    )


def _raise_empty(manifest: Manifest) -> NoReturn:
    if not manifest.skipped:
        raise DataError(f"{manifest.source}: nothing is left of it: it lists no sound files, or all are excluded.")
    path, reason, detail = manifest.skipped[0]
    why = f"{reason}: {detail}" if detail else reason
    files = plural(len(manifest.skipped), "sound file")
    raise DataError(f"{manifest.source}: of {files} none can be read, such as {printable(path)} ({why}).")
