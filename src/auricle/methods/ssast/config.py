"""SSAST's settings and presets, each value with where the paper or its code says so.

Paper: Gong, Lai, Chung, Glass: SSAST: Self-Supervised Audio Spectrogram Transformer, AAAI 2022 (arXiv 2110.09784).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from auricle.config import TrainConfig, check_ranges
from auricle.errors import ConfigError
from auricle.methods.base import Preset
from auricle.methods.ssast.recipes import RECIPES
from auricle.nn.losses import SoftmaxOver
from auricle.nn.patches import grid_size

# Far above all that makes sense, and low enough that a forged file cannot ask for any amount of memory or time.
_AT_MOST = {"width": 65_536, "depth": 1_000, "mel_bins": 4_096, "window_frames": 1_000_000}
_MOST_WEIGHTS = 10**10


@dataclass(frozen=True)
class SSASTConfig:
    """The network, its front end and its pretext task.

    `window_frames` is the length the table of positions is made for; shorter clips use its first columns.
    `attend_padding` lets tokens attend to padding and pads every clip to `window_frames`, as the official code does;
    without it, a clip gives the same result whatever it is batched with.
    `pad_normalised` pads with 0 after normalising (SUPERB's form), not with a log-mel of 0 before it.
    `channel` is what is heard of a file with several: "mean", or a number from 0.
    `mask_count` tokens of a whole window are masked if it is above 0, the same share of a shorter clip; otherwise the
    share `mask_ratio` of a clip's own tokens.

    `compat=official` among the settings stands for the quirks of the official code in `COMPAT`; each is an option of
    its own, and one that is given beside it wins.
    """

    COMPAT: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "official": {"channel": 0, "attend_padding": True, "mask_sampler": "official", "passes": 2}
    }

    width: int = 192
    depth: int = 12
    heads: int = 3
    sample_rate: int = 16000
    channel: Literal["mean"] | int = "mean"
    mel_bins: int = 128
    norm_mean: float = -4.2677393
    norm_std: float = 4.5689974
    window_frames: int = 1024
    patch_freq: int = 16
    patch_time: int = 16
    stride_freq: int = 16
    stride_time: int = 16
    finetune_stride_freq: int = 10
    finetune_stride_time: int = 10
    pooling: Literal["mean", "prefix"] = "mean"
    attend_padding: bool = False
    pad_normalised: bool = False
    init_std: float = 0.02
    position_init: Literal["normal", "sincos"] = "normal"
    task: Literal["joint", "discriminative", "generative"] = "joint"
    mask_count: int = 0
    mask_ratio: float = 0.78
    mask_sampler: Literal["cluster", "random", "official"] = "cluster"
    passes: Literal[1, 2] = 1
    generative_weight: float = 10.0
    softmax_over: SoftmaxOver = "predictions"

    def __post_init__(self) -> None:
        check_ranges(
            self,
            positive=(
                *("width", "depth", "heads", "mel_bins", "window_frames", "norm_std", "init_std"),
                *("patch_freq", "patch_time", "stride_freq", "stride_time"),
                *("finetune_stride_freq", "finetune_stride_time"),
            ),
            not_negative=("mask_count", "generative_weight"),
        )
        if not 1000 <= self.sample_rate <= 768_000:
            raise ConfigError(f"sample_rate must lie from 1,000 to 768,000 Hz, got {self.sample_rate}.")
        if self.channel != "mean" and self.channel < 0:
            raise ConfigError(f"channel must be 'mean' or the number of a channel, from 0, got {self.channel}.")
        if not math.isfinite(self.norm_mean):
            raise ConfigError(f"norm_mean must be a number, got {self.norm_mean}.")
        for name, most in _AT_MOST.items():
            if getattr(self, name) > most:
                raise ConfigError(f"{name} must be at most {most:,}, got {getattr(self, name):,}.")
        if (weights := 12 * self.depth * self.width**2) > _MOST_WEIGHTS:
            raise ConfigError(
                f"width {self.width:,} and depth {self.depth:,} make {weights:,} weights; at most {_MOST_WEIGHTS:,}."
            )
        if self.width % self.heads:
            raise ConfigError(f"width ({self.width}) must be a multiple of heads ({self.heads}).")
        if self.mel_bins < self.patch_freq or self.window_frames < self.patch_time:
            raise ConfigError(
                f"a patch of {self.patch_freq}x{self.patch_time} does not fit into {self.mel_bins} mel bins x "
                f"{self.window_frames} frames."
            )
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio must lie between 0 and 1, got {self.mask_ratio}.")

    @property
    def kernel(self) -> tuple[int, int]:
        return self.patch_freq, self.patch_time

    @property
    def stride(self) -> tuple[int, int]:
        return self.stride_freq, self.stride_time

    @property
    def grid(self) -> tuple[int, int]:
        """(f, t) of a clip of `window_frames`; the official code drops the frames after the last whole patch."""
        rows, columns = grid_size((self.mel_bins, self.window_frames), self.kernel, self.stride)
        if not self.attend_padding:
            columns = 1 + math.ceil((self.window_frames - self.patch_time) / self.stride_time)
        return rows, columns

    def for_finetuning(self, frames: int) -> SSASTConfig:
        """The same network with the denser strides of fine-tuning and a table of positions for `frames`."""
        return dataclasses.replace(
            self,
            stride_freq=self.finetune_stride_freq,
            stride_time=self.finetune_stride_time,
            window_frames=max(frames, self.patch_time),
        )


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
    # run_mask_{patch,frame}.sh and traintest_mask.py: Adam with L2 decay, no clipping, fp32, two passes, 400 masks.
    # The learning rate halves on plateaus of the contrastive accuracy of validation clips.
    small = size == "tiny"
    pretrain = TrainConfig(
        epochs=10,
        batch_size=120 if small else 24,
        crop_seconds=10.255,
        optimizer="adam",
        lr=5e-4 if small else 1e-4,
        betas=(0.95, 0.999),
        weight_decay=5e-7,
        clip_norm=0.0,
        schedule="plateau",
        warmup_steps=1000,
        decay_factor=0.5,
        precision="fp32",
        validate_every=800 if small else 4000,
        val_fraction=0.01,
    )
    # Any other data set wants a recipe of its own; this one suits short clips.
    finetune = dataclasses.replace(RECIPES["esc50"].train, precision="auto")
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
)
_SHORT_PRETRAIN = TrainConfig(
    steps=750, batch_size=16, crop_seconds=1.135, lr=1e-3, warmup=0.1, final_lr=0.02, val_fraction=0.02
)
_SHORT_FINETUNE = TrainConfig(
    steps=450, batch_size=32, crop_seconds=1.135, lr=5e-4, weight_decay=0.05, mask_freq=24, mask_time=24, warmup=0.1
)

PRESETS: dict[str, Preset] = {f"{size}-{mode}": _official(size, mode) for size in _SIZES for mode in _MODES} | {
    "demo": Preset(_SHORT, _SHORT_PRETRAIN, _SHORT_FINETUNE, note="six layers, windows of 1.1 s: minutes on two cores"),
    "test": Preset(
        dataclasses.replace(_SHORT, width=48, depth=2, heads=3, window_frames=64),
        dataclasses.replace(_SHORT_PRETRAIN, steps=40, batch_size=8, crop_seconds=0.655),
        dataclasses.replace(_SHORT_FINETUNE, steps=40, batch_size=8, crop_seconds=0.655, mask_freq=0, mask_time=0),
        note="for tests: a step takes milliseconds",
    ),
}
