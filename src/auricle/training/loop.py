"""The training loop: one for pretraining and fine-tuning, on plain torch.

A step is a function of (weights, optimizer state, step number): its batch, masks, dropout and learning rate follow from
the seed and the step. So a run that is killed anywhere and started again ends with the same bits. Several processes
share the rows of each batch; all of them step alike, and the first one writes.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.data.batch import Batch
from auricle.data.loader import Loader
from auricle.data.randomness import torch_seed
from auricle.errors import AuricleError, CheckpointError, DataError, Interrupted, NonFiniteLoss, plural
from auricle.files import write_text
from auricle.training import checkpoint as ckpt
from auricle.training.distributed import Group
from auricle.training.log import Console
from auricle.training.optim import (
    Clock,
    build_optimizer,
    learning_rate_factor,
    load_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from auricle.training.precision import FIRST_SCALE, LEAST_SCALE, autocast, next_scale, resolve_precision
from auricle.training.run import read_json
from auricle.training.signals import caught_signals, interruption
from auricle.training.tracking import JsonLines, Tracker

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
        loader: endless batches, of each the rows of this process.
        run: directory, locked by the caller.
        checkpoint_config: goes to each checkpoint's config.json.
        validate: computes metrics of the module in evaluation mode, on the first process; `best_metric` (higher is
            better) picks the best checkpoint, `score_metric` drives the plateau schedule.
        validation_seconds: what a validation takes besides, for the plan of --max-minutes.
        carried: what checkpoints hold besides; `after_step` is called with the number of steps done.
        trackers: keep the figures, beside `metrics.jsonl`; they are given `tracked_config`.
        group: the processes that train together, each with a Job of its own.
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
    validation_seconds: float = 0.0
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


def train(job: Job, console: Console) -> Progress:
    """Train to the end of the budget, resuming from the run's latest checkpoint if it has one.

    Raises:
        NonFiniteLoss: a loss is NaN or infinite; nothing was stepped or, if a validation found it, nothing saved. In
            fp16, gradients that are not finite skip their step, with half the scale after it, until it is LEAST_SCALE.
        DataError: more unreadable files than `max_bad_fraction` of an epoch, or than 100.
        Interrupted: SIGTERM, SIGUSR1 or SIGINT; the step was finished and saved.
    """
    group = job.group
    job.module.to(job.device)
    optimizer = build_optimizer(job.module, job.config)
    progress = _restore(job, optimizer, console)
    planned_before = (job.run / "budget.json").exists()
    progress.total = _plan_steps(job, console)
    if progress.step >= progress.total:
        console.say(f"{job.run} is complete: {progress.step} of {progress.total} steps.")
        return progress
    network = group.wrap(job.module)
    precision = resolve_precision(job.config.precision, job.device)
    console.start(progress.step, progress.total, precision, group.size)
    before, resumed_at, saved = progress.elapsed, progress.step, progress.step or -1
    # A run that is started again goes on to the steps it was planned with: how often it was killed must not decide
    # where it ends.
    deadline = job.started + job.max_minutes * 60 if job.max_minutes and not planned_before else math.inf
    checkpoint_every = job.checkpoint_every or max(1, progress.total // 10)
    validate_every = job.config.validate_every or max(1, progress.total // 10)
    if job.config.schedule == "multistep" and not job.config.validate_every:
        # A schedule of epochs is judged by epochs.
        validate_every = job.loader.steps_per_epoch
    log_every = 1 if progress.total <= 2000 else 10
    batches = iter(job.loader)
    with caught_signals() as caught, console, _record(job, progress.step) as record:

        def next_batch() -> Batch:
            if group.first and progress.step > resumed_at and time.monotonic() > deadline:
                raise _TimeIsUp()
            return _next_batch(batches, caught, progress.step)

        try:
            while progress.step < progress.total:
                batch = group.together(next_batch)
                bad = len(progress.bad_files)
                scalars = _step(job, network, optimizer, batch, progress, precision)
                for path, reason in progress.bad_files[bad:]:
                    console.warn(f"{path}: {reason}; another clip stands in for it")
                progress.step += 1
                if job.after_step:
                    job.after_step(progress.step)
                progress.loader = job.loader.state_dict()
                progress.elapsed = before + time.monotonic() - job.started
                done = progress.step == progress.total
                row = scalars if progress.step % log_every == 0 or done else {}
                if job.validate and (progress.step % validate_every == 0 or done):
                    row = row | _validate(job, progress)
                if row:
                    group.together(partial(record, progress.step, row))
                console.update(progress.step, scalars, progress.audio_seconds, row)
                is_best = progress.best is not None and progress.best["step"] == progress.step
                if progress.step % checkpoint_every == 0 or done or is_best:
                    _save(job, optimizer, progress)
                    saved = progress.step
        except (Interrupted, _TimeIsUp) as end:
            if saved != progress.step:
                _save(job, optimizer, progress)
            if isinstance(end, Interrupted):
                raise
            console.say(
                f"time is up at step {progress.step} of {progress.total}: this machine is slower than in the trial "
                "steps; run the same command again for the rest."
            )
    return progress


class _TimeIsUp(AuricleError):
    """The minutes are over before the steps that were planned for them."""


def _next_batch(batches: Iterator[Batch], caught: set[signal.Signals], step: int) -> Batch:
    """The next batch; Interrupted once a signal has come, which may have ended the loader's workers as well."""
    try:
        if not caught:
            batch = next(batches)
    except AuricleError:
        if not caught:
            raise
    if caught:
        raise interruption(caught, f"step {step}")
    return batch


