"""FSD50K: `FSD50K.ground_truth/dev.csv` and `eval.csv`, `FSD50K.dev_audio/` and `FSD50K.eval_audio/`."""

from __future__ import annotations

from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, join_labels, manifest_of, relative_id
from auricle.data.tables import read_table
from auricle.errors import DataError

TRUTH = "FSD50K.ground_truth"
# Fonseca et al., arXiv 2010.00475: 40,966 clips for development (36,796 train, 4,170 val), 10,231 for evaluation.
PUBLISHED = {"clips": 51_197, "train": 36_796, "val": 4_170, "test": 10_231}
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    found = [name for name in ("dev.csv", "eval.csv") if (path / TRUTH / name).is_file()]
    return Match(CERTAIN, f"it holds {TRUTH}/{found[0]}") if found else None


def read(root: Path) -> Manifest:
    """Columns: label (all of a clip's labels), mids, split (train and val by dev.csv; eval.csv is test)."""
    entries = []
    for part in ("dev", "eval"):
        path = root / TRUTH / f"{part}.csv"
        if not path.is_file():
            continue
        table = read_table(path)
        if not {"fname", "labels"} <= set(table.columns) or (part == "dev" and "split" not in table.columns):
            raise DataError(f"{path}: expected the columns fname, labels, mids, split, got {', '.join(table.columns)}.")
        finder = Finder(root / f"FSD50K.{part}_audio")
        for row in table.rows:
            name = f"FSD50K.{part}_audio/{row.cells['fname']}.wav"
            file = finder.find(row.cells["fname"] + ".wav")
            labels = {
                "label": join_labels(row.cells["labels"].split(",")),
                "mids": join_labels(row.cells.get("mids", "").split(",")),
                "split": row.cells["split"] if part == "dev" else "test",
            }
            entries.append(Entry(relative_id(file, root) if file else name, name, file, labels))
    return manifest_of(root, root, entries, PUBLISHED)
