"""A report as one HTML file that works offline, on a phone, in the dark and on paper.

Everything is inside the file: styles (`page.css`), pictures and sounds; a content policy in the page forbids any
request. All text is escaped, and equal content gives an equal file. The one script, `page.js`, plays sounds on a click;
the policy names its hash, so that no other runs, and without it only that click is missing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from auricle.errors import DataError
from auricle.evaluation import style
from auricle.evaluation.results import write_text
from auricle.evaluation.snippets import Snippet

PAGE_LIMIT: Final = 2_900_000  # bytes
# Of all sounds of a map together, so that other pictures have room.
MAP_SOUNDS_LIMIT: Final = 1_300_000
SVG_LIMIT: Final = 200_000  # bytes; beyond, a picture is so dense that pixels serve it better, but for its words
AUDIO_LIMIT: Final = 300_000  # bytes
ROW_LIMIT: Final = 1000
TABLE_LIMIT: Final = 300_000  # bytes of one table
CONTENTS_FROM: Final = 4  # headings

_AUDIO_TYPES: Final = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
}
# A number, perhaps with a unit or an interval behind it: such cells line up on the right.
_NUMERIC: Final = re.compile(
    r"[+−-]?\d[\d.,\u00a0\u202f ]*(e[+−-]?\d+)?\s?(%|k|M|ms|s|min|h|d|dB|kB|MB|GB|×)?(\s*[±\[(].*)?"
)


_STYLE: Final = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_SCRIPT: Final = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
_HASH: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'"
)


@dataclass(frozen=True)
class Spot:
    """A place on a picture, in shares of its width from the left and of its height from the top.

    `text` is shown when it is pointed at, `sound` played when it is pressed.
    """

    x: float
    y: float
    text: str
    sound: Snippet | None = None


class Report:
    """A page built from top to bottom; `write` makes the file.

    The page stays below 3 MB: a picture that no longer fits is embedded smaller or left out, and a sound that is too
    large is named instead of embedded. The page says so in its place.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[tuple[str, str, list[str]]] = [("", "", [])]
        self._size = len(_STYLE) + len(_SCRIPT) + 2000
        self._sounds = 0

    def heading(self, text: str) -> None:
        """Start a section; four or more sections get a table of contents."""
        name = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
        taken = {anchor for anchor, _, _ in self._sections}
        anchor, number = name, 2
        while anchor in taken:
            anchor, number = f"{name}-{number}", number + 1
        self._sections.append((anchor, text, []))

    def text(self, paragraph: str) -> None:
        """A paragraph of plain text; blank lines separate several."""
        self._add("".join(f"<p>{_escape(part)}</p>\n" for part in re.split(r"\n\s*\n", paragraph) if part.strip()))

    def facts(self, values: Mapping[str, Any]) -> None:
        """A strip of short facts, each a name over its value."""
        pairs = (
            f"<div><dt>{_escape(name)}</dt><dd>{_cell(value, _decimals([value]))}</dd></div>\n"
            for name, value in values.items()
        )
        self._add(f'<dl class="facts">\n{"".join(pairs)}</dl>\n')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> None:
        """A table; cells are text, numbers or quantities (`results.quantity`), and columns of numbers align right.

        The page shows the first 1000 rows, or fewer where they are long, and says how many there are. On a phone, the
        cells of a row stand one below the other where a column holds sentences or paths.

        Raises:
            DataError: a row does not have one cell for each header.
        """
        for index, row in enumerate(rows):
            if len(row) != len(header):
                raise DataError(f"table: row {index} has {len(row)} cells, expected {len(header)} as in the header.")
        shown = rows[:ROW_LIMIT]
        columns = [[row[index] for row in shown] for index in range(len(header))]
        classes = [_column_class(column) for column in columns]
        decimals = [_decimals(column) for column in columns]
        head = "".join(f'<th scope="col"{c}>{_escape(name)}</th>' for name, c in zip(header, classes, strict=True))
        # A column without a class holds long words.
        kind = ' class="wordy"' if "" in classes else ""
        lines = self._fitting(f"<tr>{''.join(_row_cells(row, header, classes, decimals))}</tr>\n" for row in shown)
        if len(rows) > len(lines):
            note = f"The first {_number(len(lines), 0)} of {_number(len(rows), 0)} rows. {note}".strip()
        caption = f'<p class="note">{_escape(note)}</p>\n' if note else ""
        self._add(
            f'<div class="table"><div class="scroll" tabindex="0" role="region" aria-label="table">\n'
            f"<table{kind}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>\n</table>\n</div>\n"
            f"{caption}</div>\n"
        )

    def _fitting(self, lines: Iterable[str]) -> list[str]:
        """As many as a table may have, so that it leaves room for what comes after it."""
        room = min(TABLE_LIMIT, PAGE_LIMIT - self._size)
        found = []
        for line in lines:
            room -= len(line.encode("utf-8"))
            if room < 0:
                break
            found.append(line)
        return found

    def figure(self, figure: Figure, caption: str, alt: str, sound: Snippet | None = None) -> None:
        """A picture with its caption, and a sound that belongs to it; `alt` says in words what the picture shows."""
        width, least = _widths(figure)
        height = round(figure.get_size_inches()[1] * 100)
        size = f'width="{width}" height="{height}" style="--least: {least}px"'
        picture = self._picture(figure, alt, size)
        self._figure(picture, caption, self._player(sound, len(picture)) if sound else "")

    def map(self, figure: Figure, spots: Sequence[Spot], caption: str, alt: str) -> None:
        """A picture as in `figure`, with spots that show a text when pointed at and play a sound when pressed.

        Sounds are embedded in the order of the spots while there is room for them.
        """
        width, least = _widths(figure)
        picture = self._picture(figure, alt, "")
        room = min(PAGE_LIMIT - self._size - len(picture), MAP_SOUNDS_LIMIT)
        marks, players = [], []
        for spot in spots:
            # A text opens towards the middle, where there is room for it.
            side = ("left" if spot.x > 0.5 else "right") + (" above" if spot.y > 0.85 else "")
            place = f'style="left: {100 * spot.x:.2f}%; top: {100 * spot.y:.2f}%"'
            says, plays = _escape(spot.text), ""
            source = _data_uri(spot.sound.kind, spot.sound.content) if spot.sound else ""
            if source and len(source) + 100 < room:
                room -= len(source) + 100
                self._sounds += 1
                plays = f' data-sound="sound-{self._sounds}"'
                players.append(f'<audio id="sound-{self._sounds}" preload="none" src="{source}"></audio>\n')
            marks.append(
                f'<button type="button" class="spot {side}" {place} data-text="{says}" aria-label="{says}"{plays}>'
                "</button>\n"
            )
        stage = f'<div class="stage" style="--width: {width}px; --least: {least}px">{picture}\n{"".join(marks)}</div>'
        self._figure(stage, caption, "".join(players))

    def _player(self, sound: Snippet, beside: int = 0) -> str:
        """The controls of a sound that fits into the page with `beside` bytes more; else its name."""
        source = _data_uri(sound.kind, sound.content)
        if sound.content and self._size + beside + len(source) < PAGE_LIMIT:
            return f'<audio controls preload="metadata" src="{source}"></audio>'
        return f'<p class="missing">Not embedded ({sound.size / 1e6:.1f} MB): <code>{_escape(sound.name)}</code></p>'

    def _picture(self, figure: Figure, alt: str, size: str) -> str:
        """The image of a figure in the best form that fits into the page."""
        for kind, content in _renderings(figure):
            source = _data_uri(kind, content)
            if self._size + len(source) < PAGE_LIMIT:
                return f'<img src="{source}" alt="{_escape(alt)}" {size}>'
        return f'<p class="missing">Left out, as the page would exceed its size limit: {_escape(alt)}</p>'

    def _figure(self, content: str, caption: str, behind: str = "") -> None:
        self._add(
            f'<figure><div class="card scroll" tabindex="0" role="group" aria-label="figure">{content}</div>\n'
            f"<figcaption>{_escape(caption)}</figcaption>{behind}</figure>\n"
        )

    def audio(self, sound: Snippet | Path | str, caption: str) -> None:
        """A player for a snippet, or for a sound file of less than 300 kB; a larger one is only named.

        Raises:
            DataError: the file cannot be read, or browsers do not play files of its kind.
        """
        if not isinstance(sound, Snippet):
            sound = _whole_file(Path(sound))
        self._add(f'<figure class="audio"><figcaption>{_escape(caption)}</figcaption>{self._player(sound)}</figure>\n')

    def code(self, text: str) -> None:
        """Preformatted text, such as a command; long lines wrap."""
        self._add(f"<pre><code>{_escape(text)}</code></pre>\n")

    def html(self) -> str:
        """The whole page."""
        title = _escape(self.title)
        subtitle = f'<p class="subtitle">{_escape(self.subtitle)}</p>\n' if self.subtitle else ""
        (_, _, opening), *named = self._sections
        sections = [
            f'<section id="{anchor}">\n<h2>{_escape(text)}</h2>\n{"".join(parts)}</section>\n'
            for anchor, text, parts in named
        ]
        contents = ""
        if len(named) >= CONTENTS_FROM:
            entries = "".join(f'<li><a href="#{anchor}">{_escape(text)}</a></li>\n' for anchor, text, _ in named)
            contents = f'<nav aria-label="Contents">\n<p>Contents</p>\n<ol>\n{entries}</ol>\n</nav>\n'
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f"<header>\n<h1>{title}</h1>\n{subtitle}</header>\n{contents}<main>\n{''.join(opening + sections)}</main>\n"
            f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
        )

    def write(self, path: Path | str) -> Path:
        """Write the page, atomically; creates parent folders.

        Raises:
            ConfigError: the path is a folder or cannot be written.
        """
        return write_text(path, self.html())

    def _add(self, part: str) -> None:
        self._sections[-1][2].append(part)
        self._size += len(part.encode())


