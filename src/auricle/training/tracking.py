"""Where the figures of a training go: three calls, behind which anything that keeps curves can stand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from auricle.training.run import rewind_metrics


class Tracker(Protocol):
    """Keeps the scalars of one run; the run's first process calls it.

    `start` is called again, by another process, when a run is resumed: it goes on with the same record after `step`.
    """

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Begin, or go on after `step` steps; `config` is what the run was started with."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Figures of the step that was just done, counted from 1."""

    def finish(self) -> None:
        """The training has ended or was interrupted."""


class JsonLines:
    """The run's own record: `metrics.jsonl`, one line per logged step, complete up to the last one."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.file: TextIO | None = None

    def start(self, config: Mapping[str, Any], step: int) -> None:
        # A resumed run logs again what came after its checkpoint.
        rewind_metrics(self.run, step)
        self.file = (self.run / "metrics.jsonl").open("a", encoding="utf-8")

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        assert self.file is not None
        self.file.write(json.dumps({"step": step, **scalars}) + "\n")
        self.file.flush()

    def finish(self) -> None:
        if self.file is not None:
            self.file.close()
