"""The code blocks of a Markdown page, and what its HTML comments say about them.

A page that is executed reads like a session: its blocks run in order, in one folder. Comments, which no reader of the
page sees, say what goes beside that:

    <!-- after: docs/commands/index.md -->   the session starts where the blocks of that page end
    <!-- parsed: WHY -->                     the next block is not run; its options are still checked by the real parser
    <!-- slow: WHY -->                       the next block is run only where time is given; else it is parsed
    <!-- shown: WHY -->                      the next block is no code
    <!-- exit: 2 -->                         the last command of the next block ends with this code

A block of language `text` that follows another block, with nothing between, is what that block prints. Lines that are
left out of it are shown as `...`. A block with a title (```python title="birds.py") is a file, and is written.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from auricle.data.synth.sources import SOURCES

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*) *(?P<info>.*)$")
TITLE = re.compile(r'title="([^"]+)"')
MARK = re.compile(r"^ *<!-- (after|parsed|slow|shown|exit): (.+?) -->$")
LANGUAGES = ("bash", "python", "toml", "csv", "text")
ELLIPSIS = "..."


@dataclass(frozen=True)
class Block:
    """One fenced block: its text starts at `line` of the file, counted from 1.

    `prints` is the block that shows its output.
    """

    line: int
    language: str
    title: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)
    prints: Block | None = None


@dataclass(frozen=True)
class Page:
    """A Markdown file: its blocks in order, and the page whose session it continues."""

    path: Path
    blocks: tuple[Block, ...]
    after: str = ""


class PageError(Exception):
    """A page that cannot be understood."""


def read_page(path: Path) -> Page:
    """All fenced blocks of a page.

    Raises:
        PageError: a block has no language, or one that nothing here can check; a fence is not closed.
    """
    blocks: list[Block] = []
    marks: dict[str, str] = {}
    after, adjacent = "", False
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if mark := MARK.match(line):
            marks[mark[1]] = mark[2]
            after = marks.pop("after", after)
        elif fence := FENCE.match(line):
            block = Block(
                number + 1,
                fence["language"],
                title[1] if (title := TITLE.search(fence["info"])) else "",
                textwrap.dedent("".join(_until_closed(lines, fence["fence"], f"{path}:{number}"))),
                marks,
            )
            if block.language not in LANGUAGES:
                raise PageError(
                    f"{path}:{number}: a block of language '{block.language}'; one of {', '.join(LANGUAGES)}."
                )
            if block.language == "text" and adjacent and not marks:
                blocks[-1] = replace(blocks[-1], prints=block)
            else:
                blocks.append(block)
            marks, adjacent = {}, True
        elif line.strip():
            adjacent = False
    return Page(path, tuple(blocks), after)


def _until_closed(lines: Iterator[tuple[int, str]], fence: str, where: str) -> Iterator[str]:
    for _, line in lines:
        if line.strip() == fence:
            return
        yield line + "\n"
    raise PageError(f"{where}: the block is not closed.")


def commands(text: str) -> Iterator[str]:
    """The commands of a bash block: comments left out, lines that end with a backslash joined."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


# Comparing what was printed with what a page shows ---------------------------------------------------------------


# Numbers and the words that depend on them, each by what stands for it.
VARIABLE = (
    (re.compile(rf"\b(?:{'|'.join(source.name for source in SOURCES)})\b"), "CLASS"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "HASH"),
    (re.compile(r"\b(?:better|worse|not told apart)\b"), "VERDICT"),
    (re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"), "#"),
    (re.compile(r"\s+"), " "),
)


def shape(line: str) -> str:
    """A line without what another run may give: numbers, hashes, classes, verdicts, amounts of blanks."""
    for pattern, word in VARIABLE:
        line = pattern.sub(word, line)
    return line.strip()


def same_shape(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed: line by line the same shape, `...` standing for any lines."""
    parts: list[list[str]] = [[]]
    for line in map(shape, shown.strip().splitlines()):
        if line == ELLIPSIS:
            parts.append([])
        else:
            parts[-1].append(line)
    rest = [shape(line) for line in printed.strip().splitlines()]
    first, *others = parts
    if rest[: len(first)] != first:
        return False
    if not others:
        return len(rest) == len(first)
    rest, last = rest[len(first) :], others.pop()
    for part in others:
        start = next((i for i in range(len(rest)) if rest[i : i + len(part)] == part), None)
        if start is None:
            return False
        rest = rest[start + len(part) :]
    return len(rest) >= len(last) and rest[len(rest) - len(last) :] == last


def elided(shown: str, printed: str) -> str:
    """What was printed, shortened as the page shortens it: so many lines before the `...`, so many after."""
    lines, pattern = printed.strip().splitlines(), shown.strip().splitlines()
    if ELLIPSIS not in pattern:
        return printed.strip() + "\n"
    before = pattern.index(ELLIPSIS)
    after = len(pattern) - 1 - before
    return "\n".join([*lines[:before], ELLIPSIS, *lines[len(lines) - after :]]) + "\n"
