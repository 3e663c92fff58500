"""JSON files of other people: with a byte order mark, any line ends, and errors that name the line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from auricle.data.tables import read_text
from auricle.errors import DataError, in_words


def first_object(path: Path) -> dict[str, Any]:
    """The object in the first line of a file, or an empty one: a look, for `detect`."""
    try:
        with path.open("rb") as file:
            entry = json.loads(file.readline(1 << 16).decode("utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return entry if isinstance(entry, dict) else {}


def looks_like_json(path: Path) -> bool:
    """Whether a file is named as JSON Lines or starts with a JSON object."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
    except OSError:
        return False


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: {in_words(error)}.") from None


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file with their line numbers; blank lines are left out.

    Raises:
        DataError: a line is no JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number} is not valid JSON: {in_words(error)}.") from None
            if not isinstance(entry, dict):
                raise DataError(f"{path}: line {number} is not a JSON object.")
            yield number, entry


def columns_of(entry: dict[str, Any], left_out: tuple[str, ...]) -> dict[str, str]:
    """The plain values of an object as label columns; lists of words are joined as several labels."""
    columns = {}
    for name, value in entry.items():
        if name in left_out or value is None:
            continue
        if isinstance(value, list) and all(isinstance(part, (str, int)) for part in value):
            columns[name] = ";".join(map(str, value))
        elif isinstance(value, (str, int, float)):
            columns[name] = str(value).lower() if isinstance(value, bool) else str(value).strip()
    return columns
