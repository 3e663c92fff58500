"""Which clips a training hears, holds out and gives up."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loops import QUIET, job_of

from auricle.data.formats import read_data
from auricle.data.loader import Loader
from auricle.data.randomness import generator
from auricle.errors import ConfigError, DataError
from auricle.training import checkpoint as ckpt
from auricle.training import finetune, pretrain
from auricle.training.loop import train
from auricle.training.run import read_metrics

# Unreadable files ---------------------------------------------------------------------------------------------------


def damaged(tones: Path, folder: Path, *names: str) -> Path:
    """A copy of the data whose files `names` have a good header and are cut: only decoding finds out."""
    shutil.copytree(tones, folder)
    for name in names:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    return folder


def test_an_unreadable_file_is_replaced_by_rule_and_listed_once(
    tones: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    data = damaged(tones, tmp_path / "data", "audio/hiss2.wav")
    manifest = read_data(data)
    loader = Loader(manifest.items, rate=16000, batch_size=8, crop_seconds=0.5, seed=3)
    bad = manifest.ids.index("audio/hiss2.wav")
    replaced = 0
    for batch, keys in zip(loader, loader.keys(0), strict=False):
        for row, key in enumerate(keys):
            if key.slot == bad:
                # By chance the first stand-in may be the same file again.
                drawn = [
                    int(generator(3, "replace", key.epoch, key.index, k).integers(len(manifest))) for k in range(9)
                ]
                tries = next(k for k, slot in enumerate(drawn) if slot != bad)
                assert batch.ids[row] == manifest.ids[drawn[tries]]
                assert batch.replaced == (tries + 1) * ((str(data / "audio/hiss2.wav"), "truncated"),)
                replaced += 1
            else:
                assert batch.ids[row] == manifest.ids[key.slot]
        if key.epoch == 4:
            break
    assert replaced == 4

    end = cli("pretrain", "ssast", data, "--preset", "test", "--steps", 12, "--out", tmp_path / "run")
    assert end.code == 0, end.err
    assert end.err.count("hiss2.wav") == 1
    # When it is met, not at the end.
    named = end.err.index(f"warning: {data / 'audio/hiss2.wav'}: truncated; another clip stands in for it")
    assert named < end.err.index("step 12/12") < end.err.index("1 file could not be read.")
    newest, _ = ckpt.latest(tmp_path / "run")
    assert newest is not None
    assert newest.state["bad_files"] == [[str(data / "audio/hiss2.wav"), "truncated"]]


def test_too_many_unreadable_files_stop_the_run(tones: Path, tmp_path: Path) -> None:
    names = ("audio/hiss2.wav", "audio/buzz4.wav", "audio/chirp6.flac")
    data = damaged(tones, tmp_path / "data", *names)
    with pytest.raises(DataError) as error:
        train(job_of(data, tmp_path / "run", steps=20), QUIET)
    told = re.fullmatch(
        r"([23]) files cannot be read, more than the 1 allowed \(.*truncated.*\); list them all with auricle check "
        r"DATA --exclude FILE, and start again with --exclude FILE and another --out; or allow for these with "
        r"--set max_bad_fraction=(.*)\.",
        str(error.value),
    )
    assert told is not None, error.value
    # 23 clips, as one is held out: the least thousandth that is enough.
    assert int(told[1]) / 23 <= float(told[2]) < int(told[1]) / 23 + 0.001
    progress = train(job_of(data, tmp_path / "other", steps=20, max_bad_fraction=0.2), QUIET)
    assert progress.step == 20
    assert sorted(Path(path).name for path, _ in progress.bad_files) == sorted(Path(name).name for name in names)


def test_data_of_which_nothing_can_be_read_say_so(tones: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    names = [row.split(",")[0] for row in (tones / "manifest.csv").read_text().splitlines()[1:]]
    data = damaged(tones, tmp_path / "data", *names)
    end = cli("pretrain", "ssast", data, "--preset", "test", "--steps", 2, "--out", tmp_path / "run")
    assert end.code == 2
    assert "of 23 clips none can be read, such as " in end.err
    assert [line.split(":")[0] for line in end.err.splitlines()] == ["data", "error"]


# What is measured on the way ----------------------------------------------------------------------------------------


def test_clips_are_held_out_of_small_sets_too(tones: Path) -> None:
    items = read_data(tones).items
    for count, fraction, held in (
        *((3, 0.5, 0), (4, 0.02, 1), (4, 1.0, 2), (24, 0.02, 1), (24, 0.25, 6), (24, 0.0, 0)),
        *((48, 0.02, 1), (240, 0.02, 5), (240, 1.0, 64)),
    ):
        several = [dataclasses.replace(item, id=f"{item.id}-{n}") for n in range(10) for item in items][:count]
        train_items, val_items = pretrain.hold_out(several, fraction, 0)
        assert len(val_items) == held
        assert {item.id for item in (*train_items, *val_items)} == {item.id for item in several}
        assert len(train_items) + len(val_items) == count


def test_what_is_measured_on_clips_that_are_trained_on_is_not_called_validation(tones: Path, tmp_path: Path) -> None:
    for fraction, name, other in ((0.0, "train", "val"), (0.2, "val", "train")):
        settings = {"val_fraction": fraction, "validate_every": 2}
        run = tmp_path / name
        pretrain.pretrain(pretrain.plan("ssast", [tones], preset="test", settings=settings, steps=4), run, quiet=True)
        rows = read_metrics(run)
        assert [row["step"] for row in rows if f"{name}_loss" in row] == [2, 4]
        assert f"{name}_score" in rows[-1]
        assert not any(key.startswith(f"{other}_") for row in rows for key in row)


@pytest.mark.parametrize("key, value", [("mixup", 0.5), ("mask_time", 8), ("noise", True), ("head_lr_factor", 10.0)])
def test_pretraining_refuses_what_it_would_ignore(tones: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^pretraining does not use {key}; leave out --set {key}\.$"):
        pretrain.plan("ssast", [tones], preset="test", settings={key: value})


def test_settings_of_another_schedule_or_without_clips_to_validate_on_are_refused(
    tones: Path, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^final_lr has no effect under schedule=constant; .*=cosine or dino\.$"):
        pretrain.plan("ssast", [tones], preset="test", settings={"schedule": "constant", "final_lr": 0.5})
    with pytest.raises(ConfigError, match=r"warmup_steps has no effect under schedule=cosine; .*=multistep or plateau"):
        finetune.plan(pretrained, [tones], settings={"warmup_steps": 50})
    with pytest.raises(ConfigError, match="the data has a validation part of its own"):
        finetune.plan(pretrained, [tones], settings={"val_fraction": 0.1})
    for settings, name in (({"schedule": "plateau"}, "schedule=plateau"), ({"validate_every": 3}, "validate_every")):
        with pytest.raises(ConfigError, match=f"^{name} needs clips to validate on; take some with"):
            finetune.plan(pretrained, [tones], group_column="group", settings=settings)
        finetune.plan(pretrained, [tones], group_column="group", settings={**settings, "val_fraction": 0.2})


def test_a_plateau_of_the_validation_accuracy_lowers_the_learning_rate_of_a_finetuning(
    tones: Path, pretrained: Path, tmp_path: Path
) -> None:
    settings = {"schedule": "plateau", "decay_factor": 0.5, "validate_every": 1, "lr": 1e-9}
    finetune.finetune(finetune.plan(pretrained, [tones], settings=settings, steps=8), tmp_path / "run", quiet=True)
    # So small a rate that nothing is learned.
    assert len({row["val_accuracy"] for row in read_metrics(tmp_path / "run")}) == 1
    assert [row["lr"] for row in read_metrics(tmp_path / "run")] == 4 * [1e-9] + 3 * [5e-10] + [2.5e-10]
