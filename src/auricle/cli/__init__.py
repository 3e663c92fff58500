"""The command line. What trains, evaluates and applies models are functions of `auricle.api` with the same options.

Only the standard library is imported until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from auricle import __version__
from auricle.cli import checkpoints, data, evaluation, inference, training
from auricle.cli.options import Parser
from auricle.command import commanded
from auricle.errors import AuricleError

CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = Parser(prog="auricle", description="Learn from audio without labels, and use what was learned.")
    parser.add_argument("--version", action="version", version=f"auricle {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for group in (training, evaluation, inference, checkpoints, data):
        group.add(verbs)
    return parser


def _once() -> Callable[..., None]:
    """What tells each warning of a command once: a file that is read again says the same again."""
    told: set[str] = set()

    def show(message: Warning | str, *where: object, **more: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    return show


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see `auricle.errors`)."""
    args = build_parser().parse_args(argv)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Torch's warnings about its own settings, one from each process; it reads this when it is imported.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    args.command_line = shlex.join(["auricle", *(sys.argv[1:] if argv is None else argv)])
    try:
        with warnings.catch_warnings(), commanded(args.command_line):
            warnings.showwarning = _once()
            code: int = args.run(args)
        sys.stdout.flush()
    except AuricleError as error:
        if error.told_elsewhere:
            # torchrun terminates the other processes as soon as one fails: the one that tells it is to be that one.
            time.sleep(1.0)
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        print(f"error: {error}; free some space or mend the permissions, and run it again.", file=sys.stderr)
        return 1
    return code
