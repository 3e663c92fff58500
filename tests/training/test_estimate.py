"""What a dry run says about a training before it is begun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from auricle.methods import get_method
from auricle.training import estimate, finetune, loop, pretrain


def number(text: str, name: str) -> int:
    """The first number of the line that begins with `name`."""
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return int(re.findall(r"[\d,]+", line)[0].replace(",", ""))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TRIAL_SECONDS", 0.0)


def test_a_pretraining_is_counted_without_being_begun(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    plan = pretrain.plan("ssast", [tones], preset="test", settings={"steps": 0, "epochs": 3})
    text = estimate.pretraining(plan)
    assert torch.equal(torch.get_rng_state(), state)
    assert number(text, "parameters") == sum(p.numel() for p in pretrain.build(plan).parameters())
    assert "24 clips" in text
    # 24 clips of 0.3 to 2 s in crops of 0.655 s, eight at a time.
    per_epoch = sum(-(-item.duration // 0.655) for item in plan.manifest) // 8
    assert f"{per_epoch:.0f} steps per epoch" in text
    assert number(text, "steps") == 3 * per_epoch

    monkeypatch.setattr(estimate, "seconds_per_step", lambda job: 0.5)
    assert number(estimate.pretraining(plan, max_minutes=10), "steps") == int(600 * loop.PLANNED_SHARE / 0.5)


def test_a_finetuning_is_counted_without_being_begun(tones: Path, pretrained: Path) -> None:
    plan = finetune.plan(pretrained, [tones], steps=7, settings={"mixup": 0.5})
    text = estimate.finetuning(plan)
    assert number(text, "parameters") == sum(p.numel() for p in finetune.build(plan).parameters())
    assert number(text, "steps") == 7
    assert "12 clips, 1 steps per epoch" in text


def test_parameters_are_counted_without_allocating_them() -> None:
    method = get_method("ssast")
    small, base = method.PRESETS["test"].model, method.PRESETS["base-patch"].model
    assert estimate.parameters(method, small) == sum(p.numel() for p in method.build_encoder(small).parameters())
    # The paper's base model has 89 million parameters with its heads.
    assert 85e6 < estimate.parameters(method, base) < 90e6
