"""ASiT's checkpoints as they circulate: every layout finds its place, and a file that does not fit says why."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from asit_files import COLUMNS, HEADS, finetuned_state, network_state, training_file, vit_state
from goldens import GOLDEN
from torch import Tensor

import auricle
from auricle.errors import CheckpointError
from auricle.interop.official import build, import_checkpoint, read_state, recognise
from auricle.methods import get_method
from auricle.methods.asit import ASiTEncoder, ASiTObjective
from auricle.methods.base import EncoderOnly, Imported
from auricle.nn.patches import time_major
from auricle.tasks.classification import Classifier

KEYS = GOLDEN / "asit" / "checkpoint_keys.json"
RELEASED: dict[str, Any] = json.loads(KEYS.read_text())["checkpoints"] if KEYS.is_file() else {}
needs_keys = pytest.mark.skipif(not RELEASED, reason="no golden cases found; set AURICLE_GOLDEN to their folder")
OPTIONS = {"heads": HEADS}
TUNED = OPTIONS | {"stride_freq": 10, "stride_time": 10, "norm_mean": -6.6, "norm_std": 5.4}


def flat(file: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{branch}/{name}": value for branch, part in file.items() for name, value in part.items()}


def published(name: str) -> dict[str, Tensor]:
    """A file's tensors in their published names and shapes, without values."""
    entry = RELEASED[name]
    found = [(key.replace("(module.)(backbone.)", ""), shape) for key, shape, _ in entry["tensors"]]
    found += [(f"{part}/{key}", shape) for part in ("loss_cls", "loss_data") for key, shape, _ in entry.get(part, ())]
    with torch.device("meta"):
        return {key: torch.empty([527 if size == "n_weak" else size for size in shape]) for key, shape in found}


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


# What is published ------------------------------------------------------------------------------------------------


@needs_keys
@pytest.mark.parametrize("name", RELEASED or ["absent"])
def test_every_tensor_of_a_published_file_finds_its_place(name: str) -> None:
    state = published(name)
    imported = recognise(state, None, name)
    training = name.startswith("training")
    detector = "PretrainedSED" in name
    kind = "pretraining" if training else "detector" if detector else "encoder"
    assert (imported.method, imported.kind, imported.classes) == ("asit", kind, 447 if detector else 0)
    assert imported.preset == ("small" if name.endswith("small") else "base")
    assert {t.source for t in imported.tensors} == set(state)
    assert imported.config.position_layout == ("swapped" if detector else "learned")
    with torch.device("meta"):
        method = get_method("asit")
        module = (
            method.build_objective(imported.config) if training else EncoderOnly(method.build_encoder(imported.config))
        )
    head = {"head.linear.weight": (447, 768), "head.linear.bias": (447,)} if detector else {}
    assert shapes(imported.state) == shapes(module.state_dict()) | head
    if training:
        counts = [sum(p.numel() for p in part.parameters()) for part in (module.encoder, module.student)]
        assert counts == [RELEASED[name]["parameters"][part] for part in ("backbone", "full")]


# Training files ---------------------------------------------------------------------------------------------------


def whole() -> tuple[Imported, ASiTObjective]:
    imported = recognise(flat(training_file()), OPTIONS, "file")
    module = build(imported)
    assert isinstance(module, ASiTObjective)
    return imported, module


def test_a_training_file_becomes_the_objective_with_teacher_and_centres() -> None:
    file, (imported, module) = training_file(), whole()
    for ours, theirs in (
        ("", file["teacher"]),
        ("student.", {k.removeprefix("module."): v for k, v in file["student"].items()}),
    ):
        assert torch.equal(
            module.get_parameter(f"{ours}encoder.blocks.1.mlp.fc1.weight"), theirs["backbone.blocks.1.mlp.fc1.weight"]
        )
        assert torch.equal(
            module.get_parameter(f"{ours}projector.clip.weight_g"), theirs["head_cls.cls_layer.weight_g"]
        )
        assert torch.equal(module.get_parameter(f"{ours}decoder.mlp.4.bias"), theirs["head_recons.mlp.4.bias"])
    assert module.clip_centre.mean.shape == (1, 20)
    assert module.patch_centre.mean.shape == (1, 10)
    assert imported.config.reconstruct_over == "pixels"
    assert not any(p.requires_grad for p in module.encoder.parameters())


def test_images_and_tokens_are_turned_over() -> None:
    file, (imported, module) = training_file(), whole()
    theirs, encoder = file["teacher"], module.encoder
    assert torch.equal(encoder.patch.weight, theirs["backbone.patch_embed.proj.weight"].transpose(2, 3))
    assert imported.config.grid == (8, COLUMNS)
    # Row 3, column 2 of ours is the token of time 2 and frequency 3 of theirs.
    assert torch.equal(encoder.positions[0, 1 + 3 * COLUMNS + 2], theirs["backbone.pos_embed"][0, 1 + 2 * 8 + 3])
    assert torch.equal(encoder.positions[0, 0], theirs["backbone.pos_embed"][0, 0])
    assert torch.equal(time_major(encoder.positions[:, 1:], (8, COLUMNS)), theirs["backbone.pos_embed"][:, 1:])


def test_the_file_of_the_authors_loop_is_read_with_all_that_it_holds(tmp_path: Path) -> None:
    others = {
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 7,
        "args": argparse.Namespace(seed=0, secs_per_crop=6.0),
        "fp16_scaler": {"scale": 65536.0},
    }
    torch.save(training_file() | others, tmp_path / "checkpoint.pth")
    assert read_state(tmp_path / "checkpoint.pth").keys() == flat(training_file()).keys()
    report = import_checkpoint(tmp_path / "checkpoint.pth", tmp_path / "out", options=OPTIONS)
    lines = "\n".join(report.lines())
    assert "sample_rate=16000 (that of the weights that circulate; the official code says 32000" in lines
    assert "as in the official code: channel=0, attend_padding=True" in lines
    wave = 0.1 * torch.randn(16000).numpy()
    assert auricle.load(report.path).embed(wave, 16000).clip.shape == (24,)


