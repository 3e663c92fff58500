"""Where the figures of a training go: three calls, behind which anything that keeps curves can stand.

TensorBoard, Weights & Biases and MLflow are imported when they are asked for. A resumed run goes on with the same
record of theirs: what they call it is kept in the run's `tracking.json`.
"""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from auricle.errors import ConfigError, did_you_mean
from auricle.files import write_text
from auricle.training.distributed import Group
from auricle.training.log import Console
from auricle.training.run import read_json, rewind_metrics


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


class TensorBoard:
    """Curves in the run's folder `tensorboard`, to look at with `tensorboard --logdir RUN`."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.module = _module("torch.utils.tensorboard", "TensorBoard", "tensorboard")

    def start(self, config: Mapping[str, Any], step: int) -> None:
        # What was written after the checkpoint is hidden from the curves: it is written again.
        self.writer = self.module.SummaryWriter(self.run / "tensorboard", purge_step=step + 1)
        if step == 0:
            self.writer.add_text("config", "    " + json.dumps(config, indent=1).replace("\n", "\n    "))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases; project, account and mode come from its own environment variables."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.module = _module("wandb", "Weights & Biases", "wandb")

    def start(self, config: Mapping[str, Any], step: int) -> None:
        identity = _kept(self.run, "wandb") or _keep(self.run, "wandb", uuid.uuid4().hex)
        # Steps that it has already are sent again after a resume, and ignored: the figures are the same.
        self.record = self.module.init(
            id=identity, resume="allow", name=self.run.resolve().name, dir=str(self.run), config=dict(config)
        )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.record.log(dict(scalars), step=step)

    def finish(self) -> None:
        self.record.finish()


class MLflow:
    """MLflow; the server and the experiment come from its own environment variables."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.module = _module("mlflow", "MLflow", "mlflow")

    def start(self, config: Mapping[str, Any], step: int) -> None:
        known = _kept(self.run, "mlflow")
        self.record = self.module.start_run(run_id=known, run_name=self.run.resolve().name)
        if not known:
            self.module.log_params({name: str(value)[:500] for name, value in _flat(config).items()})
            _keep(self.run, "mlflow", str(self.record.info.run_id))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.module.log_metrics(dict(scalars), step=step)

    def finish(self) -> None:
        self.module.end_run()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


class Forgiving:
    """A tracker whose failure is told once and never stops the training."""

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self.name, self.tracker, self.warn = name, tracker, warn
        self.broken = False

    def start(self, config: Mapping[str, Any], step: int) -> None:
        self._try(lambda: self.tracker.start(config, step))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._try(lambda: self.tracker.log(step, scalars))

    def finish(self) -> None:
        self._try(self.tracker.finish)

    def _try(self, call: Callable[[], None]) -> None:
        if self.broken:
            return
        try:
            call()
        except Exception as error:
            self.broken = True
            self.warn(
                f"{self.name} failed ({type(error).__name__}: {' '.join(str(error).split())}); the training goes on "
                "without it, and metrics.jsonl has all figures."
            )


def trackers(name: str, run: Path, group: Group, console: Console) -> list[Tracker]:
    """The tracker called `name`, on the first process; none without a name.

    Raises:
        ConfigError: there is none of that name, or its package is not installed.
    """

    def make() -> list[Tracker]:
        if not name or not group.first:
            return []
        if name not in TRACKERS:
            raise ConfigError(f"--track {name}: unknown{did_you_mean(name, TRACKERS)}; give {', '.join(TRACKERS)}.")
        return [Forgiving(name, TRACKERS[name](run), console.warn)]

    return group.together(make)


def _module(name: str, title: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{title} cannot be imported ({error}); pip install {package}, or leave --track out."
        ) from None


def _kept(run: Path, name: str) -> str | None:
    """What a tracking service calls the run, if it knows it already."""
    path = run / "tracking.json"
    return read_json(path).get(name) if path.exists() else None


def _keep(run: Path, name: str, identity: str) -> str:
    path = run / "tracking.json"
    others = read_json(path) if path.exists() else {}
    write_text(path, json.dumps({**others, name: identity}) + "\n")
    return identity


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        result |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return result
