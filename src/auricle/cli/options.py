"""The parser, and the options that several commands share."""

from __future__ import annotations

import argparse
import difflib
import functools
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from auricle.errors import did_you_mean

if TYPE_CHECKING:
    from auricle.data.items import Manifest

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


class Parser(argparse.ArgumentParser):
    """argparse that takes no abbreviations, and names the nearest valid option when one is unknown."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # An abbreviation that a script uses would break when an option with the same beginning is added.
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # A command refuses what it does not know itself, with its own usage: argparse leaves that to the main parser,
        # which knows the options of all.
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
        # By their names alone: the dashes, which all have, would make any two short ones alike.
        options = {option.lstrip("-"): option for action in self._actions for option in action.option_strings}
        for word in words:
            near = difflib.get_close_matches(word.partition("=")[0].lstrip("-"), options, n=1, cutoff=0.65)
            if word.startswith("-") and near:
                message += f" (did you mean {options[near[0]]}?)"
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # Of an unknown command, the nearest one as well as the list.
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            known = ", ".join(repr(name) for name in action.choices)
            near = did_you_mean(value, action.choices)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{near} (choose from {known})")
        super()._check_value(action, value)


def verb(verbs: Verbs, name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
    """Add a command; `run` gets its arguments and returns the exit code."""
    sub: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    sub.set_defaults(run=run)
    return sub


def data_argument(p: argparse.ArgumentParser, help: str, exclude: bool = True) -> None:
    """What data, in which layout it is, and what of it to leave out."""
    p.add_argument("data", nargs="+", help=help)
    format_option(p)
    if exclude:
        p.add_argument("--exclude", metavar="FILE", help="leave out the files in this list, as auricle check writes it")


def format_option(p: argparse.ArgumentParser) -> None:
    """The layout of data."""
    p.add_argument(
        "--format", default="", metavar="NAME", help="layout of the data, instead of detecting it (esc50 ...)"
    )


def data_source(args: argparse.Namespace) -> Callable[[], Manifest]:
    """What reads `args.data` and says by which reader and why: when called, after cheaper mistakes were looked for.

    `check` keeps going where listed files are missing; its own `--exclude` is a list that it writes.
    """
    checking = args.verb == "check"

    @functools.cache
    def read() -> Manifest:
        from auricle.data.formats import read_data

        exclude = None if checking else args.exclude
        manifest = read_data(args.data, args.format, exclude=exclude, keep_going=checking)
        # Of several processes, the first one speaks.
        if os.environ.get("RANK", "0") == "0" and not getattr(args, "quiet", False):
            for note in manifest.notes:
                tell(note)
        return manifest

    return read


def tell(note: str) -> None:
    """Say something beside the results."""
    print(f"data: {note}", file=sys.stderr)


def training_options(p: argparse.ArgumentParser) -> None:
    """What pretraining and fine-tuning share."""
    p.add_argument("--out", required=True, metavar="RUN", help="run directory; the same command resumes it")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting; may be repeated"
    )
    budget = p.add_mutually_exclusive_group()
    budget.add_argument(
        "--max-minutes", type=positive_float, default=0.0, metavar="M", help="as many steps as fit in M minutes"
    )
    budget.add_argument("--steps", type=positive_int, default=0, metavar="N", help="number of steps")
    p.add_argument("--checkpoint-every", type=positive_int, default=0, metavar="N", help="steps between checkpoints")
    p.add_argument(
        "--accumulate", type=positive_int, metavar="K", help="compute each process's part of a batch in K pieces"
    )
    p.add_argument("--workers", type=count, default=0, metavar="W", help="processes that read ahead (0: none)")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn: weights, crops, masks")
    p.add_argument("--track", default="", choices=("tensorboard", "wandb", "mlflow"), help="keep the curves there too")
    p.add_argument("--dry-run", action="store_true", help="print parameters, memory, steps and time, and stop")
    p.add_argument("--quiet", action="store_true", help="no progress")


def label_options(p: argparse.ArgumentParser, default: str = "label") -> None:
    """Which column holds the labels, and how the data is split."""
    p.add_argument("--label", default=default, metavar="COLUMN", help="column with the labels")
    p.add_argument("--split-column", metavar="C", help="column with train/val/test or folds (split, if there is one)")
    p.add_argument("--group-column", metavar="C", help="leave one group of this column out")


def label_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What `label_options` were given, for the functions of `auricle.api`."""
    return {"label": args.label, "split_column": args.split_column, "group_column": args.group_column}


def result_options(p: argparse.ArgumentParser) -> None:
    """Where a result is written."""
    p.add_argument(
        "--json", type=json_file, metavar="FILE", help="write the result, and a page of the same name with .html"
    )


def positive_int(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return int(text)


def count(text: str) -> int:
    """A whole number, 0 or above."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or above, got '{text}'")
    return int(text)


def positive_float(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got '{text}'")
    return value


def json_file(text: str) -> str:
    """The path of a JSON file to write."""
    # Refused here, before hours of work that would have nowhere to go.
    if Path(text).is_dir() or Path(text).suffix == ".html":
        raise argparse.ArgumentTypeError(f"expected a file for JSON, got '{text}'; name it for example result.json")
    above = next(folder for folder in Path(text).absolute().parents if folder.exists())
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' cannot be written: {above} is a file")
    if not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"'{text}' cannot be written: you may not write to the folder {above}")
    return text


def page_file(text: str) -> str:
    """The path of a page to write."""
    # Refused here, before the work that it would show.
    if Path(text).is_dir() or Path(text).suffix != ".html":
        raise argparse.ArgumentTypeError(f"expected a file that ends in .html, got '{text}'")
    return text


def percent(value: float | None) -> str:
    """0.123 as "12.3 %"."""
    return "?" if value is None else f"{100 * value:.1f} %"
