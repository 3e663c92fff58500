"""SSAST's settings and presets, each value with where the paper or its code says so.

Paper: Gong, Lai, Chung, Glass: SSAST: Self-Supervised Audio Spectrogram Transformer, AAAI 2022 (arXiv 2110.09784).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from auricle.methods.base import Preset
from auricle.methods.spectrogram import recipes as shared
from auricle.methods.spectrogram.config import MaskedPatchConfig, TransformerConfig


@dataclass(frozen=True)
class SSASTConfig(MaskedPatchConfig, TransformerConfig):
    """A transformer over patches with the pretext task of masked patches."""


# Section 3 of the paper: DeiT's sizes, without their ImageNet weights.
_SIZES = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
}
_MODES = {
    "patch": {"mask_sampler": "official"},
    # Frame mode: one token per two frames of the whole spectrum; masks are not clustered (gen_maskid_frame).
    "frame": {
        "patch_freq": 128,
        "patch_time": 2,
        "stride_freq": 128,
        "stride_time": 2,
        "finetune_stride_freq": 128,
        "finetune_stride_time": 1,
        "mask_sampler": "official",
    },
}


def _official(size: str, mode: str) -> Preset:
    # run_mask_{patch,frame}.sh: two passes, 400 masks.
    small = size == "tiny"
    pretrain = dataclasses.replace(
        shared.PRETRAINING,
        batch_size=120 if small else 24,
        lr=5e-4 if small else 1e-4,
        validate_every=800 if small else 4000,
    )
    # Any other data set wants a recipe of its own; this one suits short clips.
    finetune = dataclasses.replace(shared.ESC50, precision="auto")
    config = SSASTConfig(**_SIZES[size], **_MODES[mode], mask_count=400, passes=2)  # type: ignore[arg-type]
    return Preset(config, pretrain, finetune, note=f"the paper's {size} model, {mode} mode")


# What trains in minutes on two cores: sine-cosine positions and wide initial weights, a start meant for short runs, and
# one shared pass at half the cost of the official two.
_SHORT = SSASTConfig(
    width=192,
    depth=6,
    heads=3,
    window_frames=112,
    patch_freq=128,
    patch_time=2,
    stride_freq=128,
    stride_time=2,
    finetune_stride_freq=128,
    finetune_stride_time=2,
    init_std=0.06,
    position_init="sincos",
    mask_sampler="random",
    mask_ratio=0.7,
    **shared.SHORT_LATENT,
)
PRESETS: dict[str, Preset] = {f"{size}-{mode}": _official(size, mode) for size in _SIZES for mode in _MODES} | {
    "demo": Preset(
        _SHORT,
        shared.DEMO_PRETRAINING,
        shared.DEMO_FINETUNING,
        note="six layers, windows of 1.1 s: minutes on two cores",
    ),
    "test": Preset(
        dataclasses.replace(_SHORT, width=48, depth=2, heads=3, window_frames=64, **shared.TINY_LATENT),
        shared.TEST_PRETRAINING,
        shared.TEST_FINETUNING,
        note="for tests: a step takes milliseconds",
    ),
}
PRESETS |= {
    "base-latent": shared.latent(
        PRESETS["base-patch"], shared.LATENT_PRETRAINING, "the base model, patch mode, by masked latent prediction"
    ),
    "demo-latent": shared.latent(
        PRESETS["demo"], dataclasses.replace(shared.DEMO_PRETRAINING, batch_size=8), "demo by masked latent prediction"
    ),
}
