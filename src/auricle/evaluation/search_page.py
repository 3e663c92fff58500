"""What `auricle search` found, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from auricle.environment import environment
from auricle.inference.search import Hit
from auricle.inference.table import Library

SCHEMA = 1


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
