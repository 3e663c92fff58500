"""Demo presets: how short teacher-student pretrainings begin, that they do not collapse, and that they learn.

The loss of a network that has collapsed is low and says nothing, so that some digits are told apart, too;
benchmarks/teacher_student measures what is learned.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import auricle
from auricle.methods import get_preset
from auricle.methods.atst.config import ATSTConfig

METHODS = ("asit", "atst-clip", "atst-frame")


@pytest.mark.parametrize("method", METHODS)
def test_demo_networks_begin_as_short_trainings_need_it(method: str) -> None:
    """Positions that differ, and weights wide enough for attention to choose: SSAST's demo needs the same."""
    model = get_preset(method, "demo").model
    assert (model.position_init, model.init_std) == ("sincos", 0.06)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "method, preset", [("atst-clip", "demo"), ("atst-frame", "demo"), ("atst-frame", "demo-latent")]
)
def test_long_audio_is_cut_into_chunks_whose_positions_are_all_trained(method: str, preset: str) -> None:
    """A view has the first positions of the table; later ones stay as they began, and make outputs worse."""
    model = get_preset(method, preset).model
    assert isinstance(model, ATSTConfig)
    frames = 1 + round(model.view_seconds * model.sample_rate) // model.hop_samples
    assert model.chunk == model.columns_of(frames) * model.patch_time


@pytest.mark.parametrize("method", METHODS)
def test_outputs_stay_apart_in_a_short_training(method: str, tones: Path, tmp_path: Path) -> None:
    run = auricle.pretrain(method, tones, tmp_path / "run", preset="test", steps=60, quiet=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    watched = [line for line in lines if "effective_rank" in line]
    assert watched[-1]["effective_rank"] > 2
    assert watched[-1]["feature_spread"] > 0.2 * watched[0]["feature_spread"]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    "method, preset, steps",
    [("atst-clip", "demo", 120), ("atst-frame", "demo", 300), ("atst-frame", "demo-latent", 100)],
)
def test_digits_of_unseen_speakers_are_told_apart_better_than_by_random_weights(
    method: str, preset: str, steps: int, real_data: Path, tmp_path: Path
) -> None:
    """About a minute of pretraining, read out by ridge; the interval of the difference holds no zero."""
    run = auricle.pretrain(method, real_data / "fsdd_mini", tmp_path / "run", preset=preset, steps=steps, quiet=True)
    found = auricle.probe(
        run, real_data / "fsdd_mini", group_column="speaker", seeds=1, baselines=["random"], cache=False
    )
    (gain,) = found.comparisons
    assert gain["low"] > 0
