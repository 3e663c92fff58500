"""ESC-50: `meta/esc50.csv` and `audio/`."""

from __future__ import annotations

from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, manifest_of, relative_id
from auricle.data.tables import first_line, read_table
from auricle.errors import DataError

COLUMNS = ("filename", "fold", "target", "category")
# Piczak, "ESC: Dataset for Environmental Sound Classification", ACM MM 2015: 2,000 clips in five folds.
PUBLISHED = {"clips": 2000, **{f"fold{fold}": 400 for fold in range(1, 6)}}
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    table = path / "meta" / "esc50.csv" if path.is_dir() else path
    names = first_line(table).lower().replace('"', "").split(",") if table.is_file() else []
    if not all(column in names for column in COLUMNS):
        return None
    return Match(CERTAIN, "it holds meta/esc50.csv" if path.is_dir() else f"its columns are those of {table.name}")


def read(path: Path) -> Manifest:
    """Columns: label (the category), split (fold1 ... fold5: the corpus's own folds), esc10, src_file, take, target."""
    path = path / "meta" / "esc50.csv" if path.is_dir() else path
    root = path.parent.parent
    finder = Finder(root / "audio", path.parent / "audio", path.parent)
    table = read_table(path)
    if missing := [column for column in COLUMNS if column not in table.columns]:
        raise DataError(f"{path}: not the table of ESC-50: it has no column {', '.join(missing)}.")
    entries = []
    for row in table.rows:
        name = f"audio/{row.cells['filename']}"
        file = finder.find(row.raw["filename"])
        others = {column: row.cells.get(column, "") for column in ("esc10", "src_file", "take", "target")}
        labels = {"label": row.cells["category"], "split": f"fold{row.cells['fold']}", **others}
        entries.append(Entry(relative_id(file, root) if file else name, name, file, labels))
    return manifest_of(path, root, entries, PUBLISHED)
