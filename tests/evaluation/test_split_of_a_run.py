"""A run is never tested on clips that it learned from, whatever the data that holds them is called."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.data.formats import read_data
from auricle.errors import DataError
from auricle.evaluation.evaluate import evaluate
from auricle.training import finetune
from auricle.training.checkpoint import resolve


@pytest.fixture(scope="module")
def unsplit(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips of `tones` without their split."""
    return listing(tmp_path_factory.mktemp("unsplit") / "unsplit.csv", tones)


@pytest.fixture(scope="module")
def plan(unsplit: Path, pretrained: Path) -> finetune.FinetunePlan:
    return finetune.plan(pretrained, [unsplit], steps=1, seed=3)


@pytest.fixture(scope="module")
def run(plan: finetune.FinetunePlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune.finetune(plan, tmp_path_factory.mktemp("run") / "run", quiet=True)


def listing(path: Path, tones: Path, names: Collection[str] = (), split: str = "") -> Path:
    """A table of the clips `names` (all, if empty), all of one part if `split` names it."""
    with (tones / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if not names or Path(row["path"]).name in names]
    more = f",{split}" if split else ""
    lines = [f"{tones / row['path']},{row['label']}{more}" for row in rows]
    path.write_text("\n".join([f"path,label{',split' if split else ''}", *lines]) + "\n")
    return path


def files(plan: finetune.FinetunePlan, indices: Collection[int]) -> set[str]:
    return {Path(plan.manifest[i].streams["audio"].path).name for i in indices}


def test_the_same_data_is_tested_on_the_fold_that_was_left_out(
    run: Path, plan: finetune.FinetunePlan, unsplit: Path
) -> None:
    result = evaluate(run, [unsplit])
    assert {item["id"] for item in result.items} == {plan.manifest[i].id for i in plan.fold.test}
    assert result.protocol["chosen_by"] == "the clips that the run did not learn from; it held out 'fold5'"
    assert (result.protocol["tested"], result.protocol["notes"]) == (len(plan.fold.test), [])


def test_of_a_part_of_the_data_elsewhere_no_training_clip_is_tested(
    run: Path, plan: finetune.FinetunePlan, tones: Path, tmp_path: Path
) -> None:
    """Moved, renamed, and given with the checkpoint's directory alone."""
    for number, i in enumerate([*plan.fold.train[::2], *plan.fold.test[:2]]):
        sound = Path(plan.manifest[i].streams["audio"].path)
        folder = tmp_path / "half" / plan.manifest[i].labels["label"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(sound, folder / f"{'old' if i in plan.fold.train else 'new'}{number}{sound.suffix}")
    checkpoint = shutil.copytree(resolve(run).path, tmp_path / "step-000001")
    result = evaluate(checkpoint, [tmp_path / "half"])
    assert len(result.items) == 2
    assert all("new" in item["id"] for item in result.items)


def test_other_data_without_a_split_is_tested_whole(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for number in range(6):
        folder = tmp_path / ("hiss" if number % 2 else "buzz")
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.normal(size=8000), 16000)
    result = evaluate(run, [tmp_path])
    assert result.protocol["tested"] == 6
    assert result.protocol["chosen_by"] == "all clips, as the run learned from none of them"


def test_training_clips_that_a_column_calls_test_are_left_out_with_a_note(
    run: Path, plan: finetune.FinetunePlan, tones: Path, tmp_path: Path
) -> None:
    part = listing(tmp_path / "part.csv", tones, files(plan, [*plan.fold.train[:3], *plan.fold.test]), "test")
    result = evaluate(run, [part])
    assert result.protocol["tested"] == len(plan.fold.test)
    assert result.protocol["notes"] == ["3 clips of the part 'test' are not tested, as the run learned from them"]
    only = listing(tmp_path / "only.csv", tones, files(plan, plan.fold.train[:3]), "test")
    with pytest.raises(DataError, match="learned from every clip of the part 'test'"):
        evaluate(run, [only])


@pytest.mark.parametrize("split", ["train", "all"])
def test_training_clips_are_scored_if_asked_for_with_a_note(
    run: Path, plan: finetune.FinetunePlan, unsplit: Path, split: str
) -> None:
    result = evaluate(run, [unsplit], split=split)
    trained, tested = len(plan.fold.train), result.protocol["tested"]
    assert tested == (trained if split == "train" else len(read_data([unsplit])))
    assert result.protocol["notes"] == [f"of {tested} clips scored, the run was trained on {trained}"]


def test_a_second_fine_tuning_remembers_the_clips_of_the_first(run: Path, tones: Path) -> None:
    again = finetune.plan(run, [tones], steps=1)
    first = finetune.Heard.load(resolve(run).config["heard"])
    now = finetune.Heard.of(*([again.manifest[i] for i in part] for part in (again.fold.train, again.fold.val)))
    assert first.train - now.train
    assert finetune.heard(again).train == first.train | now.train


def test_data_with_test_clips_only_can_be_evaluated(tones: Path, finetuned: Path, tmp_path: Path) -> None:
    with (tones / "manifest.csv").open() as file:
        name = next(Path(row["path"]).name for row in csv.DictReader(file) if row["split"] == "test")
    later = listing(tmp_path / "later.csv", tones, [name], "test")
    assert evaluate(finetuned, [later]).protocol["tested"] == 1
