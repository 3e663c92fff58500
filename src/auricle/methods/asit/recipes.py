"""The fine-tunings that ASiT's authors took over from AST, each as settings laid over a checkpoint's network.

ASiT's repository says that it fine-tunes as AST does, and holds no code for it. Numbers of AudioSet and Speech Commands
are those of YuanGongND/ast (egs/*/run*.sh), whose loop SSAST's is too; docs/asit.md says which are not.
"""

from __future__ import annotations

import dataclasses

from auricle.methods.base import Recipe
from auricle.methods.spectrogram import recipes as shared
from auricle.methods.spectrogram.recipes import PatchRecipe

RECIPES: dict[str, Recipe] = {
    "audioset-20k": PatchRecipe(
        task="tagging",
        model=shared.AUDIOSET_INPUT | {"pooling": "prefix"},
        train=dataclasses.replace(shared.AUDIOSET, epochs=25, lr=5e-5, warmup_steps=1000, average_epochs=(6, 25)),
        note="AudioSet, balanced: 25 epochs, mean of the weights after epochs 6 to 25",
    ),
    "audioset": PatchRecipe(
        task="tagging",
        model=shared.AUDIOSET_INPUT | {"pooling": "prefix"},
        train=dataclasses.replace(
            shared.AUDIOSET,
            epochs=5,
            lr=1e-5,
            balanced=True,
            warmup_steps=1000,
            decay_start=2,
            decay_every=1,
            average_epochs=(1, 5),
        ),
        note="AudioSet, all of it: 5 epochs of class-balanced draws, mean of the weights after each",
    ),
    "esc50": PatchRecipe(
        task="classification",
        model=shared.ESC50_INPUT | {"pooling": "prefix"},
        train=dataclasses.replace(shared.ESC50, epochs=25, lr=1e-5, decay_start=5, noise=False),
        note="ESC-50: 25 epochs; --held-out all for the five folds",
    ),
    "speech-commands-v2": PatchRecipe(
        task="classification",
        model=shared.SPEECH_COMMANDS_INPUT | {"pooling": "prefix"},
        train=dataclasses.replace(shared.SPEECH_COMMANDS, warmup_steps=0),
        note="Speech Commands V2, 35 words: 30 epochs of binary cross-entropy, chosen on validation clips",
    ),
}
