"""What a training is given, in which rhythm it goes, and what it keeps of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from auricle.config import TrainConfig
from auricle.data.loader import Loader
from auricle.methods.base import Trainable
from auricle.training import checkpoint as ckpt
from auricle.training.distributed import Group
from auricle.training.optim import optimizer_tensors
from auricle.training.precision import FIRST_SCALE
from auricle.training.tracking import Tracker

Validate = Callable[[Trainable], dict[str, float]]


class Carried(Protocol):
    """Something beside the weights that grows with a run, and that its checkpoints therefore hold."""

    def tensors(self) -> dict[str, Tensor]: ...
    def load(self, tensors: Mapping[str, Tensor]) -> None: ...


@dataclass
class Job:
    """Everything a training needs.

    Attributes:
        module: an objective, or an encoder with the head of a task.
        loader: endless batches, of each the rows of this process.
        run: directory, locked by the caller.
        checkpoint_config: goes to each checkpoint's config.json.
        validate: computes metrics of the module in evaluation mode, on the first process; `best_metric` (higher is
            better) picks the best checkpoint, `score_metric` drives the plateau schedule.
        carried: what checkpoints hold besides; `after_step` is called with the number of steps done.
        trackers: keep the figures, beside `metrics.jsonl`; they are given `tracked_config`.
        group: the processes that train together, each with a Job of its own.
    """

    module: Trainable
    loader: Loader
    config: TrainConfig
    run: Path
    seed: int
    checkpoint_config: Mapping[str, Any]
    validate: Validate | None = None
    best_metric: str = ""
    score_metric: str = ""
    carried: Sequence[Carried] = ()
    after_step: Callable[[int], None] | None = None
    max_minutes: float = 0.0
    checkpoint_every: int = 0
    keep: int = 2
    trackers: Sequence[Tracker] = ()
    tracked_config: Mapping[str, Any] = field(default_factory=dict)
    group: Group = field(default_factory=Group)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    started: float = field(default_factory=time.monotonic)

    def rhythm(self, total: int) -> Rhythm:
        """How often a training of `total` steps validates and saves."""
        tenth = max(1, total // 10)
        validate_every = self.config.validate_every or tenth
        if self.config.schedule == "multistep" and not self.config.validate_every:
            # A schedule of epochs is judged by epochs.
            validate_every = self.loader.steps_per_epoch
        # A rhythm of validations that was asked for is one of checkpoints too: a tenth of a long run is days of work.
        save_every = self.checkpoint_every or min(tenth, self.config.validate_every or tenth)
        return Rhythm(total, validate_every if self.validate else 0, save_every, bool(self.best_metric))


@dataclass(frozen=True)
class Rhythm:
    """After which of `total` steps a training validates (0: never) and saves; after the last one it does both.

    `saves_best`: besides, weights are saved after a validation that finds them better than all before.
    """

    total: int
    validate_every: int
    save_every: int
    saves_best: bool = False

    def validates(self, step: int) -> bool:
        return bool(self.validate_every) and (step % self.validate_every == 0 or step == self.total)

    def saves(self, step: int) -> bool:
        return step % self.save_every == 0 or step == self.total

    @property
    def validations(self) -> int:
        """How many there will be."""
        return math.ceil(self.total / self.validate_every) if self.validate_every else 0

    @property
    def most_saves(self) -> int:
        """How many there will be, if every validation finds better weights."""
        saves = math.ceil(self.total / self.save_every)
        if not (self.saves_best and self.validate_every):
            return saves
        both = self.total // math.lcm(self.save_every, self.validate_every)
        last = self.total % self.save_every != 0 and self.total % self.validate_every != 0
        return self.total // self.save_every + self.total // self.validate_every - both + last


@dataclass
class Progress:
    """What a checkpoint's state.json holds; the loss is scaled in fp16 only."""

    step: int = 0
    total: int = 0
    loader: dict[str, int] = field(default_factory=lambda: {"position": 0})
    best: dict[str, Any] | None = None
    scores: list[tuple[int, float]] = field(default_factory=list)
    bad_files: list[list[str]] = field(default_factory=list)
    audio_seconds: float = 0.0
    elapsed: float = 0.0
    loss_scale: float = FIRST_SCALE
    steady: int = 0


def save_state(job: Job, optimizer: torch.optim.Optimizer, progress: Progress, name: str) -> Path:
    """Write all that a training would go on from to the checkpoint `name` of its run.

    Raises:
        CheckpointError: the file system refuses.
    """
    return ckpt.save_checkpoint(
        job.run,
        name,
        weights=job.module.state_dict(),
        optimizer=optimizer_tensors(optimizer, job.module),
        state=progress.__dict__,
        carried={name: value for part in job.carried for name, value in part.tensors().items()} or None,
        config=job.checkpoint_config,
    )
