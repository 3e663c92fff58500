"""fairseq manifests: a TSV file whose first line is a folder, then `path <tab> samples`; labels in `.ltr` files and the
like beside it."""

from __future__ import annotations

import re
from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, manifest_of, relative_id, visible
from auricle.data.tables import text_lines
from auricle.errors import DataError

LABELS = ("ltr", "wrd", "phn", "km")


def detect(path: Path) -> Match | None:
    if path.is_dir():
        found = [file.name for file in visible(path, "*.tsv") if _is_list(file)]
        return Match(CERTAIN, f"it holds fairseq lists: {', '.join(found)}") if found else None
    return Match(CERTAIN, "its first line is a folder, then come paths and samples") if _is_list(path) else None


def read(path: Path) -> Manifest:
    """Columns ltr, wrd, phn, km where such a file lies beside the list; of a folder, split is the name of the list,
    which is how fairseq names its subsets.

    Where the folder of the first line is gone, paths start at the list's own folder.
    """
    lists = [file for file in visible(path, "*.tsv") if _is_list(file)] if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    entries = []
    for file in lists:
        lines = list(text_lines(file))
        audio = Path(lines[0][1].strip()) if lines else root
        finder = Finder(root / audio, root)
        place = root / audio if (root / audio).is_dir() else root
        columns = {
            kind: _parallel(file, kind, len(lines) - 1) for kind in LABELS if file.with_suffix(f".{kind}").is_file()
        }
        for number, (line, text) in enumerate(lines[1:]):
            name, tab, samples = text.strip().rpartition("\t")
            if not tab or not samples.isdecimal():
                raise DataError(
                    f"{file}: line {line}: expected PATH, a tab and the number of samples, got '{text.strip()}'."
                )
            found = finder.find(name)
            labels = {kind: texts[number] for kind, texts in columns.items()}
            if path.is_dir():
                labels["split"] = file.stem
            entries.append(Entry(_id(found, name, root / audio, root), str(place / name), found, labels))
    return manifest_of(path, root, entries)


def _id(found: str | None, name: str, audio: Path, root: Path) -> str:
    if found is None:
        return name
    return relative_id(found, audio if Path(found).is_relative_to(audio) else root)


def _parallel(file: Path, kind: str, lines: int) -> list[str]:
    path = file.with_suffix(f".{kind}")
    # Also blank lines count: they stand for clips.
    texts = re.split(r"\r\n|\n|\r", path.read_text(encoding="utf-8-sig").removesuffix("\n"))
    if len(texts) != lines:
        raise DataError(f"{path}: {len(texts)} lines for the {lines} files of {file.name}; both must be made together.")
    return [text.strip() for text in texts]


def _is_list(path: Path) -> bool:
    if path.suffix.lower() != ".tsv" or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(8192).decode("utf-8-sig", "replace")
    lines = re.split(r"\r\n|\n|\r", head)
    return len(lines) > 1 and "\t" not in lines[0].strip() and bool(re.fullmatch(r".+\t\d+\s*", lines[1]))
