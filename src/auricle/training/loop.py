"""The training loop: one for pretraining and fine-tuning, on plain torch.

A step is a function of (weights, optimizer state, step number): its batch, masks, dropout and learning rate follow from
the seed and the step. So a run that is killed anywhere and started again ends with the same bits.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.data.batch import Batch
from auricle.data.loader import Loader
from auricle.data.randomness import torch_seed
from auricle.errors import AuricleError, CheckpointError, DataError, Interrupted, NonFiniteLoss
from auricle.files import write_text
from auricle.training import checkpoint as ckpt
from auricle.training.log import Console
from auricle.training.optim import (
    Clock,
    build_optimizer,
    learning_rate_factor,
    load_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from auricle.training.precision import autocast, resolve_precision
from auricle.training.run import read_json, rewind_metrics

MAX_BAD_FILES = 100
# Seconds of trial steps from which --max-minutes computes its number of steps, and the share of the time it plans with.
TRIAL_SECONDS = 4.0
PLANNED_SHARE = 0.93

Validate = Callable[[nn.Module], dict[str, float]]


class Carried(Protocol):
    """Something beside the weights that grows with a run, and that its checkpoints therefore hold."""

    def tensors(self) -> dict[str, Tensor]: ...
    def load(self, tensors: Mapping[str, Tensor]) -> None: ...


@dataclass
class Job:
    """Everything a training needs.

    Attributes:
        module: `forward(batch, progress) -> {"loss", "weight", ...}`, a mean and the number of terms it is over;
            `after_step(progress)`.
        loader: endless batches of the global batch size.
        run: directory, locked by the caller.
        checkpoint_config: goes to each checkpoint's config.json.
        validate: computes metrics of the module in evaluation mode; `best_metric` (higher is better) picks the best
            checkpoint, `score_metric` drives the plateau schedule.
        carried: what checkpoints hold besides; `after_step` is called with the number of steps done.
    """

    module: nn.Module
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
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    started: float = field(default_factory=time.monotonic)


@dataclass
class Progress:
    """What a checkpoint's state.json holds."""

    step: int = 0
    total: int = 0
    loader: dict[str, int] = field(default_factory=lambda: {"position": 0})
    best: dict[str, Any] | None = None
    scores: list[tuple[int, float]] = field(default_factory=list)
    bad_files: list[list[str]] = field(default_factory=list)
    audio_seconds: float = 0.0
    elapsed: float = 0.0


