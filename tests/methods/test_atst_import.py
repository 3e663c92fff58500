"""Official ATST checkpoints: every layout that circulates finds its place, and a file that does not fit says why."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atst_files import HEADS, encoder_state, head_state, mlp_state, training_state
from goldens import GOLDEN
from torch import Tensor

import auricle
from auricle.data.batch import Batch, Stream
from auricle.data.randomness import Draw
from auricle.errors import CheckpointError, ConfigError
from auricle.interop.official import build, import_checkpoint, recognise
from auricle.methods import get_method, get_preset
from auricle.methods.atst.config import ATSTConfig, FrameConfig
from auricle.methods.atst.objective import ATSTObjective, FrameObjective
from auricle.methods.base import EncoderOnly
from auricle.tasks.classification import Classifier
from auricle.training.optim import build_optimizer, set_rates

KEYS = GOLDEN / "atst" / "checkpoint_keys.json"
RELEASED: dict[str, Any] = json.loads(KEYS.read_text())["checkpoints"] if KEYS.is_file() else {}
needs_keys = pytest.mark.skipif(not RELEASED, reason="no golden cases found; set AURICLE_GOLDEN to their folder")
OPTIONS = {"heads": HEADS}
KINDS = pytest.mark.parametrize("kind", ["clip", "frame"])


def released(name: str) -> dict[str, Tensor]:
    """A file's tensors in their published names and shapes, without values."""
    with torch.device("meta"):
        return {key: torch.empty(shape) for key, shape, _ in RELEASED[name]["tensors"]}


@needs_keys
@pytest.mark.parametrize("name", RELEASED or ["absent"])
def test_every_tensor_of_a_released_file_finds_its_place(name: str) -> None:
    state = released(name)
    imported = recognise(state, None, name)
    assert imported.method == module_name(name)
    assert imported.preset == name.rsplit("_", 1)[1]
    assert {t.source for t in imported.tensors} == set(state)
    with torch.device("meta"):
        method = get_method(imported.method)
        if imported.kind == "pretraining":
            wanted = method.build_objective(imported.config).state_dict()
        else:
            wanted = EncoderOnly(method.build_encoder(imported.config)).state_dict()
    assert {n: tuple(x.shape) for n, x in imported.state.items()} == {n: tuple(x.shape) for n, x in wanted.items()}
    # DINO's layout holds heads of which nobody has verified the names.
    assert imported.kind == ("encoder" if name == "atst_clip_base" else "pretraining")


@KINDS
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_training_file_becomes_the_objective_with_its_teacher(kind: str, prefix: str) -> None:
    state = training_state(kind, prefix)
    module = build(recognise(state, OPTIONS, "file"))
    assert isinstance(module, ATSTObjective)
    block = "blocks.1.mlp.fc1.weight"
    for ours, theirs in (("encoder", "teacher.encoder"), ("student.encoder", "student.encoder")):
        assert torch.equal(module.get_parameter(f"{ours}.{block}"), state[f"{prefix}{theirs}.{block}"])
        assert torch.equal(module.get_parameter(f"{ours}.positions"), state[f"{prefix}{theirs}.pos_embed"])
    assert module.config.projector_hidden == 16
    assert int(module.student.projector[1].num_batches_tracked) == 7
    if isinstance(module, FrameObjective):
        assert torch.equal(module.student.mask_token.weight, state[f"{prefix}student.encoder.mask_embed"])
    assert not any(p.requires_grad for p in module.encoder.parameters())


@KINDS
@pytest.mark.parametrize(
    "prefix",
    [
        *("model.teacher.encoder.", "model.student.encoder.", "encoder.encoder.", "encoder.encoder.frame_encoder."),
        *("module.backbone.", "model.atst.", "teacher.encoder.", "student.encoder.", "encoder.", ""),
    ],
)
def test_an_encoder_alone_is_known_under_all_its_names(kind: str, prefix: str) -> None:
    state = encoder_state(kind, prefix)
    imported = recognise(state, OPTIONS, "file")
    assert imported.kind == "encoder"
    module = build(imported)
    assert torch.equal(module.get_parameter("encoder.norm.weight"), state[f"{prefix}{norm(kind)}.weight"])


def norm(kind: str) -> str:
    return "norm" if kind == "clip" else "norm_frame"


@KINDS
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_the_student_of_a_training_file_is_the_encoder_where_it_is_alone(kind: str, prefix: str) -> None:
    state = {name: value for name, value in training_state(kind, prefix).items() if f"{prefix}student." in name}
    imported = recognise(state, OPTIONS, "file")
    assert (imported.method, imported.kind) == (f"atst-{kind}", "encoder")
    module, block = build(imported), "blocks.1.mlp.fc1.weight"
    assert torch.equal(module.get_parameter(f"encoder.{block}"), state[f"{prefix}student.encoder.{block}"])
    notes = {t.note for t in imported.tensors if t.use == "unused"}
    assert not any("the student" in note for note in notes)
    assert any("auricle takes the encoder" in note for note in notes)


