"""What is computed, each stage once: its result is a JSON file, and a stage whose file is there is not run again."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from benchmarks.ssast_real_data.rows import FINETUNED, ROWS, row
from numpy.typing import NDArray
from torch import Tensor

import auricle
from auricle.data.formats import read_data
from auricle.data.items import Item, Manifest
from auricle.data.loader import read_item
from auricle.data.synth import write_scenes
from auricle.errors import ConfigError
from auricle.evaluation.baselines import baseline
from auricle.evaluation.probe import probe_features
from auricle.evaluation.results import write_json
from auricle.inference.model import Model, load, random_model
from auricle.methods.base import Encoded
from auricle.tasks.pooling import POOLINGS as POOLED
from auricle.tasks.windows import clip_means
from auricle.training import loop
from auricle.training.step import take_step

HEADS = ("ridge", "linear")
STATISTICS = ("mfcc", "logmel")
# Over time: the mean alone, as the methods pool, or with the standard deviation, as the feature statistics have it.
POOLINGS = ("mean", "mean+std")
CORPORA = ("both", "public", "generated")
TEST_COLUMNS = ("split", "pitch_split")
CLIP_SECONDS = 2.2
# Half of the generated clips are scenes of everything, half are nearly clean tones of all pitches.
TONES = ("note", "note", "note", "note", "note", "music", "music", "bell")
TONES_SNR_DB = (10.0, 50.0)
# A step's time is the mean over some steps, as batches are of clips of different lengths, and the least of some rounds.
WARM_STEPS, TIMED_STEPS, ROUNDS = 3, 40, 2


@dataclass(frozen=True)
class Settings:
    """What the figures depend on; kept with them, so that figures of other settings are not mixed in.

    `minutes` are budgets of one core, as steps at `steps_per_minute`: how busy a machine is changes no result.
    `compared_minutes` is the budget at which the corpora are compared, one of `minutes`.
    """

    method: str = "ssast"
    preset: str = "demo"
    steps_per_minute: int = 200
    minutes: tuple[float, ...] = (2, 5, 15, 45, 90)
    compared_minutes: float = 5
    continued_lr: float = 5e-4
    generated_hours: float = 2.2
    finetune_steps: int = 150
    finetune_folds: int = 0
    seed: int = 0
    pretrain: dict[str, Any] = field(default_factory=lambda: {"val_fraction": 0.0})
    finetune: dict[str, Any] = field(default_factory=lambda: {"batch_size": 16})


class Bench:
    """The stages of one method, below one folder `out`.

    Args:
        audio: where what is heard lies or is written, for several methods to share; None: `out`.
        poolings: of networks, as `embed` takes them.
    """

    def __init__(
        self, out: Path, data: Path, settings: Settings, audio: Path | None = None, poolings: Sequence[str] = POOLINGS
    ) -> None:
        self.out, self.data, self.settings, self.audio, self.poolings = out, data, settings, audio or out, poolings
        claim(out / "settings.json", settings)
        self._tasks = {r.name: r.task(data) for r in ROWS}

    # Audio -------------------------------------------------------------------------------------------------------

    def corpora(self) -> dict[str, list[Path]]:
        """What each pretraining hears: paths for `auricle.pretrain`."""
        return corpora(self.audio, self.data, self.settings.generated_hours)

    # Pretraining -------------------------------------------------------------------------------------------------

    def pretrained(self, corpus: str, minutes: float) -> Path:
        """The run directory of a corpus after `minutes`: the budget before it, continued at a lower learning rate.

        Each budget ends a cosine schedule of its own, so every point of the curve is a network that is done.
        """
        s = self.settings
        stage = s.minutes.index(minutes)
        run, record = self.run(corpus, minutes), self.record("pretraining", corpus, minutes)
        if record.exists():
            return run
        before = s.minutes[stage - 1] if stage else 0.0
        init = self.pretrained(corpus, before) if stage else None
        paths = self.corpora()[corpus]
        steps = round(minutes * s.steps_per_minute) - round(before * s.steps_per_minute)
        say(f"pretraining on {corpus}, {minutes:g} minutes: {steps} steps" + (" more" if stage else ""))
        began = time.monotonic()
        auricle.pretrain(
            s.method,
            paths,
            run,
            preset=s.preset,
            init=init,
            steps=steps,
            # Another seed: a continued run would hear the same crops again.
            seed=s.seed + stage,
            settings=s.pretrain | ({"lr": s.continued_lr} if stage else {}),
            quiet=True,
        )
        manifest = read_data(paths)
        state = auricle.load(run)
        write_json(
            record,
            {
                "steps": steps,
                "wall_seconds": time.monotonic() - began,
                "hours": manifest.hours,
                "clips": len(manifest),
                "parameters": sum(p.numel() for p in state.encoder.parameters()),
                "hash": state.hash,
            },
        )
        return run

    # Frozen ------------------------------------------------------------------------------------------------------

    def probed(self, name: str) -> None:
        """Both heads on the features called `name`: "both-15", "random-0", "mfcc" ...; networks in both poolings."""
        if name in STATISTICS:
            self._probed(name, self.poolings[0], baseline(name))
            return
        missing = [p for p in self.poolings if not self.record(f"probes/{p}", name).exists()]
        model = self.model(name) if missing else None
        for pooling in missing:
            self._probed(name, pooling, partial(embed, model, pooling=pooling))

    def _probed(self, name: str, pooling: str, features: Callable[[Sequence[Item]], NDArray[np.float32]]) -> None:
        path = self.record(f"probes/{pooling}", name)
        if path.exists():
            return
        say(f"probing {name}, {pooling}")
        results: dict[str, Any] = {}
        seen: dict[str, NDArray[np.float32]] = {}
        for r in ROWS:
            task = self._tasks[r.name]
            if r.folder not in seen:
                seen[r.folder] = features(task.manifest.items)
            results[r.name] = {head: outcome(probe_features(task, seen[r.folder], head)) for head in HEADS}
        write_json(path, results)

    def model(self, name: str) -> Model:
        """The network called "both-15", or "random-0": the same one with fresh weights."""
        source, _, number = name.rpartition("-")
        if source == "random":
            # The network and input statistics of the run that it is compared with.
            return random_model(self.run("both", self.settings.minutes[0]), int(number))
        return load(self.run(source, float(number)))

    # Fine-tuned --------------------------------------------------------------------------------------------------

    def finetuned(self, start: str) -> None:
        """Fine-tune from "both-15" or so, or from "scratch", on the folds of three sets."""
        for name in FINETUNED:
            folds = self._tasks[name].folds
            for fold in folds[: self.settings.finetune_folds or len(folds)]:
                self._finetuned(start, name, fold.name)

    def _finetuned(self, start: str, name: str, fold: str) -> None:
        path = self.record("finetuning", start, name, fold)
        if path.exists():
            return
        s, r, run = self.settings, row(name), self.out / "finetuning" / f"run-{start}-{name}-{fold}"
        say(f"fine-tuning {start} on {name} without {fold}")
        model = self.run("both", s.minutes[0]) if start == "scratch" else self.run("both", float(start.split("-")[1]))
        auricle.finetune(
            model,
            self.data / r.folder,
            run,
            label=r.label,
            split_column=r.split_column,
            group_column=r.group_column,
            held_out=fold,
            random_weights=s.seed if start == "scratch" else None,
            steps=s.finetune_steps,
            settings=s.finetune,
            seed=s.seed,
            quiet=True,
        )
        items = auricle.evaluate(run, self.data / r.folder).items
        write_json(
            path, {"ids": [i["id"] for i in items], "correct": [int(i["label"] == i["predicted"]) for i in items]}
        )
        shutil.rmtree(run)

    # All of it ---------------------------------------------------------------------------------------------------

    def run(self, corpus: str, minutes: float) -> Path:
        return self.out / "pretraining" / f"{corpus}-{minutes:g}"

    def record(self, kind: str, *parts: str | float) -> Path:
        name = "-".join(p if isinstance(p, str) else f"{p:g}" for p in parts)
        return self.out / kind / f"{name}.json"


def corpora(audio: Path, data: Path, generated_hours: float) -> dict[str, list[Path]]:
    """By corpus the paths of its sounds: a list of the recordings below `data`, and generated folders, in `audio`."""
    public, folders = audio / "public.jsonl", [audio / "generated" / kind for kind in ("scenes", "tones")]
    if not public.exists():
        audio.mkdir(parents=True, exist_ok=True)
        heard_part(data).save(public)
    clips = round(generated_hours * 3600 / CLIP_SECONDS / 2)
    for folder, kind, seed in zip(folders, ("scenes", "tones"), (1, 2), strict=True):
        if not (folder / "manifest.csv").exists():
            say(f"generating {clips} clips of {kind}")
            chosen: dict[str, Any] = {"kinds": TONES, "snr_db": TONES_SNR_DB} if kind == "tones" else {}
            write_scenes(folder, clips, CLIP_SECONDS, seed, classes=None, **chosen)
    return {"public": [public], "generated": folders, "both": [public, *folders]}


def claim(path: Path, settings: Any) -> None:
    """Keep the settings, a dataclass, with the results; later calls may only add budgets at the end.

    Raises:
        ConfigError: the folder holds results of other settings.
    """
    wanted = json.loads(json.dumps(asdict(settings)))
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["minutes"]
        if {**found, "minutes": 0} != {**wanted, "minutes": 0} or wanted["minutes"][: len(known)] != known:
            differing = [key for key in wanted if found.get(key) != wanted[key]]
            raise ConfigError(
                f"{path.parent} holds results with other settings ({', '.join(differing)}); choose another --out."
            )
    write_json(path, wanted)


def heard_part(data: Path) -> Manifest:
    """All recordings below `data` that no column calls test; fold and speaker sets whole, without labels."""
    everything = read_data(sorted(p.parent for p in data.glob("*/manifest.csv")))
    heard = tuple(i for i in everything if not any(i.labels.get(column) == "test" for column in TEST_COLUMNS))
    return Manifest(heard, root=everything.root, source=f"{data}, without test splits", roots=everything.roots)


def embed(model: Model, items: Sequence[Item], pooling: str) -> NDArray[np.float32]:
    """Clip embeddings of the last layer.

    "mean" [items, D] over all tokens, "mean+std" [items, 2 D'] over the time steps, or another of `tasks.pooling`.
    """
    if pooling in POOLED:
        return model.embed_layers(items, [model.encoder.num_layers - 1], pooling)[:, 0]

    def moments(encoded: Encoded) -> Tensor:
        weight, x = encoded.valid.unsqueeze(-1).float(), encoded.frames().float()
        return (torch.cat([x, x.square()], dim=2) * weight).sum(1) / weight.sum(1)

    encoder = model.encoder
    sounds = (read_item(item.hearing(encoder.channel), encoder.sample_rate) for item in items)
    mean, square = np.split(clip_means(encoder, sounds, model.device, moments, (-1,)), 2, axis=1)
    return np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))], axis=1).astype(np.float32)


def outcome(predictions: Any) -> dict[str, Any]:
    """What the tables need of predictions: which test items, and whether each was right."""
    return {"ids": predictions.ids, "correct": predictions.correct.astype(int)}


def step_seconds(method: str, paths: Sequence[Path], preset: str, settings: Mapping[str, Any] | None = None) -> float:
    """CPU seconds of a pretraining step, without reading: the mean over some steps."""
    spent: list[float] = []

    def timed(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        result = take_step(*args, **options)
        spent.append(time.process_time() - began)
        return result

    steps = WARM_STEPS + TIMED_STEPS
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(loop, "take_step", timed):
        auricle.pretrain(
            method,
            list(paths),
            Path(folder) / "run",
            preset=preset,
            steps=steps,
            settings={"val_fraction": 0.0, "validate_every": steps, **(settings or {})},
            quiet=True,
        )
    return float(np.mean(spent[WARM_STEPS:]))


def least_in_turns(works: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The least of what each work says in some rounds of turns, so that a machine that slows down slows them all."""
    least: dict[str, float] = {}
    for number in range(ROUNDS):
        say(f"timing steps, round {number + 1} of {ROUNDS}")
        for name, work in works.items():
            least[name] = min(work(), least.get(name, math.inf))
    return least


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)
