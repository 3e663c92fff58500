"""Every exception that auricle raises on purpose.

AuricleError                      exit code 1
├── UserError                     exit code 2: the input is wrong, and the message says what to do
│   ├── AudioError                a file or array of sound cannot be used
│   ├── DataError                 a manifest, split or label column is wrong
│   ├── ConfigError               an option, preset or recipe is wrong
│   └── CheckpointError           a checkpoint is missing, damaged or of the wrong kind
├── NonFiniteLoss                 exit code 1: the loss became NaN or infinite; nothing was stepped or saved
└── Interrupted                   exit code 75 (SIGTERM, SIGUSR1) or 130 (SIGINT): saved, and the same command resumes

A message is one sentence: what is wrong, where, what was expected, what was got, what to do.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable


class AuricleError(Exception):
    """Base of all errors below; `exit_code` is what the command line returns.

    `told_elsewhere` is set where all processes of a run raise the same error and another one tells it.
    """

    exit_code = 1
    told_elsewhere = False


class UserError(AuricleError):
    """The input is wrong; the command line prints the message without a traceback."""

    exit_code = 2


class AudioError(UserError):
    """A sound cannot be used.

    Attributes: `path` (or "<array>"), `reason` (one of `auricle.audio.REASONS`), `detail` (a sentence).
    """

    def __init__(self, path: str, reason: str, detail: str = "") -> None:
        self.path, self.reason, self.detail = path, reason, detail
        super().__init__(f"{path}: {reason}" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str, str]]:
        # The default pickles only the formatted message; loader workers send these between processes.
        return type(self), (self.path, self.reason, self.detail)


class DataError(UserError):
    """A manifest, split or label column is wrong."""


class ConfigError(UserError):
    """An option, preset or recipe is wrong."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or not of the kind that was asked for."""


class NonFiniteLoss(AuricleError):
    """The loss is NaN or infinite; raised before the optimizer step, naming the files of the batch."""


class Interrupted(AuricleError):
    """A signal ended the run after it was saved; running the same command again continues it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[Interrupted], tuple[str, int]]:
        # The default pickles only the message; processes of a run send these to each other.
        return type(self), (str(self), self.exit_code)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """` (did you mean 'x' or 'y'?)` for the nearest candidates, or an empty string."""
    near = difflib.get_close_matches(word, list(candidates), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""


def sentence(text: str) -> str:
    """With a capital at its beginning, for pages; notes begin small, as they may stand behind "warning:"."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """`an encoder`, `a detector`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(count: int, noun: str) -> str:
    """`1 clip`, `2,000 clips`, `3 classes`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


def printable(name: str) -> str:
    """A file name on one line, in characters that can be written: odd bytes and controls as \\udcXX and \\n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def in_words(error: Exception) -> str:
    """What an error of the system or of a parser says, short enough to stand inside a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start})"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON (line {error.lineno})"
    return " ".join(str(error).split()).rstrip(".")
