"""What may differ when a run is gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import auricle
from auricle.config import TrainConfig, to_dict
from auricle.errors import ConfigError
from auricle.methods.ssast import SSASTConfig
from auricle.training.run import start_or_check

SETTINGS = {"method": "ssast", "model": to_dict(SSASTConfig()), "train": to_dict(TrainConfig())}


def without(section: str, key: str, config: dict) -> dict:
    return config | {section: {k: v for k, v in config[section].items() if k != key}}


@pytest.mark.parametrize(("section", "key"), [("train", "accumulate"), ("train", "betas"), ("model", "norm_std")])
def test_a_setting_that_an_older_version_did_not_have_counts_as_the_default(
    tmp_path: Path, section: str, key: str
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(without(section, key, SETTINGS)))
    start_or_check(tmp_path, SETTINGS)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())[section][key] == SETTINGS[section][key]


def test_a_setting_that_is_not_the_default_was_not_how_an_older_version_began(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(without("train", "label_smoothing", SETTINGS)))
    changed = SETTINGS | {"train": SETTINGS["train"] | {"label_smoothing": 0.1}}
    with pytest.raises(ConfigError, match=r"train.label_smoothing: was 0.0, now 0.1"):
        start_or_check(tmp_path, changed)


def test_two_budgets_are_refused_from_python_too(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two budgets"):
        auricle.pretrain("ssast", tones, tmp_path / "run", steps=2, max_minutes=1)
    with pytest.raises(ConfigError, match=r"epochs .* two budgets"):
        auricle.pretrain("ssast", tones, tmp_path / "run", settings={"epochs": 3}, max_minutes=1)
    with pytest.raises(ConfigError, match="two budgets"):
        auricle.finetune("ssast-test", tones, tmp_path / "run", random_weights=0, steps=2, max_minutes=1)
    assert not (tmp_path / "run").exists()