def train(job: Job, console: Console) -> Progress:
    """Train to the end of the budget, resuming from the run's latest checkpoint if it has one.

    Raises:
        NonFiniteLoss: a loss is NaN or infinite; nothing was stepped or, if a validation found it, nothing saved.
        DataError: more unreadable files than `max_bad_fraction` of an epoch, or than 100.
        Interrupted: SIGTERM or SIGINT; the step was finished and saved.
    """
    job.module.to(job.device)
    optimizer = build_optimizer(job.module, job.config)
    progress = _restore(job, optimizer, console)
    planned_before = (job.run / "budget.json").exists()
    progress.total = _plan_steps(job, console)
    if progress.step >= progress.total:
        console.say(f"{job.run} is complete: {progress.step} of {progress.total} steps.")
        return progress
    precision = resolve_precision(job.config.precision, job.device)
    console.start(progress.step, progress.total, precision)
    before = progress.elapsed
    # A run that is started again goes on to the steps it was planned with: how often it was killed must not decide
    # where it ends.
    deadline = job.started + job.max_minutes * 60 if job.max_minutes and not planned_before else math.inf
    checkpoint_every = job.checkpoint_every or max(1, progress.total // 10)
    validate_every = job.config.validate_every or max(1, progress.total // 10)
    if job.config.schedule == "multistep" and not job.config.validate_every:
        # A schedule of epochs is judged by epochs.
        validate_every = job.loader.steps_per_epoch
    log_every = 1 if progress.total <= 2000 else 10
    saved = progress.step
    with _signals() as caught, console, (job.run / "metrics.jsonl").open("a", encoding="utf-8") as log:
        for batch in _unless_ended(job.loader, caught):
            scalars = _step(job, optimizer, batch, progress, precision)
            progress.step += 1
            if job.after_step:
                job.after_step(progress.step)
            progress.loader = job.loader.state_dict()
            progress.elapsed = before + time.monotonic() - job.started
            done = progress.step == progress.total
            row: dict[str, Any] = {"step": progress.step, **scalars} if progress.step % log_every == 0 or done else {}
            if job.validate and (progress.step % validate_every == 0 or done):
                row |= {"step": progress.step, **_validate(job, progress)}
            if row:
                log.write(json.dumps(row) + "\n")
                log.flush()
            console.update(progress.step, scalars, progress.audio_seconds, row)
            is_best = progress.best is not None and progress.best["step"] == progress.step
            out_of_time = time.monotonic() > deadline
            if progress.step % checkpoint_every == 0 or done or is_best or caught or out_of_time:
                _save(job, optimizer, progress)
                saved = progress.step
            if done or caught or out_of_time:
                break
        if caught:
            if saved != progress.step:
                _save(job, optimizer, progress)
            name, code = ("SIGINT", 130) if signal.SIGINT in caught else ("SIGTERM", 75)
            raise Interrupted(f"{name}: saved step {progress.step}; run the same command again to go on.", code)
        if progress.step < progress.total:
            console.say(
                f"time is up at step {progress.step} of {progress.total}: this machine is slower than in the trial "
                "steps; run the same command again for the rest."
            )
    return progress


def _unless_ended(batches: Iterable[Batch], caught: set[signal.Signals]) -> Iterator[Batch]:
    """Batches until a signal has ended the loader's workers, as one to the whole process group does."""
    try:
        yield from batches
    except AuricleError:
        if not caught:
            raise


def _step(
    job: Job, optimizer: torch.optim.Optimizer, batch: Batch, progress: Progress, precision: str
) -> dict[str, float]:
    """One optimizer step on a global batch; returns the scalars to log."""
    config, module = job.config, job.module
    _count_bad_files(job, batch, progress)
    share = progress.step / progress.total
    clock = Clock(progress.step, progress.total, job.loader.steps_per_epoch, progress.scores)
    lr = config.lr * learning_rate_factor(clock, config)
    set_learning_rate(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    module.train()
    sums: dict[str, float] = {}
    weight_sum = 0.0
    for number, part in enumerate(_micro_batches(batch.to(job.device), config.accumulate)):
        result = _forward(module, part, share, (job.seed, progress.step, number), precision)
        loss, weight = result["loss"], float(result["weight"])
        if not bool(torch.isfinite(loss)):
            raise NonFiniteLoss(
                f"the loss is {float(loss.detach())} at step {progress.step}; the batch was {', '.join(part.ids)}; "
                "the last checkpoint is valid: lower lr, or look at these files with auricle info."
            )
        # Micro-batches may hold different numbers of terms: weigh each mean by its own, divide by all at the end.
        (loss * weight).backward()
        weight_sum += weight
        for key, value in result.items():
            if key != "weight":
                sums[key] = sums.get(key, 0.0) + float(value.detach()) * weight
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    torch._foreach_div_(gradients, weight_sum)
    scalars = {key: value / weight_sum for key, value in sums.items()}
    norm = nn.utils.get_total_norm(gradients)
    if not bool(torch.isfinite(norm)):
        raise NonFiniteLoss(f"a gradient is not finite at step {progress.step}; the batch was {', '.join(batch.ids)}.")
    if config.clip_norm:
        nn.utils.clip_grads_with_norm_(module.parameters(), config.clip_norm, norm)
    optimizer.step()
    module.after_step(share)  # type: ignore[operator]
    progress.audio_seconds += float(batch.audio.lengths.sum()) / batch.audio.rate
    return scalars | {"lr": lr, "grad_norm": float(norm)}


def _forward(
    module: nn.Module, batch: Batch, progress: float, keys: tuple[int, int, int], precision: str
) -> dict[str, Tensor]:
    """Forward with dropout drawn from (seed, step, micro-batch); the global generators stay as they were."""
    device = batch.audio.data.device
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(torch_seed(keys[0], "step", *keys[1:]))
        with autocast(precision, device):
            result: dict[str, Tensor] = module(batch, progress)
    return result


def _micro_batches(batch: Batch, parts: int) -> Iterator[Batch]:
    size = math.ceil(len(batch) / parts)
    for start in range(0, len(batch), size):
        yield batch.rows(start, start + size)


def _validate(job: Job, progress: Progress) -> dict[str, float]:
    assert job.validate is not None
    job.module.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        metrics = job.validate(job.module)
    broken = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise NonFiniteLoss(
            f"{', '.join(broken)} in the validation after step {progress.step}; "
            "the last checkpoint is valid: lower lr, and run it again in another --out."
        )
    if job.score_metric in metrics:
        progress.scores.append((progress.step, metrics[job.score_metric]))
    value = metrics.get(job.best_metric)
    if value is not None and (progress.best is None or value > progress.best["value"]):
        progress.best = {"step": progress.step, "metric": job.best_metric, "value": value}
    return metrics


def _plan_steps(job: Job, console: Console) -> int:
    """The total number of steps: given, or measured once for --max-minutes and then kept with the run."""
    if not job.max_minutes:
        return job.config.steps or max(1, round(job.config.epochs * job.loader.steps_per_epoch))
    path = job.run / "budget.json"
    if path.exists():
        steps = read_json(path).get("steps")
        if not isinstance(steps, int) or steps < 1:
            raise CheckpointError(f"{path} holds no number of steps; restore it, or give another --out.")
        return steps
    seconds = seconds_per_step(job)
    left = job.max_minutes * 60 * PLANNED_SHARE - (time.monotonic() - job.started)
    steps = max(1, int(left / seconds))
    write_text(path, json.dumps({"max_minutes": job.max_minutes, "seconds_per_step": seconds, "steps": steps}) + "\n")
    console.say(f"{job.max_minutes:g} minutes: {steps} steps at {seconds:.3f} s each.")
    return steps


def seconds_per_step(job: Job) -> float:
    """Time trial steps on a copy of the module, so that the run itself does not depend on how many there were."""
    precision = resolve_precision(job.config.precision, job.device)
    trial = copy.deepcopy(job.module).train()
    optimizer = build_optimizer(trial, job.config)
    set_learning_rate(optimizer, 0.0)
    position = job.loader.state_dict()
    begin, times = time.monotonic(), []
    for batch in job.loader:
        start = time.monotonic()
        for part in _micro_batches(batch.to(job.device), job.config.accumulate):
            result = _forward(trial, part, 0.0, (job.seed, 0, 0), precision)
            result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.monotonic() - start)
        if len(times) >= 3 and time.monotonic() - begin > TRIAL_SECONDS:
            break
    read = max(0.0, (time.monotonic() - begin - sum(times)) / len(times))
    job.loader.load_state_dict(position)
    # The first steps allocate and compile; reading is counted in full only where workers do not hide it.
    steady = sorted(times)[len(times) // 2]
    return steady + (0.0 if job.loader.workers else read * 0.5)


def _restore(job: Job, optimizer: torch.optim.Optimizer, console: Console) -> Progress:
    """Continue from the latest checkpoint that verifies, or begin."""
    ckpt.remove_stale(job.run)
    newest, problems = ckpt.latest(job.run)
    for problem in problems:
        console.warn(problem)
    if newest is None:
        rewind_metrics(job.run, 0)
        return Progress()
    ckpt.load_state(job.module, newest.weights(), str(newest.path))
    load_optimizer(optimizer, job.module, newest.optimizer())
    for part in job.carried:
        part.load(newest.carried())
    progress = Progress(**newest.state)
    job.loader.load_state_dict(progress.loader)
    rewind_metrics(job.run, progress.step)
    console.say(f"resuming {job.run} at step {progress.step}.")
    return progress


def _save(job: Job, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    ckpt.save_checkpoint(
        job.run,
        ckpt.step_name(progress.step),
        weights=job.module.state_dict(),
        optimizer=optimizer_tensors(optimizer, job.module),
        state=progress.__dict__,
        carried={name: value for part in job.carried for name, value in part.tensors().items()} or None,
        config=job.checkpoint_config,
    )
    ckpt.prune(job.run, job.keep, {progress.best["step"]} if progress.best else ())


def _count_bad_files(job: Job, batch: Batch, progress: Progress) -> None:
    known = {path for path, _ in progress.bad_files}
    for path, reason in batch.replaced:
        if path not in known:
            known.add(path)
            progress.bad_files.append([path, reason])
    limit = max(1, min(MAX_BAD_FILES, math.ceil(job.config.max_bad_fraction * len(job.loader.dataset.items))))
    if len(progress.bad_files) > limit:
        listed = "; ".join(f"{path}: {reason}" for path, reason in progress.bad_files[:5])
        raise DataError(
            f"{len(progress.bad_files)} files cannot be read, more than the {limit} allowed ({listed}); "
            "repair or remove them, or raise --set max_bad_fraction."
        )


@contextmanager
def _signals() -> Iterator[set[signal.Signals]]:
    """Collect SIGTERM and SIGINT; a second SIGINT ends the process at once."""
    caught: set[signal.Signals] = set()

    def handle(number: int, frame: object) -> None:
        if number == signal.SIGINT and signal.SIGINT in caught:
            raise KeyboardInterrupt
        caught.add(signal.Signals(number))

    try:
        previous = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:
        # Not in the main thread: signals stay with whoever owns them.
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
