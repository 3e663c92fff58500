"""From the records of the stages to figures: accuracy on clips, scores of events, and differences with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from benchmarks.ssast_real_data.rows import ROWS
from benchmarks.ssast_real_data.tables import RANDOM, Line, aligned, read
from benchmarks.teacher_student.events import Array, load_outcome, mean_of, scores
from benchmarks.teacher_student.systems import (
    COMBINED,
    METHODS,
    POOLINGS,
    REFERENCE,
    STUDENT,
    TEACHER,
    Events,
)

# What is expected of events: who is ahead of whom, and under which reading.
EXPECTED = (
    ("frozen", STUDENT, TEACHER),
    ("frozen", STUDENT, REFERENCE),
    ("tuned", STUDENT, TEACHER),
    ("tuned", STUDENT, REFERENCE),
    ("tuned", COMBINED, STUDENT),
    ("tuned", COMBINED, TEACHER),
)


@dataclass(frozen=True)
class System:
    """A network and what of it is read on clips: the mean of its tokens, or its class token ("own")."""

    method: str
    pooling: str


SYSTEMS = tuple(System(method, pooling) for method in METHODS for pooling in POOLINGS[method])


def clip_table(out: Path, head: str, budget: str) -> dict[System, list[Line]]:
    """Each system that was probed, its tasks beside its own random weights and, as "ssast", the reference."""

    def probes(system: System, name: str) -> dict[str, dict[str, dict[str, list[int]]]] | None:
        path = out / system.method / "probes" / system.pooling / f"{name}.json"
        found: dict[str, dict[str, dict[str, list[int]]]] | None = read(path)
        return found

    made: dict[System, list[Line]] = {}
    for system in SYSTEMS:
        found = {name: probes(system, name) for name in (budget, *RANDOM)}
        found[REFERENCE] = probes(System(REFERENCE, "mean"), budget)
        if all(found.values()):
            made[system] = [_line(row.name, row.what, head, found) for row in ROWS]
    return made


def _line(name: str, what: str, head: str, probes: dict[str, dict[str, dict[str, list[int]]]] | None) -> Line:
    assert probes
    of = {system: (record[name][head]["ids"], record[name][head]["correct"]) for system, record in probes.items()}
    values = aligned(of)  # type: ignore[arg-type]
    random = np.stack([values.pop(seed) for seed in RANDOM])
    return Line(name, what, random, values)


class EventScores:
    """Scores of events by reading ("frozen", "tuned"), method or "c2f", and start: pretrained or not.

    Args:
        outcome: the path of a record, from its reading, the name of its system and the set.
    """

    def __init__(self, outcome: Callable[[str, str, Events], Path], budget: str) -> None:
        self.outcome, self.budget = outcome, budget
        self._of = cache(self._read)

    def pretrained(self, reading: str, method: str, events: Events) -> dict[str, Array] | None:
        """Its scores [1 + R] by metric; None where they were not computed."""
        return self._of(reading, f"{method}-{self.budget}", events)

    def random(self, reading: str, method: str, events: Events) -> dict[str, Array] | None:
        """Of the same network that begins with fresh weights: the mean of three seeds, when it is frozen, else one."""
        seeds = RANDOM if reading == "frozen" else RANDOM[:1]
        found = [self._of(reading, f"{method}-{seed}", events) for seed in seeds]
        there = [scores for scores in found if scores]
        return mean_of(there) if len(there) == len(seeds) else None

    def _read(self, reading: str, name: str, events: Events) -> dict[str, Array] | None:
        path = self.outcome(reading, name, events)
        return scores(load_outcome(path)) if path.exists() else None
