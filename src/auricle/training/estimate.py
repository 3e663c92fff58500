"""What a training will cost, before it is started: `--dry-run`."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from auricle.config import TrainConfig
from auricle.data.loader import Loader
from auricle.methods.base import Method
from auricle.training import finetune, pretrain
from auricle.training.loop import PLANNED_SHARE, Job, seconds_per_step
from auricle.training.precision import resolve_precision


def parameters(method: Method, config: Any) -> int:
    """Parameters of a configuration's encoder, counted without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in method.build_encoder(config).parameters())


def pretraining(plan: pretrain.PretrainPlan, max_minutes: float = 0.0) -> str:
    """Measure a few steps of a planned pretraining and say what all of them will take."""
    return _estimate(pretrain.build(plan), pretrain.build_loader(plan), plan.train, plan.seed, max_minutes)


def finetuning(plan: finetune.FinetunePlan, max_minutes: float = 0.0) -> str:
    """Measure a few steps of a planned fine-tuning and say what all of them will take."""
    return _estimate(finetune.build(plan), finetune.build_loader(plan), plan.train, plan.seed, max_minutes)


def _estimate(module: nn.Module, loader: Loader, config: TrainConfig, seed: int, max_minutes: float) -> str:
    device = pretrain.pick_device()
    count = sum(p.numel() for p in module.parameters())
    encoder: Any = module.encoder
    inside = sum(p.numel() for p in encoder.parameters())
    parts = f"{inside:,} in the encoder, {count - inside:,} in heads"
    with tempfile.TemporaryDirectory() as folder:
        job = Job(module.to(device), loader, config, Path(folder), seed, {}, device=device)
        seconds = seconds_per_step(job)
    steps = config.steps or max(1, round(config.epochs * loader.steps_per_epoch))
    if max_minutes:
        steps = max(1, int(max_minutes * 60 * PLANNED_SHARE / seconds))
    return "\n".join(
        [
            f"parameters  {count:,} ({parts})",
            f"weights     {count * 4 / 2**20:.0f} MB, with gradients and optimizer {count * 16 / 2**20:.0f} MB",
            f"memory      {peak_mb():.0f} MB at most so far in this process, batch of {config.batch_size}",
            f"data        {len(loader.dataset.items)} clips, {loader.steps_per_epoch} steps per epoch",
            f"steps       {steps}",
            f"time        {steps * seconds / 60:.1f} minutes at {seconds:.3f} s per step "
            f"({resolve_precision(config.precision, device)}, {device.type}, {torch.get_num_threads()} threads)",
        ]
    )


def peak_mb() -> float:
    """The most memory that this process has held so far, in MB."""
    try:
        # On Linux, getrusage counts what the process that started this one held.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