@pytest.mark.parametrize(
    "prefix", ["teacher/module.backbone.", "teacher/backbone.", "teacher/", "teacher/module.", "module.", ""]
)
def test_a_network_alone_is_an_encoder(prefix: str) -> None:
    imported = recognise(vit_state(prefix), OPTIONS, "file")
    assert imported.kind == "encoder"
    module = build(imported)
    assert torch.equal(module.get_parameter("encoder.norm.bias"), vit_state(prefix)[f"{prefix}norm.bias"])


def test_a_file_without_centres_is_an_encoder_and_says_what_it_leaves() -> None:
    file = flat(training_file() | {"loss_cls": {}, "loss_data": {}})
    imported = recognise(file, OPTIONS, "file")
    assert imported.kind == "encoder"
    left = {t.source.partition("/")[0]: t.note for t in imported.tensors if t.use == "unused"}
    assert left["student"] == "the student; the teacher is what is evaluated"
    assert "a head of pretraining" in left["teacher"]


def test_a_student_alone_will_do() -> None:
    imported = recognise(flat({"student": network_state("module.")}), OPTIONS, "file")
    assert torch.equal(imported.state["encoder.norm.weight"], network_state("module.")["module.backbone.norm.weight"])


def test_the_sample_rate_is_a_property_of_the_weights() -> None:
    imported = recognise(vit_state(), OPTIONS | {"sample_rate": 32000}, "file")
    encoder = build(imported).get_submodule("encoder")
    assert isinstance(encoder, ASiTEncoder)
    assert encoder.sample_rate == 32000
    assert encoder.frontend.fft_size == 1024
    assert "sample_rate" not in imported.assumed


# Detectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["model.", "model.asit.", "asit."])
def test_the_network_of_a_detector_has_its_positions_swapped(prefix: str) -> None:
    state = {name.replace("model.", prefix): value for name, value in vit_state("model.").items()}
    imported = recognise(state, OPTIONS, "file")
    assert (imported.kind, imported.config.position_layout, imported.config.heard_frames) == ("encoder", "swapped", 998)
    assert "axes swapped" in {t.source: t.note for t in imported.tensors}[f"{prefix}pos_embed"]


def test_a_bare_file_of_a_detector_needs_the_word() -> None:
    assert recognise(vit_state(), OPTIONS, "file").config.position_layout == "learned"
    assert recognise(vit_state(), OPTIONS | {"compat": "pretrainedsed"}, "file").config.position_layout == "swapped"


# Fine-tuned files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.v.", "v.", "pretrained."])
def test_a_fine_tuned_file_becomes_a_classifier(prefix: str) -> None:
    state = finetuned_state(prefix)
    imported = recognise(state, TUNED, "file")
    module = build(imported, tuple("abcde"))
    assert isinstance(module, Classifier)
    assert imported.config.grid == (12, 9)
    assert imported.config.window_frames == 96
    assert torch.equal(
        module.get_parameter("head.linear.bias"),
        state[f"{prefix.removesuffix('v.').removesuffix('pretrained.')}mlp_head.1.bias"],
    )


def test_a_fine_tuned_file_asks_for_what_it_does_not_hold() -> None:
    with pytest.raises(
        CheckpointError, match=r"does not record stride_freq, stride_time, norm_mean, norm_std; give each"
    ):
        recognise(finetuned_state(), OPTIONS, "file")


# Files that do not fit --------------------------------------------------------------------------------------------


def test_a_width_that_was_never_released_needs_its_heads() -> None:
    with pytest.raises(CheckpointError, match="width 24 was never released; give it with --set heads=H"):
        recognise(vit_state(), None, "file")


@pytest.mark.parametrize("name", ["norm.weight", "norm.bias", "blocks.1.attn.proj.bias"])
def test_a_missing_tensor_is_named(name: str) -> None:
    state = {key: value for key, value in vit_state().items() if key != name}
    with pytest.raises(CheckpointError, match=f"lacks '{name}'|1 missing .*{name}"):
        build(recognise(state, OPTIONS, "file"))


def test_a_training_file_without_a_head_is_incomplete() -> None:
    file = training_file()
    del file["teacher"]["head_recons.mlp.0.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'head_recons\.mlp\.0\.weight'; is the file complete"):
        recognise(flat(file), OPTIONS, "file")


def test_an_unknown_tensor_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"1 unknown tensor: blocks\.0\.attn\.gate"):
        recognise(vit_state() | {"blocks.0.attn.gate": torch.zeros(3)}, OPTIONS, "file")


@pytest.mark.parametrize("name", ["pos_embed", "patch_embed.proj.weight"])
def test_a_tensor_of_the_wrong_rank_is_refused_with_its_shape(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"\(3, 4\).*is the file damaged"):
        recognise(vit_state() | {name: torch.zeros(3, 4)}, OPTIONS, "file")


def test_positions_must_fit_the_settings() -> None:
    with pytest.raises(CheckpointError, match="positions for 48 tokens, but 112 mel bins"):
        recognise(vit_state(), OPTIONS | {"mel_bins": 112}, "file")


def test_a_network_with_a_distillation_token_is_not_taken() -> None:
    assert get_method("asit").recognises(vit_state())
    assert not get_method("asit").recognises(vit_state() | {"dist_token": torch.zeros(1, 1, 24)})
