"""The fine-tunings that SSAMBA's authors published, each as settings laid over a checkpoint's network.

They are SSAST's with other budgets; docs/ssamba.md has them as a table.
"""

from __future__ import annotations

import dataclasses

from auricle.methods.base import Recipe
from auricle.methods.spectrogram import recipes as shared
from auricle.methods.spectrogram.recipes import PatchRecipe, seconds

_URBANSOUND_INPUT = {
    "norm_mean": -5.138443946838379,
    "norm_std": 4.229961395263672,
    "pooling": "mean",
    "finetune_stride_freq": 16,
    "finetune_stride_time": 16,
}
# Their loops on UrbanSound8K, on whole scenes: nothing is mixed, and the noise of other recipes is left out.
_URBANSOUND = dataclasses.replace(
    shared.OWN,
    crop_seconds=seconds(6144),
    epochs=50,
    batch_size=5,
    lr=1e-4,
    decay_start=20,
    decay_every=10,
    decay_factor=0.85,
    mask_freq=48,
    mask_time=192,
)
# Their wrapper works with windows of 10 s only, and normalises before it pads.
_WINDOW = seconds(1000)

RECIPES: dict[str, Recipe] = {
    "audioset-20k": PatchRecipe(
        task="tagging",
        model=shared.AUDIOSET_INPUT,
        # The script sets a variable warmup=True and passes --warmup False; as it stands, its averaging crashes.
        train=dataclasses.replace(
            shared.AUDIOSET,
            epochs=50,
            batch_size=24,
            lr=1e-4,
            head_lr_factor=3.0,
            decay_start=15,
            decay_every=10,
            decay_factor=0.75,
            average_epochs=(12, 40),
        ),
        note="AudioSet, balanced: 50 epochs, mean of the weights after epochs 12 to 40",
    ),
    "esc50": shared.ESC50_RECIPE,
    "speech-commands-v1": dataclasses.replace(
        shared.SPEECH_COMMANDS_V2_RECIPE,
        note="Speech Commands V1, 30 words: 30 epochs of binary cross-entropy, chosen on validation clips",
    ),
    "speech-commands-v2": shared.SPEECH_COMMANDS_V2_RECIPE,
    "urbansound8k": PatchRecipe(
        task="classification",
        model=_URBANSOUND_INPUT,
        train=dataclasses.replace(_URBANSOUND, loss="ce"),
        note="UrbanSound8K, clips with a label each: 50 epochs; --held-out all for the ten folds",
    ),
    "urbansound-scenes": PatchRecipe(
        task="detection",
        model=_URBANSOUND_INPUT,
        # Pooled as ft_avgtok_1sec.
        train=dataclasses.replace(_URBANSOUND, frame_seconds=1.0),
        note="Scenes of a minute with timed labels, judged second by second: 50 epochs",
    ),
    "iemocap": dataclasses.replace(
        shared.IEMOCAP_RECIPE, train=dataclasses.replace(shared.IEMOCAP, crop_seconds=_WINDOW)
    ),
    "voxceleb1": shared.VOXCELEB1_RECIPE,
}
