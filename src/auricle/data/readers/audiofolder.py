"""Hugging Face audiofolder: `metadata.csv` or `metadata.jsonl` with `file_name`, or folders called by split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.jsons import columns_of, read_lines
from auricle.data.readers.shared import (
    CERTAIN,
    LIKELY,
    Entry,
    Finder,
    Match,
    files_below,
    is_sound,
    manifest_of,
    relative_id,
    visible,
)
from auricle.data.splits import ROLES
from auricle.data.tables import read_table
from auricle.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl")
PARQUET = "metadata.parquet"


def detect(path: Path) -> Match | None:
    if not path.is_dir():
        return None
    found = _metadata(path)
    if found:
        return Match(CERTAIN, f"it holds {found[0].relative_to(path).as_posix()}")
    if (path / PARQUET).is_file():
        return Match(CERTAIN, f"it holds {PARQUET}")
    splits = _splits(path)
    roles = {ROLES[name.lower()] for name in splits}
    if "train" in roles and len(roles) > 1:
        return Match(LIKELY, f"its folders are called {', '.join(splits)}")
    return None


def read(root: Path) -> Manifest:
    """Columns: those of the metadata, and split where the first level is called by one (train, validation, test ...).

    Without metadata, label is the name of the folder that a file lies in, below that of its split.
    """
    metadata = _metadata(root)
    if not metadata and (root / PARQUET).is_file():
        raise DataError(f"{root / PARQUET}: parquet is not read; save it as metadata.csv beside it.")
    entries = list(_listed(root, metadata) if metadata else _found(root))
    return manifest_of(root, root, entries)


def _metadata(root: Path) -> list[Path]:
    places = [
        root,
        *(root / name for name in _splits(root)),
        *(root / "data" / name for name in _splits(root / "data")),
    ]
    return [folder / name for folder in places for name in METADATA if _names_files(folder / name)]


def _names_files(path: Path) -> bool:
    if not path.is_file():
        return False
    # Of several thousand metadata.csv in the world, those of audiofolder have this column.
    with path.open("rb") as file:
        return b"file_name" in file.readline(1 << 16)


def _splits(root: Path) -> list[str]:
    return [folder.name for folder in visible(root, "*/") if folder.is_dir() and folder.name.lower() in ROLES]


def _split(path: Path, root: Path) -> str:
    levels = [level for level in path.relative_to(root).parts if level != "data"]
    return levels[0] if len(levels) > 1 and levels[0].lower() in ROLES else ""


def _listed(root: Path, metadata: list[Path]) -> Iterator[Entry]:
    for path in metadata:
        finder = Finder(path.parent)
        for line, name, columns in _rows(path):
            if not name.strip():
                raise DataError(f"{path}: line {line}: it has no file_name.")
            file = finder.find(name)
            split = _split(Path(file), root) if file and Path(file).is_relative_to(root) else ""
            yield Entry(
                relative_id(file, root) if file else name,
                name,
                file,
                {**columns, **({"split": split} if split else {})},
            )


def _rows(path: Path) -> Iterator[tuple[int, str, Mapping[str, str]]]:
    if path.suffix == ".jsonl":
        for line, entry in read_lines(path):
            yield line, str(entry.get("file_name") or ""), columns_of(entry, ("file_name",))
    else:
        for row in read_table(path).rows:
            yield row.line, row.raw["file_name"], {k: v for k, v in row.cells.items() if k != "file_name"}


def _found(root: Path) -> Iterator[Entry]:
    for path in files_below(root):
        split = _split(path, root)
        if split and is_sound(path.name):
            label = path.parent.name if len(path.relative_to(root).parts) > 2 else ""
            identity = path.relative_to(root).as_posix()
            yield Entry(identity, str(path), str(path), {"label": label, "split": split})
