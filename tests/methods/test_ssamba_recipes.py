"""SSAMBA's published fine-tunings: what they make of a checkpoint, and that each one trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_tables import check_table

from auricle.data.formats import read_data
from auricle.inference.model import load
from auricle.methods import ssast
from auricle.methods.ssamba import PRESETS, RECIPES, SSAMBAConfig, SSAMBAEncoder, for_finetuning
from auricle.training import finetune, pretrain
from scenes import write_scenes

# Frames that are heard and the grid of tokens of the official networks (sections 1.3, 5 and 6 of the specification).
GRIDS = {
    "audioset-20k": (1024, (12, 101)),
    "esc50": (512, (12, 50)),
    "speech-commands-v1": (128, (12, 12)),
    "speech-commands-v2": (128, (12, 12)),
    "urbansound8k": (6144, (8, 384)),
    "urbansound-scenes": (6144, (8, 384)),
    "iemocap": (1000, (12, 99)),
    "voxceleb1": (1000, (12, 99)),
}
FRAMES = {name: frames for name, (frames, _) in GRIDS.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_makes_the_official_grid_of_tokens(recipe: str) -> None:
    base = SSAMBAConfig(width=24, depth=2, window_frames=64, attend_padding=True)
    model, training = RECIPES[recipe].fit(base)
    assert isinstance(model, SSAMBAConfig)
    encoder = for_finetuning(SSAMBAEncoder(model), training.window_seconds or training.crop_seconds)
    assert (encoder.config.window_frames, encoder.config.grid) == GRIDS[recipe]


def test_the_table_in_the_docs_is_that_of_the_recipes() -> None:
    check_table("ssamba.md", RECIPES, SSAMBAConfig(), FRAMES)


def test_what_is_the_same_as_ssasts_is_the_same_training() -> None:
    same = {"esc50", "speech-commands-v2", "voxceleb1"}
    assert all(RECIPES[name].train == ssast.RECIPES[name].train for name in same)
    assert RECIPES["speech-commands-v1"].train == RECIPES["speech-commands-v2"].train
    ours, theirs = (preset.pretrain for preset in (PRESETS["base"], ssast.PRESETS["base-patch"]))
    differing = {f.name for f in dataclasses.fields(ours) if getattr(ours, f.name) != getattr(theirs, f.name)}
    assert differing == {"optimizer", "weight_decay", "batch_size"}


@pytest.fixture(scope="module")
def checkpoint(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = pretrain.plan("ssamba", [tones], preset="test", steps=2)
    return pretrain.pretrain(plan, tmp_path_factory.mktemp("ssamba") / "run", quiet=True)


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if recipe.task != "detection"])
def test_every_recipe_trains_a_step_and_its_checkpoint_says_what_it_hears(
    recipe: str, tones: Path, checkpoint: Path, tmp_path: Path
) -> None:
    plan = finetune.plan(checkpoint, [tones], recipe=recipe, settings={"batch_size": 2, "accumulate": 1}, steps=1)
    model = load(finetune.finetune(plan, tmp_path / "run", quiet=True))
    assert model.task == RECIPES[recipe].task
    heard: Any = model.encoder.config
    assert (heard.norm_mean, heard.norm_std) == (plan.model.norm_mean, plan.model.norm_std)  # type: ignore[attr-defined]
    assert heard.window_frames == FRAMES[recipe]
    probabilities = model.classify_items(read_data([tones]).items[:2])
    assert probabilities.shape == (2, 3)


def test_scenes_are_judged_second_by_second(checkpoint: Path, tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", ["train", "train", "val", "test"])
    settings = {"batch_size": 2, "crop_seconds": 2.0}
    plan = finetune.plan(checkpoint, scenes, recipe="urbansound-scenes", settings=settings, steps=1)
    model = load(finetune.finetune(plan, tmp_path / "run", quiet=True))
    assert model.detector is not None
    assert (model.detector.frame_seconds, model.detector.frame_rate) == (1.0, 1.0)
    # Means over all tokens of a second, as the official head reads.
    assert model.detector.head.linear.in_features == model.encoder.dim
    scores = model.detector.scores(np.zeros(2 * 16000, dtype=np.float32), torch.device("cpu"))
    assert scores.values.shape == (2, 2)
    assert scores.edges.tolist() == [0, 1, 2]
