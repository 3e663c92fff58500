"""`compat=official`: the quirks of the official code, one option each, heard by training and inference alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from official_files import HEADS, official_state

import auricle
from auricle.config import override
from auricle.data.formats import read_data
from auricle.errors import ConfigError
from auricle.methods.ssast import SSASTConfig, import_state
from auricle.training import pretrain
from auricle.training.checkpoint import save_checkpoint

QUIRKS = SSASTConfig.COMPAT["official"]


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """A folder with one file whose channels differ."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.standard_normal((8000, 2)), 16000, subtype="FLOAT")
    return tmp_path


def test_compat_stands_for_its_options_and_a_given_one_wins() -> None:
    (config,) = override((SSASTConfig(),), {"compat": "official", "passes": 1})
    assert {name: getattr(config, name) for name in QUIRKS} == {**QUIRKS, "passes": 1}
    with pytest.raises(ConfigError, match="compat must be official, got 'paper'"):
        override((SSASTConfig(),), {"compat": "paper"})


def test_imported_checkpoints_have_all_of_them() -> None:
    config = import_state(official_state(), {"heads": HEADS}).config
    assert {name: getattr(config, name) for name in QUIRKS} == QUIRKS


@pytest.mark.parametrize("channel", ["mean", 0, 1])
def test_training_and_inference_hear_the_same_channel(channel: str | int, stereo: Path) -> None:
    plan = pretrain.plan("ssast", [stereo], preset="test", settings={"channel": channel})
    both = soundfile.read(stereo / "a.wav", dtype="float32")[0]
    heard = both.mean(1) if channel == "mean" else both[:, int(channel)]
    loader = pretrain.build_loader(plan)
    crop = loader.dataset.crop
    crops = np.lib.stride_tricks.sliding_window_view(heard, min(crop, len(heard)))
    row = next(iter(loader)).audio.data[0].numpy()
    assert np.abs(crops - row[: crops.shape[1]]).max(1).min() < 1e-6

    module = pretrain.build(plan)
    config = {"kind": "pretraining", "method": "ssast", "preset": "test", "model": plan.model.__dict__}
    model = auricle.load(save_checkpoint(stereo, "ckpt", weights=module.state_dict(), config=config))
    want = model.embed(heard, 16000).clip
    np.testing.assert_allclose(model.embed(stereo / "a.wav").clip, want, atol=1e-5)
    np.testing.assert_allclose(model.embed_items(read_data([stereo]).items)[0], want, atol=1e-5)


def test_a_channel_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="channel must be 'mean' or the number of a channel, from 0, got -1"):
        SSASTConfig(channel=-1)
