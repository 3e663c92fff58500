"""The page of a fine-tuning shows what was learned, on the clips that chose its weights."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from auricle import api
from auricle.evaluation import pages
from auricle.evaluation.evaluate import evaluate_validation
from auricle.training import finetune


@pytest.fixture(scope="module")
def plan(pretrained: Path, tones: Path) -> finetune.FinetunePlan:
    return finetune.plan(pretrained, [tones], steps=60)


def sections(page: Path) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))


def test_it_shows_what_an_evaluation_of_the_validation_part_shows(
    finetuned: Path, plan: finetune.FinetunePlan, tones: Path
) -> None:
    names = sections(pages.finetuning_page(finetuned, plan))
    assert names[:5] == ["Learning", "Validation clips", "Scores", "Confusion", "Classes"]
    assert "Map" in names
    assert names[-1] == "Settings"
    own = evaluate_validation(finetuned, plan.manifest, plan.labels, plan.fold.val)
    asked = api.evaluate(finetuned, tones, split="val")
    assert [row["id"] for row in own.items] == [row["id"] for row in asked.items]
    assert own.metrics == asked.metrics
    np.testing.assert_array_equal(own.confusion["rows"], asked.confusion["rows"])  # type: ignore[index]


def test_errors_are_there_to_hear(finetuned: Path, plan: finetune.FinetunePlan, tones: Path) -> None:
    # With other labels, right answers are errors.
    turned = {"buzz": "hiss", "hiss": "chirp", "chirp": "buzz"}
    sets = tuple(tuple(turned[name] for name in labels) for labels in plan.labels.sets)
    page = pages.finetuning_page(finetuned, replace(plan, labels=replace(plan.labels, sets=sets)))
    assert "Surest errors" in sections(page)
    assert page.read_text(encoding="utf-8").partition("Surest errors</h2>")[2].count("<audio controls") >= 3


def test_without_a_validation_part_there_are_curves_and_settings(finetuned: Path, plan: finetune.FinetunePlan) -> None:
    page = pages.finetuning_page(finetuned, replace(plan, fold=replace(plan.fold, val=())))
    assert sections(page) == ["Learning", "Settings"]


def test_captions_speak_of_validation_only_where_there_was_one(
    finetuned: Path, plan: finetune.FinetunePlan, tmp_path: Path
) -> None:
    alone = Path(shutil.copytree(finetuned, tmp_path / "run"))
    rows = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in row.items() if not name.startswith("val_")} for row in rows]
    (alone / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    page = pages.finetuning_page(alone, replace(plan, fold=replace(plan.fold, val=()))).read_text(encoding="utf-8")
    assert "Training loss; no clips were held out to validate on." in page
    assert "cross-validation" not in page
    assert "Training and validation loss." in pages.finetuning_page(finetuned, plan).read_text(encoding="utf-8")


def test_a_clip_that_is_gone_costs_the_page_nothing_else(
    finetuned: Path, tones: Path, pretrained: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "tones"
    shutil.copytree(tones, copied)
    plan = finetune.plan(pretrained, [copied], steps=60)
    shutil.rmtree(copied / "audio")
    page = pages.finetuning_page(finetuned, plan)
    assert sections(page) == ["Learning", "Validation clips", "Settings"]
    assert "Nothing can be shown of them: " in page.read_text(encoding="utf-8")
