"""The parts of the benchmark that compute nothing heavy: readouts, records, tables and the page."""

import importlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.data.items import Event
from auricle.evaluation.detection import DetectionOutcome
from auricle.inference.model import random_model
from auricle.metrics import Collars, FrameScores
from auricle.metrics.tagging import class_average_precision

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("a", "b")
ROW_NAMES = ("esc10", "emodb", "fsdd", "wakeword5", "instrument", "pitch", "drumkit")
METHODS = ("ssast", "asit", "atst-clip", "atst-frame")


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


def part(name: str) -> Any:
    return importlib.import_module(f"benchmarks.teacher_student.{name}")


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def clips(count: int, noise: float, seed: int = 0) -> list[Any]:
    """Clips of 4 s in steps of 40 ms, in whose steps the two classes of events are two of eight dimensions."""
    frames = part("frames")
    made = []
    for n in range(count):
        draw = rng(seed, n)
        edges = np.arange(101) * 0.04
        values = noise * draw.standard_normal((100, 8))
        events = []
        for c, name in enumerate(CLASSES):
            first = int(draw.integers(0, 70))
            events.append(Event(float(edges[first]), float(edges[first + 20]), name))
            values[first : first + 20, c] += 1
        made.append(frames.Clip(f"clip{n}", tuple(events), frames.Steps(values, edges)))
    return made


@cache
def outcome(noise: float) -> DetectionOutcome:
    found: DetectionOutcome = part("frames").read_out(clips(12, noise), clips(6, noise, 1), CLASSES, 25.0, 0.2)
    return found


def test_events_are_read_out_of_steps_that_show_them_and_not_out_of_noise() -> None:
    clear, noisy = outcome(0.05), outcome(20.0)
    assert clear.counts()[0].macro_f1() == 1.0
    assert [len(found) for found in clear.detected] == [2] * 6
    assert noisy.counts()[0].macro_f1() < 0.3


def test_the_ridge_is_that_of_its_equations() -> None:
    frames = part("frames")
    x, y = rng(3).standard_normal((40, 5)) + 2, rng(4).standard_normal((40, 2)).astype(np.float32)
    moments = frames.Moments.of(x[:15], y[:15]) + frames.Moments.of(x[15:], y[15:])
    centred = x - x.mean(0)
    for alpha, (weights, offset) in zip((0.1, 30.0), moments.solutions((0.1, 30.0)), strict=True):
        penalty = alpha * np.mean(centred**2)
        want = np.linalg.solve(centred.T @ centred + penalty * np.eye(5), centred.T @ (y - y.mean(0)))
        np.testing.assert_allclose(weights, want, atol=1e-6)
        np.testing.assert_allclose(x.mean(0) @ weights + offset, y.mean(0), atol=1e-6)


def test_the_steps_of_a_clip_are_those_of_its_embedding(tones: Path) -> None:
    from auricle.data.formats import read_data

    model = random_model("atst-frame-test", 0, "fp32")
    items = read_data([tones]).items[:3]
    for item, steps in zip(items, part("frames").embed_steps(model, items), strict=True):
        embedded = model.embed(item.streams["audio"].path)
        np.testing.assert_allclose(steps.values, embedded.frames[: len(steps.values)], atol=1e-5)
        assert len(steps.edges) == len(steps.values) + 1
        assert (np.diff(steps.edges) > 0).all()


def test_a_record_gives_back_what_was_said(tmp_path: Path) -> None:
    events, said = part("events"), outcome(1.0)
    events.save_outcome(tmp_path / "said.npz", said)
    kept = events.load_outcome(tmp_path / "said.npz")
    assert (kept.ids, kept.classes, kept.truth, kept.collars) == (said.ids, said.classes, said.truth, said.collars)
    assert kept.detected == said.detected
    for ours, theirs in zip(kept.scores, said.scores, strict=True):
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-6)
        np.testing.assert_array_equal(ours.edges, theirs.edges)


def test_a_silent_detector_can_be_kept(tmp_path: Path) -> None:
    clip = FrameScores(np.zeros((10, 2)), np.arange(11.0))
    said = DetectionOutcome(("x",), CLASSES, ((Event(1.0, 2.0, "a"),),), ((),), (clip,), Collars())
    part("events").save_outcome(tmp_path / "said.npz", said)
    assert part("events").load_outcome(tmp_path / "said.npz").detected == ((),)


def test_scores_are_those_of_all_clips_and_of_the_same_draws_for_everybody() -> None:
    events = part("events")
    good, bad = events.scores(outcome(0.4)), events.scores(outcome(3.0))
    said = outcome(0.4)
    metrics, _ = said.metrics()
    assert good["event_f1"][0] == pytest.approx(metrics["event_f1"]["value"])
    assert good["psds1"][0] == pytest.approx(metrics["psds1"]["value"])
    counts = events.draws(6)
    assert counts.sum(1).tolist() == [6.0] * (1 + events.RESAMPLES)
    assert good["segment_f1"][5] == pytest.approx(said.counts()[1].macro_f1(counts[5]))
    apart = events.difference(good["event_f1"], bad["event_f1"])
    assert apart.value == pytest.approx(good["event_f1"][0] - bad["event_f1"][0])
    assert 0 < apart.low < apart.value < apart.high
    assert events.difference(good["event_f1"], good["event_f1"])[:3] == (0.0, 0.0, 0.0)


