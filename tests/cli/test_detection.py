"""Sound event detection on the command line: from timed labels to events of new sounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle import api
from auricle.cli.events import EventOutput
from auricle.data.formats import read_data
from auricle.errors import CheckpointError, ConfigError, DataError
from auricle.evaluation.detection import evaluate_detection
from auricle.metrics import Detection
from conftest import Outcome
from scenes import RATE, write_desed, write_scenes

SPLITS = ("train", "train", "val", "train", "test", "train") * 6
SETTINGS = {"batch_size": 8, "crop_seconds": 2.0, "lr": 0.004}
METRICS = [
    *("event_f1", "event_micro_f1", "event_error_rate", "segment_f1", "segment_micro_f1", "segment_error_rate"),
    *("intersection_f1", "psds1", "psds2"),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", SPLITS)


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that has learned the two classes."""
    out = tmp_path_factory.mktemp("runs") / "detector"
    return api.finetune("ssast-test", scenes, out, random_weights=0, steps=80, settings=SETTINGS, quiet=True)


def test_timed_labels_make_the_task_and_the_run_says_so(
    cli: Callable[..., Outcome], scenes: Path, tmp_path: Path
) -> None:
    done = cli("finetune", "ssast-test", scenes, "--random-weights", 0, "--out", tmp_path / "run", "--steps", 2)
    assert done.code == 0, done.err
    events = len((scenes / "events.csv").read_text().splitlines()) - 1
    assert f"detection: 2 classes, {events} events in 36 clips." in done.out + done.err
    assert json.loads((tmp_path / "run/step-000002/config.json").read_text())["kind"] == "detector"


def test_desed_as_it_is_published_is_trained_validated_and_tested_on(
    cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    desed = write_desed(tmp_path / "desed")
    options = ("--random-weights", 0, "--steps", 2, "--set", "consistency=1")
    done = cli("finetune", "ssast-test", desed, *options, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "validation: the test part, as there is no list for evaluation" in done.err
    assert "5 clips with labels only, 6 clips unlabelled" in done.err
    assert "val_event_f1" in (tmp_path / "run/metrics.jsonl").read_text()
    done = cli("evaluate", tmp_path / "run", desed)
    assert done.code == 0, done.err
    assert "tested 6 of 29 clips" in done.out
    lists = sorted((desed / "metadata").rglob("*.tsv"))
    done = cli("finetune", "ssast-test", *lists, *options, "--out", tmp_path / "lists", "--dry-run")
    assert done.code == 0, done.err


def test_a_detector_learns_and_keeps_what_was_chosen_on_validation_clips(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [row for row in rows if "val_event_f1" in row]
    assert max(row["val_event_f1"] for row in measured) > 0.6
    assert measured[-1]["frame_loss"] < measured[0]["frame_loss"]
    assert {"val_segment_f1", "val_psds1", "val_loss"} <= measured[-1].keys()
    detector = api.load(run).detector
    assert detector is not None
    assert detector.thresholds.tolist() != [0.5, 0.5]
    page = (run / "report.html").read_text()
    assert "Curves of the scores of detection" in page
    assert page.count("Spectrogram, true and found events") == 3


def test_evaluation_scores_events_in_every_way_with_intervals(
    cli: Callable[..., Outcome], scenes: Path, run: Path, tmp_path: Path
) -> None:
    done = cli("evaluate", run, scenes, "--json", tmp_path / "result.json")
    assert done.code == 0, done.err
    assert "tested 6 of 36 clips" in done.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["metrics"]) == METRICS
    for name, metric in result["metrics"].items():
        assert metric["low"] <= metric["value"] <= metric["high"], name
    assert result["metrics"]["event_f1"]["value"] > 0.5
    assert [row["label"] for row in result["per_class"]] == ["hiss", "tone"]
    assert all(0 <= row["threshold"] <= 1 and row["filter"] > 0 for row in result["per_class"])
    assert sum("probabilities" in item for item in result["items"]) == 3
    page = (tmp_path / "result.html").read_text()
    assert page.count("Spectrogram, true and found events") == 3
    assert "Classes" in page


def test_a_wider_collar_finds_no_less(scenes: Path, run: Path) -> None:
    narrow, wide = (api.evaluate(run, scenes, collar=collar).metrics["event_f1"]["value"] for collar in (0.001, 0.5))
    assert narrow is not None
    assert wide is not None
    assert narrow < wide


def test_classes_that_the_run_never_met_are_misses(scenes: Path, run: Path, tmp_path: Path) -> None:
    other = write_scenes(tmp_path / "other", ["test"] * 6, classes=("hiss", "bell"))
    result = api.evaluate(run, other, split="all")
    assert result.protocol["unknown_labels"] == ["bell"]
    rows = {row["label"]: row for row in result.per_class}
    assert rows["bell"]["event_f1"] == 0
    assert rows["bell"]["events"] > 0
    strange = write_scenes(tmp_path / "strange", ["test"] * 6, classes=("a", "b"))
    with pytest.raises(DataError, match="none of the events"):
        api.evaluate(run, strange, split="all")


def test_prediction_prints_events_and_writes_them_for_other_programs(
    cli: Callable[..., Outcome], scenes: Path, run: Path, tmp_path: Path
) -> None:
    files = [scenes / "04.wav", scenes / "06.wav"]
    done = cli(
        "predict", run, *files, "--json", tmp_path / "e.json", "--tsv", tmp_path / "e.tsv", "--audacity", tmp_path / "a"
    )
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "e.json").read_text())["predictions"]
    assert [row["path"] for row in found] == list(map(str, files))
    events = found[0]["events"]
    assert events
    assert f"{files[0]}: {len(events)} event" in done.out
    assert f"{events[0]['onset']:9.2f} - {events[0]['offset']:9.2f} s  {events[0]['label']}" in done.out
    labels = (tmp_path / "a" / "04.txt").read_text().splitlines()
    assert [line.split("\t")[2] for line in labels] == [event["label"] for event in events]
    assert all(float(line.split("\t")[0]) < float(line.split("\t")[1]) for line in labels)
    assert (tmp_path / "a" / "06.txt").exists()
    table = read_data(tmp_path / "e.tsv")
    assert [len(item.events) for item in sorted(table, key=lambda item: item.id)] == [
        len(row["events"]) for row in found
    ]


