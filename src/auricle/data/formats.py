"""From what people have (a folder, a CSV or TSV file, a JSONL manifest, or several of them) to a `Manifest`."""

from __future__ import annotations

import dataclasses
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from auricle.audio.read import probe
from auricle.data.exclude import read_exclude_list
from auricle.data.items import AudioRef, Event, Item, Manifest, absolute
from auricle.data.tables import Row, Table, read_table
from auricle.errors import AudioError, DataError

EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64")
# Sound that the reader refuses by name: it is reported as left out, not passed over as if it were text.
UNSUPPORTED = (".m4a", ".aac", ".wma")
PATH_COLUMNS = ("path", "file", "filename", "file_name", "audio", "wav", "relpath")
SHOWN = 5


@dataclass(frozen=True)
class Leniency:
    """Which files a reader passes over: those in `exclude` (absolute paths), and `missing` ones instead of refusing."""

    exclude: frozenset[str] = frozenset()
    missing: bool = False


STRICT = Leniency()


def read_data(
    paths: Path | str | Sequence[Path | str], *, exclude: Path | str | None = None, keep_going: bool = False
) -> Manifest:
    """Read one data source, or several that are joined; no sound is decoded.

    A source is a folder that holds `manifest.csv`, any other folder (every sound file below it; the first directory
    level is the column `label` when each file lies in one), a CSV or TSV file (relative paths start at its folder;
    `events.csv` beside it gives the events), or a file that `Manifest.save` wrote. The ids of several sources start
    with the name of their folder. Durations come from the column `duration`, else from the header of the sound file;
    a file whose header cannot be read is listed in `Manifest.skipped`. Files in the list `exclude` (see
    `auricle.data.exclude`) are left out; with `keep_going`, listed files that are missing go to `Manifest.skipped` too.

    Raises:
        DataError: nothing is there, nothing usable is in it, listed files are missing, or a table is malformed.
    """
    sources = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not sources:
        raise DataError("no data was given; name a folder of audio, a CSV or TSV file, or a JSONL manifest.")
    leniency = Leniency(read_exclude_list(exclude) if exclude else frozenset(), keep_going)
    manifests = [_read_source(absolute(source), leniency) for source in sources]
    return manifests[0] if len(manifests) == 1 else _join(manifests)


def _read_source(path: Path, leniency: Leniency) -> Manifest:
    if path.is_dir():
        table = path / "manifest.csv"
        return _read_csv(table, leniency) if table.is_file() else _read_folder(path, leniency)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    if not path.is_file():
        raise DataError(f"{path}: neither a file nor a folder; give a folder, a CSV or TSV file, or a manifest.")
    if path.suffix.lower() in EXTENSIONS:
        raise DataError(f"{path}: a sound file is not a data set; give its folder, or a CSV file that lists it.")
    if path.suffix.lower() in (".jsonl", ".ndjson") or _starts_like_json(path):
        return _read_jsonl(path, leniency)
    return _read_csv(path, leniency)


