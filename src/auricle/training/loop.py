"""The training loop: one for pretraining and fine-tuning, on plain torch.

A step is a function of (weights, optimizer state, step number): its batch, masks, dropout and learning rate follow from
the seed and the step. So a run that is killed anywhere and started again ends with the same bits. Several processes
share the rows of each batch; all of them step alike, and the first one writes.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from auricle.data.batch import Batch
from auricle.errors import AuricleError, Interrupted, NonFiniteLoss
from auricle.training import checkpoint as ckpt
from auricle.training.job import Job, Progress, save_state
from auricle.training.log import Console
from auricle.training.optim import build_optimizer, load_optimizer
from auricle.training.planning import plan_steps
from auricle.training.precision import resolve_precision
from auricle.training.signals import caught_signals, interruption
from auricle.training.step import take_step, what_is_saved
from auricle.training.tracking import JsonLines


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
    progress.total = plan_steps(job, console)
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
    rhythm = job.rhythm(progress.total)
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
                scalars = take_step(job, network, optimizer, batch, progress, precision)
                for path, reason in progress.bad_files[bad:]:
                    console.warn(f"{path}: {reason}; another clip stands in for it")
                progress.step += 1
                if job.after_step:
                    job.after_step(progress.step)
                progress.loader = job.loader.state_dict()
                progress.elapsed = before + time.monotonic() - job.started
                done = progress.step == progress.total
                row = scalars if progress.step % log_every == 0 or done else {}
                if rhythm.validates(progress.step):
                    row = row | _validate(job, progress)
                if row:
                    group.together(partial(record, progress.step, row))
                console.update(progress.step, scalars, progress.audio_seconds, row)
                is_best = progress.best is not None and progress.best["step"] == progress.step
                if rhythm.saves(progress.step) or is_best:
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
                f"{what_is_saved(job)}; lower lr, and run it again in another --out."
            )
        )
    if job.score_metric in metrics:
        progress.scores.append((progress.step, metrics[job.score_metric]))
    value = metrics.get(job.best_metric)
    if value is not None and (progress.best is None or value > progress.best["value"]):
        progress.best = {"step": progress.step, "metric": job.best_metric, "value": value}
    return metrics


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
        save_state(job, optimizer, progress, ckpt.step_name(progress.step))
        ckpt.prune(job.run, job.keep, {progress.best["step"]} if progress.best else ())

    job.group.on_first(save)
