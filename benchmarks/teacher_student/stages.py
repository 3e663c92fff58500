"""What is computed, each stage once: a stage whose record is there is not run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.ssast_real_data.stages import Bench, claim, corpora, least_in_turns, say, step_seconds
from benchmarks.ssast_real_data.stages import Settings as BenchSettings
from benchmarks.ssast_real_data.tables import RANDOM, read
from benchmarks.teacher_student.events import save_outcome
from benchmarks.teacher_student.frames import Clip, embed_steps, read_out
from benchmarks.teacher_student.systems import (
    COMBINED,
    CORPUS,
    METHODS,
    POOLINGS,
    REFERENCE,
    SETS,
    STUDENT,
    TEACHER,
    Events,
    Settings,
)

import auricle
from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.data.labels import Labels, read_labels
from auricle.evaluation.detection import DetectionOutcome
from auricle.evaluation.results import write_json
from auricle.inference.model import load
from auricle.methods import get_preset


class Study:
    """The stages, below one folder `out`: each method's in a folder of its own, what is heard in `audio`."""

    def __init__(self, out: Path, data: Path, settings: Settings) -> None:
        self.out, self.data, self.settings = out, data, settings
        claim(out / "settings.json", settings)
        self._benches: dict[str, Bench] = {}

    # Pretraining and clips -------------------------------------------------------------------------------------------

    def bench(self, method: str) -> Bench:
        """The pretrainings and probes of a method."""
        if method not in self._benches:
            self._benches[method] = self._bench(method)
        return self._benches[method]

    def _bench(self, method: str) -> Bench:
        s = self.settings
        settings = BenchSettings(
            method=method,
            steps_per_minute=self.speeds()[method]["steps_per_minute"],
            minutes=s.minutes,
            # Corpora are not compared here; a constant, so that budgets can be added.
            compared_minutes=s.minutes[0],
            # Half the preset's, as for SSAST on its own page.
            continued_lr=get_preset(method, BenchSettings.preset).pretrain.lr / 2,
            generated_hours=s.generated_hours,
            seed=s.seed,
        )
        return Bench(self.out / method, self.data, settings, self.out / "audio", POOLINGS[method])

    def speeds(self) -> dict[str, dict[str, float]]:
        """By method the CPU seconds of a pretraining step, and the steps of a minute: see `Settings`.

        The methods take turns, so that a machine that slows down slows them all. Reading is left out: clips are kept.
        """
        path = self.out / "speeds.json"
        if not path.exists():
            paths = corpora(self.out / "audio", self.data, self.settings.generated_hours)[CORPUS]
            works = {method: partial(step_seconds, method, paths, BenchSettings.preset) for method in METHODS}
            least = least_in_turns(works)
            write_json(
                path,
                {
                    method: {
                        "cpu_seconds": least[method],
                        "steps_per_minute": round(self.settings.reference_steps * least[REFERENCE] / least[method]),
                    }
                    for method in METHODS
                },
            )
        found: dict[str, dict[str, float]] = read(path)
        return found

    def pretrained(self, method: str) -> Path:
        """The run of a method after all of its budget."""
        return self.bench(method).pretrained(CORPUS, self.settings.minutes[-1])

    def probed(self, method: str, names: Sequence[str]) -> None:
        for name in names:
            self.bench(method).probed(name)

    # Events ----------------------------------------------------------------------------------------------------------

    def read(self, method: str) -> None:
        """Events out of the frozen time steps of a method's network, and of the same network with fresh weights."""
        for name in (self.settings.budget, *RANDOM):
            for events in SETS:
                self._detected("frozen", f"{method}-{name}", events, partial(self._frozen, method, name, events))

    def tuned(self, method: str, random_weights: int | None = None) -> None:
        """Detectors, from a method's network or, if `random_weights` is a seed, from scratch."""
        start = self.settings.budget if random_weights is None else f"random-{random_weights}"
        for events in SETS:
            train = partial(self._tuned, method, events, random_weights=random_weights)
            self._detected("tuned", f"{method}-{start}", events, train)

    def combined(self) -> None:
        """ATST-Frame's detectors, which learn from ATST-Clip's beside the labels."""
        self.tuned(TEACHER)
        for events in SETS:
            teacher = self.detector(f"{TEACHER}-{self.settings.budget}", events)
            train = partial(self._tuned, STUDENT, events, teacher=teacher)
            self._detected("tuned", f"{COMBINED}-{self.settings.budget}", events, train)

    def detector(self, name: str, events: Events) -> Path:
        return self.out / "detectors" / f"{name}-{events.folder}"

    def outcome_path(self, kind: str, name: str, events: Events) -> Path:
        return self.out / kind / f"{name}-{events.folder}.npz"

    def _detected(self, kind: str, name: str, events: Events, compute: Callable[[str], DetectionOutcome]) -> None:
        path = self.outcome_path(kind, name, events)
        if not path.exists():
            say(f"{kind}: {name} on {events.folder}")
            save_outcome(path, compute(name))

    def _frozen(self, method: str, start: str, events: Events, _: str) -> DetectionOutcome:
        model = self.bench(method).model(start)
        manifest, labels = labelled(self.data, events)
        steps = embed_steps(model, manifest.items)
        clips = [
            Clip(item.id, own or (), part) for item, own, part in zip(manifest.items, labels.events, steps, strict=True)
        ]
        tested = [item.labels["split"] == "test" for item in manifest.items]
        train, test = ([clip for clip, of in zip(clips, tested, strict=True) if of == part] for part in (False, True))
        classes = labels.classes([i for i, of in enumerate(tested) if not of])
        return read_out(train, test, classes, model.encoder.frame_rate, events.collar)

    def _tuned(
        self, method: str, events: Events, name: str, random_weights: int | None = None, teacher: Path | None = None
    ) -> DetectionOutcome:
        s, run = self.settings, self.detector(name, events)
        auricle.finetune(
            self.pretrained(method),
            self.data / events.folder,
            run,
            task="detection",
            random_weights=random_weights,
            teacher=teacher or "",
            steps=s.tune_steps,
            settings={
                **s.tune,
                "collar": events.collar,
                "val_fraction": events.val_fraction,
                # Thresholds are chosen anew each time, which takes seconds.
                "validate_every": -(-s.tune_steps // 3),
                **({"distil": 0.5} if teacher else {}),
            },
            seed=s.seed,
            quiet=True,
        )
        model = load(run)
        assert model.detector is not None
        manifest, labels = labelled(self.data, events)
        tested = [i for i, item in enumerate(manifest.items) if item.labels["split"] == "test"]
        filtered, detected = zip(
            *map(model.detector.decide, model.score_items([manifest[i] for i in tested])), strict=True
        )
        return DetectionOutcome(
            ids=tuple(manifest[i].id for i in tested),
            classes=model.classes,
            truth=tuple(labels.events[i] or () for i in tested),
            detected=tuple(map(tuple, detected)),
            scores=tuple(filtered),
            collars=model.detector.collars,
        )


def labelled(data: Path, events: Events) -> tuple[Manifest, Labels]:
    """A set and its events."""
    manifest = read_data([data / events.folder])
    return manifest, read_labels(manifest, "label", "detection")