def _escape(text: object) -> str:
    """Text that HTML shows as it is; what HTML or UTF-8 cannot hold becomes a visible replacement."""
    plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", str(text).replace("\r\n", "\n"))
    return html.escape(plain.encode("utf-8", "backslashreplace").decode("utf-8"))


def _values(cell: Any) -> list[float]:
    """The finite numbers of a cell that are not whole by type."""
    parts = cell.values() if isinstance(cell, Mapping) else [cell]
    return [float(v) for v in parts if isinstance(v, float | np.floating) and math.isfinite(v)]


def _decimals(cells: Sequence[Any]) -> int:
    """How many decimals the cells of a column need together: three for numbers below 10, fewer for larger ones."""
    values = [value for cell in cells for value in _values(cell)]
    largest = max(map(abs, values), default=0.0)
    most = 3 if largest < 10 else 2 if largest < 100 else 1 if largest < 1e5 else 0
    return next(n for n in range(most + 1) if all(round(v, n) == round(v, most) for v in values))


def _number(value: Any, decimals: int) -> str:
    """For reading: thousands apart, a true minus sign, and powers of ten where `decimals` would show only zeros."""
    if not isinstance(value, int | np.integer) and not math.isfinite(value):
        return "–"
    if isinstance(value, int | np.integer):
        text = f"{int(value):,}"
    elif (value and abs(value) < 0.5 * 10**-decimals) or abs(value) >= 1e12:
        text = f"{value:.2g}"
    else:
        text = f"{value:,.{decimals}f}"
    return text.replace(",", "\u202f").replace("-", "−")


