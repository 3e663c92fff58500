"""A report as one HTML file that works offline, on a phone, in the dark and on paper.

Everything is inside the file: styles, pictures and sounds; a content policy in the page forbids any request. All text
is escaped, there is no script, and equal content gives an equal file.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from auricle.errors import DataError
from auricle.evaluation import style
from auricle.evaluation.results import write_text

PAGE_LIMIT: Final = 4_800_000  # bytes
SVG_LIMIT: Final = 200_000  # bytes; beyond, a picture is so dense that pixels serve it better
AUDIO_LIMIT: Final = 300_000  # bytes
ROW_LIMIT: Final = 1000
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


class Report:
    """A page built from top to bottom; `write` makes the file.

    The page stays below 5 MB: a picture that no longer fits is embedded smaller or left out, and a sound that is too
    large is named instead of embedded. The page says so in its place.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[tuple[str, str, list[str]]] = [("", "", [])]
        self._size = len(_STYLE) + 2000

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

        The page shows the first 1000 rows and says how many there are.

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
        body = "".join(f"<tr>{''.join(_row_cells(row, classes, decimals))}</tr>\n" for row in shown)
        if len(rows) > ROW_LIMIT:
            note = f"The first {ROW_LIMIT} of {_number(len(rows), 0)} rows. {note}".strip()
        caption = f'<p class="note">{_escape(note)}</p>\n' if note else ""
        self._add(
            f'<div class="table"><div class="scroll" tabindex="0" role="region" aria-label="table">\n'
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n{caption}</div>\n"
        )

    def figure(self, figure: Figure, caption: str, alt: str) -> None:
        """A picture with its caption; `alt` says in words what it shows, for those who cannot see it."""
        width, height = (round(inches * 100) for inches in figure.get_size_inches())
        size = f'width="{width}" height="{height}" style="--least: {min(700, round(0.7 * width))}px"'
        for kind, content in _renderings(figure):
            source = _data_uri(kind, content)
            if self._size + len(source) < PAGE_LIMIT:
                picture = f'<img src="{source}" alt="{_escape(alt)}" {size}>'
                break
        else:
            picture = f'<p class="missing">Left out, as the page would exceed its size limit: {_escape(alt)}</p>'
        self._add(
            f'<figure><div class="card scroll" tabindex="0" role="group" aria-label="figure">{picture}</div>\n'
            f"<figcaption>{_escape(caption)}</figcaption></figure>\n"
        )

    def audio(self, path: Path | str, caption: str) -> None:
        """A player for a sound file of less than 300 kB; a larger one is only named.

        Raises:
            DataError: the file cannot be read, or browsers do not play files of its kind.
        """
        path = Path(path)
        kind = _AUDIO_TYPES.get(path.suffix.lower())
        if kind is None:
            raise DataError(
                f"{path}: a page can play {', '.join(_AUDIO_TYPES)}, got '{path.suffix}'; convert the file."
            )
        try:
            # A sound far over the limit is never read into memory.
            content = path.read_bytes() if path.stat().st_size < AUDIO_LIMIT else b""
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}; check the path.") from error
        source = _data_uri(kind, content)
        if size < AUDIO_LIMIT and self._size + len(source) < PAGE_LIMIT:
            player = f'<audio controls preload="metadata" src="{source}"></audio>'
        else:
            player = f'<p class="missing">Not embedded ({size / 1e6:.1f} MB): <code>{_escape(path)}</code></p>'
        self._add(f'<figure class="audio"><figcaption>{_escape(caption)}</figcaption>{player}</figure>\n')

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
            "</body>\n</html>\n"
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


def _row_cells(row: Sequence[Any], classes: Sequence[str], decimals: Sequence[int]) -> Iterator[str]:
    for index, (value, css, digits) in enumerate(zip(row, classes, decimals, strict=True)):
        cell = _cell(value, digits)
        yield f'<th scope="row"{css}>{cell}</th>' if index == 0 else f"<td{css}>{cell}</td>"


def _renderings(figure: Figure) -> Iterator[tuple[str, bytes]]:
    """The figure as an image, the best first."""
    vector = style.svg(figure)
    if len(vector) <= SVG_LIMIT:
        yield "image/svg+xml", vector
    yield "image/png", style.png(figure, dpi=200)
    yield "image/png", style.png(figure, dpi=100)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


_POLICY: Final = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