@pytest.mark.parametrize(("kind", "width"), [("clip", 48), ("frame", 24)])
def test_a_fine_tuned_file_becomes_a_classifier(kind: str, width: int) -> None:
    state = encoder_state(kind, "encoder.encoder.") | head_state(5, width)
    module = build(recognise(state, OPTIONS, "file"), tuple("abcde"), task="tagging")
    assert isinstance(module, Classifier)
    assert torch.equal(module.get_parameter("head.linear.weight"), state["head.linear.weight"])
    assert module.encoder.config.chunking == "downstream"  # type: ignore[attr-defined]


def test_a_distilled_file_is_the_student_and_says_what_it_leaves() -> None:
    teacher = {f"teacher.{name}": value for name, value in encoder_state("clip", "encoder.").items()}
    state = encoder_state("frame", "student.") | head_state(5, 24, "linear.") | teacher
    imported = recognise(state, OPTIONS, "file")
    assert (imported.method, imported.kind, imported.classes) == ("atst-frame", "classifier", 5)
    assert {t.note for t in imported.tensors if t.source.startswith("teacher")} == {
        "the network that it was distilled from"
    }


def test_heads_for_each_time_step_of_the_clip_network_are_left_out_by_name() -> None:
    state = encoder_state("clip", "model.atst.") | {
        "strong_head.weight": torch.zeros(7, 24),
        "model.atst_mel.mel_basis": torch.zeros(3),
    }
    imported = recognise(state, OPTIONS, "file")
    assert imported.kind == "encoder"
    left = {t.source: t.note for t in imported.tensors if t.use == "unused"}
    assert left["strong_head.weight"].startswith("a head for each time step")
    assert left["model.atst_mel.mel_basis"].startswith("the front end")


def test_files_are_read_as_their_trainers_write_them(tmp_path: Path) -> None:
    lightning = {
        "epoch": 3,
        "state_dict": training_state("frame"),
        "hyper_parameters": {"learning_rate": np.float64(0.1), "anchor_len": [6.0]},
        "optimizer_states": [],
    }
    torch.save(lightning, tmp_path / "lightning.ckpt")
    branches = {
        branch: encoder_state("clip", "module.backbone.") | {"module.head.0.weight": torch.zeros(1)}
        for branch in ("student", "teacher")
    }
    arguments = argparse.Namespace(arch="ast_base", anchor_len=[6.0])
    torch.save({**branches, "epoch": 5, "args": arguments, "byol_loss": {}}, tmp_path / "dino.ckpt")
    for file, kind in (("lightning.ckpt", "pretraining"), ("dino.ckpt", "encoder")):
        report = import_checkpoint(tmp_path / file, tmp_path / kind, options=OPTIONS)
        assert report.imported.kind == kind
        assert any(line.startswith("assumed, not in the file: fft_window=1024") for line in report.lines())
        assert any(line == "settings in the file: anchor_len=6 s" for line in report.lines())
        assert auricle.load(report.path).embed(np.zeros(16000, dtype=np.float32), 16000).clip.shape == (24,)
    notes = {t.note for t in report.imported.tensors}
    assert "the student; the teacher is what is evaluated" in notes


def lightning_file(path: Path, state: dict[str, Tensor], **values: Any) -> Path:
    torch.save({"state_dict": state, "hyper_parameters": {"learning_rate": 0.1, **values}}, path)
    return path


def test_a_file_says_its_windows_mel_bins_and_chunks(tmp_path: Path) -> None:
    values = {"win_length": 640, "n_mels": 128, "patch_h": 64, "patch_w": 4, "anchor_len": np.float64(0.5)}
    file = lightning_file(tmp_path / "frame.ckpt", training_state("frame"), **values)
    report = import_checkpoint(file, tmp_path / "frame", options={**OPTIONS, "chunking": "downstream"})
    config = report.imported.config
    assert isinstance(config, FrameConfig)
    # Twenty positions in two rows of 64 mel bins.
    assert (config.fft_window, config.mel_bins, config.grid) == (640, 128, (2, 10))
    # The table of positions is shorter than a chunk.
    assert (config.chunk_frames, config.chunk, config.view_seconds) == (51, 41, 0.4)
    assert report.imported.assumed == ""
    assert "win_length=640 (fft_window), n_mels=128 (mel_bins)" in report.imported.stated
    assert auricle.load(report.path).embed(np.zeros(16000, dtype=np.float32), 16000).clip.shape == (24,)


@pytest.mark.parametrize(
    ("kind", "classes", "chunking", "frames"),
    [
        ("clip", 0, "downstream", 901),  # the published linear probe reads train_len
        ("clip", 5, "downstream", 601),  # the published fine-tuning does not
        ("frame", 0, "scene", 1001),  # nor does get_scene_embedding
        ("frame", 5, "downstream", 901),
    ],
)
def test_the_length_of_views_is_that_of_chunks_where_it_is_officially(
    kind: str, classes: int, chunking: str, frames: int
) -> None:
    state = training_state(kind)
    if classes:
        state = encoder_state(kind, "encoder.encoder.") | head_state(classes, 48 if kind == "clip" else 24)
    imported = recognise(state, OPTIONS, "file", {"train_len" if kind == "clip" else "anchor_len": 9.0})
    config = imported.config
    assert isinstance(config, ATSTConfig)
    assert (config.chunking, config.chunk_frames) == (chunking, frames)
    assert imported.assumed == "fft_window=1024 (the official default)"


