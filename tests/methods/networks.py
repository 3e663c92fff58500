"""Small SSAST networks, sounds and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from auricle.data.batch import Batch, Stream
from auricle.data.randomness import Draw
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.spectrogram.masks import Mask
from auricle.methods.ssast import SSASTConfig, SSASTEncoder
from auricle.tasks.classification import Classifier

RATE = 16000
# Kernel and stride, frequency first: pretraining and fine-tuning in both modes.
LAYOUTS: dict[str, dict[str, int]] = {
    "patch": {"patch_freq": 16, "patch_time": 16, "stride_freq": 16, "stride_time": 16},
    "patch-finetune": {"patch_freq": 16, "patch_time": 16, "stride_freq": 10, "stride_time": 10},
    "frame": {"patch_freq": 128, "patch_time": 2, "stride_freq": 128, "stride_time": 2},
    "frame-finetune": {"patch_freq": 128, "patch_time": 2, "stride_freq": 128, "stride_time": 1},
}


def config(layout: str = "patch", **changes: Any) -> SSASTConfig:
    """Two layers of width 24 with positions for 64 frames."""
    small = {"width": 24, "depth": 2, "heads": 3, "window_frames": 64, "init_std": 0.2}
    return SSASTConfig(**{**small, **LAYOUTS[layout], **changes})


def encoder(layout: str = "patch", **changes: Any) -> SSASTEncoder:
    """An encoder in evaluation mode, its positions large enough that a wrong one shows."""
    torch.manual_seed(0)
    network = SSASTEncoder(config(layout, **changes)).eval()
    torch.nn.init.normal_(network.positions, std=0.5)
    return network


def objective(layout: str = "patch", **changes: Any) -> MaskedPatchObjective:
    return MaskedPatchObjective(encoder(layout, **changes))


def samples(frames: int) -> int:
    """The fewest samples that give so many frames."""
    return 400 + 160 * (frames - 1)


def sounds(lengths: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Zero-padded noise with an offset of its own for each clip [B, S], and the lengths [B]."""
    generator = torch.Generator().manual_seed(seed)
    waves = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        # Drawn clip by clip, so that a clip is the same alone and in company.
        noise = torch.randn(length, generator=torch.Generator().manual_seed(seed + row))
        waves[row, :length] = 0.1 * noise * torch.rand(1, generator=generator) + 0.05 * row
    return waves, torch.tensor(list(lengths))


def batch(waves: Tensor, lengths: Tensor, indices: Sequence[int] | None = None, seed: int = 0) -> Batch:
    """Clips drawn as samples `indices` (0, 1, ...) of epoch 0."""
    indices = range(len(waves)) if indices is None else indices
    draw = Draw(seed, (0,) * len(waves), tuple(indices))
    return Batch({"audio": Stream(waves, lengths, RATE)}, draw, tuple(f"clip{i}" for i in indices))


def outputs(module: Any) -> list[Tensor]:
    """All that a network computes for a clip: embeddings, predictions of masked patches, logits."""
    waves, lengths = sounds([samples(64)])
    with torch.inference_mode():
        encoded = module.encoder(waves)
        found = [encoded.pooled, *encoded.layers, *encoded.prefix]
        if isinstance(module, Classifier):
            return [*found, module.logits(encoded)]
        tokens, _ = module.encoder.embed_patches(*module.encoder.features(waves, lengths))
        masked = module.run(tokens, Mask(torch.tensor([[1, 5, 9]]), torch.ones(1, 3, dtype=torch.bool))).masked
        return [*found, module.discriminative(masked), module.generative(masked)]


def descend(module: Any, given: Batch) -> tuple[float, float]:
    """The loss of a pretext task before and after a small step down its gradient."""
    losses = []
    for _ in range(2):
        loss = module(given, 0.0)["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 1e-4 * parameter.grad
                parameter.grad = None
    return losses[0], losses[1]
