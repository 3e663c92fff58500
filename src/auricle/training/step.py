"""One step of a training: a global batch, shared by processes and cut into micro-batches, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from auricle.data.batch import Batch
from auricle.data.randomness import torch_seed
from auricle.errors import DataError, NonFiniteLoss
from auricle.training import checkpoint as ckpt
from auricle.training.job import Job, Progress
from auricle.training.optim import Clock, clip_gradients, learning_rate_factor, set_rates, weight_decay
from auricle.training.precision import LEAST_SCALE, autocast, next_scale

MAX_BAD_FILES = 100


@dataclass
class _Part:
    """What one process did in a step: `sums` are of scalars times the number of terms they are means over, `weight`."""

    ids: tuple[str, ...]
    samples: int
    replaced: tuple[tuple[str, str], ...]
    weight: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    error: NonFiniteLoss | None = None


def take_step(
    job: Job, network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, progress: Progress, precision: str
) -> dict[str, float]:
    """One optimizer step on a global batch, of which `batch` holds this process's rows; returns the scalars to log."""
    config, module, group = job.config, job.module, job.group
    share = progress.step / progress.total
    clock = Clock(progress.step, progress.total, job.loader.steps_per_epoch, progress.scores)
    lr = config.lr * learning_rate_factor(clock, config)
    set_rates(optimizer, lr, weight_decay(clock, config))
    optimizer.zero_grad(set_to_none=True)
    module.train()
    # What forward passes leave in running statistics and centres must not outlast a step that is skipped.
    buffers = {buffer: buffer.clone() for buffer in module.buffers()} if precision == "fp16" else {}
    parts = group.gather(_backward(job, network, batch, progress, precision))
    _count_bad_files(job, parts, progress)
    for part in parts:
        if part.error:
            raise group.common(part.error)
    weight = sum(part.weight for part in parts)
    scalars = {key: sum(part.sums[key] for part in parts) / weight for key in parts[0].sums}
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    scale = _loss_scale(progress, precision)
    torch._foreach_div_(gradients, weight / group.size * scale)
    norm = nn.utils.get_total_norm(gradients)
    finite = bool(torch.isfinite(norm))
    scalars["lr"] = lr
    progress.audio_seconds += sum(part.samples for part in parts) / batch.audio.rate
    if precision == "fp16":
        scalars["loss_scale"] = scale
        progress.loss_scale, progress.steady = next_scale(scale, progress.steady, finite)
        if not finite and scale > LEAST_SCALE:
            for buffer, before in buffers.items():
                buffer.copy_(before)
            return scalars | {"skipped": 1.0}
    if not finite:
        names = ", ".join(name for part in parts for name in part.ids)
        raise group.common(
            NonFiniteLoss(
                f"a gradient is not finite at step {progress.step}; the batch was {names}; "
                f"{what_is_saved(job)}; lower lr."
            )
        )
    clip_gradients(gradients, norm, config)
    optimizer.step()
    module.after_step(share)
    return scalars | {"grad_norm": float(norm)}


def _loss_scale(progress: Progress, precision: str) -> float:
    return progress.loss_scale if precision == "fp16" else 1.0


def _backward(job: Job, network: nn.Module, batch: Batch, progress: Progress, precision: str) -> _Part:
    """Add up the gradients of this process's micro-batches, weighed by their terms; leave the mean over processes."""
    group, part = job.group, _Part(batch.ids, int(batch.audio.lengths.sum()), batch.replaced)
    share = progress.step / progress.total
    micro_batches = list(_micro_batches(batch.to(job.device), job.config.accumulate))
    for number, rows in enumerate(micro_batches):
        last = number == len(micro_batches) - 1
        # Numbered over all processes, as one process would number them that accumulates as many.
        keys = (job.seed, progress.step, group.rank * job.config.accumulate + number)
        with group.peers() if last else group.accumulating(network):
            result = forward(network, rows, share, keys, precision)
            loss, weight = result["loss"], float(result["weight"])
            # Micro-batches may hold different numbers of terms: weigh each mean by its own, divide by all at the end.
            (loss * (weight * _loss_scale(progress, precision))).backward()
        part.weight += weight
        for key, value in result.items():
            if key != "weight":
                part.sums[key] = part.sums.get(key, 0.0) + float(value.detach()) * weight
        if part.error is None and not bool(torch.isfinite(loss)):
            where = f" in process {group.rank} of {group.size}" if group.size > 1 else ""
            part.error = NonFiniteLoss(
                f"the loss is {float(loss.detach())} at step {progress.step}{where}; the batch was "
                f"{', '.join(rows.ids)}; {what_is_saved(job)}; lower lr, or look at these files with auricle info."
            )
    return part


def what_is_saved(job: Job) -> str:
    """In words, the newest checkpoint of a run that ends with an error."""
    steps = ckpt.steps_saved(job.run)
    return f"the checkpoint of step {steps[-1]} is from before it" if steps else "no checkpoint had been saved yet"


def forward(
    module: nn.Module, batch: Batch, progress: float, keys: tuple[int, int, int], precision: str
) -> dict[str, Tensor]:
    """Forward with dropout drawn from (seed, step, micro-batch); the global generators stay as they were."""
    device = batch.audio.data.device
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(torch_seed(keys[0], "step", *keys[1:]))
        with autocast(precision, device):
            result: dict[str, Tensor] = module(batch, progress)
    return result


def _micro_batches(batch: Batch, parts: int) -> Iterator[Batch]:
    size = math.ceil(len(batch) / parts)
    for start in range(0, len(batch), size):
        yield batch.rows(start, start + size)


def _remedy(bad: int, items: int) -> str:
    """What to do about so many unreadable files that have been met so far."""
    advice = (
        "list them all with auricle check DATA --exclude FILE, and start again with --exclude FILE and another --out"
    )
    if bad > MAX_BAD_FILES:
        return advice
    # Rounded up, so that it is enough.
    return f"{advice}; or allow for these with --set max_bad_fraction={math.ceil(1000 * bad / items) / 1000:g}"


def _count_bad_files(job: Job, parts: Sequence[_Part], progress: Progress) -> None:
    known = {path for path, _ in progress.bad_files}
    for path, reason in (pair for part in parts for pair in part.replaced):
        if path not in known:
            known.add(path)
            progress.bad_files.append([path, reason])
    limit = max(1, min(MAX_BAD_FILES, math.ceil(job.config.max_bad_fraction * len(job.loader.dataset.items))))
    if len(progress.bad_files) > limit:
        listed = "; ".join(f"{path}: {reason}" for path, reason in progress.bad_files[:5])
        error = DataError(
            f"{len(progress.bad_files)} files cannot be read, more than the {limit} allowed ({listed}); "
            f"{_remedy(len(progress.bad_files), len(job.loader.dataset.items))}."
        )
        raise job.group.common(error)
