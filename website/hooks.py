"""What mkdocs does when it builds the site.

It fills in the options of each command, from the command line's own parser, and lets long names in tables break.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from auricle.cli import build_parser

MARK = "<!-- options -->"


def on_page_markdown(markdown: str, page: Any, **context: Any) -> str:
    """Replace the mark in `commands/VERB.md` by the usage and the options of VERB (a hook that mkdocs calls)."""
    if MARK not in markdown:
        return markdown
    return markdown.replace(MARK, options_of(page.file.src_uri.rpartition("/")[2].removesuffix(".md")))


def on_page_content(html: str, page: Any, **context: Any) -> str:
    """Let names in narrow cells of tables break after / : . and _, not within a word (a hook that mkdocs calls)."""

    def broken(code: re.Match[str]) -> str:
        return re.sub(r"(?<=\w[/:._])(?=\w)", "<wbr>", code[0])

    return re.sub(r"<td\b.*?</td>", lambda cell: re.sub(r"<code>.*?</code>", broken, cell[0]), html, flags=re.DOTALL)


def verbs() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command, by its name."""
    subparsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(subparsers.choices)


def options_of(verb: str) -> str:
    """Usage and a table of all arguments of a command, in Markdown."""
    parser = verbs()[verb]
    formatter = argparse.HelpFormatter(parser.prog, width=84)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    rows = [_row(action) for action in parser._actions if action.dest != "help"]
    table = "\n".join(["| argument | meaning |", "|---|---|", *rows])
    return f"```text\n{formatter.format_help().strip()}\n```\n\n{table}\n"


def _row(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        name += f" {action.metavar or '|'.join(map(str, action.choices or (action.dest.upper(),)))}"
    notes = [action.help or ""]
    if action.required and action.option_strings:
        notes.append("required")
    if action.default not in (None, "", [], (), False, 0, 0.0, argparse.SUPPRESS):
        notes.append(f"default `{action.default}`")
    # A bar within backticks divides no cell.
    return f"| `{name}` | {'; '.join(notes)} |"