@contextmanager
def _record(job: Job, step: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A function that keeps the figures of a step; on the first process, elsewhere it does nothing."""
    trackers = [JsonLines(job.run), *job.trackers] if job.group.first else []
    with ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.finish)
            tracker.start(job.tracked_config, step)

        def record(step: int, scalars: Mapping[str, float]) -> None:
            for tracker in trackers:
                tracker.log(step, scalars)

        yield record


@dataclass
class _Part:
    """What one process did in a step: `sums` are of scalars times the number of terms they are means over, `weight`."""

    ids: tuple[str, ...]
    samples: int
    replaced: tuple[tuple[str, str], ...]
    weight: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    error: NonFiniteLoss | None = None


def _step(
    job: Job, network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, progress: Progress, precision: str
) -> dict[str, float]:
    """One optimizer step on a global batch, of which `batch` holds this process's rows; returns the scalars to log."""
    config, module, group = job.config, job.module, job.group
    share = progress.step / progress.total
    clock = Clock(progress.step, progress.total, job.loader.steps_per_epoch, progress.scores)
    lr = config.lr * learning_rate_factor(clock, config)
    set_learning_rate(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    module.train()
    parts = group.gather(_backward(job, network, batch, progress, precision))
    _count_bad_files(job, parts, progress)
    for part in parts:
        if part.error:
            raise group.common(part.error)
    weight = sum(part.weight for part in parts)
    scalars = {key: sum(part.sums[key] for part in parts) / weight for key in parts[0].sums}
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    scale = _loss_scale(progress, precision)
    torch._foreach_div_(gradients, weight / group.size * scale)
    norm = nn.utils.get_total_norm(gradients)
    finite = bool(torch.isfinite(norm))
    scalars["lr"] = lr
    progress.audio_seconds += sum(part.samples for part in parts) / batch.audio.rate
    if precision == "fp16":
        scalars["loss_scale"] = scale
        progress.loss_scale, progress.steady = next_scale(scale, progress.steady, finite)
        if not finite and scale > LEAST_SCALE:
            return scalars | {"skipped": 1.0}
    if not finite:
        names = ", ".join(name for part in parts for name in part.ids)
        raise group.common(
            NonFiniteLoss(
                f"a gradient is not finite at step {progress.step}; the batch was {names}; "
                f"{_what_is_saved(job)}; lower lr."
            )
        )
    if config.clip_norm:
        nn.utils.clip_grads_with_norm_(module.parameters(), config.clip_norm, norm)
    optimizer.step()
    module.after_step(share)  # type: ignore[operator]
    return scalars | {"grad_norm": float(norm)}


def _loss_scale(progress: Progress, precision: str) -> float:
    return progress.loss_scale if precision == "fp16" else 1.0


def _backward(job: Job, network: nn.Module, batch: Batch, progress: Progress, precision: str) -> _Part:
    """Add up the gradients of this process's micro-batches, weighed by their terms; leave the mean over processes."""
    group, part = job.group, _Part(batch.ids, int(batch.audio.lengths.sum()), batch.replaced)
    share = progress.step / progress.total
    micro_batches = list(_micro_batches(batch.to(job.device), job.config.accumulate))
    for number, rows in enumerate(micro_batches):
        last = number == len(micro_batches) - 1
        # Numbered over all processes, as one process would number them that accumulates as many.
        keys = (job.seed, progress.step, group.rank * job.config.accumulate + number)
        with group.peers() if last else group.accumulating(network):
            result = forward(network, rows, share, keys, precision)
            loss, weight = result["loss"], float(result["weight"])
            # Micro-batches may hold different numbers of terms: weigh each mean by its own, divide by all at the end.
            (loss * (weight * _loss_scale(progress, precision))).backward()
        part.weight += weight
        for key, value in result.items():
            if key != "weight":
                part.sums[key] = part.sums.get(key, 0.0) + float(value.detach()) * weight
        if part.error is None and not bool(torch.isfinite(loss)):
            where = f" in process {group.rank} of {group.size}" if group.size > 1 else ""
            part.error = NonFiniteLoss(
                f"the loss is {float(loss.detach())} at step {progress.step}{where}; the batch was "
                f"{', '.join(rows.ids)}; {_what_is_saved(job)}; lower lr, or look at these files with auricle info."
            )
    return part


def _what_is_saved(job: Job) -> str:
    steps = ckpt.steps_saved(job.run)
    return f"the checkpoint of step {steps[-1]} is from before it" if steps else "no checkpoint had been saved yet"


def forward(
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
    validate = job.validate
    assert validate is not None
    job.module.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        metrics = job.group.on_first(lambda: validate(job.module))
    broken = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise job.group.common(
            NonFiniteLoss(
                f"{', '.join(broken)} in the validation after step {progress.step}; "
                f"{_what_is_saved(job)}; lower lr, and run it again in another --out."
            )
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

    def kept() -> int:
        steps = read_json(path).get("steps") if path.exists() else 0
        if not isinstance(steps, int) or (steps < 1 and path.exists()):
            raise CheckpointError(f"{path} holds no number of steps; restore it, or give another --out.")
        return steps

    def planned() -> int:
        left = job.max_minutes * 60 * PLANNED_SHARE - (time.monotonic() - job.started)
        each = seconds
        if job.config.validate_every:
            each += job.validation_seconds / job.config.validate_every
        else:
            left -= 10 * job.validation_seconds
        steps = max(1, int(left / each))
        facts = {"max_minutes": job.max_minutes, "seconds_per_step": seconds, "steps": steps}
        write_text(path, json.dumps(facts) + "\n")
        console.say(f"{job.max_minutes:g} minutes: {plural(steps, 'step')} at {seconds:.3f} s each.")
        return steps

    if steps := job.group.on_first(kept):
        return steps
    seconds = seconds_per_step(job)
    return job.group.on_first(planned)


def seconds_per_step(job: Job) -> float:
    """Time trial steps on a copy of the module, so that the run itself does not depend on how many there were."""
    precision = resolve_precision(job.config.precision, job.device)
    group = job.group
    trial = copy.deepcopy(job.module).train()
    network = group.wrap(trial)
    optimizer = build_optimizer(trial, job.config)
    set_learning_rate(optimizer, 0.0)
    position = job.loader.state_dict()
    begin, times = time.monotonic(), []
    for batch in job.loader:
        start = time.monotonic()
        parts = list(_micro_batches(batch.to(job.device), job.config.accumulate))
        for part in parts:
            with group.peers() if part is parts[-1] else group.accumulating(network):
                result = forward(network, part, 0.0, (job.seed, 0, 0), precision)
                result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.monotonic() - start)
        if group.on_first(lambda: len(times) >= 3 and time.monotonic() - begin > TRIAL_SECONDS):
            break
    read = max(0.0, (time.monotonic() - begin - sum(times)) / len(times))
    job.loader.load_state_dict(position)
    # The first steps allocate and compile; reading is counted in full only where workers do not hide it.
    steady = sorted(times)[len(times) // 2]
    return steady + (0.0 if job.loader.workers else read * 0.5)


def _restore(job: Job, optimizer: torch.optim.Optimizer, console: Console) -> Progress:
    """Continue from the latest checkpoint that verifies, or begin."""

    def find() -> tuple[ckpt.Checkpoint | None, list[str]]:
        ckpt.remove_stale(job.run)
        return ckpt.latest(job.run)

    def load(newest: ckpt.Checkpoint) -> None:
        ckpt.load_state(job.module, newest.weights(), str(newest.path))
        load_optimizer(optimizer, job.module, newest.optimizer())
        for part in job.carried:
            part.load(newest.carried())

    newest, problems = job.group.on_first(find)
    for problem in problems:
        console.warn(problem)
    if newest is None:
        return Progress()
    job.group.together(partial(load, newest))
    progress = Progress(**newest.state)
    job.loader.load_state_dict(progress.loader)
    console.say(f"resuming {job.run} at step {progress.step}.")
    return progress


def _save(job: Job, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    def save() -> None:
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

    job.group.on_first(save)


def _count_bad_files(job: Job, parts: Sequence[_Part], progress: Progress) -> None:
    known = {path for path, _ in progress.bad_files}
    for path, reason in (pair for part in parts for pair in part.replaced):
        if path not in known:
            known.add(path)
            progress.bad_files.append([path, reason])
    limit = max(1, min(MAX_BAD_FILES, math.ceil(job.config.max_bad_fraction * len(job.loader.dataset.items))))
    if len(progress.bad_files) > limit:
        listed = "; ".join(f"{path}: {reason}" for path, reason in progress.bad_files[:5])
        error = DataError(
            f"{len(progress.bad_files)} files cannot be read, more than the {limit} allowed ({listed}); "
            f"repair or remove them, or allow more with --set max_bad_fraction={2 * job.config.max_bad_fraction:g}."
        )
        raise job.group.common(error)
