"""Files that are either complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write to; at the end it is fsynced and takes the place of `path`.

    If the block raises, the sibling is removed and `path` stays as it was. Missing folders are made. The sibling keeps
    the extension (writers choose a format by it) and starts with a dot (readers of folders skip it).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    # The rename itself survives a power cut only once its folder is on disk; some systems cannot sync a folder.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) in one step: a reader, or a kill, finds the old or the new one."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