@pytest.fixture(scope="module")
def damaged(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 seconds of scenes; something is no number 4 s before their end."""
    long = np.concatenate([soundfile.read(scenes / f"{n % 12:02}.wav")[0] for n in range(36)]).astype(np.float32)
    folder = tmp_path_factory.mktemp("damaged")
    soundfile.write(folder / "long.wav", long, RATE, subtype="FLOAT")
    long[-4 * RATE] = np.nan
    soundfile.write(folder / "cut.wav", long, RATE, subtype="FLOAT")
    return folder


def test_what_is_found_before_damage_is_kept(
    cli: Callable[..., Outcome], run: Path, damaged: Path, tmp_path: Path
) -> None:
    whole = [event for event in api.load(run).detect(damaged / "long.wav").events if event.offset < 66]
    outputs = ("--tsv", tmp_path / "e.tsv", "--audacity", tmp_path / "a")
    done = cli("predict", run, damaged / "cut.wav", *outputs, "--json", tmp_path / "e.json")
    assert done.code == 2
    assert "cut.wav: non-finite" in done.err
    (row,) = json.loads((tmp_path / "e.json").read_text())["predictions"]
    assert "non-finite" in row["error"]
    found = row["events"]
    assert len(whole) > 20
    assert [event["label"] for event in found[: len(whole)]] == [event.label for event in whole]
    assert 66 < max(event["offset"] for event in found) < 68
    assert f"cut.wav: {len(found)} events before it cannot be read (non-finite)" in done.out
    assert len((tmp_path / "e.tsv").read_text().splitlines()) == len(found) + 1
    assert len((tmp_path / "a/cut.txt").read_text().splitlines()) == len(found)


def test_an_event_is_out_as_soon_as_it_is_over(
    cli: Callable[..., Outcome], run: Path, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = EventOutput.add

    def stop_at_third(output: EventOutput, path: str, event: Detection) -> None:
        added(output, path, event)
        if len(output.found) == 3:
            raise ConfigError("stopped")

    monkeypatch.setattr(EventOutput, "add", stop_at_third)
    outputs = ("--tsv", tmp_path / "e.tsv", "--audacity", tmp_path / "a", "--json", tmp_path / "e.jsonl")
    done = cli("predict", run, damaged / "long.wav", *outputs)
    assert "stopped" in done.err
    assert done.out.count(" s  ") == 3
    assert [len(path.read_text().splitlines()) for path in (tmp_path / "e.tsv", tmp_path / "a/long.txt")] == [4, 3]
    assert all(json.loads(line)["path"] for line in (tmp_path / "e.jsonl").read_text().splitlines())


def test_lines_of_json_hold_events_and_sounds_in_order(
    cli: Callable[..., Outcome], run: Path, finetuned: Path, damaged: Path, scenes: Path, tmp_path: Path
) -> None:
    files = (damaged / "long.wav", tmp_path / "missing.wav", scenes / "04.wav")
    done = cli("predict", run, *files, "--json", tmp_path / "e.jsonl", "--tsv", tmp_path / "e.tsv")
    assert done.code == 2
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    sounds = [row for row in rows if "label" not in row]
    assert [row["path"] for row in sounds] == list(map(str, files))
    assert [row.get("duration") for row in sounds] == [72.0, None, 2.0]
    first = rows[: sounds[0]["events"]]
    assert len(first) > 20
    onsets = [row["onset"] for row in first]
    assert onsets == sorted(onsets)
    assert all(round(row[side], 6) == row[side] for row in first for side in ("onset", "offset"))
    table = [line.split("\t") for line in (tmp_path / "e.tsv").read_text().splitlines()[1:]]
    assert [float(line[1]) for line in table[: len(first)]] == pytest.approx(onsets, abs=1e-4)
    assert cli("predict", finetuned, scenes / "04.wav", "--json", tmp_path / "c.jsonl").code == 0
    assert json.loads((tmp_path / "c.jsonl").read_text())["scores"]


def test_sounds_of_one_name_get_files_of_their_own(
    cli: Callable[..., Outcome], scenes: Path, run: Path, tmp_path: Path
) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes((scenes / "04.wav").read_bytes())
    assert cli("predict", run, tmp_path / "x", tmp_path / "y", "--audacity", tmp_path / "labels").code == 0
    written = sorted(path.name for path in (tmp_path / "labels").iterdir())
    assert len(written) == 2
    assert [name.endswith(("_x_a.txt", "_y_a.txt")) for name in written] == [True, True]


def test_the_threshold_can_be_given(scenes: Path, run: Path) -> None:
    (_, everything), (_, nothing) = (
        api.predict(run, scenes / "04.wav", threshold=threshold)[0] for threshold in (0.0, 1.0)
    )
    assert nothing.events == ()  # type: ignore[union-attr]
    assert [(e.onset, e.offset) for e in everything.events] == [(0.0, 2.0)] * 2  # type: ignore[union-attr]


def test_prediction_is_what_evaluation_scores(scenes: Path, run: Path) -> None:
    result = api.evaluate(run, scenes)
    for item in result.items:
        (_, outcome), *_ = api.predict(run, scenes / item["id"])
        assert [event[:3] for event in outcome.events] == [  # type: ignore[union-attr]
            (pytest.approx(on), pytest.approx(off), label) for on, off, label, _ in item["detections"]
        ]


def test_a_long_sound_is_detected_in_blocks_as_in_one_piece(scenes: Path, run: Path, tmp_path: Path) -> None:
    clips = [soundfile.read(scenes / f"{n:02}.wav")[0] for n in range(12)]
    long = np.concatenate(clips * 3).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", long, RATE, subtype="FLOAT")
    model = api.load(run)
    in_blocks, in_one = model.detect(tmp_path / "long.wav"), model.detect(long, RATE)
    assert in_blocks.duration == in_one.duration == 72.0
    assert len(in_blocks.events) > 20
    assert [e[:3] for e in in_blocks.events] == [
        (pytest.approx(e.onset, abs=0.021), pytest.approx(e.offset, abs=0.021), e.label) for e in in_one.events
    ]


def test_weak_and_unlabelled_clips_are_learned_from_with_a_teacher(scenes: Path, tmp_path: Path) -> None:
    mixed = write_scenes(tmp_path / "mixed", SPLITS[:18])
    rows = ["path,split,label,annotation"]
    for number, split in enumerate(SPLITS[:18]):
        kind = ("strong", "weak", "none")[number % 3] if split == "train" else "strong"
        rows.append(f"{number:02}.wav,{split},{'tone' if kind == 'weak' else ''},{kind}")
    (mixed / "manifest.csv").write_text("\n".join(rows) + "\n")
    lines = (mixed / "events.csv").read_text().splitlines()
    known = {row.split(",")[0] for row in rows if row.endswith("strong")}
    (mixed / "events.csv").write_text("\n".join(line for line in lines if line.split(",")[0] in {"path", *known}))
    settings = {**SETTINGS, "consistency": 2.0, "frame_pooling": "attention", "mask_freq": 20}
    out = api.finetune("ssast-test", mixed, tmp_path / "run", random_weights=0, steps=12, settings=settings, quiet=True)
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["clip_loss"] > 0
    assert row["consistency"] > 0
    detector = api.load(out / "step-000012").detector
    assert detector is not None
    assert detector.teacher is not None
    assert int(detector.followed) == 12
    assert api.evaluate(out, mixed).protocol["tested"] == 3


def test_a_cross_validation_scores_every_clip_once(tmp_path: Path) -> None:
    folded = write_scenes(tmp_path / "folded", [f"fold{n % 2}" for n in range(16)])
    result = api.cross_validate(
        "ssast-test", folded, tmp_path / "runs", random_weights=0, steps=4, settings=SETTINGS, quiet=True
    )
    assert result.task == "detection"
    assert result.protocol["tested"] == 16
    assert len(result.items) == 16
    assert "threshold" not in result.per_class[0]
    assert (tmp_path / "runs" / "report.html").exists()
    runs = [tmp_path / "runs" / "1-fold0", tmp_path / "runs" / "2-fold1"]
    with pytest.raises(ConfigError, match="cross-validation"):
        evaluate_detection(runs, "runs", read_data(folded), split="all")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--set", "loss=bce"), "detection does not use loss"),
        (("--set", "noise=true"), "detection does not use noise"),
        (("--set", "consistency=-1"), "consistency must be 0 or above"),
        (("--task", "tagging"), "no column 'label'"),
        (("--task", "classification", "--label", "split", "--set", "ramp=0.5"), "classification does not use ramp"),
    ],
)
def test_settings_of_other_tasks_are_refused(
    cli: Callable[..., Outcome], scenes: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("finetune", "ssast-test", scenes, "--random-weights", 0, "--out", tmp_path / "run", *arguments)
    assert done.code == 2
    assert said in done.err


def test_what_a_detector_cannot_do_is_said(
    cli: Callable[..., Outcome], run: Path, finetuned: Path, scenes: Path, tones: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="finds events in time"):
        api.load(run).classify(scenes / "04.wav")
    with pytest.raises(CheckpointError, match="times no events"):
        api.load(finetuned).detect(scenes / "04.wav")
    with pytest.raises(ConfigError, match="collar"):
        api.evaluate(finetuned, tones, collar=0.1)
    with pytest.raises(ConfigError, match="together"):
        api.evaluate(run, scenes, ensemble=[finetuned])
    assert "--top is for clips" in cli("predict", run, scenes / "04.wav", "--top", 2).err
    assert "--tsv is for events" in cli("predict", finetuned, scenes / "04.wav", "--tsv", tmp_path / "x.tsv").err
    assert "is a folder" in cli("predict", run, scenes / "04.wav", "--tsv", tmp_path).err
    assert "is a file" in cli("predict", run, scenes / "04.wav", "--audacity", scenes / "04.wav").err


@pytest.mark.slow
@pytest.mark.real_data
def test_office_sounds_are_learned(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a minute of training beats guessing by how often classes sound, and a head on frozen random weights."""
    from auricle.data.labels import read_labels
    from auricle.data.targets import frame_targets
    from auricle.metrics import class_average_precision
    from auricle.training import finetune

    manifest = read_data(real_data / "office_sed")
    labels = read_labels(manifest, "label")
    tested = [i for i, item in enumerate(manifest) if item.labels["split"] == "test"]
    settings = {
        **{"crop_seconds": 4, "batch_size": 8, "mixup": 0.7, "mask_freq": 24, "mask_time": 40},
        **{"val_fraction": 0.25, "lr": 0.002, "width": 96, "validate_every": 400},
    }

    def frame_precision(name: str) -> tuple[float, float]:
        out = api.finetune(
            "ssast-test", manifest, tmp_path / name, random_weights=0, steps=400, settings=settings, quiet=True
        )
        model = api.load(out)
        scores = model.score_items([manifest[i] for i in tested])
        truth = [
            frame_targets(labels.events[i] or (), model.classes, clip.edges)
            for i, clip in zip(tested, scores, strict=True)
        ]
        stacked = np.concatenate(truth)
        precision = class_average_precision(np.concatenate([clip.values for clip in scores]), stacked)
        return float(precision.mean()), float(stacked.mean())

    trained, prior = frame_precision("trained")
    build = finetune.build

    def build_frozen(plan: finetune.FinetunePlan) -> object:
        module = build(plan)
        module.encoder.requires_grad_(False)
        return module

    monkeypatch.setattr(finetune, "build", build_frozen)
    frozen, _ = frame_precision("frozen")
    assert trained > 3 * prior
    assert trained > frozen