def test_what_is_given_goes_before_what_the_file_says() -> None:
    nonsense = {"win_length": "long", "train_len": 9.0}
    given = {**OPTIONS, "fft_window": 800, "chunk_frames": 301}
    imported = recognise(encoder_state("clip"), given, "file", nonsense)
    assert isinstance(imported.config, ATSTConfig)
    assert (imported.config.fft_window, imported.config.chunk_frames) == (800, 301)
    assert imported.assumed == ""
    with pytest.raises(CheckpointError, match=r"win_length='long', expected a positive number; give"):
        recognise(encoder_state("clip"), OPTIONS, "file", nonsense)
    with pytest.raises(CheckpointError, match=r"n_mels=64\.5, but it must be a whole number"):
        recognise(encoder_state("clip"), OPTIONS, "file", {"n_mels": 64.5})


def test_a_classifier_survives_the_import_on_disk(tmp_path: Path) -> None:
    state = encoder_state("clip", "encoder.encoder.") | head_state(3, 48)
    torch.save({"state_dict": state}, tmp_path / "tuned.ckpt")
    report = import_checkpoint(tmp_path / "tuned.ckpt", tmp_path / "tuned", options=OPTIONS, classes=("a", "b", "c"))
    wave = np.random.default_rng(0).standard_normal(20000).astype(np.float32) * 0.1
    said = auricle.load(report.path).classify(wave, 16000)
    assert set(said.scores) == {"a", "b", "c"}
    assert sum(said.scores.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s, {}, "width 24 was never released"),
        (lambda s: s | {"stranger": torch.zeros(1)}, OPTIONS, "1 unknown tensor: stranger"),
        (lambda s: {k: v for k, v in s.items() if "pos_embed" not in k}, OPTIONS, "lacks positions or blocks"),
        (lambda s: s, {**OPTIONS, "patch_time": 8}, "patches of 256 values .* correct the --set options"),
        (lambda s: s, {**OPTIONS, "nonsense": 1}, "unknown key 'nonsense'"),
        (
            lambda s: {k: v for k, v in s.items() if "blocks.0.norm1.bias" not in k},
            OPTIONS,
            "encoder.blocks.0.norm1.bias",
        ),
    ],
)
def test_a_file_that_does_not_fit_says_why(change: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=message):
        build(recognise(change(encoder_state("frame")), options, "file"))


def test_positions_of_several_rows_change_their_order() -> None:
    # Official tokens run through the rows of a column first, ours through the columns of a row.
    state = encoder_state("clip", columns=12)
    options = {**OPTIONS, "patch_freq": 16, "patch_time": 16}
    module = build(recognise(state, options, "file"))
    assert module.encoder.config.grid == (4, 3)  # type: ignore[union-attr]
    ours = module.get_parameter("encoder.positions")[0, 1:].view(4, 3, -1)
    theirs = state["pos_embed"][0, 1:].view(3, 4, -1)
    assert torch.equal(ours, theirs.transpose(0, 1))


def test_other_files_are_not_taken_for_atst() -> None:
    for name in ("atst-clip", "atst-frame"):
        assert not get_method(name).recognises(mlp_state("model.student.projector", 4))
    assert not get_method("atst-clip").recognises(encoder_state("frame"))
    assert not get_method("atst-frame").recognises(encoder_state("clip"))


@needs_keys
@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED or ["absent"])
def test_a_released_size_is_imported_and_trains_a_step(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {key: 0.02 * torch.randn(shape, generator=generator).abs() for key, shape, _ in RELEASED[name]["tensors"]}
    imported = recognise(state, None, name)
    module = build(imported)
    if isinstance(module, EncoderOnly):
        # DINO's layout gives an encoder alone; teacher and student both begin with it.
        objective = get_method(imported.method).build_objective(imported.config)
        for encoder in objective.encoders:
            encoder.load_state_dict(module.encoder.state_dict())
        module = objective
    assert isinstance(module, ATSTObjective)
    module.train()
    recipe = get_preset(module_name(name), name.rsplit("_", 1)[1]).pretrain
    optimizer = build_optimizer(module, recipe)
    waves = 0.1 * torch.randn(2, 160_000, generator=generator)
    audio = {"audio": Stream(waves, torch.tensor([160_000, 150_000]), 16000)}
    before = module.get_parameter("encoder.blocks.11.mlp.fc2.weight").clone()
    result = module(Batch(audio, Draw(0, (0, 0), (0, 1)), ("a", "b")), 0.0)
    result["loss"].backward()
    set_rates(optimizer, recipe.lr, recipe.weight_decay)
    optimizer.step()
    module.after_step(0.0)
    assert result["loss"].isfinite()
    assert not torch.equal(module.get_parameter("encoder.blocks.11.mlp.fc2.weight"), before)


def module_name(file: str) -> str:
    return "atst-clip" if "clip" in file else "atst-frame"
