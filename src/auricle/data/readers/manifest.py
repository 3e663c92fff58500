"""A manifest that auricle wrote (JSON Lines)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from auricle.data.items import FORMAT, Manifest, Skipped
from auricle.data.readers.jsons import first_object, looks_like_json
from auricle.data.readers.shared import FALLBACK, OWN, Match
from auricle.errors import DataError


def detect(path: Path) -> Match | None:
    if not path.is_file():
        return None
    if first_object(path).get("format") == FORMAT:
        return Match(OWN, f"its first line names the format {FORMAT}")
    # JSON that no reader knows is read as a manifest, which says what is missing in it.
    return Match(FALLBACK, "a JSON file that is not the list of a known corpus") if looks_like_json(path) else None


def read(path: Path) -> Manifest:
    """Raises DataError: the file is not such a manifest, or a damaged one."""
    manifest = Manifest.load(path)
    files = {ref.path for item in manifest for ref in item.streams.values()}
    missing = {file for file in files if not Path(file).is_file()}
    if not files and not manifest.skipped:
        raise DataError(f"{path}: the manifest lists no items; make it again from the data.")
    items = tuple(i for i in manifest if missing.isdisjoint(ref.path for ref in i.streams.values()))
    # What was missing when the manifest was made is known to be, and no reason to refuse it.
    known = (s._replace(reason="missing when listed") if s.reason == "missing" else s for s in manifest.skipped)
    skipped = (*known, *(Skipped(file, "missing") for file in sorted(missing)))
    return dataclasses.replace(manifest, items=items, source=str(path), skipped=skipped)
