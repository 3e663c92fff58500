"""How many steps fit into the minutes that a training is given.

The number is fixed once, before the first step, because the schedule must not depend on the clock. Steps, validations
and saves are tried out on a copy of the network, so the run itself does not depend on how many there were.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from auricle.errors import CheckpointError, plural
from auricle.files import write_text
from auricle.training.job import Job, Progress, Rhythm, save_state
from auricle.training.log import Console
from auricle.training.optim import build_optimizer
from auricle.training.precision import resolve_precision
from auricle.training.run import read_json
from auricle.training.step import take_step

# Seconds of trial steps, and the share of the time that is planned with.
TRIAL_SECONDS = 4.0
PLANNED_SHARE = 0.93
# Trial steps are the first ones of a training of so many: its schedule has hardly begun.
LONG = 1_000_000
# Left behind by a kill, it is removed as any half-written checkpoint.
TRIAL_SAVE = ".trial.tmp-save"


@dataclass(frozen=True)
class Costs:
    """Seconds of one step, one validation and one save."""

    step: float
    validation: float = 0.0
    save: float = 0.0

    def of(self, rhythm: Rhythm) -> float:
        """Seconds of a whole training, if every validation finds weights that are worth a save."""
        return rhythm.total * self.step + rhythm.validations * self.validation + rhythm.most_saves * self.save


def plan_steps(job: Job, console: Console) -> int:
    """The total number of steps: given, or measured once for `max_minutes` and then kept with the run.

    Raises:
        CheckpointError: the run's own record of it is damaged.
    """
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
        steps = affordable(left, costs, job.rhythm)
        facts = {
            "max_minutes": job.max_minutes,
            "seconds_per_step": costs.step,
            "seconds_per_validation": costs.validation,
            "seconds_per_save": costs.save,
            "steps": steps,
        }
        write_text(path, json.dumps(facts) + "\n")
        validations = job.rhythm(steps).validations
        looks = f", {plural(validations, 'validation')} at {costs.validation:.3f} s" if validations else ""
        console.say(f"{job.max_minutes:g} minutes: {plural(steps, 'step')} at {costs.step:.3f} s each{looks}.")
        return steps

    if steps := job.group.on_first(kept):
        return steps
    with console.hushed():
        costs = measure_costs(job)
    return job.group.on_first(planned)


def affordable(seconds: float, costs: Costs, rhythm: Callable[[int], Rhythm]) -> int:
    """Most steps, at least one, whose training by `rhythm` takes no more than `seconds`."""
    steps = max(1, int(seconds / costs.step))
    # One step less saves no more than this. It may even cost more: 19 steps are validated after each, 20 after two.
    one = costs.step + costs.validation + costs.save
    while steps > 1 and (over := costs.of(rhythm(steps)) - seconds) > 0:
        steps -= max(1, int(over / one))
    return max(1, steps)


def measure_costs(job: Job) -> Costs:
    """Take trial steps, validate and save, and leave the job as it was."""
    trial = dataclasses.replace(job, module=copy.deepcopy(job.module))
    optimizer = build_optimizer(trial.module, job.config)
    step = _seconds_per_step(trial, optimizer)

    def on_first() -> tuple[float, float]:
        return _seconds_per_validation(trial), _seconds_per_save(trial, optimizer)

    validation, save = job.group.on_first(on_first)
    return Costs(step, validation, save)


def _seconds_per_step(trial: Job, optimizer: torch.optim.Optimizer) -> float:
    precision, group = resolve_precision(trial.config.precision, trial.device), trial.group
    network, progress = group.wrap(trial.module), Progress(total=LONG)
    position = trial.loader.state_dict()
    begin, times = time.monotonic(), []
    for batch in trial.loader:
        start = time.monotonic()
        take_step(trial, network, optimizer, batch, progress, precision)
        times.append(time.monotonic() - start)
        if group.on_first(lambda: len(times) >= 3 and time.monotonic() - begin > TRIAL_SECONDS):
            break
    reading = max(0.0, time.monotonic() - begin - sum(times)) / len(times)
    trial.loader.load_state_dict(position)
    # The first step allocates and compiles. A mean, not a median: on a busy machine the slow steps come again.
    steady = sum(times[1:]) / len(times[1:])
    # Clips that were read are kept; of reading, about half is done again, unless workers hide it.
    return steady + (0.0 if trial.loader.workers else reading * 0.5)


def _seconds_per_validation(trial: Job) -> float:
    """Of a second one, if the first is quick: it reads the clips, which later ones need not."""
    if not trial.validate:
        return 0.0
    kept = [(part, part.tensors()) for part in trial.carried]
    trial.module.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for _ in range(2):
            start = time.monotonic()
            trial.validate(trial.module)
            seconds = time.monotonic() - start
            if seconds > TRIAL_SECONDS:
                break
    for part, tensors in kept:
        part.load(tensors)
    return seconds


def _seconds_per_save(trial: Job, optimizer: torch.optim.Optimizer) -> float:
    start = time.monotonic()
    saved = save_state(trial, optimizer, Progress(), TRIAL_SAVE)
    seconds = time.monotonic() - start
    shutil.rmtree(saved, ignore_errors=True)
    return seconds