_STYLE: Final = """
:root {
  --paper: #fbfaf8; --ink: #1f2326; --soft: #5b646b; --line: #dedbd5; --wash: #f1efeb; --accent: #0b5a96;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Cambria, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #16191c; --ink: #e3e5e6; --soft: #9aa3aa; --line: #31373c; --wash: #1f2428; --accent: #7fb8e6; }
  .card { filter: brightness(.9); }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 3.5rem 1.25rem 5rem; max-width: 48.5rem;
  background: var(--paper); color: var(--ink); font: 1.0625rem/1.6 var(--serif);
  overflow-wrap: break-word; font-kerning: normal; text-rendering: optimizeLegibility;
}
header { margin-bottom: 2.25rem; padding-bottom: 1.5rem; border-bottom: 1px solid var(--line); }
h1 { margin: 0; font-size: clamp(1.7rem, 1.2rem + 2.4vw, 2.5rem); line-height: 1.15; font-weight: 600;
  letter-spacing: -.012em; text-wrap: balance; }
.subtitle { margin: .7rem 0 0; color: var(--soft); font-size: 1.15rem; line-height: 1.45; text-wrap: pretty; }
h2 { margin: 3rem 0 .8rem; font-size: 1.45rem; line-height: 1.25; font-weight: 600; text-wrap: balance; }
section { scroll-margin-top: 1rem; }
p { margin: 0 0 1rem; max-width: 41rem; text-wrap: pretty; hanging-punctuation: first; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .18em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
nav { margin: 0 0 2.5rem; font: .9rem/1.5 var(--sans); }
nav p { margin: 0 0 .35rem; color: var(--soft); font-size: .78rem; letter-spacing: .06em; text-transform: uppercase; }
nav ol { margin: 0; padding: 0; list-style: none; columns: 15rem; column-gap: 2rem; }
nav li { break-inside: avoid; padding: .1rem 0; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.facts { display: flex; flex-wrap: wrap; gap: 1rem 2.25rem; margin: 1.5rem 0 1.75rem; padding: 1rem 1.25rem;
  background: var(--wash); border-radius: 6px; font-family: var(--sans); }
.facts div { min-width: 0; }
dt { color: var(--soft); font-size: .8rem; line-height: 1.4; }
dd { margin: .1rem 0 0; font-size: 1.05rem; line-height: 1.35; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; max-width: 100%; }
.table { margin: 1.5rem 0 1.75rem; }
table { border-collapse: collapse; min-width: 100%; font: .9rem/1.45 var(--sans);
  font-variant-numeric: tabular-nums lining-nums; border: solid var(--ink); border-width: 1.5px 0; }
th, td { padding: .42rem 1.6rem .42rem 0; max-width: 26rem; text-align: left; vertical-align: baseline;
  font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; }
tbody .number, tbody .short { white-space: nowrap; }
tbody th:not([class]), tbody td:not([class]) { min-width: 12rem; }
thead th { color: var(--soft); font-size: .82rem; vertical-align: bottom; border-bottom: 1px solid var(--ink); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
.interval { color: var(--soft); font-size: .86em; font-weight: 400; margin-left: .35em; white-space: nowrap; }
.note, figcaption { color: var(--soft); font: .875rem/1.5 var(--sans); max-width: 41rem; margin: .6rem 0 0; }
figure { margin: 1.75rem 0 2rem; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .75rem; }
.card img { display: block; margin: 0 auto; height: auto; max-width: max(100%, var(--least)); }
.missing { margin: 0; color: var(--soft); font: .875rem/1.5 var(--sans); }
.card .missing { color: #5b646b; }
.audio { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 22rem); gap: .5rem 1.5rem; align-items: center;
  margin: .75rem 0; }
.audio figcaption { margin: 0; }
audio { width: 100%; height: 2.5rem; }
pre { margin: 1.25rem 0 1.5rem; padding: .9rem 1.1rem; background: var(--wash); border-radius: 6px;
  font: .84rem/1.55 var(--mono); tab-size: 4; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: var(--mono); font-size: .95em; }
pre code { font-size: inherit; }
@media (max-width: 34rem) {
  body { padding: 2rem 1rem 3.5rem; font-size: 1rem; }
  .facts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .8rem 1rem; padding: .9rem 1rem; }
  dd .interval { display: block; margin: 0; }
  .card { padding: .4rem; }
  .audio { grid-template-columns: minmax(0, 1fr); }
}
@media print {
  :root { --paper: #fff; --wash: #f4f4f2; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav, audio { display: none; }
  h2 { break-after: avoid; }
  figure, tr, .facts, pre { break-inside: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
  .card { border: 0; padding: 0; }
  .card img { max-width: 100%; max-height: 115mm; width: auto; }
}
@page { margin: 18mm; }
"""
