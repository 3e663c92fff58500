"""NeMo manifests: JSON Lines with `audio_filepath`, `duration`, `offset` and labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.jsons import columns_of, first_object, read_lines
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, manifest_of, relative_id, seconds
from auricle.errors import DataError

KEYS = ("audio_filepath", "duration", "offset")


def detect(path: Path) -> Match | None:
    if path.is_file() and "audio_filepath" in first_object(path):
        return Match(CERTAIN, 'its lines name an "audio_filepath"')
    return None


def read(path: Path) -> Manifest:
    """One item per line; with `offset`, the `duration` seconds from there; other plain values are label columns."""
    finder = Finder(path.parent)
    lines = []
    for line, entry in read_lines(path):
        name = entry.get("audio_filepath")
        if not isinstance(name, str) or not name:
            raise DataError(f'{path}: line {line}: it names no "audio_filepath".')
        stated = str(entry["duration"]) if entry.get("duration") is not None else ""
        duration = seconds(path, line, stated)[0] if stated else None
        start = None if entry.get("offset") is None else seconds(path, line, str(entry["offset"]))[0]
        if (start or 0) < 0 or (duration is not None and duration <= 0):
            raise DataError(f"{path}: line {line}: expected offset >= 0 and duration > 0 in seconds.")
        file = finder.find(name)
        identity = relative_id(file, path.parent) if file else name
        lines.append((identity, name, file, start, duration, columns_of(entry, KEYS)))
    uses = Counter(identity for identity, *_ in lines)
    entries = []
    for identity, name, file, start, duration, labels in lines:
        end = None if start is None or duration is None else start + duration
        unique = identity if uses[identity] == 1 else f"{identity}@{start or 0:g}"
        entries.append(Entry(unique, name, file, labels, (), start or 0.0, end, duration))
    return manifest_of(path, path.parent, entries)
