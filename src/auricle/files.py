"""Files that are either complete or not there, folders that one process owns, and arrays too large for memory."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextmanager
def atomic_path(path: Path, within: Path | None = None) -> Iterator[Path]:
    """Give a temporary sibling to write to; at the end it is fsynced and takes the place of `path`.

    If the block raises, the sibling is removed and `path` stays as it was. Missing folders are made. The sibling keeps
    the extension (writers choose a format by it) and starts with a dot (readers of folders skip it). It may lie in
    a folder `within` the same file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = (within or path.parent) / f".{path.stem}.tmp-{os.getpid()}{path.suffix}"
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


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make a folder and own it, by the lock on its file `.lock`, which goes with the process, however it ends.

    Raises:
        ConfigError: another process owns it.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = path.read_text().strip() or "unknown"
            raise ConfigError(f"{folder} is in use by process {owner}; wait for it, or give another --out.") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """64 hex digits over a file's bytes, in constant memory."""
    # hashlib.file_digest does this from Python 3.11 on.
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class Spool:
    """Collects arrays [n, ...] of one type and width in a temporary file; a context manager.

    The file has no name, and is gone when neither the spool nor the array that it gave is in use.
    """

    def __init__(self) -> None:
        # Imported here so that `auricle --help` does not wait for it.
        import tempfile

        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._like: NDArray[Any] | None = None
        self._rows = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, rows: NDArray[Any]) -> None:
        self._file.write(rows.tobytes())
        self._like, self._rows = rows[:0], self._rows + len(rows)

    def array(self) -> NDArray[Any]:
        """All rows, one below the other, read from the file as they are used; it outlives the spool."""
        import numpy as np

        if self._like is None:
            raise ValueError("nothing was appended")
        self._file.flush()
        return np.memmap(self._file, self._like.dtype, "r", shape=(self._rows, *self._like.shape[1:]))
