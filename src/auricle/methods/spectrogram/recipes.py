"""Trainings that methods over patches have in common: SSAST's own loops, SUPERB's tasks, and short ones.

src/pretrain and src/finetune/*/run_*.sh of the official code for its own pipeline, which SSAMBA's authors took over;
the SUPERB configurations of s3prl for the rest.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from auricle.config import TrainConfig
from auricle.methods.base import Preset, Recipe
from auricle.methods.spectrogram.config import PatchConfig


def seconds(frames: int) -> float:
    """The length of a clip that has so many frames: 25 ms every 10 ms."""
    return round(0.015 + 0.01 * frames, 3)


# traintest_mask.py: no clipping, fp32, the learning rate halves on plateaus of the accuracy of validation clips.
PRETRAINING = TrainConfig(
    epochs=10,
    crop_seconds=seconds(1024),
    optimizer="adam",
    betas=(0.95, 0.999),
    weight_decay=5e-7,
    clip_norm=0.0,
    schedule="plateau",
    warmup_steps=1000,
    decay_factor=0.5,
    precision="fp32",
    val_fraction=0.01,
)
# What all of their own fine-tunings share (traintest.py): Adam with L2 decay, decay of the rate at ends of epochs.
OWN = TrainConfig(
    optimizer="adam",
    betas=(0.95, 0.999),
    weight_decay=5e-7,
    clip_norm=0.0,
    schedule="multistep",
    precision="fp32",
)
AUDIOSET = dataclasses.replace(
    OWN,
    loss="bce",
    crop_seconds=seconds(1024),
    batch_size=12,
    decay_start=10,
    decay_every=5,
    decay_factor=0.5,
    mixup=0.5,
    mask_freq=48,
    mask_time=192,
)
ESC50 = dataclasses.replace(
    OWN,
    loss="ce",
    crop_seconds=seconds(512),
    epochs=50,
    batch_size=48,
    lr=1e-4,
    decay_start=6,
    decay_every=1,
    decay_factor=0.85,
    mask_freq=24,
    mask_time=96,
    noise=True,
)
SPEECH_COMMANDS = dataclasses.replace(
    OWN,
    loss="bce",
    crop_seconds=seconds(128),
    epochs=30,
    batch_size=128,
    lr=2.5e-4,
    warmup_steps=1000,
    decay_start=5,
    decay_every=1,
    decay_factor=0.85,
    mixup=0.6,
    mask_freq=48,
    mask_time=48,
    noise=True,
)
# What SUPERB's downstream tasks share: plain Adam at a constant rate, gradients clipped to 1, a mixture of all layers.
SUPERB = TrainConfig(
    optimizer="adam",
    betas=(0.9, 0.999),
    weight_decay=0.0,
    clip_norm=1.0,
    schedule="constant",
    warmup=0.0,
    lr=1e-4,
    batch_size=32,
    accumulate=8,
    loss="ce",
    head="mix",
    precision="fp32",
)
IEMOCAP = dataclasses.replace(SUPERB, crop_seconds=seconds(600), steps=10_000, validate_every=200, val_fraction=0.2)
# Trained on crops of 8 s, tested on windows of 10 s.
VOXCELEB1 = dataclasses.replace(
    SUPERB, crop_seconds=8.0, window_seconds=seconds(1000), steps=40_000, validate_every=500
)

AUDIOSET_INPUT = {"norm_mean": -4.2677393, "norm_std": 4.5689974, "pooling": "mean"}
ESC50_INPUT = {"norm_mean": -6.6268077, "norm_std": 5.358466, "pooling": "mean"}
SPEECH_COMMANDS_INPUT = {"norm_mean": -6.845978, "norm_std": 5.5654526, "pooling": "mean"}
# Always AudioSet's statistics; what pads is 0 after normalising, not before.
SUPERB_INPUT = {"norm_mean": -4.2677393, "norm_std": 4.5689974, "pad_normalised": True}

# EAT's own (config/pretraining_AS2M.yaml of its repository): 12 clips on each of four GPUs, with 16 masks of each.
LATENT_PRETRAINING = TrainConfig(
    steps=400_000,
    batch_size=48,
    lr=5e-4,
    betas=(0.9, 0.95),
    weight_decay=0.05,
    clip_norm=4.0,
    warmup=53_333 / 400_000,
    final_lr=0.0,
)
# Fewer masks of more clips, and a teacher that moves fast enough for some hundred steps (docs/latent.md).
SHORT_LATENT: dict[str, Any] = {
    "latent_clones": 8,
    "latent_keep": 0.25,
    "latent_decoder_depth": 4,
    "latent_momentum": 0.98,
}
# For tests, with everything that there is.
TINY_LATENT: dict[str, Any] = {"latent_block": 2, "latent_reconstruction": 1.0}

# Short trainings on two cores: minutes, on windows of 1.1 s, and milliseconds a step for tests.
DEMO_PRETRAINING = TrainConfig(
    steps=750, batch_size=16, crop_seconds=1.135, lr=1e-3, warmup=0.1, final_lr=0.02, val_fraction=0.02
)
DEMO_FINETUNING = TrainConfig(
    steps=450, batch_size=32, crop_seconds=1.135, lr=5e-4, weight_decay=0.05, mask_freq=24, mask_time=24, warmup=0.1
)
TEST_PRETRAINING = dataclasses.replace(DEMO_PRETRAINING, steps=40, batch_size=8, crop_seconds=0.655)
TEST_FINETUNING = dataclasses.replace(
    DEMO_FINETUNING, steps=40, batch_size=8, crop_seconds=0.655, mask_freq=0, mask_time=0
)


def latent(preset: Preset, pretrain: TrainConfig, note: str, **model: Any) -> Preset:
    """The network of a preset, pretrained by masked latent prediction with `pretrain`, on crops as long as its own."""
    return Preset(
        dataclasses.replace(preset.model, pretext="latent", **model),
        dataclasses.replace(pretrain, crop_seconds=preset.pretrain.crop_seconds),
        preset.finetune,
        note=note,
    )


@dataclass(frozen=True)
class PatchRecipe(Recipe):
    """A recipe that knows the two modes.

    Tokens overlap by their mode: a stride of 10 x 10 for patches, unless `model` says otherwise, and of one frame for
    frames (SSAST section 7.1). `frame_lr` is the learning rate of frame mode, where it differs.
    """

    frame_lr: float | None = None

    def fit(self, config: Any) -> tuple[PatchConfig, TrainConfig]:
        frame_mode = config.patch_freq == config.mel_bins
        strides = {"finetune_stride_freq": 10, "finetune_stride_time": 10, **self.model}
        if frame_mode:
            strides |= {"finetune_stride_freq": config.patch_freq, "finetune_stride_time": 1}
        model = dataclasses.replace(config, **strides)
        train = dataclasses.replace(self.train, lr=self.frame_lr) if frame_mode and self.frame_lr else self.train
        return model, train


# What SSAMBA's authors took over as it is.
ESC50_RECIPE = PatchRecipe(
    task="classification",
    model=ESC50_INPUT,
    train=ESC50,
    note="ESC-50: 50 epochs; --held-out all for the five folds",
)
SPEECH_COMMANDS_V2_RECIPE = PatchRecipe(
    task="classification",
    model=SPEECH_COMMANDS_INPUT,
    train=SPEECH_COMMANDS,
    note="Speech Commands V2, 35 words: 30 epochs of binary cross-entropy, chosen on validation clips",
)
IEMOCAP_RECIPE = PatchRecipe(
    task="classification",
    model=SUPERB_INPUT,
    train=IEMOCAP,
    note="SUPERB emotion recognition, 4 classes: 10,000 steps; --group-column SESSION --held-out all",
)
VOXCELEB1_RECIPE = PatchRecipe(
    task="classification",
    model=SUPERB_INPUT,
    train=VOXCELEB1,
    note="SUPERB speaker identification, 1,251 speakers: 40,000 steps on crops of 8 s",
)
