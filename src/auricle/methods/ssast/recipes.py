"""The fine-tunings that SSAST's authors published, each as settings laid over a checkpoint's network.

src/finetune/*/run_*.sh of the official code for its own pipeline (AudioSet, ESC-50, Speech Commands V2), the SUPERB
configurations of s3prl for the rest. docs/ssast.md has them as a table, with what the paper reports.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from auricle.config import TrainConfig
from auricle.methods.base import Recipe


def _seconds(frames: int) -> float:
    """The length of a clip that has so many frames: 25 ms every 10 ms."""
    return round(0.015 + 0.01 * frames, 3)


# What all of their own pipeline shares (traintest.py): Adam with L2 decay, fp32, no clipping, decay at ends of epochs.
_OWN = TrainConfig(
    optimizer="adam",
    betas=(0.95, 0.999),
    weight_decay=5e-7,
    clip_norm=0.0,
    schedule="multistep",
    precision="fp32",
)
# What SUPERB's downstream tasks share: plain Adam at a constant rate, gradients clipped to 1, a mixture of all layers.
_SUPERB = TrainConfig(
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
_AUDIOSET_INPUT = {"norm_mean": -4.2677393, "norm_std": 4.5689974, "pooling": "mean"}
# Always AudioSet's statistics; what pads is 0 after normalising, not before.
_SUPERB_INPUT = {"norm_mean": -4.2677393, "norm_std": 4.5689974, "pad_normalised": True}
_AUDIOSET = dataclasses.replace(
    _OWN,
    loss="bce",
    crop_seconds=_seconds(1024),
    batch_size=12,
    decay_start=10,
    decay_every=5,
    decay_factor=0.5,
    mixup=0.5,
    mask_freq=48,
    mask_time=192,
)


@dataclass(frozen=True)
class SSASTRecipe(Recipe):
    """A recipe that knows the two modes.

    Tokens overlap by their mode: a stride of 10 x 10 for patches, of one frame for frames (section 7.1). `frame_lr` is
    the learning rate of frame mode, where it differs.
    """

    frame_lr: float | None = None

    def fit(self, config: Any) -> tuple[Any, TrainConfig]:
        frame_mode = config.patch_freq == config.mel_bins
        stride_freq, stride_time = (config.patch_freq, 1) if frame_mode else (10, 10)
        model, train = super().fit(config)
        model = dataclasses.replace(model, finetune_stride_freq=stride_freq, finetune_stride_time=stride_time)
        if frame_mode and self.frame_lr:
            train = dataclasses.replace(train, lr=self.frame_lr)
        return model, train


RECIPES: dict[str, Recipe] = {
    "audioset-20k": SSASTRecipe(
        task="tagging",
        model=_AUDIOSET_INPUT,
        # The script sets a variable warmup=True and passes --warmup False.
        train=dataclasses.replace(_AUDIOSET, epochs=25, lr=5e-5, average_epochs=(6, 25)),
        note="AudioSet, balanced: 25 epochs, mean of the weights after epochs 6 to 25",
    ),
    "audioset": SSASTRecipe(
        task="tagging",
        model=_AUDIOSET_INPUT,
        # The script's decay (from epoch 10) and average (epochs 6 to 25) lie beyond its five epochs.
        train=dataclasses.replace(_AUDIOSET, epochs=5, lr=1e-5, balanced=True),
        note="AudioSet, all of it: 5 epochs of class-balanced draws",
    ),
    "esc50": SSASTRecipe(
        task="classification",
        model={"norm_mean": -6.6268077, "norm_std": 5.358466, "pooling": "mean"},
        train=dataclasses.replace(
            _OWN,
            loss="ce",
            crop_seconds=_seconds(512),
            epochs=50,
            batch_size=48,
            lr=1e-4,
            decay_start=6,
            decay_every=1,
            decay_factor=0.85,
            mask_freq=24,
            mask_time=96,
            noise=True,
        ),
        note="ESC-50: 50 epochs; --held-out all for the five folds",
    ),
    "speech-commands-v2": SSASTRecipe(
        task="classification",
        model={"norm_mean": -6.845978, "norm_std": 5.5654526, "pooling": "mean"},
        train=dataclasses.replace(
            _OWN,
            loss="bce",
            crop_seconds=_seconds(128),
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
        ),
        note="Speech Commands V2, 35 words: 30 epochs of binary cross-entropy, chosen on validation clips",
    ),
    "speech-commands-v1": SSASTRecipe(
        task="classification",
        model=_SUPERB_INPUT,
        train=dataclasses.replace(
            _SUPERB, crop_seconds=_seconds(100), steps=20_000, accumulate=1, balanced=True, validate_every=500
        ),
        frame_lr=5e-5,
        note="SUPERB keyword spotting, 12 classes: 20,000 class-balanced steps",
    ),
    "iemocap": SSASTRecipe(
        task="classification",
        model=_SUPERB_INPUT,
        train=dataclasses.replace(
            _SUPERB, crop_seconds=_seconds(600), steps=10_000, validate_every=200, val_fraction=0.2
        ),
        note="SUPERB emotion recognition, 4 classes: 10,000 steps; --group-column SESSION --held-out all",
    ),
    "voxceleb1": SSASTRecipe(
        task="classification",
        model=_SUPERB_INPUT,
        # Trained on crops of 8 s, tested on windows of 10 s.
        train=dataclasses.replace(
            _SUPERB, crop_seconds=8.0, window_seconds=_seconds(1000), steps=40_000, validate_every=500
        ),
        note="SUPERB speaker identification, 1,251 speakers: 40,000 steps on crops of 8 s",
    ),
}