def _starts_like_json(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith(b"{")
    except OSError:
        return False


# Folders ---------------------------------------------------------------------------------------------------------


def _read_folder(root: Path, leniency: Leniency = STRICT) -> Manifest:
    found, others = [], 0
    for path in _files(root):
        if str(path) in leniency.exclude:
            continue
        if path.suffix.lower() in EXTENSIONS + UNSUPPORTED:
            found.append(path)
        else:
            others += 1
    if not found:
        what = f"none of its {others} files is a sound file" if others else "the folder is empty"
        raise DataError(f"{root}: no audio: {what}; expected files that end in {', '.join(EXTENSIONS)} at any depth.")
    durations, skipped = {}, []
    for path in found:
        try:
            durations[path] = probe(path).duration
        except AudioError as error:
            skipped.append((str(path), error.reason))
    _require_some(root, len(durations), skipped)
    parts = {path: path.relative_to(root).parts for path in durations}
    classes = all(len(levels) > 1 for levels in parts.values())
    items = tuple(
        Item(
            id="/".join(levels),
            streams={"audio": AudioRef(str(path))},
            labels={"label": levels[0]} if classes else {},
            events=(),
            duration=durations[path],
        )
        for path, levels in parts.items()
    )
    return Manifest(items, root, str(root), tuple(skipped))


def _files(root: Path) -> Iterator[Path]:
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
        subfolders[:] = sorted(name for name in subfolders if not _is_clutter(name))
        yield from (Path(folder, name) for name in sorted(names) if not _is_clutter(name))


def _is_clutter(name: str) -> bool:
    """Hidden files (macOS resource forks `._name` among them) and what macOS puts in zip archives."""
    return name.startswith(".") or name == "__MACOSX"


# CSV and TSV -----------------------------------------------------------------------------------------------------


def _read_csv(path: Path, leniency: Leniency = STRICT) -> Manifest:
    table = read_table(path)
    column = _path_column(table)
    duration_column = table.column("duration")
    if not table.rows:
        raise DataError(f"{path}: the header is there but no rows; list one sound file per line.")
    located, skipped = _locate(table, column, leniency)
    events = _read_events(path, set(located.values()))
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
                skipped.append((file, error.reason))
                continue
        labels = {name: cell for name, cell in row.cells.items() if name not in (column, duration_column)}
        reference = {"audio": AudioRef(file)}
        name = _id(row.cells[column], file, path.parent)
        items.append(Item(name, reference, labels, tuple(sorted(events.get(file, ()))), duration))
    _require_some(path, len(items), skipped)
    return Manifest(tuple(items), path.parent, str(path), tuple(skipped))


def _path_column(table: Table) -> str:
    column = table.column(*PATH_COLUMNS)
    if column is None:
        raise DataError(
            f"{table.path}: not a manifest: no column names the sound files: expected one of {', '.join(PATH_COLUMNS)} "
            f"in the first line, got {', '.join(table.columns)}."
        )
    return column


def _locate(table: Table, column: str, leniency: Leniency) -> tuple[dict[int, str], list[tuple[str, str]]]:
    """The absolute path of the file of every row, by line number, and the files that are missing."""
    located: dict[int, str] = {}
    line_of: dict[str, int] = {}
    missing = []
    for row in table.rows:
        if not row.cells[column]:
            raise DataError(f"{table.path}: line {row.line}: column '{column}' is empty; name a sound file there.")
        spellings = list(_spellings(row, column, table.path.parent))
        if not leniency.exclude.isdisjoint(spellings):
            continue
        file = next((name for name in spellings if Path(name).is_file()), None)
        if file is None:
            missing.append(row.cells[column])
        elif file in line_of:
            raise DataError(
                f"{table.path}: lines {line_of[file]} and {row.line} name the same file ({row.cells[column]}); "
                f"keep one line per file."
            )
        else:
            located[row.line] = file
            line_of[file] = row.line
    if missing and not leniency.missing:
        _raise_missing(table.path, missing, len(table.rows), f"; relative paths start at {table.path.parent}")
    return located, [(os.path.normpath(table.path.parent / name), "missing") for name in missing]


def _spellings(row: Row, column: str, folder: Path) -> Iterator[str]:
    """The path as written; without blanks around it; with slashes; in the Unicode forms of Linux and macOS."""
    cell = row.cells[column]
    slashes = cell.replace("\\", "/")
    unicode_forms = (unicodedata.normalize("NFC", slashes), unicodedata.normalize("NFD", slashes))
    for form in dict.fromkeys((row.raw[column], cell, slashes, *unicode_forms)):
        yield os.path.normpath(folder / form)


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


def _read_events(manifest: Path, files: set[str]) -> dict[str, list[Event]]:
    """Events by absolute path, from `events.csv` beside the manifest; those of files that it does not list are left."""
    path = manifest.with_name("events.csv")
    if path == manifest or not path.is_file():
        return {}
    table = read_table(path)
    column = _path_column(table)
    onset, offset, label = table.column("onset"), table.column("offset"), table.column("label", "event_label")
    if onset is None or offset is None or label is None:
        raise DataError(f"{path}: expected the columns path, onset, offset, label, got {', '.join(table.columns)}.")
    events: dict[str, list[Event]] = {}
    for row in table.rows:
        file = next((name for name in _spellings(row, column, path.parent) if name in files), None)
        if file is not None:
            event = _event(path, row.line, row.cells[onset], row.cells[offset], row.cells[label])
            events.setdefault(file, []).append(event)
    if table.rows and not events and manifest.name == "manifest.csv":
        raise DataError(
            f"{path}: none of its {len(table.rows)} events belongs to a file of {manifest.name} "
            f"(first: {table.rows[0].cells[column]}); write the paths in both files alike."
        )
    return events


def _event(path: Path, line: int, onset: str, offset: str, label: str) -> Event:
    try:
        event = Event(float(onset), float(offset), label)
    except ValueError:
        raise DataError(f"{path}: line {line}: onset '{onset}' and offset '{offset}' must be seconds.") from None
    if not 0 <= event.onset < event.offset < math.inf:
        raise DataError(f"{path}: line {line}: expected 0 <= onset < offset, got onset {onset} and offset {offset}.")
    if not label:
        raise DataError(f"{path}: line {line}: the event has no label.")
    return event


# JSONL and joining -----------------------------------------------------------------------------------------------


def _read_jsonl(path: Path, leniency: Leniency) -> Manifest:
    manifest = Manifest.load(path)
    wanted = [i for i in manifest if leniency.exclude.isdisjoint(ref.path for ref in i.streams.values())]
    files = [ref.path for item in wanted for ref in item.streams.values()]
    missing = {file for file in files if not Path(file).is_file()}
    if missing and not leniency.missing:
        _raise_missing(path, sorted(missing), len(files), "")
    if not files:
        raise DataError(f"{path}: the manifest lists no items; make it again from the data.")
    items = tuple(i for i in wanted if missing.isdisjoint(ref.path for ref in i.streams.values()))
    skipped = (*manifest.skipped, *((file, "missing") for file in sorted(missing)))
    return dataclasses.replace(manifest, items=items, source=str(path), skipped=skipped)


def _join(manifests: Sequence[Manifest]) -> Manifest:
    items: list[Item] = []
    for prefix, manifest in zip(_prefixes(manifests), manifests, strict=True):
        items.extend(dataclasses.replace(item, id=f"{prefix}/{item.id}") for item in manifest)
    owner: dict[AudioRef, str] = {}
    for item in items:
        for reference in item.streams.values():
            if reference in owner:
                raise DataError(
                    f"{reference.path}: two of the sources list this file ({owner[reference]} and {item.id}); "
                    f"give sources that do not overlap."
                )
            owner[reference] = item.id
    roots = tuple(sorted({root for manifest in manifests for root in manifest.roots}))
    try:
        root = Path(os.path.commonpath(roots))
    except ValueError:  # on two drives
        root = roots[0]
    skipped = tuple(entry for manifest in manifests for entry in manifest.skipped)
    return Manifest(tuple(items), root, " + ".join(manifest.source for manifest in manifests), skipped, roots)


def _prefixes(manifests: Sequence[Manifest]) -> list[str]:
    """The shortest ends of the sources' paths that differ; two tables in one folder differ by their own names."""
    roots = [manifest.root for manifest in manifests]
    paths = [
        (root / Path(manifest.source).stem if roots.count(root) > 1 else root).parts
        for root, manifest in zip(roots, manifests, strict=True)
    ]
    for path, manifest in zip(paths, manifests, strict=True):
        if paths.count(path) > 1:
            raise DataError(f"{manifest.source}: this data was given twice; name every source once.")
    depth = 1
    while len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path[-depth:]) for path in paths]


# Shared ----------------------------------------------------------------------------------------------------------


def _require_some(source: Path, usable: int, skipped: Sequence[tuple[str, str]]) -> None:
    if not usable:
        raise DataError(
            f"{source}: none of the {len(skipped)} sound files can be read (first: {skipped[0][0]}: {skipped[0][1]})."
        )


def _raise_missing(source: Path, missing: Sequence[str], total: int, hint: str) -> None:
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    raise DataError(
        f"{source}: {len(missing)} of the {total} listed files are missing: {', '.join(missing[:SHOWN])}{more}{hint}."
    )
