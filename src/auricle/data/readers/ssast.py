"""The lists of AST and SSAST: `{"data": [{"wav": ..., "labels": "mid,mid"}]}` with a label CSV."""

from __future__ import annotations

import re
from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.jsons import read_json
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, join_labels, manifest_of, relative_id, visible
from auricle.data.tables import read_table
from auricle.errors import DataError

LABEL_FILES = "*class_labels_indices*.csv"


def detect(path: Path) -> Match | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(512).decode("utf-8-sig", "replace")
    if re.match(r'\s*\{\s*"data"\s*:\s*\[', head):
        return Match(CERTAIN, 'it is a JSON object with a list "data"')
    return None


def read(path: Path) -> Manifest:
    """Columns: mids (as listed) and label (their display names, where `*class_labels_indices*.csv` lies in the list's
    folder or up to two above; else the mids)."""
    listed = read_json(path)
    rows = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("wav"), str) for row in rows):
        raise DataError(f'{path}: expected {{"data": [{{"wav": PATH, "labels": "mid,mid"}}, ...]}}.')
    folders = (path.parent, path.parent.parent, path.parent.parent.parent)
    finder = Finder(*folders)
    mids = [[mid.strip() for mid in str(row.get("labels", "")).split(",") if mid.strip()] for row in rows]
    names = _names(folders, {mid for several in mids for mid in several})
    entries = []
    for row, several in zip(rows, mids, strict=True):
        file = finder.find(row["wav"])
        labels = {"mids": join_labels(several), "label": join_labels(names.get(mid, mid) for mid in several)}
        entries.append(Entry(relative_id(file, path.parent) if file else row["wav"], row["wav"], file, labels))
    return manifest_of(path, path.parent, entries)


def _names(folders: tuple[Path, ...], wanted: set[str]) -> dict[str, str]:
    """Display names of the mids, from the nearest label file that has them all."""
    for folder in folders:
        for path in visible(folder, LABEL_FILES):
            table = read_table(path)
            if {"mid", "display_name"} <= set(table.columns):
                names = {row.cells["mid"]: row.cells["display_name"] for row in table.rows}
                if wanted <= set(names):
                    return names
    return {}
