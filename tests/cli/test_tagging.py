"""Tagging on the command line: several labels per clip, from the table to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.data.labels import LabelWarning
from conftest import CLASSES, Outcome, sound

CLIPS = 36


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 0.7 s with one, two or three of the sounds of `tones` at once; every sixth is for validation or test."""
    folder = tmp_path_factory.mktemp("tags")
    rows = ["path,label,split"]
    for number in range(CLIPS):
        present = [name for bit, name in enumerate(CLASSES) if (number % 7 + 1) >> bit & 1]
        wave = np.mean([sound(name, 0.7, 16000, number) for name in present], axis=0)
        soundfile.write(folder / f"{number:02}.wav", wave, 16000)
        split = {0: "test", 3: "val"}.get(number % 6, "train")
        rows.append(f'{number:02}.wav,"{",".join(present)}",{split}')
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def tagger(tags: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from auricle import api

    out = tmp_path_factory.mktemp("runs") / "tagger"
    return api.finetune(pretrained, tags, out, steps=50, settings={"mixup": 0.5, "balanced": True}, quiet=True)


def test_labels_make_the_task_and_the_run_says_so(cli: Callable[..., Outcome], tags: Path, pretrained: Path) -> None:
    done = cli("finetune", pretrained, tags, "--out", tags.parent / "said", "--steps", 2)
    assert done.code == 0
    assert "tagging: 3 classes in column 'label', 1.7 labels per clip." in done.out + done.err


def test_tags_that_are_asked_to_be_single_labels_give_a_warning_of_one_line(tags: Path, pretrained: Path) -> None:
    from auricle.training import finetune

    with pytest.warns(LabelWarning, match=r"'label' seems to name several labels in 20 of 36 cells .*--task tagging"):
        plan = finetune.plan(pretrained, tags, task="classification")
    assert plan.labels.task == "classification"


def test_a_tagger_learns_and_is_judged_by_average_precision(tagger: Path) -> None:
    rows = [json.loads(line) for line in (tagger / "metrics.jsonl").read_text().splitlines()]
    measured = [row for row in rows if "val_mAP" in row]
    assert measured[-1]["loss"] < measured[0]["loss"]
    assert {"val_loss", "val_ensemble"} <= measured[-1].keys()
    assert "accuracy" not in measured[-1]
    assert "Curves of mean average precision" in (tagger / "report.html").read_text()


def test_evaluation_has_every_metric_with_its_interval(
    cli: Callable[..., Outcome], tags: Path, tagger: Path, tmp_path: Path
) -> None:
    done = cli("evaluate", tagger, tags, "--json", tmp_path / "tags.json")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "tags.json").read_text())
    assert result["task"] == "tagging"
    assert list(result["metrics"]) == ["mAP", "micro_AP", "mAUC", "d_prime", "lwlrap"]
    # The d' of a perfect ranking is infinite, which JSON has no number for.
    for name in ("mAP", "micro_AP", "mAUC", "lwlrap"):
        assert result["metrics"][name]["low"] <= result["metrics"][name]["value"] <= result["metrics"][name]["high"]
    assert result["metrics"]["mAP"]["value"] > np.mean([c["items"] for c in result["per_class"]]) / 6
    assert [c["label"] for c in result["per_class"]] == list(CLASSES)
    assert result["metrics"]["mAP"]["value"] == pytest.approx(np.mean([c["AP"] for c in result["per_class"]]))
    assert len(result["items"]) == 6
    few = sum(0 < c["items"] < 5 for c in result["per_class"])
    assert few
    note = f"the interval of mAP leans upwards, with fewer than 5 positives in {few} of 3 classes"
    assert result["protocol"]["notes"] == [note]
    assert f"note: {note}" in done.err
    assert all(
        set(item["predicted"]) == {name for name, p in item["scores"].items() if p >= 0.5} for item in result["items"]
    )
    assert f"mAP        {100 * result['metrics']['mAP']['value']:.1f} %" in done.out
    page = (tmp_path / "tags.html").read_text()
    assert f"{note[0].upper()}{note[1:]}." in page
    assert "Bars of average precision" in page
    wrong = [item for item in result["items"] if next(iter(item["scores"])) not in item["labels"]]
    assert ("Surest errors" in page) == bool(wrong)
    assert result["calibration"]


def test_prediction_names_every_label_that_reaches_the_threshold(
    cli: Callable[..., Outcome], tags: Path, tagger: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.json"
    low = cli("predict", tagger, tags / "06.wav", "--threshold", 0, "--top", 2, "--json", out)
    assert low.code == 0, low.err
    (entry,) = json.loads(out.read_text())["predictions"]
    assert sorted(entry["labels"]) == sorted(CLASSES)
    assert [entry["scores"][name] for name in entry["labels"]] == sorted(entry["scores"].values(), reverse=True)
    likeliest = [line.split()[-1] for line in low.out.splitlines()[1:3]]
    assert likeliest == entry["labels"][:2]
    high = cli("predict", tagger, tags / "06.wav", "--threshold", 1)
    assert high.out.strip().endswith("nothing reaches 100.0 %")


def test_stretches_of_a_long_sound_may_overlap(tagger: Path) -> None:
    from auricle import load

    wave = np.concatenate([sound("buzz", 2.0, 16000, 1), sound("hiss", 2.0, 16000, 2)]).astype("float32")
    prediction = load(tagger).classify(wave, 16000, threshold=0.0)
    assert {s.label for s in prediction.segments} == set(CLASSES)
    assert all((s.onset, round(s.offset, 2)) == (0.0, 4.0) for s in prediction.segments)
    assert load(tagger).classify(wave, 16000, threshold=1.0).segments == ()


def test_an_ensemble_averages_probabilities(tags: Path, tagger: Path, pretrained: Path, tmp_path: Path) -> None:
    from auricle import api

    other = api.finetune(pretrained, tags, tmp_path / "other", steps=10, seed=3, quiet=True)
    alone = [api.evaluate(run, tags) for run in (tagger, other)]
    both = api.evaluate(tagger, tags, ensemble=[other])
    assert both.protocol["ensemble"] == 2
    assert len(both.protocol["members"]) == 2
    for first, second, mixed in zip(alone[0].items, alone[1].items, both.items, strict=True):
        for name, p in mixed["scores"].items():
            assert p == pytest.approx((first["scores"][name] + second["scores"][name]) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "loss=ce"], "tagging needs --set loss=bce"),
        (["--task", "tags"], "invalid choice: 'tags'"),
    ],
)
def test_mistakes_are_named(
    cli: Callable[..., Outcome], tags: Path, pretrained: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    done = cli("finetune", pretrained, tags, "--out", tmp_path / "run", *options)
    assert done.code == 2
    assert words in done.err


def test_members_with_other_classes_are_refused(
    cli: Callable[..., Outcome], tags: Path, tagger: Path, finetuned: Path
) -> None:
    done = cli("evaluate", tagger, tags, "--ensemble", finetuned)
    assert done.code == 2
    assert "has other classes than" in done.err


def test_a_member_that_is_named_twice_is_refused(cli: Callable[..., Outcome], tags: Path, tagger: Path) -> None:
    done = cli("evaluate", tagger, tags, "--ensemble", tagger)
    assert done.code == 2
    assert "twice; name each run once" in done.err
