"""ASiT's presets: the sizes of ViT with the authors' recipe, `demo` and `test`."""

from __future__ import annotations

import dataclasses
from typing import Any

from auricle.config import TrainConfig
from auricle.methods.asit.config import ASiTConfig
from auricle.methods.base import Preset
from auricle.methods.spectrogram import recipes as shared

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
}
# main_ASiT.py and the README's command: four GPUs with 32 clips each, lr = 5e-4 * 128 / 256, 10 of 100 epochs of
# warm-up from 0, a cosine to 1e-6, weight decay from 0.04 to 0.4 on all that is not a vector, tensors clipped one by
# one. Clips are AudioSet's of 10 s. In half precision: bf16 where there is such hardware, for the authors' fp16.
PRETRAINING = TrainConfig(
    epochs=100,
    batch_size=128,
    crop_seconds=10.0,
    lr=2.5e-4,
    betas=(0.9, 0.999),
    weight_decay=0.04,
    final_weight_decay=0.4,
    decay_tokens=True,
    clip_norm=3.0,
    clip_each=True,
    schedule="dino",
    warmup=0.1,
    final_lr=0.004,
)
# Any other data set wants a recipe of its own; this one suits short clips.
_FINETUNING = dataclasses.replace(shared.ESC50, precision="auto")

# What trains in minutes on two cores: small heads, sine-cosine positions and wide initial weights. Behind a faster
# teacher the outputs soon span few directions. Crops are longer than views: both views of a clip differ in time.
_SHORT: dict[str, Any] = {
    "width": 192,
    "depth": 6,
    "heads": 3,
    "window_frames": 112,
    "finetune_stride_freq": 16,
    "finetune_stride_time": 16,
    "init_std": 0.06,
    "position_init": "sincos",
    "view_seconds": 1.135,
    "clip_prototypes": 1024,
    "patch_prototypes": 256,
    "projector_hidden": 512,
    "projector_out": 128,
    "decoder_hidden": 256,
    "drop_path": 0.0,
    "momentum": 0.996,
    **shared.SHORT_LATENT,
}
_SHORT_PRETRAINING = dataclasses.replace(
    shared.DEMO_PRETRAINING, crop_seconds=2.0, betas=(0.9, 0.99), weight_decay=0.04, clip_norm=3.0, clip_each=True
)
# A token for each 20 ms of the whole spectrum, as in SSAST's demo: the mean over square patches does not know which
# frequency it is about, and is far behind with random weights already.
_STRIPS: dict[str, Any] = {
    "patch_freq": 128,
    "patch_time": 2,
    "stride_freq": 128,
    "stride_time": 2,
    "finetune_stride_freq": 128,
    "finetune_stride_time": 2,
}
_TINY: dict[str, Any] = {
    "width": 48,
    "depth": 2,
    "window_frames": 64,
    "view_seconds": 0.655,
    "clip_prototypes": 64,
    "patch_prototypes": 32,
    "projector_hidden": 64,
    "projector_out": 32,
    "decoder_hidden": 64,
    "decoder_out": 32,
    **shared.TINY_LATENT,
}

_NOTES = {
    "tiny": "the official code names it and does not have it",
    "small": "the official code's small model",
    "base": "the paper's base model",
}
PRESETS: dict[str, Preset] = {
    size: Preset(
        ASiTConfig(**sizes),
        PRETRAINING,
        _FINETUNING,
        note=_NOTES[size],
    )
    for size, sizes in SIZES.items()
} | {
    "demo": Preset(
        ASiTConfig(**{**_SHORT, **_STRIPS}),
        _SHORT_PRETRAINING,
        shared.DEMO_FINETUNING,
        note="six layers, tokens of 20 ms, views of 1.1 s: minutes on two cores",
    ),
    "test": Preset(
        ASiTConfig(**{**_SHORT, **_TINY}),
        dataclasses.replace(_SHORT_PRETRAINING, steps=40, batch_size=8, crop_seconds=0.655),
        shared.TEST_FINETUNING,
        note="for tests: a step takes milliseconds",
    ),
}
PRESETS |= {
    "base-latent": shared.latent(
        PRESETS["base"], shared.LATENT_PRETRAINING, "the base model by masked latent prediction", drop_path=0.0
    ),
    "demo-latent": shared.latent(
        PRESETS["demo"], dataclasses.replace(_SHORT_PRETRAINING, batch_size=8), "demo by masked latent prediction"
    ),
}
