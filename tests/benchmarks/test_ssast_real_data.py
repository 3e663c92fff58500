"""The parts of the benchmark that compute nothing heavy: settings, what is heard, tables and the page."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.data.formats import read_data
from auricle.errors import ConfigError, DataError
from auricle.inference.model import random_model

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


def part(name: str) -> Any:
    return importlib.import_module(f"benchmarks.ssast_real_data.{name}")


ROW_NAMES = ("esc10", "emodb", "fsdd", "wakeword5", "instrument", "pitch", "drumkit")
TABLED = ("random-0", "random-1", "random-2", "mfcc", "logmel", "both-2", "both-5", "public-2")


def write_probe(out: Path, name: str, right: float, clips: int = 40, ids: str = "clip") -> None:
    """Records in which the first share `right` of the clips is right, whatever the task, head and pooling."""
    outcome = {"ids": [f"{ids}{i}" for i in range(clips)], "correct": [int(i < right * clips) for i in range(clips)]}
    record = {row: {"ridge": outcome, "linear": outcome} for row in ROW_NAMES}
    for pooling in ("mean", "mean+std"):
        folder = out / "probes" / pooling
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(record))


def write_tuned(out: Path, start: str, name: str, fold: str, correct: list[int]) -> None:
    (out / "finetuning").mkdir(exist_ok=True)
    record = {"ids": [f"{fold}-{i}" for i in range(len(correct))], "correct": correct}
    (out / "finetuning" / f"{start}-{name}-{fold}.json").write_text(json.dumps(record))


def test_lines_compare_with_the_mean_of_the_random_networks(tmp_path: Path) -> None:
    for name, right in zip(TABLED, (0.4, 0.5, 0.6, 0.5, 0.55, 0.7, 0.8, 0.3), strict=True):
        write_probe(tmp_path, name, right)
    tables = part("tables")
    found = tables.lines(tmp_path, "ridge", "mean", ["logmel", "both-2", "both-5", "both-15"])
    assert [line.name for line in found] == list(ROW_NAMES)
    assert list(found[0].others) == ["logmel", "both-2", "both-5"]
    assert found[0].gain("both-5").value == pytest.approx(0.3)
    assert tables.mean_accuracy(found) == pytest.approx(0.5)
    gain = tables.mean_gain(found, "both-2")
    assert gain.value == pytest.approx(0.2)
    assert gain.low < 0.2 < gain.high
    assert tables.mean_gain(found, "both-2", "logmel").value == pytest.approx(0.15)


def test_records_of_other_clips_are_refused(tmp_path: Path) -> None:
    for name in TABLED[:3]:
        write_probe(tmp_path, name, 0.5)
    write_probe(tmp_path, "both-2", 0.5, ids="other")
    with pytest.raises(DataError, match="'both-2' was tested on other clips"):
        part("tables").lines(tmp_path, "ridge", "mean", ["both-2"])


def test_fine_tuning_is_compared_over_the_folds_that_both_have(tmp_path: Path) -> None:
    for fold, scratch, start in (("fold1", [0, 0, 1, 1], [1, 0, 1, 1]), ("fold2", [0, 1], [1, 1])):
        write_tuned(tmp_path, "scratch", "esc10", fold, scratch)
        write_tuned(tmp_path, "both-2", "esc10", fold, start)
    write_tuned(tmp_path, "both-5", "esc10", "fold1", [1, 1, 1, 1])
    (found,) = part("tables").tuned(tmp_path)
    assert (found.name, found.folds, set(found.correct)) == ("esc10", 2, {"scratch", "both-2"})
    assert found.gain("both-2").value == pytest.approx(2 / 6)


def test_settings_may_only_gain_budgets(tmp_path: Path) -> None:
    stages = part("stages")
    path, first = tmp_path / "settings.json", stages.Settings(minutes=(2, 5))
    stages.claim(path, first)
    stages.claim(path, dataclasses.replace(first, minutes=(2, 5, 15)))
    with pytest.raises(ConfigError, match=r"other settings \(minutes\); choose another --out"):
        stages.claim(path, dataclasses.replace(first, minutes=(2, 15)))
    with pytest.raises(ConfigError, match=r"other settings \(seed\)"):
        stages.claim(path, dataclasses.replace(first, minutes=(2, 5, 15), seed=1))


def test_what_any_column_calls_test_is_not_heard(tmp_path: Path, tones: Path) -> None:
    (tmp_path / "tones").symlink_to(tones)
    heard = part("stages").heard_part(tmp_path)
    splits = [item.labels["split"] for item in heard]
    assert len(splits) == 18
    assert set(splits) == {"train", "val"}


def test_the_second_pooling_is_mean_and_deviation_over_all_time_steps(tones: Path) -> None:
    # In bf16, rounding depends a little on what shares a batch.
    model = random_model("ssast-test", 0, "fp32")
    items = read_data([tones]).items[:5]
    pooled = part("stages").embed(model, items, "mean+std")
    for item, vector in zip(items, pooled, strict=True):
        frames = model.embed(item.streams["audio"].path).frames
        np.testing.assert_allclose(vector, np.concatenate([frames.mean(0), frames.std(0)]), atol=2e-3)
    np.testing.assert_allclose(part("stages").embed(model, items, "mean"), pooled[:, : pooled.shape[1] // 2], atol=1e-4)


@pytest.mark.parametrize("text", ["5,2", "0,5", "2,2"])
def test_budgets_must_rise(text: str) -> None:
    with pytest.raises(Exception, match="minutes must rise"):
        part("options").budgets(text)
    assert part("options").budgets("2,5,15") == (2, 5, 15)


def test_the_page_says_what_the_records_say(tmp_path: Path) -> None:
    for name, right in zip(TABLED, (0.4, 0.5, 0.6, 0.5, 0.55, 0.7, 0.8, 0.3), strict=True):
        write_probe(tmp_path, name, right)
    for start, correct in (("scratch", [0, 0, 1, 1]), ("both-5", [0, 1, 1, 1])):
        write_tuned(tmp_path, start, "emodb", "spk03", correct)
    (tmp_path / "pretraining").mkdir()
    for name in ("both-2", "both-5", "public-2"):
        (tmp_path / "pretraining" / f"{name}.json").write_text(json.dumps({"hours": 3.4, "parameters": 2_700_000}))
    stages, page = part("stages"), part("page")
    bench = stages.Bench.__new__(stages.Bench)
    bench.out, bench.settings = tmp_path, stages.Settings(minutes=(2, 5, 15), compared_minutes=5)
    path = page.write_page(bench, tmp_path / "docs")
    text = path.read_text()
    assert "for\n5 minutes of one core" in text
    assert "Budgets of 15 and 45 and 90 minutes were not run" in text
    assert "`python -m benchmarks.ssast_real_data --minutes 2,5,15 --page`" in text
    assert "1.2 h of recordings" in text
    line = next(line for line in text.splitlines() if line.startswith("| esc10: 10 environmental sounds"))
    assert line.startswith("| esc10: 10 environmental sounds, 5 folds | 40 | 50.0 | 80.0 | +30.0 [")
    assert line.endswith("] | 50.0 | 55.0 |")
    assert "| emodb | 1 | 4 | both-5 | 50.0 | 75.0 | +25.0 [" in text
    assert "| public | 2 | -20.0 [" in text
    assert (tmp_path / "docs/images/ssast_real_data.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["frozen"]["ridge, mean"]["tasks"]["pitch"]["gain"]["both-5"]["value"] == pytest.approx(0.3)
    assert found["finetuned"]["emodb"]["both-5"]["gain"]["value"] == pytest.approx(0.25)
    np.testing.assert_allclose(found["frozen"]["linear, mean+std"]["tasks"]["esc10"]["random"], [0.4, 0.5, 0.6])


def test_help_needs_no_recordings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ssast_real_data", "--help"])
    with pytest.raises(SystemExit) as stopped:
        part("__main__").main()
    assert stopped.value.code == 0
    assert "--minutes" in capsys.readouterr().out