def test_frames_are_ranked_on_one_grid_whatever_the_steps_are() -> None:
    events, coarse = part("events"), outcome(1.0)
    fine = DetectionOutcome(
        coarse.ids,
        coarse.classes,
        coarse.truth,
        coarse.detected,
        tuple(FrameScores(c.values.repeat(2, 0), np.arange(201) * 0.02) for c in coarse.scores),
        coarse.collars,
    )
    ones = np.ones(6)
    areas = events.ranked_steps(coarse).areas(ones)[0]
    np.testing.assert_allclose(areas, events.ranked_steps(fine).areas(ones)[0])
    present = [
        [any(e.label == name and e.onset <= (step + 0.5) * 0.02 < e.offset for e in truth) for name in CLASSES]
        for truth in coarse.truth
        for step in range(200)
    ]
    values = np.concatenate([clip.values for clip in fine.scores])
    np.testing.assert_allclose(areas, class_average_precision(values, np.array(present, dtype=float)))


def write_records(study: Any) -> None:
    """Records in which each method is a little better than the one before, on clips and on events."""
    out, events = study.out, part("events")
    rates = {
        method: {"cpu_seconds": 0.2 * (n + 1), "steps_per_minute": 200 // (n + 1)} for n, method in enumerate(METHODS)
    }
    (out / "speeds.json").write_text(json.dumps(rates))
    for n, method in enumerate(METHODS):
        (out / method / "pretraining").mkdir(parents=True)
        record = {"hours": 3.4, "parameters": 2_700_000}
        (out / method / "pretraining/both-2.json").write_text(json.dumps(record))
        for pooling in part("systems").POOLINGS[method]:
            (out / method / "probes" / pooling).mkdir(parents=True)
            for name, right in (("both-2", 0.6 + 0.05 * n), *((f"random-{seed}", 0.5) for seed in range(3))):
                correct = [int(i < right * 40) for i in range(40)]
                task = {"ids": [f"clip{i}" for i in range(40)], "correct": correct}
                path = out / method / "probes" / pooling / f"{name}.json"
                path.write_text(json.dumps({row: {"ridge": task, "linear": task} for row in ROW_NAMES}))
    for set_ in part("systems").SETS:
        for n, method in enumerate((*METHODS, "c2f")):
            names = [("tuned", "both-2", 2.0 - 0.4 * n)]
            if method != "c2f":
                names += [
                    ("frozen", "both-2", 2.0 - 0.4 * n),
                    *(("frozen", f"random-{seed}", 3.0) for seed in range(3)),
                ]
            for reading, name, noise in names:
                events.save_outcome(study.outcome_path(reading, f"{method}-{name}", set_), outcome(noise))


@pytest.mark.filterwarnings("ignore:.*figure layout.*")
def test_the_page_says_what_the_records_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part("events"), "RESAMPLES", 20)
    study = part("stages").Study(tmp_path / "out", tmp_path, part("systems").Settings(minutes=(1, 2)))
    write_records(study)
    path = part("page").write_page(study, tmp_path / "docs")
    text = path.read_text()
    assert "`python -m benchmarks.teacher_student --minutes 1,2 --page`" in text
    assert "| ASiT | 2.7 | " in text
    assert "| 400 | 100 | 200 |" in text
    lines = text.splitlines()
    (summary,) = [line for line in lines if line.startswith("| ATST-Clip | tokens |")]
    assert summary.startswith("| ATST-Clip | tokens | 50.0 | 70.0 | +20.0 [")
    assert "| +10.0 [" in summary
    assert any(line.startswith("| 2 | ATST-Clip | +20.0 [") for line in lines)
    # Once for each set.
    best, _ = [line for line in lines if line.startswith("| fine-tuned | C2F |")]
    worst, _ = [line for line in lines if line.startswith("| frozen | SSAST, random weights |")]
    assert not any(line.startswith("| frozen | C2F") for line in lines)
    assert float(best.split("|")[3].split("[")[0]) > float(worst.split("|")[3].split("[")[0])
    assert any(line.startswith("| fine-tuned | C2F - ATST-Frame | +") for line in lines)
    assert (tmp_path / "docs/images/teacher_student.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["clips"]["ridge"]["atst-clip, tokens"]["gain"]["value"] == pytest.approx(0.2)
    assert found["events"]["office_sed, tuned, c2f, pretrained"]["event_f1"]["value"] > 0.5


def test_there_is_no_page_before_every_method_was_read(tmp_path: Path) -> None:
    study = part("stages").Study(tmp_path / "out", tmp_path, part("systems").Settings(minutes=(2,)))
    assert part("page").write_page(study, tmp_path / "docs") is None


def test_help_needs_no_recordings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["teacher_student", "--help"])
    with pytest.raises(SystemExit) as stopped:
        part("__main__").main()
    assert stopped.value.code == 0
    assert "--minutes" in capsys.readouterr().out
