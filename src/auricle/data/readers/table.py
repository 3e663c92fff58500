"""A CSV or TSV file with a column of paths, with `events.csv` beside it; a folder that holds `manifest.csv`."""

from __future__ import annotations

import math
import os
from pathlib import Path

from auricle.audio.read import probe
from auricle.data.items import AudioRef, Event, Item, Manifest, Skipped
from auricle.data.readers.jsons import looks_like_json
from auricle.data.readers.shared import FALLBACK, OWN, Finder, Match, event_of, spellings
from auricle.data.tables import Table, read_table
from auricle.errors import AudioError, DataError, plural, printable

# Above this share of events whose clip is not listed, the two lists do not belong together.
MOST_STRAYS = 0.25
SHOWN = 3
PATH_COLUMNS = ("path", "file", "filename", "file_name", "audio", "wav", "relpath")


def detect(path: Path) -> Match | None:
    if path.is_dir():
        return Match(OWN, "it holds manifest.csv") if (path / "manifest.csv").is_file() else None
    if looks_like_json(path):
        return None
    return Match(FALLBACK, "a table that is not the list of a known corpus")


def read(path: Path) -> Manifest:
    """One item per row; relative paths start at the table's folder, other columns are labels.

    Raises:
        DataError: the table is malformed.
    """
    path = path / "manifest.csv" if path.is_dir() else path
    table = read_table(path)
    column = _path_column(table)
    duration_column = table.column("duration")
    if not table.rows:
        raise DataError(f"{path}: the header is there but no rows; list one sound file per line.")
    finder = Finder(path.parent)
    located, skipped = _locate(table, column, finder)
    events, notes = _read_events(path, finder, set(located.values()), {entry.path for entry in skipped})
    items = []
    for row in table.rows:
        if row.line not in located:
            continue
        file = located[row.line]
        duration = _stated_duration(row.cells[duration_column]) if duration_column else None
        if duration is None:
            try:
                duration = probe(file).duration
            except AudioError as error:
                skipped.append(Skipped(file, error.reason, error.detail))
                continue
        labels = {name: cell for name, cell in row.cells.items() if name not in (column, duration_column)}
        reference = {"audio": AudioRef(file)}
        name = _id(row.cells[column], file, path.parent)
        items.append(Item(name, reference, labels, tuple(sorted(events.get(file, ()))), duration))
    return Manifest(tuple(items), path.parent, str(path), tuple(skipped), notes=notes)


def _path_column(table: Table) -> str:
    column = table.column(*PATH_COLUMNS)
    if column is None:
        raise DataError(
            f"{table.path}: not a manifest: no column names the sound files: expected one of {', '.join(PATH_COLUMNS)} "
            f"in the first line, got {', '.join(table.columns)}."
        )
    return column


def _locate(table: Table, column: str, finder: Finder) -> tuple[dict[int, str], list[Skipped]]:
    """The absolute path of the file of every row, by line number, and the files that are missing."""
    located: dict[int, str] = {}
    line_of: dict[str, int] = {}
    missing = []
    for row in table.rows:
        if not row.cells[column]:
            raise DataError(f"{table.path}: line {row.line}: column '{column}' is empty; name a sound file there.")
        file = finder.find(row.raw[column])
        if file is None:
            missing.append(Skipped(os.path.normpath(table.path.parent / row.cells[column]), "missing"))
        elif file in line_of:
            raise DataError(
                f"{table.path}: lines {line_of[file]} and {row.line} name the same file ({row.cells[column]}); "
                f"keep one line per file."
            )
        else:
            located[row.line] = file
            line_of[file] = row.line
    return located, missing


def _id(cell: str, file: str, folder: Path) -> str:
    """The path from the table's folder; of an absolute path that leads elsewhere, that path."""
    path = Path(file)
    if Path(cell).is_absolute() and not path.is_relative_to(folder):
        return path.as_posix()
    return Path(os.path.relpath(path, folder)).as_posix()


def _stated_duration(cell: str) -> float | None:
    try:
        seconds = float(cell)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _read_events(
    manifest: Path, finder: Finder, files: set[str], missing: set[str]
) -> tuple[dict[str, list[Event]], tuple[str, ...]]:
    """Events by absolute path, from `events.csv` beside the manifest, and a note on those that are of no clip.

    Another list than manifest.csv may be of a part of the clips: then only events of no file at all are told of.
    """
    path = manifest.with_name("events.csv")
    if path == manifest or not path.is_file():
        return {}, ()
    table = read_table(path)
    column = _path_column(table)
    onset, offset, label = table.column("onset"), table.column("offset"), table.column("label", "event_label")
    if onset is None or offset is None or label is None:
        raise DataError(f"{path}: expected the columns path, onset, offset, label, got {', '.join(table.columns)}.")
    events: dict[str, list[Event]] = {}
    strays: list[str] = []
    whole = manifest.name == "manifest.csv"
    for row in table.rows:
        file = finder.find(row.raw[column])
        if file is not None and file in files:
            event = event_of(f"{path}: line {row.line}", row.cells[onset], row.cells[offset], row.cells[label])
            events.setdefault(file, []).append(event)
        elif whole or file is None:
            strays.append(row.cells[column])
    if whole and table.rows and not events:
        raise DataError(
            f"{path}: none of its {len(table.rows)} events belongs to a file of {manifest.name} "
            f"(first: {table.rows[0].cells[column]}); write the paths in both files alike."
        )
    strays = [name for name in strays if missing.isdisjoint(spellings(name, finder.folders))]
    if not strays:
        return events, ()
    names = list(dict.fromkeys(strays))
    shown = ", ".join(map(printable, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    what = f"{len(strays)} of {plural(len(table.rows), 'event')} are of no file of {manifest.name} ({shown})"
    if whole and len(strays) > MOST_STRAYS * len(table.rows):
        raise DataError(f"{path}: {what}; write the paths in both files alike.")
    return events, (f"warning: of {path.name}, {what}",)
