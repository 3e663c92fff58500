"""What a person sees while a network trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from auricle.errors import plural
from auricle.training.memory import peak_mb

# Seconds between lines where the output is not a terminal.
LINE_EVERY = 10.0
# What a validation measures is called by the clips it was measured on; what a monitor finds, by its head.
VALIDATION = ("val_", "train_", "knn_")


class Console:
    """Progress on standard error: a bar on a terminal, a line every ten seconds elsewhere, only warnings if `quiet`.

    `silent` is for the processes of a run that are not its first: nothing at all.
    As a context it stops at the end, however that comes: a bar left running keeps the terminal's cursor hidden.
    """

    def __init__(self, quiet: bool = False, silent: bool = False) -> None:
        self.quiet, self.silent = quiet or silent, silent
        self.rich = RichConsole(file=sys.stderr, quiet=self.quiet)
        self.bar: Progress | None = None
        self.began = self.last_line = time.monotonic()
        self.first_step = self.total = 0
        self.first_audio: float | None = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def say(self, text: str) -> None:
        """One line, as it is."""
        self.rich.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that a quiet run shows too."""
        if self.silent:
            return
        if self.quiet:
            print(f"warning: {text}", file=sys.stderr)
        else:
            self.say(f"warning: {text}")

    @contextmanager
    def hushed(self) -> Iterator[None]:
        """Nothing is shown inside, not even warnings: what is only tried out has nothing to tell."""
        before = self.silent, self.rich.quiet
        self.silent = self.rich.quiet = True
        try:
            yield
        finally:
            self.silent, self.rich.quiet = before

    def start(self, step: int, total: int, precision: str, processes: int = 1) -> None:
        """A training begins at `step`."""
        self.began = self.last_line = time.monotonic()
        self.first_step, self.total, self.first_audio = step, total, None
        self.say(
            f"training: {plural(total, 'step')}, {precision}" + (f", {processes} processes" if processes > 1 else "")
        )
        if self.rich.is_terminal and not self.quiet:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=self.rich)
            self.bar.add_task("", total=total, completed=step)
            self.bar.start()

    def update(self, step: int, scalars: dict[str, float], audio_seconds: float, row: dict[str, Any]) -> None:
        """After a step: `scalars` of it, the seconds of audio seen so far, and the row logged, if any."""
        now = time.monotonic()
        if self.first_audio is None:
            self.first_audio, self.began = audio_seconds, now
        rate = (audio_seconds - self.first_audio) / 3600 / max(now - self.began, 1e-9)
        parts = [f"{key} {scalars[key]:.4g}" for key in ("loss", "accuracy") if key in scalars]
        parts += [f"{key} {value:.4g}" for key, value in row.items() if key.startswith(VALIDATION)]
        parts += [audio_rate(rate), f"{peak_mb():.0f} MB"]
        text = "  ".join(parts)
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=step, description=text)
        elif now - self.last_line > LINE_EVERY or step == self.total or any(k.startswith(VALIDATION) for k in row):
            self.last_line = now
            done = max(1, step - self.first_step)
            left = (now - self.began) / done * (self.total - step)
            self.say(f"step {step}/{self.total}  {text}  {left:.0f} s left")

    def stop(self) -> None:
        """The training has ended."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def audio_rate(hours: float) -> str:
    """Hours of sound per second, in the unit that reads well."""
    return f"{hours:.2f} audio-h/s" if hours >= 1 else f"{hours * 3600:.0f} audio-s/s"
