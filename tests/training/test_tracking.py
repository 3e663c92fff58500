"""Trackers: the same figures as metrics.jsonl, one record per run however often it is resumed, and no harm."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from auricle.evaluation import pages
from auricle.training.checkpoint import step_name
from auricle.training.run import read_metrics

Command = Callable[..., Any]
STEPS = 6


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "pretraining_page", lambda *arguments: None)


def command(tones: Path, run: Path, track: str) -> tuple[object, ...]:
    options = ("--preset", "test", "--steps", STEPS, "--checkpoint-every", 1, "--set", "validate_every=3", "--quiet")
    return ("pretrain", "ssast", tones, *options, "--track", track, "--out", run)


def interrupted(run: Path) -> None:
    """As if the run had been killed when its last step was logged and not saved."""
    shutil.rmtree(run / step_name(STEPS))


def logged(run: Path) -> list[tuple[int, dict[str, float]]]:
    return [(row["step"], {k: v for k, v in row.items() if k != "step"}) for row in read_metrics(run)]


class Recorded:
    """A stand-in for the modules wandb and mlflow: the calls that reach it, in their order."""

    def __init__(self, fail_at: int = 0) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fail_at = fail_at

    def _call(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if self.fail_at and len(self.calls) >= self.fail_at:
            raise ConnectionError("no route\nto host")

    def init(self, **options: Any) -> Recorded:
        self._call("init", options)
        return self

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._call("log", (step, scalars))

    def finish(self) -> None:
        self._call("finish", None)

    def start_run(self, run_id: str | None, run_name: str) -> SimpleNamespace:
        self._call("start", (run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "abc"))

    def log_params(self, params: Mapping[str, str]) -> None:
        self._call("params", params)

    def log_metrics(self, scalars: Mapping[str, float], step: int) -> None:
        self._call("log", (step, scalars))

    def end_run(self) -> None:
        self._call("finish", None)

    def of(self, name: str) -> list[Any]:
        return [value for called, value in self.calls if called == name]


def test_tensorboard_shows_what_was_logged_and_a_resumed_run_once(tones: Path, tmp_path: Path, cli: Command) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert cli(*command(tones, run, "tensorboard")).code == 0
    interrupted(run)
    end = cli(*command(tones, run, "tensorboard"))
    assert (end.code, end.err) == (0, "")
    curves = EventAccumulator(str(run / "tensorboard")).Reload()
    rows = logged(run)
    assert "val_loss" in rows[-1][1]
    for name in rows[-1][1]:
        expected = [(step, row[name]) for step, row in rows if name in row]
        events = curves.Scalars(name)
        assert [event.step for event in events] == [step for step, _ in expected]
        assert [event.value for event in events] == pytest.approx([value for _, value in expected])
    text = curves.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"preset": "test"' in text


def test_wandb_gets_the_figures_under_one_identity(
    tones: Path, tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, run = Recorded(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert cli(*command(tones, run, "wandb")).code == 0
    assert wandb.of("log") == logged(run)
    assert [name for name, _ in wandb.calls] == ["init", *["log"] * STEPS, "finish"]
    interrupted(run)
    assert cli(*command(tones, run, "wandb")).code == 0
    first, second = wandb.of("init")
    assert first == second
    assert first["id"] == json.loads((run / "tracking.json").read_text())["wandb"]
    assert (first["resume"], first["name"], first["config"]["preset"]) == ("allow", "run", "test")
    assert wandb.of("log")[STEPS:] == logged(run)[-1:]


def test_mlflow_gets_the_figures_under_one_identity(
    tones: Path, tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow, run = Recorded(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    assert cli(*command(tones, run, "mlflow")).code == 0
    interrupted(run)
    assert cli(*command(tones, run, "mlflow")).code == 0
    assert mlflow.of("start") == [(None, "run"), ("abc", "run")]
    (params,) = mlflow.of("params")
    assert (params["train.lr"], params["preset"]) == ("0.001", "test")
    assert mlflow.of("log") == [*logged(run), logged(run)[-1]]
    assert len(mlflow.of("finish")) == 2


@pytest.mark.parametrize("fail_at", [1, 3])
def test_a_tracker_that_fails_is_told_once_and_stops_nothing(
    tones: Path, tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    wandb, run = Recorded(fail_at), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    end = cli(*command(tones, run, "wandb"))
    assert end.code == 0
    assert end.err == (
        "warning: wandb failed (ConnectionError: no route to host); the training goes on without it, and metrics.jsonl "
        "has all figures.\n"
    )
    assert len(wandb.calls) == fail_at
    assert len(logged(run)) == STEPS


@pytest.mark.parametrize(
    "track, module, title",
    [
        ("tensorboard", "torch.utils.tensorboard", "TensorBoard"),
        ("wandb", "wandb", "Weights & Biases"),
        ("mlflow", "mlflow", "MLflow"),
    ],
)
def test_a_package_that_is_not_installed_is_named_before_anything_is_trained(
    tones: Path, tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch, track: str, module: str, title: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    end = cli(*command(tones, tmp_path / "run", track))
    assert end.code == 2
    assert end.err.startswith(f"error: {title} cannot be imported (")
    assert end.err.endswith(f"); pip install {track}, or leave --track out.\n")
    assert end.err.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unknown_tracker_is_refused(tones: Path, tmp_path: Path) -> None:
    import auricle
    from auricle.errors import ConfigError

    with pytest.raises(ConfigError, match=r"--track tensorbord: unknown \(did you mean 'tensorboard'"):
        auricle.pretrain("ssast", tones, tmp_path / "run", preset="test", steps=1, track="tensorbord")
