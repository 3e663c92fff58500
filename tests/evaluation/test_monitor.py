"""A monitored pretraining ends with the same bits, and says at each validation what nearest neighbours make of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from soundsets import RATE, save_pretrained, tone, write_table, write_tones

import auricle
from auricle.data.items import Item
from auricle.errors import AudioError, DataError
from auricle.evaluation import monitor as module
from auricle.evaluation.monitor import Monitor
from auricle.inference.model import load
from auricle.methods.base import AudioEncoder
from auricle.training import planning
from auricle.training import pretrain as training
from auricle.training.checkpoint import resolve
from auricle.training.run import read_metrics

STEPS = 20


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def monitored(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "monitored"
    return auricle.pretrain("ssast", tones, out, preset="test", steps=STEPS, quiet=True, monitor=tones)


def test_a_monitor_does_not_change_the_training(monitored: Path, tones: Path, tmp_path: Path) -> None:
    plain = auricle.pretrain("ssast", tones, tmp_path / "plain", preset="test", steps=STEPS, quiet=True)
    assert resolve(plain).hash == resolve(monitored).hash
    rows = [row for row in read_metrics(monitored) if row["step"]]
    assert [{k: v for k, v in row.items() if k != "knn_accuracy"} for row in rows] == read_metrics(plain)
    assert not (plain / "monitor.json").exists()
    assert "nearest neighbours" not in (plain / "report.html").read_text()


def test_accuracy_is_logged_before_the_first_step_and_at_each_validation(monitored: Path, tones: Path) -> None:
    looks = {row["step"]: row["knn_accuracy"] for row in read_metrics(monitored) if "knn_accuracy" in row}
    assert sorted(looks) == [0, *range(2, STEPS + 1, 2)]
    # The last one is what the finished network gives.
    assert looks[STEPS] == Monitor(tones)(load(monitored).encoder)["knn_accuracy"]
    facts = json.loads((monitored / "monitor.json").read_text())
    assert (facts["clips"], facts["classes"], facts["chance"]) == (24, 3, pytest.approx(1 / 3))
    page = (monitored / "report.html").read_text()
    assert "nearest neighbours on 24 clips" in page
    assert "3 classes" in page


def test_an_interrupted_run_goes_on_and_logs_the_same(monitored: Path, tones: Path, tmp_path: Path) -> None:
    class Stops(Monitor):
        """Ends the process at its sixth look, after two of them before the first step."""

        looks = 0

        def __call__(self, encoder: Any) -> dict[str, float]:
            self.looks += 1
            if self.looks == 6:
                raise KeyboardInterrupt
            return super().__call__(encoder)

    plan = training.plan("ssast", [tones], preset="test", steps=STEPS)
    with pytest.raises(KeyboardInterrupt):
        training.pretrain(plan, tmp_path / "run", quiet=True, monitor=Stops(tones))
    training.pretrain(plan, tmp_path / "run", quiet=True, monitor=Monitor(tones))
    assert resolve(tmp_path / "run").hash == resolve(monitored).hash
    assert read_metrics(tmp_path / "run") == read_metrics(monitored)


def test_a_run_may_go_on_without_its_monitor(monitored: Path, tones: Path) -> None:
    before = read_metrics(monitored)
    auricle.pretrain("ssast", tones, monitored, preset="test", steps=STEPS, quiet=True)
    assert read_metrics(monitored) == before


def test_a_look_leaves_the_network_and_the_generators_alone(tones: Path, tmp_path: Path) -> None:
    encoder = load(save_pretrained(tmp_path)).encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.random.get_rng_state()
    look = Monitor(tones)
    first = look(encoder)
    assert look(encoder) == first
    assert encoder.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_pitch_is_heard_and_labels_without_meaning_are_not(tones: Path, tmp_path: Path) -> None:
    encoder = load(save_pretrained(tmp_path / "model")).encoder
    assert Monitor(tones)(encoder)["knn_accuracy"] > 0.8
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        soundfile.write(tmp_path / f"{number}.wav", tone(440, seed=number), RATE)
        rows.append({"path": f"{number}.wav", "label": str(rng.integers(2))})
    assert 0.2 < Monitor(write_table(tmp_path, rows))(encoder)["knn_accuracy"] < 0.8


def test_a_look_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for number in range(60):
        soundfile.write(tmp_path / f"{number}.wav", tone(300, 0.3), RATE)
        split = "test" if number >= 50 else "train"
        rows.append({"path": f"{number}.wav", "label": "ab"[number % 2], "split": split})
    soundfile.write(tmp_path / "0.wav", tone(300, 4.0), RATE)
    table = write_table(tmp_path, rows)
    monkeypatch.setattr(module, "CLIPS", 30)
    look = Monitor(table)
    (fold,) = look.task.folds
    assert (len(fold.train), len(fold.test), look.facts["clips"]) == (20, 10, 30)
    assert [look.task.labels[i] for i in fold.train].count("a") == 10
    monkeypatch.setattr(module, "CLIPS", 200)
    read: list[Item] = []
    original = module.read_item
    monkeypatch.setattr(module, "read_item", lambda item, rate: read.append(item) or original(item, rate))  # type: ignore[func-returns-value]
    encoder = load(save_pretrained(tmp_path / "model")).encoder
    look = Monitor(table)
    for _ in range(2):
        look(encoder)
    # Each clip is read once, and of a long one its first seconds.
    assert len(read) == 60
    assert {item.streams["audio"].end for item in read} == {None, 3.0}


def test_minutes_are_planned_with_the_looks(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    class Slow(Monitor):
        def __call__(self, encoder: AudioEncoder) -> dict[str, float]:
            looks.append(1)
            return {"knn_accuracy": 0.5}

    # The clock goes on by five seconds with every look.
    clock = time.monotonic
    monkeypatch.setattr(planning.time, "monotonic", lambda: clock() + 5 * len(looks))
    monkeypatch.setattr(planning, "_seconds_per_step", lambda *_: 10.0)
    plan = training.plan("ssast", [tones], preset="test", settings={"validate_every": 1})
    training.pretrain(plan, tmp_path / "run", max_minutes=1, quiet=True, monitor=Slow(tones))
    # 60 seconds, of which 93 % are planned with, less two looks, at 10 s for a step and 5 s for a look after each.
    budget = json.loads((tmp_path / "run" / "budget.json").read_text())
    assert budget["steps"] == 3
    assert 5 < budget["seconds_per_validation"] < 6


def test_what_cannot_monitor_is_refused_before_the_training(
    cli: Callable[..., Any], tones: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path, [{"path": tones.parent / "low0.wav", "kind": "low"}])
    for extra in ([], ["--dry-run"]):
        outcome = cli("pretrain", "ssast", tones, "--out", tmp_path / "run", "--monitor", table, *extra)
        assert outcome.code == 2
        assert "no column 'label'" in outcome.err
    assert not (tmp_path / "run").exists()
    broken = write_tones(tmp_path / "broken", clips=4)
    clip = broken.parent / "low2.wav"
    clip.write_bytes(clip.read_bytes()[:60])
    encoder = load(save_pretrained(tmp_path / "model")).encoder
    with pytest.raises(AudioError, match=r"low2\.wav"):
        Monitor(broken)(encoder)
    one_each = write_table(
        tmp_path / "broken",
        [{"path": f"{name}0.wav", "label": name, "split": s} for name, s in (("low", "train"), ("high", "test"))],
    )
    with pytest.raises(DataError, match="too few labelled clips to monitor with"):
        Monitor(one_each)
