"""DESED and DCASE lists of its kind: weak, strong and unlabelled TSV files below `metadata/`, sound below `audio/`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from auricle.data.events import ANNOTATIONS
from auricle.data.items import Event, Manifest
from auricle.data.readers.shared import (
    CERTAIN,
    Entry,
    Finder,
    Match,
    event_of,
    files_below,
    join_labels,
    manifest_of,
    relative_id,
    visible,
)
from auricle.data.splits import role_of
from auricle.data.tables import first_line, read_table
from auricle.errors import DataError

STRONG = {"filename", "onset", "offset"}
LABELS = ("event_label", "event_labels")
# Clips of the recorded lists: github.com/turpaultn/DESED. Synthetic sets differ from year to year.
PUBLISHED = {"weak": 1_578, "unlabel_in_domain": 14_412, "validation": 1_168}
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    if path.is_dir():
        lists = [file for file in _lists(path) if _kind(file)]
        why = f"it holds metadata/ with {len(lists)} lists of DCASE, and audio/"
        return Match(CERTAIN, why) if lists and (path / "audio").is_dir() else None
    kind = _kind(path)
    if kind in ("weak", "strong"):
        return Match(CERTAIN, f"its columns are those of a list with {kind} labels")
    root = _corpus(path)
    # Elsewhere, a list of names alone is any table.
    if kind == "none" and (path.name.lower().startswith("unlabel") or (root is not None and (root / "audio").is_dir())):
        return Match(CERTAIN, "it is a list of DCASE without labels")
    return None


def read(path: Path) -> Manifest:
    """Columns: label (all of a clip's labels), set (the list's name), annotation (weak, strong, none), split (the first
    level below `metadata/`; see `_split`); events where the list is strong.

    The sound of `metadata/train/weak.tsv` is looked for in `audio/train/weak/`, `audio/train/weak_16k/`,
    `audio/train/`, beside the list, and last by its name anywhere below `audio/`, if only one file is called so.
    """
    root = path if path.is_dir() else _corpus(path) or path.parent
    every = [file for file in _lists(root) if _kind(file)]
    lists = every if path.is_dir() else [path]
    evaluated = any(role_of(_split(file, root)) == "test" and _kind(file) == "strong" for file in every)
    tested: set[str] = set()
    anywhere = _unique(root / "audio")
    entries: dict[str, Entry] = {}
    counts: dict[str, set[str]] = {}
    for file in lists:
        levels, split = _levels(file, root), _split(file, root)
        if role_of(split) == "val" and len(levels.parts) < 2 and not evaluated:
            split = "test"
            tested.add(file.stem)
        folder = root / "audio" / levels
        finder = Finder(folder / file.stem, folder / f"{file.stem}_16k", folder, file.parent)
        place = folder / file.stem if folder.is_dir() else file.parent
        for name, (words, events) in _clips(file).items():
            found = finder.find(name) or anywhere.get(os.path.basename(name))  # noqa: PTH119
            identity = relative_id(found, root) if found else f"{levels.as_posix()}/{name}"
            counts.setdefault(file.stem, set()).add(identity)
            labels = {"label": join_labels(words), "set": file.stem, "annotation": _kind(file), "split": split}
            known = entries.get(identity)
            if known is not None:  # DESED's validation lists are parts of each other
                events = sorted({*known.events, *events})
                best = next(kind for kind in ANNOTATIONS if kind in (known.labels["annotation"], labels["annotation"]))
                labels = {**labels, **{k: v for k, v in known.labels.items() if v}, "annotation": best}
            entries[identity] = Entry(identity, str(place / name), found, labels, tuple(events))
    manifest = manifest_of(path, root, entries.values())
    notes = [f"{', '.join(sorted(tested))}: the test part, as there is no list for evaluation"] if tested else []
    published = [f"{len(counts[name]):,} of {n:,} published {name}" for name, n in PUBLISHED.items() if name in counts]
    notes += [f"listed: {', '.join(published)}"] if published else []
    return dataclasses.replace(manifest, notes=tuple(notes))


def _corpus(file: Path) -> Path | None:
    """The folder that holds the `metadata/` in which a list lies, if it does."""
    return next((folder.parent for folder in file.parents if folder.name == "metadata"), None)


def _levels(file: Path, root: Path) -> Path:
    """The folders between `metadata/` and a list."""
    return file.relative_to(root / "metadata").parent if file.is_relative_to(root / "metadata") else Path()


def _split(file: Path, root: Path) -> str:
    """The part of the corpus that a list is: the first folder below `metadata/`, else its own name, else train.

    DESED is published with train and validation: what systems are compared by is the recorded validation list, while
    synthetic ones, a folder deeper, choose among weights. So `read` makes the recorded one the test part, unless there
    is a strong list for evaluation, too.
    """
    levels = _levels(file, root).parts
    return levels[0] if levels else file.stem if role_of(file.stem) else "train"


def _lists(root: Path) -> list[Path]:
    return visible(root / "metadata", "**/*.tsv")


def _kind(path: Path) -> str:
    """strong, weak or none, by the columns; empty for another table (such as durations)."""
    columns = {name.strip() for name in first_line(path).split("\t")} if path.is_file() else set()
    if columns >= STRONG and columns & set(LABELS):
        return "strong"
    if columns >= {"filename"} and columns & set(LABELS):
        return "weak"
    return "none" if columns == {"filename"} else ""


def _clips(path: Path) -> dict[str, tuple[list[str], list[Event]]]:
    """Labels and events by file name; a strong list has a row per event, or one without times for a clip with none."""
    table = read_table(path)
    if "filename" not in table.columns:
        raise DataError(f"{path}: expected a column filename, got {', '.join(table.columns)}.")
    column = table.column(*LABELS)
    strong = _kind(path) == "strong"
    clips: dict[str, tuple[list[str], list[Event]]] = {}
    for row in table.rows:
        words, events = clips.setdefault(row.cells["filename"], ([], []))
        label = row.cells[column] if column else ""
        if strong and label:
            events.append(event_of(f"{path}: line {row.line}", row.cells["onset"], row.cells["offset"], label))
            words.append(label)
        else:
            words += label.split(",")
    return clips


def _unique(folder: Path) -> dict[str, str]:
    """Sound files below `folder` by name, without the names that several have."""
    paths: Iterable[Path] = files_below(folder) if folder.is_dir() else ()
    found: dict[str, str] = {}
    for path in paths:
        found[path.name] = "" if path.name in found else str(path)
    return found
