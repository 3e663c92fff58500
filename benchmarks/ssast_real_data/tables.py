"""From the records of the stages to figures with intervals: paired bootstrap over test clips, means over the tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.ssast_real_data.rows import FINETUNED, ROWS
from benchmarks.ssast_real_data.stages import POOLINGS, STATISTICS
from numpy.typing import NDArray

from auricle.errors import DataError
from auricle.evaluation.probe import RANDOM_SEEDS
from auricle.metrics import Difference, mean_over_tables, paired_bootstrap

Correct = NDArray[np.float64]
RANDOM = tuple(f"random-{seed}" for seed in RANDOM_SEEDS)


@dataclass(frozen=True)
class Line:
    """A task under one head: right (1) or wrong for each test clip, of random networks [3, N] and other systems [N]."""

    name: str
    what: str
    random: Correct
    others: dict[str, Correct]

    @property
    def clips(self) -> int:
        return self.random.shape[1]

    def gain(self, system: str) -> Difference:
        """Accuracy of a system minus the mean of the random networks."""
        return paired_bootstrap(self.others[system], self.random)


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned set: right or wrong for each test clip of the folds, by what training started from."""

    name: str
    folds: int
    correct: dict[str, Correct]

    def gain(self, start: str) -> Difference:
        return paired_bootstrap(self.correct[start], self.correct["scratch"])


def lines(out: Path, head: str, pooling: str, systems: Sequence[str]) -> list[Line]:
    """The tasks under `head`, networks pooled by `pooling`, with those `systems` that have been probed.

    Raises:
        DataError: records are not of the same clips.
    """
    # Statistics are what they are, whatever the pooling of the networks.
    folders = {name: POOLINGS[0] if name in STATISTICS else pooling for name in (*RANDOM, *systems)}
    probes = {name: read(out / "probes" / folder / f"{name}.json") for name, folder in folders.items()}
    return lines_of({name: record for name, record in probes.items() if record}, head)


def lines_of(probes: Mapping[str, Any], head: str) -> list[Line]:
    """The tasks under `head`, from the records of probes by name, of which those of random networks must be there.

    Raises:
        DataError: records are not of the same clips.
    """
    made = []
    for row in ROWS:
        values = aligned({name: (p[row.name][head]["ids"], p[row.name][head]["correct"]) for name, p in probes.items()})
        random = np.stack([values.pop(name) for name in RANDOM])
        made.append(Line(row.name, row.what, random, values))
    return made


def mean_gain(table: Sequence[Line], system: str, over: str = "") -> Difference:
    """Mean over the tasks of a system's accuracy minus that of the random networks, or of the system `over`."""
    return mean_over_tables([(line.others[system], line.others[over] if over else line.random) for line in table])


def mean_accuracy(table: Sequence[Line], system: str = "") -> float:
    """Mean accuracy over the tasks; of the random networks, if no system is named."""
    return float(np.mean([np.mean(line.others[system] if system else line.random) for line in table]))


def tuned(out: Path) -> list[Tuned]:
    """The fine-tuned sets, with the starts whose folds are all there."""
    made = []
    for name in FINETUNED:
        folds: dict[str, dict[str, Any]] = {}
        for path in sorted((out / "finetuning").glob(f"*-{name}-*.json")):
            start, _, fold = path.stem.partition(f"-{name}-")
            folds.setdefault(start, {})[fold] = read(path)
        wanted = set(folds.get("scratch", {}))
        whole = {start: found for start, found in folds.items() if wanted and set(found) >= wanted}
        joined = {
            start: (
                [i for fold in sorted(wanted) for i in found[fold]["ids"]],
                [c for fold in sorted(wanted) for c in found[fold]["correct"]],
            )
            for start, found in whole.items()
        }
        if len(joined) > 1:
            made.append(Tuned(name, len(wanted), aligned(joined)))
    return made


def aligned(correct: Mapping[str, tuple[Sequence[str], Sequence[int]]]) -> dict[str, Correct]:
    """Right or wrong by system, after a check that all are of the same clips in the same order.

    Raises:
        DataError: they are not.
    """
    first = next(iter(correct.values()))[0]
    for name, (ids, _) in correct.items():
        if list(ids) != list(first):
            raise DataError(f"'{name}' was tested on other clips; remove its record and run the command again.")
    return {name: np.asarray(values, dtype=np.float64) for name, (_, values) in correct.items()}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
