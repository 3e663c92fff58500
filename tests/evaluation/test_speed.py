"""`auricle bench`: what is measured of which model, in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auricle.errors import CheckpointError
from auricle.evaluation import speed
from auricle.methods import get_preset


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "LEAST_SECONDS", 0.0)


def test_a_classifier_has_no_pretraining_step(pretrained: Path, finetuned: Path) -> None:
    everything = ["embedding", "pretraining", "fine-tuning"]
    assert speed.works(speed.subject("ssast-test")) == everything
    assert speed.works(speed.subject(pretrained)) == everything
    assert speed.works(speed.subject(finetuned)) == ["embedding", "fine-tuning"]
    assert speed.subject(finetuned).classes == 3


@pytest.mark.parametrize("work", ["embedding", "pretraining", "fine-tuning"])
def test_clips_are_those_of_the_recipe(briefly: None, work: str) -> None:
    row = speed.measure(speed.subject("ssast-test"), work, "fp32", 1)
    assert row.clip_seconds == pytest.approx(get_preset("ssast", "test").pretrain.crop_seconds)
    assert row.batch == (8 if work != "embedding" else 16)
    assert 0 < row.slowest <= row.clips_per_second


def test_the_batch_is_the_one_that_was_asked_for(briefly: None) -> None:
    assert speed.measure(speed.subject("ssast-test"), "pretraining", "fp32", 1, batch=3).batch == 3


def test_a_finetuned_run_is_measured_as_it_is(briefly: None, finetuned: Path) -> None:
    assert speed.measure(speed.subject(finetuned), "fine-tuning", "fp32", 1).clips_per_second > 0


def test_a_name_of_nothing_is_refused() -> None:
    with pytest.raises(CheckpointError, match="nosuch"):
        speed.subject("nosuch")


def test_the_command_prints_a_row_and_writes_json(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # One kind of work is enough: each starts a process that imports torch.
    monkeypatch.setattr(speed, "works", lambda subject: ["fine-tuning"])
    outcome = cli("bench", "ssast-test", "--precision", "fp32", "--json", tmp_path / "bench.json")
    assert outcome.code == 0
    written = json.loads((tmp_path / "bench.json").read_text())
    (row,) = written["works"]
    assert row["work"] == "fine-tuning"
    assert row["memory_mb"] > 1
    assert f"{row['clips_per_second']:.2f}" in outcome.out
    assert written["precision"] == "fp32"


def test_a_process_that_is_killed_is_an_error_in_a_sentence(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "works", lambda subject: ["embedding"])
    monkeypatch.setattr(speed, "measure", _killed)
    outcome = cli("bench", "ssast-test")
    assert outcome.code == 1
    assert "was killed" in outcome.err


def _killed(*arguments: object) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
