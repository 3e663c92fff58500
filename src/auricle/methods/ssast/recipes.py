"""The fine-tunings that SSAST's authors published, each as settings laid over a checkpoint's network.

docs/ssast.md has them as a table, with what the paper reports.
"""

from __future__ import annotations

import dataclasses

from auricle.methods.base import Recipe
from auricle.methods.spectrogram import recipes as shared
from auricle.methods.spectrogram.recipes import PatchRecipe, seconds

RECIPES: dict[str, Recipe] = {
    "audioset-20k": PatchRecipe(
        task="tagging",
        model=shared.AUDIOSET_INPUT,
        # The script sets a variable warmup=True and passes --warmup False.
        train=dataclasses.replace(shared.AUDIOSET, epochs=25, lr=5e-5, average_epochs=(6, 25)),
        note="AudioSet, balanced: 25 epochs, mean of the weights after epochs 6 to 25",
    ),
    "audioset": PatchRecipe(
        task="tagging",
        model=shared.AUDIOSET_INPUT,
        # The script's decay (from epoch 10) and average (epochs 6 to 25) lie beyond its five epochs.
        train=dataclasses.replace(shared.AUDIOSET, epochs=5, lr=1e-5, balanced=True),
        note="AudioSet, all of it: 5 epochs of class-balanced draws",
    ),
    "esc50": shared.ESC50_RECIPE,
    "speech-commands-v2": shared.SPEECH_COMMANDS_V2_RECIPE,
    "speech-commands-v1": PatchRecipe(
        task="classification",
        model=shared.SUPERB_INPUT,
        train=dataclasses.replace(
            shared.SUPERB, crop_seconds=seconds(100), steps=20_000, accumulate=1, balanced=True, validate_every=500
        ),
        frame_lr=5e-5,
        note="SUPERB keyword spotting, 12 classes: 20,000 class-balanced steps",
    ),
    "iemocap": shared.IEMOCAP_RECIPE,
    "voxceleb1": shared.VOXCELEB1_RECIPE,
}
