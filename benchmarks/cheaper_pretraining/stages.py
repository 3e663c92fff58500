"""What is computed, each stage once: a stage whose record is there is not run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ssast_real_data.stages import Bench, claim, corpora, least_in_turns, step_seconds
from benchmarks.ssast_real_data.stages import Settings as BenchSettings
from benchmarks.ssast_real_data.tables import RANDOM, read

from auricle.evaluation.results import write_json

METHODS = ("ssast", "asit", "atst-frame")
TASKS = ("paper", "latent")
CORPUS = "both"
POOLING = "mean"


@dataclass(frozen=True)
class Settings:
    """What the figures depend on.

    `minutes` are budgets of one core, each a training of its own from fresh weights. How many steps they are follows
    from the CPU seconds of a step, which are measured first; the largest is what the papers' tasks are judged at.
    `presets` are those of the tasks, of every method; `latent` are settings of masked latent prediction beside them.
    """

    presets: dict[str, str] = field(default_factory=lambda: {"paper": "demo", "latent": "demo-latent"})
    minutes: tuple[float, ...] = (0.5, 1, 2, 4)
    generated_hours: float = 2.2
    latent: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def of(self, task: str) -> dict[str, Any]:
        """The settings of a pretraining by a task."""
        return {"val_fraction": 0.0, "pretext": task, **(self.latent if task == "latent" else {})}


class Study:
    """The stages, below one folder `out`: those of each method, task and budget in a folder of its own."""

    def __init__(self, out: Path, data: Path, settings: Settings) -> None:
        self.out, self.data, self.settings = out, data, settings
        claim(out / "settings.json", settings)

    def compute(self) -> None:
        """All stages, the cheapest first; the page can be written after any of them."""
        speeds = self.speeds()
        for minutes in self.settings.minutes:
            for method in METHODS:
                for task in TASKS:
                    bench = self.bench(method, task, minutes, speeds)
                    bench.pretrained(CORPUS, minutes)
                    bench.probed(f"{CORPUS}-{minutes:g}")
                    if (task, minutes) == (TASKS[0], self.settings.minutes[0]):
                        # The network and input statistics of this run.
                        for name in RANDOM:
                            bench.probed(name)

    def bench(self, method: str, task: str, minutes: float, speeds: Mapping[str, Mapping[str, float]]) -> Bench:
        """The pretraining of a method by a task for so many minutes, and its probe."""
        s = self.settings
        settings = BenchSettings(
            method=method,
            preset=s.presets[task],
            steps_per_minute=round(60 / speeds[method][task]),
            minutes=(minutes,),
            compared_minutes=minutes,
            generated_hours=s.generated_hours,
            seed=s.seed,
            pretrain=s.of(task),
        )
        return Bench(self.out / f"{method}-{task}-{minutes:g}", self.data, settings, self.out / "audio", (POOLING,))

    def speeds(self) -> dict[str, dict[str, float]]:
        """CPU seconds of a pretraining step by method and task."""
        path = self.out / "speeds.json"
        if not path.exists():
            paths = corpora(self.out / "audio", self.data, self.settings.generated_hours)[CORPUS]
            works = {
                f"{method} {task}": partial(
                    step_seconds, method, paths, self.settings.presets[task], self.settings.of(task)
                )
                for method in METHODS
                for task in TASKS
            }
            least = least_in_turns(works)
            write_json(path, {m: {task: least[f"{m} {task}"] for task in TASKS} for m in METHODS})
        speeds: dict[str, dict[str, float]] = read(path)
        return speeds

    def probes(self, method: str) -> Iterator[tuple[str, Any]]:
        """What there is of a method: names such as "latent-2.5" or "random-0", and the records of their probes."""
        speeds = self.speeds()
        for minutes in self.settings.minutes:
            for task in TASKS:
                bench = self.bench(method, task, minutes, speeds)
                yield f"{task}-{minutes:g}", read(bench.record(f"probes/{POOLING}", f"{CORPUS}-{minutes:g}"))
        bench = self.bench(method, TASKS[0], self.settings.minutes[0], speeds)
        for name in RANDOM:
            yield name, read(bench.record(f"probes/{POOLING}", name))
