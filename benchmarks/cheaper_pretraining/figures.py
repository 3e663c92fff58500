"""From the records of the stages to curves of accuracy over cost, and to the cost of an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cheaper_pretraining.stages import METHODS, TASKS, Study
from benchmarks.ssast_real_data.stages import HEADS
from benchmarks.ssast_real_data.tables import RANDOM, Line, lines_of, mean_gain

from auricle.metrics import Difference


@dataclass(frozen=True)
class Point:
    """A pretraining of so many CPU minutes and steps, and what it is worth: points of accuracy above random weights."""

    minutes: float
    steps: int
    gain: Difference


@dataclass(frozen=True)
class Contest:
    """Both tasks on one encoder: CPU seconds of a step and a curve each, and the accuracies behind them by task set."""

    method: str
    step_seconds: dict[str, float]
    curves: dict[str, list[Point]]
    lines: list[Line]

    @property
    def aim(self) -> Point:
        """What the paper's task reaches at the end of its budget."""
        return self.curves[TASKS[0]][-1]

    @property
    def reached(self) -> float | None:
        """The CPU minutes after which masked latent prediction is worth as much; None if it never is."""
        return cost_of(self.aim.gain.value, self.curves[TASKS[1]])

    def difference(self, minutes: float) -> Difference:
        """Accuracy of masked latent prediction minus that of the paper's task at one budget."""
        return mean_gain(self.lines, f"{TASKS[1]}-{minutes:g}", f"{TASKS[0]}-{minutes:g}")


def contests(study: Study) -> list[Contest]:
    """The encoders whose random networks have been probed, with the budgets at which both tasks have been."""
    made, speeds = [], study.speeds()
    for method in METHODS:
        probes = {name: record for name, record in study.probes(method) if record}
        done = [m for m in study.settings.minutes if all(f"{task}-{m:g}" in probes for task in TASKS)]
        if not done or not set(RANDOM) <= probes.keys():
            continue
        found = lines_of(probes, HEADS[0])
        curves = {
            task: [
                Point(m, round(m * round(60 / speeds[method][task])), mean_gain(found, f"{task}-{m:g}")) for m in done
            ]
            for task in TASKS
        }
        made.append(Contest(method, speeds[method], curves, found))
    return made


def cost_of(gain: float, curve: Sequence[Point]) -> float | None:
    """The CPU minutes at which a curve first reaches a gain, between its points on a logarithmic scale of cost.

    A curve that begins above it says no more than its first budget; None for one that never reaches it.
    """
    before: Point | None = None
    for point in curve:
        if point.gain.value >= gain:
            if before is None:
                return point.minutes
            share = (gain - before.gain.value) / (point.gain.value - before.gain.value)
            return before.minutes * math.exp(share * math.log(point.minutes / before.minutes))
        before = point
    return None
