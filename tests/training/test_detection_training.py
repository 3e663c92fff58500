"""Training a detector: what is drawn, and a mean teacher that survives a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import auricle
from auricle.config import TrainConfig
from auricle.data.items import Event
from auricle.data.labels import Labels
from auricle.errors import CheckpointError, ConfigError
from auricle.training.detection import annotation_weights, for_detection
from auricle.training.finetune import build, finetune, plan
from launch import run_and_kill
from scenes import write_scenes

KNOWN = (Event(0.0, 1.0, "dog"),)


def test_kinds_of_labels_are_heard_equally_often() -> None:
    labels = Labels("label", "detection", (("dog",), (), ("dog",), (), (), ()), (KNOWN, (), None, None, None, None))
    weights = annotation_weights(labels, range(6), None)
    assert weights is not None
    assert weights.tolist() == [1 / 2, 1 / 2, 1, 1 / 3, 1 / 3, 1 / 3]
    balanced = annotation_weights(labels, range(6), np.array([3.0, 0.0, 5.0, 0.0, 0.0, 0.0]))
    assert balanced is not None
    assert balanced[0] > 0.99
    assert np.allclose([balanced[:2].sum(), balanced[2], balanced[3:].sum()], 1)
    assert annotation_weights(labels, (0, 1), None) is None


def test_unlabelled_clips_are_drawn_for_a_mean_teacher_only(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "scenes", ["train"] * 4 + ["test"] * 2)
    stated = ["annotation", "", "none", "none", "", "", ""]
    rows = zip((data / "manifest.csv").read_text().split(), stated, strict=True)
    (data / "manifest.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    taught, alone = (plan("ssast-test", data, random_weights=0, settings={"consistency": weight}) for weight in (2, 0))
    assert taught.fold.train == (0, 1, 2, 3)
    assert alone.fold.train == (0, 3)
    assert taught.fold.note == ""
    assert alone.fold.note.startswith("2 unlabelled clips left out of the training")


@pytest.mark.parametrize(
    ("method", "recipe"), [("atst-frame", "desed"), ("atst-frame", "audioset-strong"), ("atst-clip", "audioset-strong")]
)
def test_a_published_recipe_trains_what_it_says(method: str, recipe: str, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "scenes", ["train", "train", "val", "test"] * 2)
    settings = {"batch_size": 4, "warmup": 0.0}
    planned = plan(f"{method}-test", data, recipe=recipe, random_weights=0, steps=1, settings=settings)
    begun = build(planned).train()
    run = finetune(planned, tmp_path / "run", quiet=True)
    ended = load_file(run / "step-000001" / "weights.safetensors")
    moved = {name for name, value in begun.state_dict().items() if not np.array_equal(value.numpy(), ended[name])}
    learn = {name for name, parameter in begun.named_parameters() if parameter.requires_grad}
    # The biases of keys move by rounding errors only, and thresholds are chosen.
    assert moved - {"thresholds", "filters"} <= learn
    assert any(name.startswith("head.linear") for name in moved)
    assert not any(name.startswith("head.norm") for name in ended)
    last = max(int(name.split(".")[2]) for name in learn if name.startswith("encoder.blocks"))
    assert any(name.startswith(f"encoder.blocks.{last}.") for name in moved)
    assert any(name.startswith("encoder.blocks.0.") for name in learn) == (recipe != "desed")
    training = [part.training for part in begun.encoder.blocks]  # type: ignore[union-attr]
    assert training == ([False] * last + [True] if recipe == "desed" else [True] * (last + 1))
    assert ("head.attention.weight" in ended) == (recipe == "desed")
    assert auricle.load(run).detector is not None


def test_what_cannot_be_frozen_is_refused(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "scenes", ["train", "train", "val", "test"])
    with pytest.raises(ConfigError, match="add --set freeze=true"):
        plan("atst-frame-test", data, random_weights=0, settings={"tuned_layers": 1})
    frozen = plan("atst-frame-test", data, random_weights=0, settings={"freeze": True, "tuned_layers": 9})
    with pytest.raises(ConfigError, match="tuned_layers=9, but this network has 2 layers"):
        build(frozen)


def test_a_presets_training_keeps_what_detection_uses() -> None:
    train = for_detection(TrainConfig(noise=True, label_smoothing=0.1, average_epochs=(2, 3), lr=0.5, loss="ce"))
    assert train == TrainConfig(lr=0.5)


def test_a_detector_learns_from_another_one_that_is_not_kept_with_it(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "scenes", ["train", "train", "val", "test"] * 3)
    options: dict[str, Any] = {"task": "detection", "random_weights": 0, "steps": 4, "quiet": True}
    settings = {"batch_size": 4, "mixup": 0.5}
    teacher = auricle.finetune("atst-clip-test", data, tmp_path / "teacher", settings=settings, **options)
    with_teacher = {"teacher": teacher, "settings": {**settings, "distil": 0.5}, **options}
    run = auricle.finetune("atst-frame-test", data, tmp_path / "run", **with_teacher)
    alone = auricle.finetune("atst-frame-test", data, tmp_path / "alone", settings=settings, **options)
    weights, without = (load_file(r / "step-000004" / "weights.safetensors") for r in (run, alone))
    assert weights.keys() == without.keys()
    assert any(not np.array_equal(weights[name], without[name]) for name in weights)
    assert auricle.load(run).detector is not None
    deaf = {**with_teacher, "settings": {**with_teacher["settings"], "crop_seconds": 2.0}}
    with pytest.raises(ConfigError, match=r"the teacher hears .* s at once, less than crop_seconds=2; give"):
        auricle.finetune("atst-frame-test", data, tmp_path / "deaf", **deaf)
    assert not (tmp_path / "deaf").exists()
    with pytest.raises(CheckpointError, match="is a detector checkpoint; fine-tune it on the same labels first"):
        auricle.finetune(
            "atst-frame-test", data, tmp_path / "clips", teacher=teacher, settings={"distil": 0.5}, label="split",
            random_weights=0, steps=2, quiet=True,
        )  # fmt: skip


def test_a_killed_run_with_a_teacher_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "scenes", ["train", "train", "val", "test"] * 3)
    command = (
        *("finetune", "ssast-test", data, "--random-weights", 0, "--steps", 16, "--checkpoint-every", 2, "--quiet"),
        *("--set", "batch_size=4", "--set", "validate_every=6", "--set", "consistency=2", "--set", "mask_freq=16"),
        *("--set", "mixup=0.5", "--set", "accumulate=2"),
    )
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run_and_kill(tmp_path / "log1", straight, *command, kills=0) == []
    assert run_and_kill(tmp_path / "log2", killed, *command, kills=2)
    for name in ("step-000016/weights.safetensors", "step-000016/optimizer.safetensors", "metrics.jsonl"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name
