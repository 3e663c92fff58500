"""What `auricle search` found: as JSON, and as a page that shows and plays it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from auricle import audio
from auricle.audio import Channel
from auricle.data.items import AudioRef, Item
from auricle.environment import environment
from auricle.errors import AudioError
from auricle.evaluation.exhibits import add_sound
from auricle.evaluation.report import Report
from auricle.evaluation.snippets import MOST_SECONDS
from auricle.inference.search import Hit
from auricle.inference.table import Library

SCHEMA = 1
# Of each sound so much is heard, and so many hits are, so that the page stays small; the table has all of them.
SECONDS, PLAYED = 8.0, 16


def summary(library: Library, query: str, hits: Sequence[Hit], command: str = "") -> dict[str, Any]:
    """Everything that was found, for `results.write_json`."""
    return {
        "schema": SCHEMA,
        "task": "search",
        "command": command,
        "library": {"path": str(library.path), "rows": len(library), **library.metadata["data"]},
        "model": {key: library.metadata["model"][key] for key in ("hash", "path")},
        "query": query,
        "similarity": "cosine",
        "hits": [asdict(hit) for hit in hits],
        "environment": environment(),
    }


def search_page(library: Library, query: str, hits: Sequence[Hit], path: Path, command: str = "") -> Path:
    """A page with the query and its hits, each to see and to hear."""
    metadata = library.metadata
    report = Report("Nearest sounds", f"{Path(query).name} in {library.path.name}")
    report.facts(
        {
            metadata["rows"]: len(library),
            "hours": metadata["data"]["seconds"] / 3600,
            "files": metadata["data"]["files"] - len(metadata["bad_files"]),
            "model": f"{metadata['model']['method']} {metadata['model']['hash'][:12]}",
            "similarity": "cosine",
        }
    )
    report.heading("Query")
    channel = metadata["channel"]
    _add(report, query, 0.0, None, channel, Path(query).name)
    folder, names = _names(hits)
    report.heading("Hits")
    report.table(
        ["", "cosine", "from", "to", "file"],
        [
            [number, f"{hit.similarity:.4f}", f"{hit.start:.2f} s", f"{hit.end:.2f} s", name]
            for number, (hit, name) in enumerate(zip(hits, names, strict=True), start=1)
        ],
        note="The cosine of the angle between a row's vector and the query's: 1 is the same direction.",
    )
    for number, (hit, name) in enumerate(zip(hits[:PLAYED], names, strict=False), start=1):
        place = f"{name}, {hit.start:.2f} to {hit.end:.2f} s"
        _add(report, hit.path, hit.start, hit.end, channel, f"{number}. {place} ({hit.similarity:.4f})")
    report.heading("Reproduce")
    report.code(command or "(called from Python)")
    report.text(f"The files that were found lie in {folder}.")
    return report.write(path)


def _names(hits: Sequence[Hit]) -> tuple[str, list[str]]:
    """The folder that holds them all, and their paths from there: the folders between are often classes."""
    paths = [Path(hit.path).absolute() for hit in hits]
    folder = os.path.commonpath([path.parent for path in paths])
    return folder, [path.relative_to(folder).as_posix() for path in paths]


def _add(report: Report, path: str, start: float, end: float | None, channel: Channel, title: str) -> None:
    """A stretch of a file, or a sentence where the file is not what it was."""
    try:
        # A row ends at a sample of the network's rate, which may lie a fraction of one beyond the file.
        last = min(end or math.inf, audio.probe(path).duration)
        audio.read(path, start=start, end=min(last, start + MOST_SECONDS))
    except AudioError as error:
        report.text(f"{title}: it cannot be heard any more ({error.reason}).")
        return
    item = Item(title, {"audio": AudioRef(path, start, last)}, {}, (), last - start)
    add_sound(report, item.hearing(channel), title, SECONDS)
