"""Where a training starts from: a checkpoint with the recipe that fits it, or a preset by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from auricle.errors import CheckpointError, ConfigError
from auricle.training import checkpoint as ckpt
from auricle.training import finetune, pretrain


@pytest.fixture
def wider(tones: Path, tmp_path: Path) -> Path:
    """A checkpoint of preset `test` with a window of its own."""
    plan = pretrain.plan("ssast", [tones], preset="test", settings={"window_frames": 90, "mask_ratio": 0.5})
    return ckpt.save_checkpoint(
        tmp_path,
        "step-000000",
        weights=pretrain.build(plan).state_dict(),
        config={"kind": "pretraining", "method": "ssast", "preset": "test", "model": plan.model.__dict__},
    )


def test_a_checkpoint_brings_its_own_preset(tones: Path, pretrained: Path) -> None:
    plan = pretrain.plan("ssast", [tones], init=pretrained)
    assert plan.preset == "test"
    assert plan.train.crop_seconds == pytest.approx(0.655)
    assert plan.train.batch_size == 8
    named = pretrain.plan("ssast", [tones], init=pretrained, preset="ssast-test")
    assert named.config() == plan.config()


def test_a_recipe_for_another_network_is_refused_with_what_differs(tones: Path, pretrained: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        pretrain.plan("ssast", [tones], init=pretrained, preset="demo")
    message = str(raised.value)
    assert (
        "is another network than --preset demo (width 48, not 192, depth 2, not 6, window_frames 64, not 112)"
        in message
    )
    assert "leave --preset out" in message


def test_the_crop_follows_the_window_of_the_checkpoint(tones: Path, wider: Path) -> None:
    plan = pretrain.plan("ssast", [tones], init=wider)
    assert (plan.model.window_frames, plan.model.mask_ratio) == (90, 0.5)
    assert plan.train.crop_seconds == pytest.approx(0.915)
    given = pretrain.plan("ssast", [tones], init=wider, settings={"crop_seconds": 0.5})
    assert given.train.crop_seconds == 0.5
    with pytest.raises(ConfigError, match=r"\(window_frames 90, not 64, mask_ratio 0\.5, not 0\.7\)"):
        pretrain.plan("ssast", [tones], init=wider, preset="test")


@pytest.mark.parametrize("name", ["tiny-patch", "ssast-tiny-patch"])
def test_fine_tuning_from_scratch_takes_a_preset_by_either_name(name: str, tones: Path) -> None:
    plan = finetune.plan(name, [tones], random_weights=1)
    assert (plan.method, plan.preset, plan.model.width) == ("ssast", "tiny-patch", 192)  # type: ignore[attr-defined]


def test_a_short_name_that_several_methods_have_is_answered_with_theirs(tones: Path) -> None:
    with pytest.raises(CheckpointError, match=r"test: no such checkpoint .*-test"):
        finetune.plan("test", [tones], random_weights=1)
