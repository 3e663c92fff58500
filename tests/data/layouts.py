"""Small made folders in the layouts of known corpora."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from auricle.data.formats import read_data
from auricle.data.items import Item, Manifest

RATE = 8000


def sound(path: Path, seconds: float = 0.25) -> Path:
    """A WAV file, whatever its extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * RATE), 0.1, np.float32), RATE, format="WAV")
    return path


def sounds(root: Path, *names: str, seconds: float = 0.25) -> None:
    """Several of them, and a macOS resource fork beside each, which every reader has to pass over."""
    for name in names:
        path = sound(root / name, seconds)
        path.with_name("._" + path.name).write_bytes(b"\0\5\26\7")


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    """A text file with exactly these line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def windows(content: str) -> bytes:
    """The same text as a Windows program saves it: byte order mark and CRLF."""
    return content.replace("\n", "\r\n").encode("utf-8-sig")


def read_as(name: str, path: Path) -> Manifest:
    """Read it, and see that this reader was chosen without being named."""
    manifest = read_data(path)
    assert f": read as {name} (" in manifest.notes[0], manifest.notes
    assert read_data(path, name).items == manifest.items
    return manifest


def only(manifest: Manifest) -> Item:
    """Its single item."""
    (item,) = manifest
    return item


def lost(manifest: Manifest) -> dict[str, str]:
    """Reasons by the path from the root of what was left out."""
    return {Path(path).relative_to(manifest.root).as_posix(): reason for path, reason, _ in manifest.skipped}
