"""HEAR task directories: `task_metadata.json`, `<split>.json` and `<sample rate>/<split>/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auricle.data.items import Event, Manifest
from auricle.data.readers.jsons import read_json
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, event_of, join_labels, manifest_of
from auricle.errors import DataError

METADATA = "task_metadata.json"
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    return Match(CERTAIN, f"it holds {METADATA}") if (path / METADATA).is_file() else None


def read(root: Path) -> Manifest:
    """Columns: label (all of a clip's labels) and split, as the task states it; events in event tasks (milliseconds).

    Of several sample rates, the folder with the highest is read: models resample for themselves.
    """
    metadata = read_json(root / METADATA)
    splits = metadata.get("splits") if isinstance(metadata, dict) else None
    if not isinstance(splits, list) or not splits:
        raise DataError(f'{root / METADATA}: it names no "splits".')
    rates = sorted(
        (int(folder.name), folder) for folder in root.iterdir() if folder.name.isdecimal() and folder.is_dir()
    )
    if not rates:
        raise DataError(f"{root}: no folder with sound: expected one called by its sample rate, e.g. 48000.")
    audio = rates[-1][1]
    entries = []
    for split in map(str, splits):
        listed = read_json(root / f"{split}.json")
        if not isinstance(listed, dict):
            raise DataError(f"{root / split}.json: expected an object of files and their labels.")
        finder = Finder(audio / split)
        for name, labels in listed.items():
            events, words = _labels(f"{root / split}.json: '{name}'", labels)
            columns = {"label": join_labels(words), "split": split}
            place = str(audio / split / name)
            entries.append(Entry(f"{split}/{name}", place, finder.find(name), columns, tuple(events)))
    return manifest_of(root, root, entries)


def _labels(where: str, labels: Any) -> tuple[Sequence[Event], Sequence[str]]:
    """Of a clip: its events and its labels."""
    if isinstance(labels, list) and all(isinstance(label, (str, int)) for label in labels):
        return (), [str(label) for label in labels]
    try:
        events = [
            event_of(where, str(float(e["start"]) / 1000), str(float(e["end"]) / 1000), str(e["label"])) for e in labels
        ]
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f'{where}: expected labels, or events with "start", "end" and "label", got {labels!r}.'
        ) from None
    return events, [event.label for event in events]
