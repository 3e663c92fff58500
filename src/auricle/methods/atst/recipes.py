"""The fine-tunings and linear probes that ATST's authors published, each as settings laid over a checkpoint's network.

The official downstream scripts; docs/atst.md has them as a table. Learning rates are theirs times batch / 256; where
they give several to choose from, the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from auricle.config import TrainConfig
from auricle.data.labels import Task
from auricle.methods.base import Recipe

# Chunks are cut and counted as in the official fine-tuning, of the first channel.
_CLIP: Mapping[str, Any] = {"channel": 0, "chunking": "downstream", "chunk_frames": 601}
_FRAME: Mapping[str, Any] = {"channel": 0, "chunking": "downstream", "chunk_frames": 1001}
# ATST-Clip's probes cut chunks as long as the checkpoint's views were (its fine-tunings always of 6 s).
_CLIP_PROBED: Mapping[str, Any] = {"channel": 0, "chunking": "downstream"}
# The last block alone, stochastic gradient descent without decay, layers learning the slower the earlier they come, a
# linear warm-up from 0 and a cosine to 1e-6.
_FINETUNE = TrainConfig(
    batch_size=512,
    crop_seconds=12.0,
    crop="central",
    optimizer="sgd",
    betas=(0.9, 0.999),
    weight_decay=0.0,
    layer_decay=0.75,
    clip_norm=3.0,
    schedule="dino",
    head="batchnorm",
    precision="fp32",
)
# A frozen encoder, its last twelve blocks side by side; theirs lowers the rate once per epoch, not per step.
_LINEAR = TrainConfig(
    epochs=100,
    batch_size=1024,
    crop_seconds=12.0,
    crop="central",
    optimizer="sgd",
    betas=(0.9, 0.999),
    weight_decay=0.0,
    clip_norm=0.0,
    schedule="cosine",
    warmup=0.0,
    final_lr=0.0,
    head="batchnorm",
    head_layers=12,
    freeze=True,
)


def _tuned(lr: float, epochs: int, warmup: int, **changes: Any) -> TrainConfig:
    """A fine-tuning at the published rate, for batches of 512 unless `changes` say otherwise."""
    train = dataclasses.replace(_FINETUNE, epochs=epochs, warmup=warmup / epochs, **changes)
    effective = lr * train.batch_size / 256
    return dataclasses.replace(train, lr=effective, final_lr=1e-6 / effective)


def _mixed(alpha: float, probability: float = 1.0) -> dict[str, Any]:
    """Mixed spectrograms and resized crops of them; the loss is then of each class by itself, whatever the task."""
    return {
        "mixup": probability,
        "mixup_alpha": alpha,
        "mix_spectrograms": True,
        "resize_crop": True,
        "loss": "bce",
    }


# Data set: task, and the published learning rate of the linear probe.
_SETS: dict[str, tuple[Task, float]] = {
    "audioset": ("tagging", 2.0),
    "audioset-20k": ("tagging", 2.0),
    "fsd50k": ("tagging", 0.1),
    "speech-commands-v2": ("classification", 2e-3),
    "urbansound8k": ("classification", 2e-3),
    "nsynth": ("classification", 5e-4),
    "voxceleb1": ("classification", 0.1),
}
# Of all scripts, only the combination's on all of AudioSet hears random crops.
_RANDOM_CROP: dict[str, Any] = {"crop": "random", "crop_seconds": 10.0}
_CLIP_TRAINS: dict[str, TrainConfig] = {
    "audioset": _tuned(0.5, 10, 2, **_mixed(10.0, 0.5)),
    "audioset-20k": _tuned(1.0, 200, 5, **_mixed(0.5, 0.5)),
    "fsd50k": _tuned(0.5, 100, 5, **_mixed(0.5)),
    "speech-commands-v2": _tuned(0.5, 50, 5, **_mixed(0.5)),
    # Their loaders of these two ignore mixing and resizing, so that "mixup" only exchanges the loss.
    "urbansound8k": _tuned(2e-3, 50, 5, loss="ce"),
    "nsynth": _tuned(5e-4, 50, 5, loss="ce"),
    "voxceleb1": _tuned(0.1, 50, 5, loss="ce"),
}
_FRAME_TRAINS: dict[str, TrainConfig] = {
    **_CLIP_TRAINS,
    "audioset": _tuned(0.5, 11, 2, balanced=True, **_mixed(10.0, 0.5)),
    "fsd50k": _tuned(0.5, 100, 5, **_mixed(10.0)),
    "speech-commands-v2": _tuned(1.0, 50, 5, **_mixed(10.0)),
    "urbansound8k": _tuned(2e-3, 50, 5, loss="bce"),
}
# ATST-Clip's word, with ATST-Frame learning from it (C2F): its share in the loss and the published rate.
_DISTILLED: dict[str, TrainConfig] = {
    # The script names no rate; this is ATST-Frame's own.
    "audioset": _tuned(0.5, 11, 2, batch_size=1600, distil=1.0, balanced=True, **_mixed(10.0, 0.5), **_RANDOM_CROP),
    "audioset-20k": _tuned(3.0, 200, 5, distil=0.5, **_mixed(0.5, 0.5)),
    "fsd50k": _tuned(2.0, 100, 5, distil=0.5, **_mixed(10.0)),
    "speech-commands-v2": _tuned(2.0, 50, 5, distil=0.5, **_mixed(10.0)),
    "nsynth": _tuned(1e-2, 50, 5, distil=0.5, loss="ce"),
    "voxceleb1": _tuned(5e-2, 50, 5, distil=0.5, loss="ce"),
}


def _recipes(
    model: Mapping[str, Any], trains: Mapping[str, TrainConfig], probed: Mapping[str, Any]
) -> dict[str, Recipe]:
    tuned = {
        name: Recipe(task=_SETS[name][0], model=model, train=train, note=f"{train.epochs:g} epochs on {name}")
        for name, train in trains.items()
    }
    linear = {
        f"linear-{name}": Recipe(
            task=task,
            model=probed,
            train=dataclasses.replace(_LINEAR, lr=4 * lr),
            note=f"linear probe of twelve blocks on {name}",
        )
        for name, (task, lr) in _SETS.items()
    }
    return tuned | linear


# Events in time. All of a clip has time steps, and the head is linear alone.
_EVENTS: Mapping[str, Any] = {"chunking": "whole"}
_STRONG = dataclasses.replace(
    _tuned(0.5, 100, 5, batch_size=256, crop="random", crop_seconds=10.0), head="linear", frame_norm=False
)
# Half a batch strongly labelled, half weakly. Theirs adds up the means over both halves, which is twice the mean over
# all clips that is minimised here: so twice their rate of 0.1, and half their bound of 3 on the gradient.
_DESED = dataclasses.replace(
    _STRONG,
    lr=0.2,
    final_lr=1e-6 / 0.1,
    clip_norm=1.5,
    layer_decay=1.0,
    freeze=True,
    tuned_layers=1,
    frame_pooling="attention",
)
_AUDIOSET_STRONG = {
    "audioset-strong": Recipe(
        task="detection", model=_EVENTS, train=_STRONG, note="events of AudioSet's strong lists: 100 epochs"
    )
}
_FRAME_EVENTS = _AUDIOSET_STRONG | {
    "desed": Recipe(
        task="detection", model=_EVENTS, train=_DESED, note="DESED: the last block alone, strong and weak clips"
    ),
    "c2f-audioset-strong": Recipe(
        task="detection",
        model=_EVENTS,
        train=dataclasses.replace(_STRONG, distil=0.5),
        note="audioset-strong, with --teacher ATST-CLIP-RUN (C2F)",
    ),
}

CLIP_RECIPES: dict[str, Recipe] = _recipes(_CLIP, _CLIP_TRAINS, _CLIP_PROBED) | _AUDIOSET_STRONG
FRAME_RECIPES: dict[str, Recipe] = _recipes(_FRAME, _FRAME_TRAINS, _FRAME) | {
    f"c2f-{name}": Recipe(
        task=_SETS[name][0], model=_FRAME, train=train, note=f"{name}, with --teacher ATST-CLIP-RUN (C2F)"
    )
    for name, train in _DISTILLED.items()
}
FRAME_RECIPES |= _FRAME_EVENTS
