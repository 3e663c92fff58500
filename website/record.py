"""Write what the commands of a page really print into its output blocks.

    python -m website.record docs/commands/*.md

The blocks are run with the budgets that the page names. Pages that others continue are run first, once; `--keep DIR`
keeps what they made for the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import tempfile
from pathlib import Path

from website.blocks import elided, read_page
from website.sessions import Session


def record(path: Path, scratch: Path) -> None:
    """Run a page and rewrite its output blocks; what comes after the last of them is left."""
    page = read_page(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    last = max((number for number, block in enumerate(page.blocks, 1) if block.prints), default=0)
    ran = itertools.islice(Session(page, scratch, slow=True).run(), last)
    found = [(block.prints, printed) for block, printed in ran if block.prints and printed is not None]
    # From the end of the page to its beginning, so that the line numbers of what is left to do stay right.
    for shown, printed in reversed(found):
        first, count = shown.line - 1, shown.text.count("\n")
        lines[first : first + count] = elided(shown.text, printed).splitlines(keepends=True)
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for what the pages make")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["AURICLE_CACHE"] = str(scratch / "cache")
        for path in args.pages:
            record(path.resolve(), scratch.resolve())


if __name__ == "__main__":
    main()
