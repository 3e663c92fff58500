"""Another pretext task than the paper's, from the command line: every later command takes its run as any other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from auricle.config import to_dict
from auricle.training import pretrain

Cli = Callable[..., Any]
LATENT = ("--set", "pretext=latent", "--set", "latent_clones=2")


@pytest.fixture(scope="module")
def latent(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from auricle.cli import main

    run = tmp_path_factory.mktemp("latent") / "run"
    assert main(["pretrain", "asit", str(tones), "--preset", "test", "--steps", "8", *LATENT, "--out", str(run)]) == 0
    return run


def test_a_run_is_logged_drawn_probed_embedded_and_fine_tuned(
    latent: Path, tones: Path, tmp_path: Path, cli: Cli
) -> None:
    rows = [json.loads(line) for line in (latent / "metrics.jsonl").read_text().splitlines()]
    assert {"tokens", "utterance", "spread_student", "spread_teacher"} <= set(rows[0])
    assert any("effective_rank" in row for row in rows)
    page = (latent / "report.html").read_text()
    assert "reconstructed" in page
    assert "latent_clones" in page
    assert cli("probe", latent, tones, "--json", tmp_path / "probe.json").code == 0
    assert cli("embed", latent, tones, "--out", tmp_path / "vectors.npz").code == 0
    with np.load(tmp_path / "vectors.npz") as vectors:
        assert vectors["embeddings"].shape[1] == 48
    done = cli("finetune", latent, tones, "--steps", 2, "--out", tmp_path / "tuned")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("pretrain", ("pretext=latent", "drop_share=0.5"), "drop_share has no effect under pretext=latent"),
        ("pretrain", ("latent_clones=4",), "latent_clones has no effect under pretext=paper"),
        ("pretrain", ("pretext=ours",), "pretext must be paper or latent, got 'ours'"),
        ("finetune", ("latent_keep=0.5",), "fine-tuning does not use latent_keep"),
    ],
)
def test_settings_without_effect_are_refused(
    command: str, settings: tuple[str, ...], message: str, latent: Path, tones: Path, tmp_path: Path, cli: Cli
) -> None:
    given = ["pretrain", "asit", tones, "--preset", "test"] if command == "pretrain" else ["finetune", latent, tones]
    done = cli(*given, "--out", tmp_path / "run", *(part for setting in settings for part in ("--set", setting)))
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "run").exists()


def test_a_method_with_one_pretext_task_says_so(tones: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("pretrain", "atst-clip", tones, "--preset", "test", *LATENT[:2], "--out", tmp_path / "run")
    assert done.code == 2
    assert "atst-clip has no pretext task but that of its paper; leave out pretext." in done.err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_goes_on_with_its_own_pretext_task(latent: Path, tones: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("pretrain", "asit", tones, "--init", latent, "--steps", 2, "--out", tmp_path / "more").code == 0
    assert "pretext: latent" in (tmp_path / "more" / "config.yaml").read_text()


@pytest.mark.parametrize("method", ["ssast", "asit", "atst-frame"])
@pytest.mark.parametrize("pretext", ["paper", "latent"])
def test_a_checkpoints_encoder_goes_on_with_another_pretext_task(method: str, pretext: str, tones: Path) -> None:
    first = pretrain.plan(method, [tones], preset="test", settings={"pretext": pretext, "norm_mean": 0.0})
    begun = pretrain.build(first)
    checkpoint = SimpleNamespace(
        config={"model": to_dict(first.model)}, weights=begun.state_dict, path=Path("begun"), hash=""
    )
    other = {"paper": "latent", "latent": "paper"}[pretext]
    plan = dataclasses.replace(first, model=dataclasses.replace(first.model, pretext=other), init=checkpoint, seed=1)
    went_on = pretrain.build(plan)
    assert type(went_on) is not type(begun)
    want = begun.encoder.state_dict()
    for encoder in went_on.encoders:
        found = encoder.state_dict()
        assert want.keys() == found.keys()
        assert all(torch.equal(found[name], want[name]) for name in want)
