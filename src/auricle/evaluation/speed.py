"""How fast a model is on this machine, and how much memory it takes: `auricle bench`.

B batch, S samples.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from auricle.config import TrainConfig, from_dict
from auricle.data.batch import Batch, Stream
from auricle.data.processes import detached
from auricle.data.randomness import Draw
from auricle.errors import AuricleError, CheckpointError
from auricle.methods import get_method, get_preset, method_names
from auricle.methods.base import MethodConfig
from auricle.tasks.classification import Classifier
from auricle.tasks.windows import batch_samples
from auricle.training.checkpoint import no_such_model, resolve
from auricle.training.finetune import FINETUNED
from auricle.training.memory import peak_mb
from auricle.training.optim import build_optimizer, clip_gradients
from auricle.training.precision import autocast, resolve_precision
from auricle.training.pretrain import pick_device

# Classes of the classifier where the checkpoint has none of its own.
CLASSES = 50
# Each work is repeated until it has been timed so often and so long.
LEAST_TURNS, LEAST_SECONDS = 3, 3.0


@dataclass(frozen=True)
class Subject:
    """What is measured: a network without its weights, on which speed does not depend, and how it is trained."""

    method: str
    kind: str
    model: MethodConfig
    pretrain: TrainConfig
    finetune: TrainConfig
    classes: int


@dataclass(frozen=True)
class Speed:
    """One kind of work: clips of `clip_seconds` in batches of `batch`, median and slowest turn, and `memory_mb`.

    Memory is what a process of its own grows by after its imports, at its peak; on a GPU, the most that is allocated.
    """

    work: str
    clip_seconds: float
    batch: int
    clips_per_second: float
    slowest: float
    memory_mb: float


def subject(model: str | Path) -> Subject:
    """What a checkpoint, a run directory or a preset's name stands for.

    Raises:
        CheckpointError: none of the three.
    """
    if Path(model).exists():
        config = resolve(Path(model)).config
        name, kind = config["method"], config["kind"]
        settings = from_dict(get_method(name).CONFIG, config["model"], str(model))
        preset = get_preset(name, config.get("preset") or get_method(name).DEFAULT_PRESET)
        return Subject(
            name, kind, settings, preset.pretrain, preset.finetune, len(config.get("classes", ())) or CLASSES
        )
    name = next((m for m in method_names() if str(model).startswith(f"{m}-")), "")
    if not name:
        raise CheckpointError(no_such_model(str(model)))
    preset = get_preset(name, str(model))
    return Subject(name, "preset", preset.model, preset.pretrain, preset.finetune, CLASSES)


def bench(model: str | Path, precision: str = "auto", batch: int = 0) -> Iterator[Speed]:
    """Measure embedding, pretraining step and fine-tuning step, each in a process of its own.

    A classifier's checkpoint has no pretraining step. Without `batch`, batches are the recipe's, cut to what `embed`
    takes at once.

    Raises:
        CheckpointError: no such model.
        ConfigError: an unknown precision.
        AuricleError: a process ended before it had measured anything.
    """
    measured = subject(model)
    resolve_precision(precision, pick_device())
    for work in works(measured):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as fresh:
            try:
                with detached():
                    future = fresh.submit(measure, measured, work, precision, torch.get_num_threads(), batch)
                yield future.result()
            except BrokenProcessPool:
                raise AuricleError(
                    f"the process that measured the {work} was killed, probably because memory ran out; "
                    "try a smaller model, or a smaller --batch."
                ) from None


def works(measured: Subject) -> list[str]:
    """Names of what can be measured."""
    able = get_method(measured.method).CAPABILITIES
    pretrains = "pretrain" in able and measured.kind not in FINETUNED
    return ["embedding"] * ("embed" in able) + ["pretraining"] * pretrains + ["fine-tuning"] * ("finetune" in able)


def measure(measured: Subject, work: str, precision: str, threads: int, batch: int = 0) -> Speed:
    """Time one kind of work in this process, which should be fresh for the sake of the memory."""
    torch.set_num_threads(threads)
    device = pick_device()
    before = peak_mb()
    turn, seconds, batch = _prepare(measured, work, resolve_precision(precision, device), device, batch)
    turn()
    times: list[float] = []
    while len(times) < LEAST_TURNS or sum(times) < LEAST_SECONDS:
        begin = time.perf_counter()
        turn()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_mb() - before
    return Speed(work, seconds, batch, batch / statistics.median(times), batch / max(times), memory)


def _prepare(
    measured: Subject, work: str, precision: str, device: torch.device, wanted: int
) -> tuple[Callable[[], object], float, int]:
    """One turn of the work, the seconds of its clips, and how many it takes at once."""
    method = get_method(measured.method)
    torch.manual_seed(0)
    encoder = method.build_encoder(measured.model)
    limit = batch_samples(encoder, device)
    if work == "embedding":
        encoder = encoder.to(device).eval()
        waves = _noise(wanted or max(1, limit // encoder.window_samples), encoder.window_samples, device)

        def embed() -> Tensor:
            with torch.no_grad(), autocast(precision, device):
                pooled: Tensor = encoder(waves, layers=()).pooled
            return pooled

        return embed, encoder.window_samples / encoder.sample_rate, len(waves)
    recipe = measured.pretrain if work == "pretraining" else measured.finetune
    samples = round(recipe.crop_seconds * encoder.sample_rate)
    waves = _noise(wanted or max(1, min(recipe.batch_size, limit // samples)), samples, device)
    count = len(waves)
    targets = None
    if work == "pretraining":
        module: nn.Module = method.build_objective(measured.model)
    else:
        if measured.kind not in FINETUNED:
            encoder = method.for_finetuning(encoder, recipe.crop_seconds)
        module = Classifier(encoder, [str(i) for i in range(measured.classes)])
        targets = torch.eye(measured.classes, device=device)[torch.arange(count) % measured.classes]
    module = module.to(device).train()
    optimizer = build_optimizer(module, recipe)
    lengths = torch.full((count,), samples, device=device)
    draw = Draw(0, (0,) * count, tuple(range(count)))
    ids = tuple(map(str, range(count)))
    batch = Batch({"audio": Stream(waves, lengths, encoder.sample_rate)}, draw, ids, targets)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            loss = module(batch, 0.0)["loss"]
        loss.backward()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        clip_gradients(gradients, nn.utils.get_total_norm(gradients), recipe)
        optimizer.step()

    return step, recipe.crop_seconds, count


def _noise(count: int, samples: int, device: torch.device) -> Tensor:
    return 0.1 * torch.randn(count, samples, device=device)
