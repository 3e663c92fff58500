"""What a training will cost, before it is started: `--dry-run`.

A full batch may not fit, so none is computed: one and two clips are, and the batch is extrapolated from them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from auricle.config import TrainConfig
from auricle.data.batch import Batch
from auricle.data.loader import Key, Loader
from auricle.errors import plural
from auricle.methods.base import Method, MethodConfig, Trainable
from auricle.training import finetune, pretrain
from auricle.training.memory import available_mb, enough_memory, peak_mb, remedies
from auricle.training.optim import build_optimizer
from auricle.training.planning import PLANNED_SHARE, TRIAL_SECONDS
from auricle.training.precision import resolve_precision
from auricle.training.step import forward

MB = 2**20


@dataclass(frozen=True)
class Cost:
    """What a step takes.

    Attributes:
        seconds: of a whole step.
        first: bytes that the forward pass of one clip keeps for the backward pass.
        further: bytes that each clip more adds.
    """

    seconds: float
    first: float
    further: float

    def memory(self, clips: int) -> float:
        """Bytes for so many clips at once."""
        return self.first + self.further * (clips - 1)

    def clips_within(self, room: float) -> float:
        """How many clips fit into so many bytes at once: a whole number, or below 1 the share of the first clip."""
        if room < self.first:
            return max(0.0, room / self.first)
        return 1.0 + math.floor((room - self.first) / self.further) if self.further else math.inf


def parameters(method: Method, config: MethodConfig) -> int:
    """Parameters of a configuration's encoder, counted without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in method.build_encoder(config).parameters())


def pretraining(plan: pretrain.PretrainPlan, max_minutes: float = 0.0) -> str:
    """Measure a few clips of a planned pretraining and say what all of them will take."""
    with enough_memory(plan.train):
        return _estimate(pretrain.build(plan), pretrain.build_loader(plan), plan.train, plan.seed, max_minutes)


def finetuning(plan: finetune.FinetunePlan, max_minutes: float = 0.0) -> str:
    """Measure a few clips of a planned fine-tuning and say what all of them will take."""
    with enough_memory(plan.train):
        return _estimate(finetune.build(plan), finetune.build_loader(plan), plan.train, plan.seed, max_minutes)


def _estimate(module: Trainable, loader: Loader, config: TrainConfig, seed: int, max_minutes: float) -> str:
    device = pretrain.pick_device()
    module.to(device)
    count = sum(p.numel() for p in module.parameters())
    learned = sum(p.numel() for p in module.parameters() if p.requires_grad)
    inside = sum(p.numel() for p in module.encoder.parameters())
    # The rest is a teacher, or a network that is not fine-tuned.
    rest = f"{count - inside:,} in heads" if learned == count else f"{learned:,} that learn"
    parts = f"{inside:,} in the encoder, {rest}"
    cost = measure(module, loader, config, seed, device)
    seconds, clips = cost.seconds, -(-loader.batch_size // config.accumulate)
    activations = cost.memory(clips)
    # Weights, and for those that learn a gradient and two moments, of fp32; the weights are there already.
    beside = 12 * learned
    fixed = beside + (4 * count if device.type == "cuda" else peak_mb() * MB)
    needed = fixed + activations
    steps = config.steps or max(1, round(config.epochs * loader.steps_per_epoch))
    if max_minutes:
        steps = max(1, int(max_minutes * 60 * PLANNED_SHARE / seconds))
    extrapolated = ", extrapolated from one and two" if clips > 2 else ""
    available = available_mb(device)
    too_much = []
    if needed / MB > available:
        fits = cost.clips_within(available * MB - fixed)
        advice = remedies(config, fits, loader.batch_size, getattr(module, "whole_batch", False))
        too_much = [f"too much    of {available:.0f} MB available: {advice}"]
    return "\n".join(
        [
            f"parameters  {count:,} ({parts})",
            f"weights     {count * 4 / MB:.0f} MB, with gradients and optimizer {(count * 4 + beside) / MB:.0f} MB",
            f"memory      about {needed / MB:.0f} MB, of which {activations / MB:.0f} MB for {plural(clips, 'clip')} "
            f"at once{extrapolated}",
            *too_much,
            f"data        {plural(len(loader.dataset.items), 'clip')}, "
            f"{plural(loader.steps_per_epoch, 'step')} per epoch",
            f"steps       {steps}",
            f"time        about {steps * seconds / 60:.1f} minutes at {seconds:.3f} s per step{extrapolated} "
            f"({resolve_precision(config.precision, device)}, {device.type}, {torch.get_num_threads()} threads)",
        ]
    )


def measure(module: Trainable, loader: Loader, config: TrainConfig, seed: int, device: torch.device) -> Cost:
    """The cost of a step.

    Time and memory grow linearly with the clips of a micro-batch, so those of one clip and of two say the rest. The
    memory is that of the longest clips; the time is scaled to clips of mean length.
    """
    items, crop = loader.dataset.items, loader.dataset.crop / loader.rate
    lengths = np.array([min(item.duration, crop) for item in items])[loader.slots]
    longest = np.argsort(-lengths, kind="stable")[:2].tolist()
    begin = time.monotonic()
    batch = loader.collate([loader.dataset[Key(0, n, longest[n % len(longest)])] for n in range(2)])
    # As in `planning.measure_costs`: half of the reading is done again in later epochs.
    reading = 0.0 if loader.workers else 0.25 * loader.batch_size * (time.monotonic() - begin)
    clips = -(-loader.batch_size // config.accumulate)
    sizes = (1, 2) if clips > 2 else (clips,)
    precision = resolve_precision(config.precision, device)
    times: dict[int, list[float]] = {size: [] for size in sizes}
    kept: dict[int, int] = {}
    module.train()
    begin = time.monotonic()
    while len(times[sizes[0]]) < 3 or time.monotonic() - begin < TRIAL_SECONDS:
        for size in sizes:
            start = time.monotonic()
            kept[size] = _forward_backward(module, batch.rows(0, size).to(device), seed, precision)
            times[size].append(time.monotonic() - start)
    medians = {size: sorted(t)[len(t) // 2] for size, t in times.items()}
    seconds = config.accumulate * _extrapolate(medians, clips) * float(lengths.mean() / lengths.max())
    seconds += _optimizer_seconds(module, config) + reading
    if len(sizes) == 1:
        return Cost(seconds, kept[clips] / clips, kept[clips] / clips)
    return Cost(seconds, kept[1], max(0, kept[2] - kept[1]))


def _extrapolate(values: Mapping[int, float], size: int) -> float:
    """The value at `size` on the line through those at 1 and 2."""
    if size in values:
        return float(values[size])
    return float(values[1] + max(0, values[2] - values[1]) * (size - 1))


def _forward_backward(module: Trainable, batch: Batch, seed: int, precision: str) -> int:
    """One forward and backward pass; returns the bytes that autograd kept in between, the module's own left out."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward(module, batch, 0.0, (seed, 0, 0), precision)
    result["loss"].backward()
    float(result["loss"].detach())
    return sum(kept.values())


def _optimizer_seconds(module: nn.Module, config: TrainConfig) -> float:
    """Time of an optimizer step; at learning rate 0, as the module may be kept."""
    optimizer = build_optimizer(module, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    times = []
    for _ in range(2):
        start = time.monotonic()
        optimizer.step()
        times.append(time.monotonic() - start)
    return min(times)
