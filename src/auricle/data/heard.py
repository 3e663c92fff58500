"""Which clips a network learned from, by what is in their files, so that none of them passes for a test clip later.

A key depends on neither name nor place nor label: data that was moved, renamed, or read as a part of other data is
still known. Not known are a clip that was encoded again, and another stretch of the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from auricle.data.items import Item
from auricle.errors import DataError

# Of each file the beginning, the middle and the end are read, and its size: enough to tell recordings apart.
BLOCK = 1 << 14
DIGITS = 12


@dataclass(frozen=True)
class Heard:
    """Keys of the clips that a network was trained on, and of those that chose its weights."""

    train: frozenset[str] = frozenset()
    val: frozenset[str] = frozenset()

    @classmethod
    def of(cls, train: Iterable[Item], val: Iterable[Item]) -> Heard:
        """Raises: DataError: a file is gone."""
        return cls(frozenset(content_keys(train)), frozenset(content_keys(val)))

    @classmethod
    def load(cls, kept: Mapping[str, str]) -> Heard:
        """The reverse of `dump`."""
        return cls(*(frozenset(str(kept.get(part, "")).split()) for part in ("train", "val")))

    def dump(self) -> dict[str, str]:
        """A line of keys for each part, for a checkpoint."""
        return {"train": " ".join(sorted(self.train)), "val": " ".join(sorted(self.val))}

    def __or__(self, other: Heard) -> Heard:
        return Heard(self.train | other.train, self.val | other.val)


def content_keys(items: Iterable[Item]) -> list[str]:
    """12 hex digits for each item, over its streams' files, stretches and channels.

    Raises:
        DataError: a file is gone.
    """
    files: dict[str, str] = {}
    keys = []
    for item in items:
        streams = []
        for name, ref in sorted(item.streams.items()):
            if ref.path not in files:
                files[ref.path] = _file_key(Path(ref.path))
            streams.append([name, files[ref.path], ref.start, ref.end, ref.channel])
        keys.append(hashlib.sha256(json.dumps(streams).encode()).hexdigest()[:DIGITS])
    return keys


def _file_key(path: Path) -> str:
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for place in (0, (size - BLOCK) // 2, size - BLOCK):
                file.seek(max(0, place))
                digest.update(file.read(BLOCK))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; restore the file or read the data again.") from None
    return digest.hexdigest()
