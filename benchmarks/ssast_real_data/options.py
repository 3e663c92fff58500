"""The command line that the benchmarks on the real recordings share: the same options, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from auricle.errors import AuricleError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"


class Usual(Protocol):
    """What is taken where an option is left out."""

    @property
    def minutes(self) -> tuple[float, ...]: ...
    @property
    def generated_hours(self) -> float: ...
    @property
    def seed(self) -> int: ...


def options(description: str | None, out: str, page: str, usual: Usual) -> argparse.ArgumentParser:
    """A parser with the shared options; `out` is the usual folder of the results, `page` what --page writes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument(
        "--data",
        type=data_folder,
        default="",
        help="folder of the recordings (AURICLE_DATA, else ../shared/data/public)",
    )
    parser.add_argument("--minutes", type=budgets, default=usual.minutes, help="budgets of pretraining, rising")
    parser.add_argument("--generated-hours", type=float, default=usual.generated_hours)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--page", action="store_true", help=f"write docs/{page}.md and its picture")
    return parser


def data_folder(text: str) -> Path:
    return Path(text or os.environ.get("AURICLE_DATA") or REPOSITORY.parent / "shared/data/public")


def budgets(text: str) -> tuple[float, ...]:
    """Rising numbers of minutes, separated by commas."""
    found = tuple(float(part) for part in text.split(","))
    if not found or found[0] <= 0 or list(found) != sorted(set(found)):
        raise argparse.ArgumentTypeError(f"minutes must rise, got '{text}'")
    return found


def finish(compute: Callable[[], Path | None], unwritten: str = "") -> int:
    """Compute and say which page was written, or why none; the exit code."""
    try:
        page = compute()
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"written: {page}" if page else unwritten)
    return 0
