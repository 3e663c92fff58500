"""Tables in text files as they come from spreadsheets, scripts and other platforms."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from auricle.errors import DataError

DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Row:
    """`cells` by column name, stripped of surrounding blanks; `raw` as they are; `line` counts from 1."""

    line: int
    cells: Mapping[str, str]
    raw: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, *names: str) -> str | None:
        """The column called by the first of `names` that occurs, in upper or lower case."""
        by_lower = {column.lower(): column for column in reversed(self.columns)}
        return next((by_lower[name] for name in names if name in by_lower), None)


def read_table(path: Path) -> Table:
    """Read a CSV or TSV file with a header line.

    UTF-8 with or without byte order mark, or UTF-16 with one; any line ends; quoted cells; a comma, tab, semicolon or
    bar between cells. Blank lines and columns without a name (an index column, a comma at the line's end) are left out.

    Raises:
        DataError: not text, no header, a column name that occurs twice, or a line with more cells than the header.
    """
    text = read_text(path)
    header_line = text.lstrip().split("\n", 1)[0]
    if not header_line.strip():
        raise DataError(f"{path}: the file is empty; expected a header line that names the columns, then rows.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, header_line), strict=True)
    try:
        lines = list(_lines(reader))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not valid CSV: {error}.") from None
    header = [name.strip() for name in lines[0][1]]
    columns = tuple(name for name in header if name)
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: column '{repeated[0]}' occurs more than once in the header; rename one of them.")
    return Table(path, columns, tuple(_row(path, header, line, cells) for line, cells in lines[1:]))


def _lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells  # type: ignore[attr-defined]


def _row(path: Path, header: list[str], line: int, cells: list[str]) -> Row:
    if any(cell.strip() for cell in cells[len(header) :]):
        raise DataError(
            f"{path}: line {line} has {len(cells)} cells, but the header names {len(header)} columns; "
            f"put double quotes around cells that hold the delimiter."
        )
    cells = cells + [""] * (len(header) - len(cells))
    raw = {name: cell for name, cell in zip(header, cells, strict=False) if name}
    return Row(line, {name: cell.strip() for name, cell in raw.items()}, raw)


def read_text(path: Path) -> str:
    """A text file: UTF-8 with or without byte order mark, or UTF-16 with one.

    Raises:
        DataError: it cannot be read, or is not such text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in data[:8192] and not wide:
        raise DataError(
            f"{path}: not a manifest: it is not text; give a folder of audio, a CSV or TSV file, or a JSONL manifest."
        )
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the table as UTF-8.") from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold more than blanks, with their numbers from 1; any line ends.

    Raises:
        DataError: as `read_text` does.
    """
    for number, line in enumerate(re.split(r"\r\n|\n|\r", read_text(path)), start=1):
        if line.strip():
            yield number, line


def first_line(path: Path) -> str:
    """The first line of a file that may be anything, or an empty string: a look, for `detect`."""
    try:
        with path.open("rb") as file:
            return re.split(r"\r\n|\n|\r", file.read(4096).decode("utf-8-sig", "replace"))[0]
    except OSError:
        return ""


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    # A .csv file is counted too: spreadsheets write semicolons where the comma is the decimal sign.
    return max(DELIMITERS, key=header.count)
