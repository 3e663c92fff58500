"""The published fine-tunings: what they make of a checkpoint, and that each one trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from goldens import GOLDEN, needs_goldens
from networks import config
from recipe_tables import check_table
from safetensors.torch import load_file

from auricle.data.formats import read_data
from auricle.errors import ConfigError
from auricle.inference.model import load
from auricle.methods.ssast import RECIPES, SSASTEncoder, for_finetuning
from auricle.training import checkpoint as ckpt
from auricle.training import finetune
from auricle.training.job import Job
from auricle.training.log import Console
from auricle.training.loop import train
from auricle.training.optim import Clock, learning_rate_factor

# Frames that are heard and tokens of the official networks in patch and in frame mode (section 2 of their code).
TOKENS = {
    "audioset-20k": (1024, 12 * 101, 1023),
    "audioset": (1024, 12 * 101, 1023),
    "esc50": (512, 12 * 50, 511),
    "speech-commands-v2": (128, 12 * 12, 127),
    "speech-commands-v1": (100, 12 * 9, 99),
    "iemocap": (600, 12 * 59, 599),
    "voxceleb1": (1000, 12 * 99, 999),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("mode", ["patch", "frame"])
def test_a_recipe_makes_the_official_grid_of_tokens(recipe: str, mode: str) -> None:
    frames, *tokens = TOKENS[recipe]
    model, training = RECIPES[recipe].fit(config(mode, attend_padding=True))
    encoder = for_finetuning(SSASTEncoder(model), training.window_seconds or training.crop_seconds)
    assert encoder.config.window_frames == frames
    rows, columns = encoder.config.grid
    assert rows * columns == tokens[mode == "frame"]


@needs_goldens
@pytest.mark.parametrize(
    ("recipe", "case"),
    [
        ("audioset-20k", "finetune.audioset20k"),
        ("esc50", "finetune.esc50"),
        ("speech-commands-v2", "finetune.speechcommands_warmup"),
    ],
)
def test_learning_rates_are_those_of_the_official_loop(recipe: str, case: str) -> None:
    facts = json.loads((GOLDEN / "ssast" / "lr_traces" / "meta.json").read_text())["cases"][case]
    trace = load_file(GOLDEN / "ssast" / "lr_traces" / "io.safetensors")[case]
    _, training = RECIPES[recipe].fit(config())
    per_epoch, total = facts["steps_per_epoch"], len(trace)
    lr = [training.lr * learning_rate_factor(Clock(s, total, per_epoch), training) for s in range(total)]
    # Two groups of parameters: the network, and the head.
    ours = torch.tensor([[rate, rate * training.head_lr_factor] for rate in lr], dtype=torch.float64)
    torch.testing.assert_close(ours, trace, rtol=1e-9, atol=1e-15)


def test_the_table_in_the_docs_is_that_of_the_recipes() -> None:
    check_table("ssast.md", RECIPES, config(), {name: frames for name, (frames, *_) in TOKENS.items()})


def test_frame_mode_spots_keywords_at_half_the_rate() -> None:
    # run_ks.sh
    assert RECIPES["speech-commands-v1"].fit(config("patch"))[1].lr == 1e-4
    assert RECIPES["speech-commands-v1"].fit(config("frame"))[1].lr == 5e-5
    assert RECIPES["esc50"].fit(config("frame"))[1].lr == RECIPES["esc50"].fit(config("patch"))[1].lr


def test_superb_pads_after_normalising() -> None:
    own, superb = (SSASTEncoder(RECIPES[name].fit(config())[0]) for name in ("audioset", "iemocap"))
    waves = torch.zeros(2, 16000)
    lengths = torch.tensor([16000, 8000])
    for network, pad in ((own, 4.2677393 / (2 * 4.5689974)), (superb, 0.0)):
        features, frames = network.features(waves, lengths)
        torch.testing.assert_close(features[1, int(frames[1]) :], torch.full_like(features[1, int(frames[1]) :], pad))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_a_step_and_its_checkpoint_says_what_it_hears(
    recipe: str, tones: Path, pretrained: Path, tmp_path: Path
) -> None:
    plan = finetune.plan(pretrained, [tones], recipe=recipe, settings={"batch_size": 2, "accumulate": 1}, steps=1)
    model = load(finetune.finetune(plan, tmp_path / "run", quiet=True))
    assert model.task == RECIPES[recipe].task
    heard = model.encoder.config
    assert (heard.norm_mean, heard.norm_std) == (plan.model.norm_mean, plan.model.norm_std)
    assert heard.window_frames == TOKENS[recipe][0]
    probabilities = model.classify_items(read_data([tones]).items[:2])
    assert probabilities.shape == (2, 3)
    if plan.train.loss == "ce":
        assert probabilities.sum(1) == pytest.approx(1)


def test_settings_go_over_a_recipe_and_the_run_records_both(tones: Path, pretrained: Path) -> None:
    settings = {"epochs": 2, "norm_mean": -5.0, "head_lr_factor": 10.0}
    plan = finetune.plan(pretrained, [tones], recipe="iemocap", settings=settings)
    assert (plan.train.epochs, plan.train.steps, plan.model.norm_mean) == (2, 0, -5.0)
    assert plan.train.head_lr_factor == 10.0
    assert plan.config()["recipe"] == "iemocap"
    assert plan.model.width == 48


def test_an_unknown_recipe_is_answered_with_the_nearest(tones: Path, pretrained: Path) -> None:
    with pytest.raises(ConfigError, match=r"ssast has no recipe 'esc-50' \(did you mean 'esc50'\?\); its recipes are"):
        finetune.plan(pretrained, [tones], recipe="esc-50")


def one_step_of_audioset(tones: Path, run: Path, preset: str, **settings: object) -> dict[str, float]:
    plan = finetune.plan(preset, [tones], recipe="audioset-20k", random_weights=0, settings=settings, steps=1)
    assert plan.model.width == {"ssast-tiny-patch": 192, "ssast-base-patch": 768}[preset]
    run.mkdir()
    job = Job(finetune.build(plan), finetune.build_loader(plan), plan.train, run, 0, {"kind": "classifier"})
    train(job, Console(quiet=True))
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def test_the_audioset_recipe_trains_the_tiny_network(tones: Path, tmp_path: Path) -> None:
    row = one_step_of_audioset(tones, tmp_path / "run", "ssast-tiny-patch", batch_size=2, attend_padding=True)
    assert 0.5 < row["loss"] < 1.0


@pytest.mark.slow
def test_the_audioset_recipe_trains_the_base_network_at_full_size(tones: Path, tmp_path: Path) -> None:
    # Twelve clips of 1212 tokens each, one after the other.
    row = one_step_of_audioset(tones, tmp_path / "run", "ssast-base-patch", accumulate=12, attend_padding=True)
    assert 0.5 < row["loss"] < 1.0
    assert ckpt.steps_saved(tmp_path / "run") == [1]
