"""Presets of ATST-Clip and ATST-Frame: the papers' sizes with their recipes, `demo` and `test`."""

from __future__ import annotations

import dataclasses
from typing import Any

from auricle.config import TrainConfig
from auricle.methods.atst.config import ClipConfig, FrameConfig
from auricle.methods.base import Preset
from auricle.methods.spectrogram import recipes as shared

SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
}
# What the published pretrainings share (train_*.sh, module.py): transformers' AdamW, no clipping, fp32, a linear
# warm-up from 0 and a cosine to 1e-6, weight decay from 0.04 to 0.4 on all that is not a vector.
_OFFICIAL = TrainConfig(
    optimizer="adamw-hf",
    betas=(0.9, 0.999),
    weight_decay=0.04,
    final_weight_decay=0.4,
    decay_tokens=True,
    clip_norm=0.0,
    schedule="dino",
    precision="fp32",
    crop_seconds=10.0,
)
# Any other data set wants a recipe of its own (recipes.py); this one suits short clips.
_FINETUNE = TrainConfig(
    steps=1000,
    batch_size=32,
    crop_seconds=10.0,
    lr=5e-4,
    weight_decay=0.05,
    mask_freq=16,
    mask_time=48,
    layer_decay=0.75,
)


def official(batch: int, steps: int, warmup: int, lr: float) -> TrainConfig:
    """A published pretraining of `steps`, `batch` clips each over all GPUs, at the effective learning rate."""
    return dataclasses.replace(
        _OFFICIAL, batch_size=batch, steps=steps, warmup=warmup / steps, lr=lr, final_lr=1e-6 / lr
    )


# What trains in minutes on two cores: sine-cosine positions and wide initial weights. The floor is that of published
# networks. A time step is 20 ms, as in SSAST's and ASiT's `demo`: events cannot be told closer than a step. Positions
# reach as far as a view, so that none is used that was not trained. Few clips are in a batch, and a network that learns
# fast soon tells nothing but them apart (docs/teacher_student_notes.md): hence low rates and slow teachers.
SHORT: dict[str, Any] = {
    "width": 192,
    "depth": 6,
    "heads": 3,
    "patch_time": 2,
    "window_frames": 121,
    "view_seconds": 1.2,
    "drop_path": 0.0,
    "projector_hidden": 1024,
    "projector_out": 256,
    "momentum": 0.996,
    "init_std": 0.06,
    "position_init": "sincos",
}
_FRAME_VIEWS: dict[str, Any] = {"view_mixup": 0.8, "augment_teacher": True, "mask_ratio": 0.7, "mask_length": 1}
SHORT_PRETRAIN = TrainConfig(
    steps=750,
    batch_size=16,
    crop_seconds=2.0,
    lr=5e-4,
    weight_decay=0.04,
    warmup=0.1,
    final_lr=0.02,
    betas=(0.9, 0.99),
    clip_norm=3.0,
    val_fraction=0.02,
)
SHORT_FINETUNE = dataclasses.replace(_FINETUNE, steps=450, crop_seconds=2.0, mask_time=24)
TINY: dict[str, Any] = {
    "width": 48,
    "depth": 2,
    "heads": 3,
    "patch_time": 4,
    "window_frames": 65,
    "window_seconds": 1.28,
    "view_seconds": 0.64,
    "projector_hidden": 64,
    "projector_out": 32,
}
TEST_PRETRAIN = dataclasses.replace(SHORT_PRETRAIN, steps=40, batch_size=8, crop_seconds=0.655)
TEST_FINETUNE = dataclasses.replace(
    SHORT_FINETUNE, steps=40, batch_size=8, crop_seconds=0.655, mask_freq=0, mask_time=0
)
TEST_NOTE = "for tests: a step takes milliseconds"

# The table under "Presets" in docs/atst.md: clips times GPUs of the published runs; lr is what they give times batch /
# 256. ATST-Clip has learned its positions as far as a view reaches, so its chunks are no longer.
CLIP_PRESETS: dict[str, Preset] = {
    "small": Preset(
        ClipConfig(**SIZES["small"], momentum=0.99, chunk_frames=601),
        official(4 * 384, 39_100, 1_300, 3e-3),
        _FINETUNE,
        note="the paper's small model",
    ),
    "base": Preset(
        ClipConfig(**SIZES["base"], momentum=0.9995, chunk_frames=601),
        official(6 * 256, 318_000, 15_860, 1.2e-3),
        _FINETUNE,
        note="the paper's base model",
    ),
    # Longer crops than views, so that both views of a clip differ in time too. Batches are normalised over clips, not
    # over masked steps, so they are larger.
    "demo": Preset(
        ClipConfig(**SHORT),
        dataclasses.replace(SHORT_PRETRAIN, batch_size=32),
        SHORT_FINETUNE,
        note="six layers, steps of 20 ms, views of 1.2 s: minutes on two cores",
    ),
    "test": Preset(ClipConfig(**{**SHORT, **TINY, "view_seconds": 0.48}), TEST_PRETRAIN, TEST_FINETUNE, note=TEST_NOTE),
}
FRAME_PRESETS: dict[str, Preset] = {
    "small": Preset(
        FrameConfig(**SIZES["small"], momentum=0.997),
        official(4 * 256, 58_500, 1_950, 1.6e-3),
        _FINETUNE,
        note="the paper's small model",
    ),
    "base": Preset(
        FrameConfig(**SIZES["base"], momentum=0.9996),
        official(7 * 144, 398_000, 19_900, 3.15e-4),
        _FINETUNE,
        note="the paper's base model",
    ),
    # What all steps of a clip share is the easiest to predict: both views are changed, and mixed more than the paper's.
    # Single steps are masked, as in SSAST's `demo`, for short events do not reach beyond spans of five.
    "demo": Preset(
        FrameConfig(**SHORT, **_FRAME_VIEWS, **shared.SHORT_LATENT),
        dataclasses.replace(SHORT_PRETRAIN, crop_seconds=1.2),
        SHORT_FINETUNE,
        note="six layers, steps of 20 ms, views of 1.2 s: minutes on two cores",
    ),
    "test": Preset(
        FrameConfig(**{**SHORT, **TINY, **shared.SHORT_LATENT, **shared.TINY_LATENT}),
        TEST_PRETRAIN,
        TEST_FINETUNE,
        note=TEST_NOTE,
    ),
}
FRAME_PRESETS |= {
    "base-latent": shared.latent(
        FRAME_PRESETS["base"], shared.LATENT_PRETRAINING, "the base model by masked latent prediction", drop_path=0.0
    ),
    "demo-latent": shared.latent(
        FRAME_PRESETS["demo"], dataclasses.replace(SHORT_PRETRAIN, lr=1e-3), "demo by masked latent prediction"
    ),
}
