"""ATST's fine-tunings: published recipes, mixed spectrograms, a frozen encoder, a network that teaches another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import auricle
from auricle.audio.augment import mix_log
from auricle.data.batch import Batch, Stream
from auricle.data.formats import read_data
from auricle.data.randomness import Draw
from auricle.errors import ConfigError
from auricle.methods import get_method, get_preset
from auricle.methods.atst.config import ClipConfig
from auricle.tasks.classification import Classifier
from auricle.tasks.distillation import Distillation
from auricle.tasks.mixing import SpectrogramMixing
from auricle.training import finetune
from auricle.training.optim import build_optimizer

RATE = 16000
CLASSES = ("a", "b", "c")
RECIPES = [
    (method, name)
    for method in ("atst-clip", "atst-frame")
    for name, recipe in get_method(method).RECIPES.items()
    if recipe.task != "detection"
]


def classifier(method: str = "atst-frame", seed: int = 0, **options: Any) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(get_method(method).build_encoder(get_preset(method, "test").model), CLASSES, **options)


def batch(clips: int = 4, seed: int = 0) -> Batch:
    def part(seed: int) -> dict[str, Stream]:
        waves = 0.1 * torch.randn(clips, 9600, generator=torch.Generator().manual_seed(seed))
        return {"audio": Stream(waves, torch.tensor([9600 - 1000 * (row % 2) for row in range(clips)]), RATE)}

    draw, ids = Draw(0, (0,) * clips, tuple(range(clips))), tuple(map(str, range(clips)))
    eye = torch.eye(3)[torch.arange(clips) % 3]
    # Never of the class of the clip that it is mixed into.
    partner = Batch(part(seed + 1), draw, ids, eye.roll(1, 1))
    return Batch(part(seed), draw, ids, eye, partners=(partner,))


# Recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "name"), RECIPES)
def test_a_recipe_builds_what_it_trains(method: str, name: str) -> None:
    recipe = get_method(method).RECIPES[name]
    config, train = recipe.fit(get_preset(method, "small").model)
    assert config.chunking == "downstream"  # type: ignore[attr-defined]
    assert train.optimizer == "sgd"
    assert train.head == "batchnorm"
    assert train.freeze == name.startswith("linear-")
    assert bool(train.distil) == name.startswith("c2f-")
    # Only ATST-Frame's UrbanSound8K has a loss for mixtures without mixing.
    assert (train.loss == "bce") == (train.mix_spectrograms or (method, name) == ("atst-frame", "urbansound8k"))
    # Section 5 of the spec: all hear the central 12 s; section 6: but the combination on all of AudioSet.
    heard = ("random", 10.0) if name == "c2f-audioset" else ("central", 12.0)
    assert (train.crop, train.crop_seconds) == heard
    assert config.chunk_frames == (601 if method == "atst-clip" else 1001)  # type: ignore[attr-defined]
    with torch.device("meta"):
        network = Classifier(
            get_method(method).build_encoder(config), CLASSES, head="batchnorm", head_layers=train.head_layers
        )
    # Section 5 of the spec: 18,432 and 9,216 for the probes of base, here of half the width; 1,536 and 768 else.
    width = (2 if method == "atst-clip" else 1) * 384 * (12 if train.freeze else 1)
    assert network.head.linear.in_features == width


def test_published_rates_are_those_of_batches_of_256() -> None:
    clip, frame = (get_method(f"atst-{kind}").RECIPES for kind in ("clip", "frame"))
    assert clip["audioset-20k"].train.lr == 1.0 * 2
    assert clip["voxceleb1"].train.lr == pytest.approx(0.2)
    assert frame["speech-commands-v2"].train.lr == 1.0 * 2
    assert frame["c2f-audioset"].train.lr == pytest.approx(0.5 * 1600 / 256)
    assert frame["linear-fsd50k"].train.lr == pytest.approx(0.4)
    assert frame["c2f-fsd50k"].train.distil == 0.5
    assert frame["c2f-audioset"].train.distil == 1.0


def test_a_probe_of_atst_clip_cuts_chunks_as_the_checkpoint_says_and_fine_tuning_does_not() -> None:
    recipes = get_method("atst-clip").RECIPES
    imported = ClipConfig(chunking="downstream", chunk_frames=901, view_seconds=9.0)
    for name, frames in (("linear-fsd50k", 901), ("fsd50k", 601)):
        config, _ = recipes[name].fit(imported)
        assert isinstance(config, ClipConfig)
        assert config.chunk == frames


def test_layers_of_the_encoder_learn_at_their_own_rates() -> None:
    model = classifier("atst-clip", head="batchnorm")
    train = get_method("atst-clip").RECIPES["voxceleb1"].train
    names = {id(p): n for n, p in model.named_parameters()}
    factors = {names[id(p)]: g["factor"] for g in build_optimizer(model, train).param_groups for p in g["params"]}
    assert factors["encoder.cls_token"] == factors["encoder.positions"] == 0.75**2
    assert factors["encoder.blocks.0.mlp.fc1.weight"] == 0.75**2
    assert factors["encoder.blocks.1.mlp.fc1.weight"] == factors["encoder.norm.weight"] == 0.75
    assert factors["head.linear.weight"] == 1


# Mixing -----------------------------------------------------------------------------------------------------------


def test_spectrograms_and_labels_are_mixed_by_the_same_shares() -> None:
    model, given = classifier(), batch()
    encoder: Any = model.encoder
    features, frames = encoder.features(given.audio.data, given.audio.lengths)
    others, _ = encoder.features(given.partners[0].audio.data, given.partners[0].audio.lengths)
    mixed, targets = SpectrogramMixing(1.0, 0.5)(encoder, features, frames, given)
    assert given.targets is not None
    assert given.partners[0].targets is not None
    for row in range(4):
        share = float(targets[row, row % 3])
        want = share * given.targets[row] + (1 - share) * given.partners[0].targets[row]
        torch.testing.assert_close(targets[row], want)
        real = int(frames[row])
        torch.testing.assert_close(mixed[row, :real], mix_log(features[row, :real], others[row, :real], share))
        assert not mixed[row, real:].any()
    assert 0 < float(targets.max()) <= 1


def test_mixing_is_drawn_as_often_as_asked_and_changes_nothing_else() -> None:
    model, given = classifier(), batch(40)
    encoder: Any = model.encoder
    features, frames = encoder.features(given.audio.data, given.audio.lengths)
    mixed, targets = SpectrogramMixing(0.5)(encoder, features, frames, given)
    touched = [not torch.equal(a, b) for a, b in zip(mixed, features, strict=True)]
    assert 10 <= sum(touched) <= 30
    assert given.targets is not None
    assert [not torch.equal(a, b) for a, b in zip(targets, given.targets, strict=True)] == touched
    again, _ = SpectrogramMixing(0.5)(encoder, features[7:9], frames[7:9], given.rows(7, 9))
    torch.testing.assert_close(again, mixed[7:9])


def test_resized_crops_keep_the_labels() -> None:
    model, given = classifier(), batch()
    encoder: Any = model.encoder
    features, frames = encoder.features(given.audio.data, given.audio.lengths)
    changed, targets = SpectrogramMixing(resize=True)(
        encoder, features, frames, dataclasses.replace(given, partners=())
    )
    assert torch.equal(targets, given.targets)  # type: ignore[arg-type]
    assert changed.shape == features.shape
    assert not torch.allclose(changed, features, atol=0.1)


# Frozen encoders and whole batches ----------------------------------------------------------------------------------


def test_a_frozen_encoder_takes_no_gradient_and_drops_nothing() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(get_preset("atst-clip", "test").model, drop_path=0.9)  # type: ignore[type-var]
    model = Classifier(get_method("atst-clip").build_encoder(config), CLASSES, head="batchnorm", freeze=True).train()
    assert not model.encoder.training
    result = model(batch(), 0.0)
    assert torch.equal(result["loss"], model(batch(), 0.0)["loss"])
    result["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["head.linear.weight", "head.linear.bias"]


def test_the_head_reads_the_summaries_of_the_last_layers() -> None:
    model = classifier("atst-clip", head="batchnorm", head_layers=2).eval()
    given = batch()
    encoded = model.encoder(given.audio.data, given.audio.lengths)
    want = model.head(torch.cat(encoded.summaries[-2:], dim=1))
    torch.testing.assert_close(model.logits(encoded), want)
    assert model.settings()["head_layers"] == 2


def test_a_whole_batch_is_not_accumulated(tones: Path, tmp_path: Path) -> None:
    settings = {"head": "batchnorm", "accumulate": 2, "batch_size": 8}
    with pytest.raises(ConfigError, match="head=batchnorm normalises over the whole batch"):
        finetune.plan("atst-clip-test", tones, settings=settings, random_weights=0)


# Distillation -------------------------------------------------------------------------------------------------------


def given_to(student: Classifier) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = batch()
    assert data.targets is not None
    features, frames = student.spectrogram_encoder.features(data.audio.data, data.audio.lengths)
    logits = student.logits(student.spectrogram_encoder.forward_features(features, frames))
    return logits, data.targets, features, frames


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_the_loss_is_shared_between_labels_and_teacher(loss: Any) -> None:
    student, teacher = classifier(loss=loss).eval(), classifier("atst-clip", seed=1, loss=loss)
    logits, targets, features, frames = given_to(student)
    found = Distillation(teacher, 0.3).losses(student, logits, targets, features, frames)
    said = teacher.logits(teacher.spectrogram_encoder.forward_features(features, frames)).detach()
    if loss == "ce":
        want = -(said.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    else:
        want = nn.functional.binary_cross_entropy_with_logits(logits, said.sigmoid())
    torch.testing.assert_close(found["distillation_loss"], want)
    torch.testing.assert_close(found["label_loss"], student.training_loss(logits, targets))
    torch.testing.assert_close(found["loss"], 0.3 * want + 0.7 * found["label_loss"])
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_with_other_statistics_hears_the_same_sound() -> None:
    student, teacher = classifier().eval(), classifier("atst-clip", seed=1).eval()
    data = batch()
    heard = teacher.encoder(data.audio.data, data.audio.lengths)
    other = dataclasses.replace(student.encoder.config, norm_mean=-30.0, norm_std=20.0)  # type: ignore[type-var]
    student = Classifier(get_method("atst-frame").build_encoder(other), CLASSES).eval()
    logits, targets, features, frames = given_to(student)
    found = Distillation(teacher, 1.0).losses(student, logits, targets, features, frames)
    want = nn.functional.cross_entropy(logits, teacher.logits(heard).softmax(1))
    torch.testing.assert_close(found["loss"], want, atol=1e-4, rtol=1e-4)


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    student = classifier()
    other = Classifier(classifier("atst-clip").encoder, ("x", "y"))
    with pytest.raises(ConfigError, match="tells apart 2 classes"):
        Distillation(other, 0.5).check(student)
    coarse = dataclasses.replace(get_preset("atst-clip", "test").model, hop_samples=320, view_seconds=0.4)  # type: ignore[type-var]
    deaf = Classifier(get_method("atst-clip").build_encoder(coarse), CLASSES)
    with pytest.raises(ConfigError, match=r"hop_samples 320.*hop_samples 160.*the same front end"):
        Distillation(deaf, 0.5).check(student)


@pytest.fixture(scope="module")
def teacher(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ATST-Clip, fine-tuned on the tones from scratch for two steps."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    settings = {"batch_size": 8, "head": "batchnorm"}
    return auricle.finetune("atst-clip-test", tones, out, random_weights=0, steps=2, settings=settings, quiet=True)


def test_a_run_learns_from_its_teacher_and_resumes_to_the_same_bits(tones: Path, teacher: Path, tmp_path: Path) -> None:
    settings = {
        "distil": 0.5, "teacher_trains": True, "batch_size": 8, "head": "batchnorm", "mixup": 0.5,
        "mix_spectrograms": True, "resize_crop": True, "loss": "bce",
    }  # fmt: skip
    options: dict[str, Any] = {
        "random_weights": 0, "teacher": teacher, "settings": settings, "steps": 6, "checkpoint_every": 3, "quiet": True,
    }  # fmt: skip
    run = auricle.finetune("atst-frame-test", tones, tmp_path / "run", **options)
    said = auricle.load(run).classify(np.zeros(16000, dtype=np.float32), 16000)
    assert set(said.scores) == {"buzz", "chirp", "hiss"}
    # The teacher is not in the checkpoint.
    weights = auricle.load(run).classifier
    assert weights is not None
    assert type(weights) is Classifier
    last = run / "step-000006" / "weights.safetensors"
    before = last.read_bytes()
    for name in ("step-000006", "best"):
        for path in sorted((run / name).glob("*")) if (run / name).is_dir() else []:
            path.unlink()
        if (run / name).is_dir():
            (run / name).rmdir()
    auricle.finetune("atst-frame-test", tones, run, **options)
    assert last.read_bytes() == before


def test_a_teacher_that_knows_the_held_out_clips_is_refused(tones: Path, teacher: Path) -> None:
    settings = {"distil": 0.5}
    with pytest.raises(ConfigError, match=r"the teacher was trained on \d+ of the \d+ clips that are held out"):
        finetune.plan(
            "atst-frame-test", tones, settings=settings, teacher=teacher, random_weights=0, group_column="group"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "distil=0.5"), "distil is the share of a teacher; name a fine-tuned run with --teacher"),
        (("--teacher", "TEACHER"), "a teacher has no say without --set distil=SHARE"),
        (("--teacher", "PRETRAINED", "--set", "distil=0.5"), "is a pretraining checkpoint; fine-tune it on the same"),
    ],
)
def test_a_share_and_a_teacher_belong_together(
    options: tuple[str, ...], message: str, tones: Path, teacher: Path, pretrained: Path, cli: Callable[..., Any]
) -> None:
    places = {"TEACHER": teacher, "PRETRAINED": pretrained}
    given = [places.get(option, option) for option in options]
    end = cli("finetune", "atst-frame-test", tones, "--random-weights", 0, *given, "--out", "unused")
    assert end.code == 2
    assert message in end.err


def test_pretraining_refuses_to_accumulate_a_whole_batch(tones: Path) -> None:
    from auricle.training import pretrain

    with pytest.raises(ConfigError, match="atst-clip normalises over the whole batch"):
        pretrain.plan("atst-clip", tones, preset="test", settings={"accumulate": 2})
    loader = pretrain.build_loader(pretrain.plan("atst-clip", read_data(tones).source, preset="test"))
    assert loader.dataset.partners == 2
