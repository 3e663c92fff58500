"""A run is tested on the clips that it left out, not on others that happen to have the same fold's name."""

from __future__ import annotations

import csv
from pathlib import Path

from auricle.evaluation.evaluate import evaluate
from auricle.training import finetune


def test_unsplit_data_is_tested_on_the_clips_that_the_run_left_out(
    tones: Path, pretrained: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "unsplit.csv"
    with (tones / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    listing.write_text("path,label\n" + "".join(f"{tones / row['path']},{row['label']}\n" for row in rows))
    plan = finetune.plan(pretrained, [listing], steps=1, seed=3)
    run = finetune.finetune(plan, tmp_path / "run", quiet=True)
    result = evaluate(run, [listing])
    tested = {item["id"] for item in result.items}
    assert result.protocol["chosen_by"] == "stratified folds, seed 3, 'fold5' held out"
    assert tested == {plan.manifest[i].id for i in plan.fold.test}
    assert tested.isdisjoint(plan.manifest[i].id for i in plan.fold.train)


def test_data_with_test_clips_only_can_be_evaluated(tones: Path, finetuned: Path, tmp_path: Path) -> None:
    listing = tmp_path / "later.csv"
    sound = next((tones / "audio").glob("hiss*.flac"))
    listing.write_text(f"path,label,split\n{sound},hiss,test\n")
    assert evaluate(finetuned, [listing]).protocol["tested"] == 1
