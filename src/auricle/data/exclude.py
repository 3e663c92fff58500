"""Lists of files to leave out: one path a line, `#` before a comment.

A path that a line cannot hold as it is (line ends, bytes that are no UTF-8, blanks at an end, `#` or `"` at the
beginning) stands there as a JSON string.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from auricle.data.items import absolute
from auricle.errors import ConfigError, DataError, in_words
from auricle.files import write_text

HEADER = "# Files that auricle check found unusable. Give this list to --exclude."


def check_exclude_path(path: Path | str) -> None:
    """Refuse to write over a list that somebody made by hand, before hours of work.

    Raises:
        ConfigError: the file exists and does not begin as `write_exclude_list` begins.
    """
    path = absolute(path)
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(HEADER.encode())):
        raise ConfigError(f"--exclude {path} exists and was not written by auricle check; give another name.")


def write_exclude_list(path: Path | str, files: Iterable[tuple[str, str]]) -> None:
    """Write (absolute path, what is wrong with it) of some files; paths below the list's folder become relative.

    Raises:
        ConfigError: see `check_exclude_path`.
    """
    check_exclude_path(path)
    path = absolute(path)
    lines = [HEADER]
    for file, reason in files:
        inside = Path(file).is_relative_to(path.parent)
        name = Path(os.path.relpath(file, path.parent)).as_posix() if inside else file
        plain = name.isprintable() and name == name.strip() and not name.startswith(("#", '"'))
        lines += [f"# {reason}", name if plain else json.dumps(name)]
    write_text(path, "\n".join(lines) + "\n")


def read_exclude_list(path: Path | str) -> frozenset[str]:
    """The absolute paths in such a list, written by `write_exclude_list` or by hand; relative ones start at its folder.

    Raises:
        DataError: the list cannot be read.
    """
    path = absolute(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of files to leave out cannot be read: {in_words(error)}.") from None
    return frozenset(os.path.normpath(path.parent / _name(line)) for line in lines if line and line[0] != "#")


def _name(line: str) -> str:
    if line.startswith('"'):
        # Else a list made by hand, of a file that is called so.
        with suppress(ValueError):
            return str(json.loads(line))
    return line
