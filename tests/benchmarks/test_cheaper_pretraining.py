"""The parts of the benchmark that compute nothing heavy: costs of an accuracy, which trainings there are, the page."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from auricle.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
ROW_NAMES = ("esc10", "emodb", "fsdd", "wakeword5", "instrument", "pitch", "drumkit")
SPEEDS = {"ssast": {"paper": 0.1, "latent": 0.2}, "asit": {"paper": 0.3, "latent": 0.15}}
SPEEDS["atst-frame"] = SPEEDS["asit"]


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


def part(name: str) -> Any:
    return importlib.import_module(f"benchmarks.cheaper_pretraining.{name}")


def study(tmp_path: Path, minutes: tuple[float, ...] = (1, 4)) -> Any:
    (tmp_path / "speeds.json").write_text(json.dumps(SPEEDS))
    # The tasks read their recordings at once, which these tests have no need of.
    module = part("stages")
    return module.Study(tmp_path, tmp_path / "data", module.Settings(minutes=minutes))


def write_probe(path: Path, right: float, clips: int = 40) -> None:
    """A record in which the first share `right` of the clips is right, whatever the task."""
    outcome = {"ids": [str(i) for i in range(clips)], "correct": [int(i < right * clips) for i in range(clips)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({row: {"ridge": outcome} for row in ROW_NAMES}))


def write_probes(out: Path, method: str, accuracies: dict[str, float]) -> None:
    for name, right in accuracies.items():
        task, _, number = name.rpartition("-")
        folder = out / (f"{method}-paper-1" if task == "random" else f"{method}-{name}") / "probes" / "mean"
        write_probe(folder / (f"{name}.json" if task == "random" else f"both-{number}.json"), right)


RANDOM = {"random-0": 0.5, "random-1": 0.5, "random-2": 0.5}


@pytest.mark.parametrize(
    ("gain", "minutes"), [(0.2, 2.0), (0.3, 4.0), (0.1, 1.0), (0.05, 1.0), (0.31, None), (0.25, 2.8284271)]
)
def test_the_cost_of_an_accuracy_lies_between_budgets(gain: float, minutes: float | None) -> None:
    figures = part("figures")
    metrics = importlib.import_module("auricle.metrics")
    curve = [figures.Point(m, 1, metrics.Difference(g, g, g, 1.0)) for m, g in ((1.0, 0.1), (2.0, 0.2), (4.0, 0.3))]
    found = figures.cost_of(gain, curve)
    assert found == (None if minutes is None else pytest.approx(minutes))


def test_a_budget_is_as_many_steps_as_it_pays_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(tmp_path)
    monkeypatch.setattr(part("stages"), "Bench", lambda out, data, settings, audio, poolings: (out, settings))
    out, paper = made.bench("ssast", "paper", 4, SPEEDS)
    assert out == tmp_path / "ssast-paper-4"
    assert (paper.method, paper.preset, paper.steps_per_minute, paper.minutes) == ("ssast", "demo", 600, (4,))
    assert paper.pretrain["pretext"] == "paper"
    _, latent = made.bench("ssast", "latent", 4, SPEEDS)
    assert (latent.preset, latent.steps_per_minute) == ("demo-latent", 300)
    assert latent.pretrain["pretext"] == "latent"


def test_other_settings_want_another_folder(tmp_path: Path) -> None:
    study(tmp_path)
    study(tmp_path, (1, 4, 16))
    with pytest.raises(ConfigError, match="other settings"):
        study(tmp_path, (2, 4))


def test_the_page_says_what_the_records_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("benchmarks.ssast_real_data.stages").Bench
    monkeypatch.setattr(bench, "__init__", lambda self, out, *_: setattr(self, "out", out))
    made = study(tmp_path)
    write_probes(tmp_path, "ssast", RANDOM | {"paper-1": 0.6, "latent-1": 0.7, "paper-4": 0.8, "latent-4": 0.9})
    write_probes(tmp_path, "asit", RANDOM | {"paper-1": 0.6, "latent-1": 0.5, "paper-4": 0.8, "latent-4": 0.7})
    # Of the third encoder, one task is missing.
    write_probes(tmp_path, "atst-frame", RANDOM | {"paper-1": 0.6})
    for method, commit in (("ssast", "b" * 40), ("asit", "a" * 40)):
        run = tmp_path / f"{method}-paper-1" / "pretraining" / "both-1"
        run.mkdir(parents=True)
        (run / "environment.json").write_text(json.dumps({"git": {"commit": commit}}))
    text = part("page").write_page(made, tmp_path / "docs").read_text()
    assert "trained at `aaaaaaa`, `bbbbbbb`." in text
    assert "`python -m benchmarks.cheaper_pretraining --minutes 1,4 --page`" in text
    # Between 60 and 240 seconds, half the way on a logarithmic scale.
    assert "| SSAST | 100, 200 | +30.0 [" in text
    assert "] | 240, 2,400 | 120, 600 | 2.0 |" in text
    assert "] | 240, 800 | not within its budgets | - |" in text
    assert "| SSAST | 60 | 600, 300 | +10.0 [" in text
    assert "| esc10 | 50.0 | 80.0 | 70.0 |" in text
    assert "ATST-Frame" not in text.split("![", maxsplit=1)[1]
    assert (tmp_path / "docs/images/cheaper_pretraining.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "results.json").read_text())["encoders"]
    assert found["ssast"]["latent_reaches_the_papers_end_after_minutes"] == pytest.approx(2.0)
    assert found["asit"]["curves"]["latent"][1]["gain"]["value"] == pytest.approx(0.2)


def test_a_study_that_was_stopped_is_judged_by_the_budgets_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = importlib.import_module("benchmarks.ssast_real_data.stages").Bench
    monkeypatch.setattr(bench, "__init__", lambda self, out, *_: setattr(self, "out", out))
    made = study(tmp_path)
    write_probes(tmp_path, "ssast", RANDOM | {"paper-1": 0.6, "latent-1": 0.7, "paper-4": 0.8})
    (found,) = part("figures").contests(made)
    assert (found.aim.minutes, found.aim.gain.value) == (1, pytest.approx(0.1))
    assert found.reached == 1


def test_help_needs_no_recordings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cheaper_pretraining", "--help"])
    with pytest.raises(SystemExit) as stopped:
        part("__main__").main()
    assert stopped.value.code == 0
    assert "--minutes" in capsys.readouterr().out