def _cell(value: Any, decimals: int) -> str:
    """Escaped text of a table cell or fact."""
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | float | np.number):
        return _number(value, decimals)
    if isinstance(value, Mapping) and "value" in value:
        low, high = value.get("low"), value.get("high")
        number = _cell(value["value"], decimals)
        if low is None or high is None:
            return number
        return f'{number} <span class="interval">{_number(low, decimals)} to {_number(high, decimals)}</span>'
    return _escape(value)


def _column_class(cells: Sequence[Any]) -> str:
    """The class attribute of a column: numbers align right, and neither they nor short words break over lines."""
    known = [cell for cell in cells if cell is not None and cell != ""]
    if known and all(_is_number(cell) for cell in known):
        return ' class="number"'
    return ' class="short"' if all(len(str(cell)) <= 28 for cell in known) else ""


def _is_number(cell: Any) -> bool:
    if isinstance(cell, bool | np.bool_):
        return False
    return isinstance(cell, int | float | np.number | Mapping) or _NUMERIC.fullmatch(str(cell)) is not None


def _row_cells(
    row: Sequence[Any], header: Sequence[str], classes: Sequence[str], decimals: Sequence[int]
) -> Iterator[str]:
    wordy = "" in classes
    for index, (value, name, css, digits) in enumerate(zip(row, header, classes, decimals, strict=True)):
        cell = _cell(value, digits)
        # Where cells stand one below the other, each says its column itself.
        says = f' data-name="{_escape(name)}"' if wordy and index else ""
        yield f'<th scope="row"{css}>{cell}</th>' if index == 0 else f"<td{css}{says}>{cell}</td>"


def _renderings(figure: Figure) -> Iterator[tuple[str, bytes]]:
    """The figure as an image, the best first."""
    vector = style.svg(figure)
    if len(vector) <= SVG_LIMIT:
        yield "image/svg+xml", vector
    style.with_pixels(figure)
    for dpi in (200, 100):
        yield "image/svg+xml", style.svg(figure, dpi)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _widths(figure: Figure) -> tuple[int, int]:
    """CSS pixels of a figure: its width, and the least width at which its letters can be read."""
    width = round(figure.get_size_inches()[0] * 100)
    return width, min(700, round(0.7 * width))


def _whole_file(path: Path) -> Snippet:
    """A sound file as it is; without content if it is large.

    Raises:
        DataError: the file cannot be read, or browsers do not play files of its kind.
    """
    kind = _AUDIO_TYPES.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: a page can play {', '.join(_AUDIO_TYPES)}, got '{path.suffix}'; convert the file.")
    try:
        size = path.stat().st_size
        # A sound far over the limit is never read into memory.
        content = path.read_bytes() if size < AUDIO_LIMIT else b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; check the path.") from error
    return Snippet(kind, content, size, str(path))
