"""How far an embedding is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from auricle.inference.libraries import Progress
from auricle.training.log import LINE_EVERY, audio_rate

# Seconds between two looks at the bar.
BAR_EVERY = 0.1


class EmbeddingProgress:
    """Told with `Progress` as the work goes on; a context, at whose end the bar is gone."""

    def __init__(self, quiet: bool = False) -> None:
        console = Console(file=sys.stderr)
        columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
        self.shown = console.is_terminal and not quiet
        self.bar = Bar(*columns, console=console, transient=True, disable=not self.shown)
        self.task = self.bar.add_task("", total=None)
        self.quiet = quiet
        self.began = self.last = time.monotonic()
        self.first: float | None = None

    def __enter__(self) -> EmbeddingProgress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self.first is None:
            # What an earlier process embedded is not this one's speed.
            self.first, self.began = progress.seconds, now
        if self.quiet or now - self.last < (BAR_EVERY if self.shown else LINE_EVERY):
            return
        self.last = now
        speed = (progress.seconds - self.first) / max(now - self.began, 1e-9)
        text = (
            f"{progress.files:,} of {progress.all_files:,} files  {progress.seconds / 3600:.2f} of "
            f"{progress.all_seconds / 3600:.2f} h  {audio_rate(speed / 3600)}"
        )
        if self.shown:
            self.bar.update(self.task, completed=progress.seconds, total=progress.all_seconds, description=text)
        else:
            # Before the first window is embedded, nobody knows.
            left = f"  {(progress.all_seconds - progress.seconds) / speed:.0f} s left" if speed else ""
            print(f"embedding: {text}{left}", file=sys.stderr, flush=True)
