"""Official SSAST checkpoints: every tensor finds its place, and a file that does not fit says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import GOLDEN
from networks import RATE, batch, descend, outputs, sounds
from official_files import HEADS, official_state
from safetensors.torch import save_file
from torch import Tensor

import auricle
from auricle.errors import CheckpointError, ConfigError
from auricle.interop.official import build, import_checkpoint, read_state, recognise
from auricle.methods.base import Imported
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.ssast import import_state, recognises
from auricle.tasks.classification import Classifier
from auricle.training.checkpoint import save_checkpoint

KEYS = GOLDEN / "ssast" / "checkpoint_keys.json"
RELEASED: dict[str, Any] = json.loads(KEYS.read_text())["layouts"] if KEYS.is_file() else {}
needs_keys = pytest.mark.skipif(not RELEASED, reason="no golden cases found; set AURICLE_GOLDEN to their folder")
ABSENT = [pytest.param("absent", marks=needs_keys)]

OPTIONS = {"heads": HEADS}
# What a fine-tuned file does not hold, for the two fine-tuning layouts.
INPUT = {"window_frames": 64, "norm_mean": -6.6, "norm_std": 5.4, "pooling": "mean"}
STRIDES = {
    "patch-finetune": {"stride_freq": 10, "stride_time": 10, **INPUT},
    "frame-finetune": {"stride_freq": 128, "stride_time": 1, **INPUT},
}


def imported(state: dict[str, Tensor], **options: Any) -> tuple[Imported, Any]:
    result = recognise(state, {**OPTIONS, **options}, "the file")
    return result, build(result).eval()


def pretrained(layout: str = "patch") -> tuple[Imported, Any]:
    return imported(official_state(layout))


def finetuned(layout: str) -> tuple[Imported, Any]:
    return imported(official_state(layout, classes=5), **STRIDES[layout])


# The released layouts ---------------------------------------------------------------------------------------------


def names_of(kind: str) -> list[Any]:
    return sorted(name for name in RELEASED if name.startswith("finetuned") == (kind == "finetuned")) or ABSENT


def released_state(layout: str, device: str) -> dict[str, Tensor]:
    numbers = {"module.p_input_fdim": 128, "module.p_input_tdim": 1024}
    state: dict[str, Tensor] = {}
    for name, shape, dtype in RELEASED[layout]:
        if name in numbers:
            assert (shape, dtype) == ([], "int64")
            state[name] = torch.tensor(numbers[name])
        else:
            state[name] = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
    return state


@pytest.mark.parametrize("released", names_of("pretrained"))
def test_every_released_layout_fits_without_options(released: str) -> None:
    state = released_state(released, "meta")
    assert len(state) == 166
    size, frequency, time = released.split("-")
    with torch.device("meta"):
        result = recognise(state, None, released)
        module = build(result)
    assert isinstance(module, MaskedPatchObjective)
    assert result.kind == "pretraining"
    assert result.preset == f"{size}-{'patch' if frequency == 'f16' else 'frame'}"
    assert result.config.kernel == result.config.stride == (int(frequency[1:]), int(time[1:]))
    assert result.config.mask_count == 400
    assert result.config.grid[0] * result.config.grid[1] == 512
    assert use_of(result) == {"weight": 160, "structure": 2, "unused": 4}
    assert_one_to_one(result, module, state)


@pytest.mark.parametrize("released", names_of("finetuned"))
def test_every_fine_tuned_layout_fits_once_strides_and_length_are_given(released: str) -> None:
    state = released_state(released, "meta")
    assert len(state) == 159
    patch = "patch" in released
    options = STRIDES["patch-finetune" if patch else "frame-finetune"] | {"window_frames": 1024 if patch else 128}
    with pytest.raises(CheckpointError, match="does not record stride_freq, stride_time, window_frames, norm_mean"):
        recognise(state, None, released)
    with torch.device("meta"):
        result = recognise(state, options, released)
        module = build(result)
    assert isinstance(module, Classifier)
    assert (result.kind, result.classes) == ("classifier", len(state["module.mlp_head.1.bias"]))
    assert use_of(result) == {"weight": 155, "unused": 4}
    assert_one_to_one(result, module, state)


def use_of(result: Imported) -> dict[str, int]:
    uses = [t.use for t in result.tensors]
    return {use: uses.count(use) for use in uses}


def assert_one_to_one(result: Imported, module: Any, state: dict[str, Tensor]) -> None:
    """Each tensor of the file is accounted for, each weight of it has one place, and each place a weight."""
    assert sorted(t.source for t in result.tensors) == sorted(name.removeprefix("module.") for name in state)
    assert sorted(t.target for t in result.tensors if t.use == "weight") == sorted(module.state_dict())


@needs_keys
def test_a_released_base_file_trains_on_after_import() -> None:
    state = released_state("base-f16-t16", "cpu")
    for value in state.values():
        if value.is_floating_point():
            value.fill_(0.01) if value.ndim == 1 else value.normal_(std=0.02)
    # A short clip, in one pass and without the padding to ten seconds, keeps this test short.
    quick = {"attend_padding": False, "passes": 1, "mask_count": 0}
    module: Any = build(recognise(state, quick, "base"))
    assert torch.equal(module.encoder.positions, state["module.v.pos_embed"])
    given = batch(*sounds([RATE // 5]))
    first, second = descend(module, given)
    assert second < first


# Every tensor counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["patch", "frame", "patch-finetune", "frame-finetune"])
def test_changing_any_tensor_changes_an_output_or_the_report_calls_it_unused(layout: str) -> None:
    classes, options = (5, STRIDES[layout]) if layout in STRIDES else (0, {})
    state = official_state(layout, classes=classes)
    report, module = imported(state, **options)
    before = outputs(module)
    fate = {"module." + t.source: t.use for t in report.tensors}
    assert fate.keys() == state.keys()
    for name, value in state.items():
        if fate[name] == "structure":
            continue
        noise = 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
        after = outputs(imported(state | {name: value + noise}, **options)[1])
        changed = any((a - b).abs().max() > 1e-4 for a, b in zip(after, before, strict=True))
        assert changed == (fate[name] == "weight"), name


@pytest.mark.parametrize("name", ["p_input_fdim", "p_input_tdim"])
def test_the_stated_input_size_must_fit_the_positions(name: str) -> None:
    state = official_state()
    state[f"module.{name}"] = state[f"module.{name}"] + 64
    with pytest.raises(CheckpointError, match=r"positions for 32 tokens, but .* give .* = \d+; is the file whole\?"):
        imported(state)


@pytest.mark.parametrize("layout", ["patch", "frame"])
def test_weights_go_where_their_names_say(layout: str) -> None:
    state, (_, module) = official_state(layout), pretrained(layout)
    for ours, theirs in {
        "encoder.positions": "v.pos_embed",
        "encoder.patch.weight": "v.patch_embed.proj.weight",
        "encoder.blocks.1.mlp.fc2.bias": "v.blocks.1.mlp.fc2.bias",
        "mask_token": "mask_embed",
        "discriminative.2.weight": "cpredlayer.2.weight",
        "generative.0.bias": "gpredlayer.0.bias",
    }.items():
        assert torch.equal(module.state_dict()[ours], state[f"module.{theirs}"]), ours


def test_the_prefix_of_data_parallel_is_optional() -> None:
    bare = outputs(imported(official_state(prefix=""))[1])
    for got, want in zip(bare, outputs(pretrained()[1]), strict=True):
        assert torch.equal(got, want)


def test_half_precision_files_are_read_as_float32() -> None:
    state = {n: x.bfloat16() if x.is_floating_point() else x for n, x in official_state().items()}
    assert {x.dtype for x in imported(state)[1].state_dict().values()} == {torch.float32}


def test_an_imported_network_keeps_the_official_padding_and_masks() -> None:
    config = pretrained()[0].config
    assert (config.attend_padding, config.mask_sampler, config.passes) == (True, "official", 2)
    # 400 of 512, of 32 tokens.
    assert config.mask_count == 25


# Fine-tuned files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", STRIDES)
def test_a_fine_tuned_file_becomes_a_classifier(layout: str) -> None:
    report, module = finetuned(layout)
    assert isinstance(module, Classifier)
    assert (report.kind, report.classes) == ("classifier", 5)
    assert module.classes == ("0", "1", "2", "3", "4")
    assert module.encoder.config.stride == (STRIDES[layout]["stride_freq"], STRIDES[layout]["stride_time"])


def test_a_file_fine_tuned_on_audioset_becomes_a_tagger(tmp_path: Path) -> None:
    torch.save(official_state("patch-finetune", classes=5), tmp_path / "official.pth")
    options = {**STRIDES["patch-finetune"], **OPTIONS}
    path = import_checkpoint(tmp_path / "official.pth", tmp_path / "out", options=options, task="tagging").path
    scores = auricle.load(path).classify(torch.randn(16000), RATE).scores
    assert auricle.load(path).task == "tagging"
    assert sum(scores.values()) != pytest.approx(1)


@pytest.mark.parametrize("missing", [["stride_time"], ["norm_mean", "norm_std"], ["pooling"], ["window_frames"]])
def test_a_fine_tuned_file_asks_for_exactly_what_is_missing(missing: list[str]) -> None:
    options = {key: value for key, value in STRIDES["patch-finetune"].items() if key not in missing}
    with pytest.raises(CheckpointError) as raised:
        imported(official_state("patch-finetune", classes=5), **options)
    message = str(raised.value)
    assert f"does not record {', '.join(missing)}; give each with --set" in message
    hints = {
        "stride_time": "stride_time=10",
        "norm_mean": "ESC-50: norm_mean=-6.6268077 norm_std=5.358466; Speech Commands: norm_mean=-6.845978",
        "pooling": "pooling=mean",
        "window_frames": "AudioSet: window_frames=1024; ESC-50: window_frames=512",
    }
    assert [name for name, hint in hints.items() if hint in message] == missing[:1]
    assert "--set" not in message.replace("--set KEY=VALUE", "")


def test_a_fine_tuned_file_of_unknown_width_asks_for_its_heads_too() -> None:
    options = {name: value for name, value in STRIDES["frame-finetune"].items() if name != "pooling"}
    with pytest.raises(CheckpointError, match="does not record heads, pooling;"):
        import_state(official_state("frame-finetune", classes=5), options)


def test_statistics_and_pooling_of_a_fine_tuned_file_are_those_given() -> None:
    options = STRIDES["frame-finetune"] | {"pooling": "prefix"}
    report, module = imported(official_state("frame-finetune", classes=5), **options)
    assert (module.encoder.config.norm_mean, module.encoder.config.pooling) == (-6.6, "prefix")
    assert not report.assumed


def test_a_pretraining_file_has_the_official_statistics_and_says_that_they_are_assumed(tmp_path: Path) -> None:
    torch.save(official_state(), tmp_path / "official.pth")
    report = import_checkpoint(tmp_path / "official.pth", tmp_path / "out", options=OPTIONS)
    (line,) = [line for line in report.lines() if "assumed" in line]
    assert "norm_mean=-4.2677393, norm_std=4.5689974 (AudioSet and LibriSpeech" in line
    assert json.loads((report.path / "config.json").read_text())["imported"]["assumed"] in line
    given = imported(official_state(), norm_mean=-5.0, norm_std=4.0)[0]
    assert (given.config.norm_mean, given.assumed) == (-5.0, "")


def test_wrong_strides_are_noticed() -> None:
    options = STRIDES["patch-finetune"] | {"stride_time": 16}
    with pytest.raises(
        CheckpointError, match=r"for 60 tokens, but 128 mel bins x 64 frames with .* correct the --set options\."
    ):
        imported(official_state("patch-finetune", classes=5), **options)


def test_label_names_must_be_as_many_as_the_classes() -> None:
    report, _ = finetuned("patch-finetune")
    with pytest.raises(CheckpointError, match="mine has 5 classes, but 2 names were given"):
        build(report, ["cat", "dog"], "mine")


# Files that do not fit --------------------------------------------------------------------------------------------


def test_a_width_that_was_never_released_needs_its_heads() -> None:
    with pytest.raises(CheckpointError, match="width 24 was never released; give it with --set heads=H"):
        import_state(official_state())


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.removeprefix("module.") not in names}


@pytest.mark.parametrize("name", ["v.pos_embed", "v.patch_embed.proj.weight", "v.norm.weight"])
def test_a_file_without_the_tensors_that_give_the_structure_is_named_incomplete(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"lacks '{name}'; is the file complete"):
        imported(without(official_state(), name))


def test_a_file_without_blocks_is_named_incomplete() -> None:
    state = {name: value for name, value in official_state().items() if ".blocks." not in name}
    with pytest.raises(CheckpointError, match=r"has no v\.blocks"):
        imported(state)


@pytest.mark.parametrize("name", ["v.blocks.1.mlp.fc1.bias", "v.cls_token", "cpredlayer.0.weight"])
def test_a_missing_tensor_is_named_by_our_name(name: str) -> None:
    ours = {"v.cls_token": "encoder.cls_token", "cpredlayer.0.weight": "discriminative.0.weight"}
    with pytest.raises(CheckpointError, match=r"the file does not fit the network: 1 missing tensor \(.*\)") as raised:
        imported(without(official_state(), name))
    assert ours.get(name, name.replace("v.", "encoder.")) in str(raised.value)


def test_missing_tensors_are_counted_and_ten_are_named() -> None:
    state = {name: value for name, value in official_state().items() if ".blocks.0." not in name}
    with pytest.raises(CheckpointError, match=r"12 missing tensors") as raised:
        imported(state)
    assert str(raised.value).count("encoder.blocks.0.") == 10


@pytest.mark.parametrize("name", ["v.blocks.0.attn.relative_bias", "v.gate.weight", "classifier.weight"])
def test_an_unknown_tensor_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match="1 unknown tensor") as raised:
        imported(official_state() | {f"module.{name}": torch.zeros(3)})
    assert name.removeprefix("v.") in str(raised.value)


def test_a_wrong_shape_is_named() -> None:
    state = official_state() | {"module.v.blocks.0.mlp.fc1.bias": torch.zeros(7)}
    with pytest.raises(CheckpointError, match="1 tensor of another shape") as raised:
        imported(state)
    both = "v.blocks.0.mlp.fc1.bias as encoder.blocks.0.mlp.fc1.bias"
    assert f"({both}: [7], expected [{len(official_state()['module.v.blocks.0.mlp.fc1.bias'])}])" in str(raised.value)


@pytest.mark.parametrize("name", ["v.pos_embed", "v.patch_embed.proj.weight"])
def test_a_tensor_of_the_wrong_rank_is_refused_with_its_shape(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"\(3, 4\).*is the file damaged"):
        imported(official_state() | {f"module.{name}": torch.zeros(3, 4)})


def test_other_networks_are_not_taken_for_ssast() -> None:
    assert recognises(official_state())
    assert not recognises({"module.v.cls_token": 0, "mask_embed": 0})
    with pytest.raises(CheckpointError, match=r"other\.pth is no checkpoint of ssast.*first tensors are conv\.weight"):
        recognise({"conv.weight": torch.zeros(1)}, None, "other.pth")


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("layout", ["patch", "frame", "patch-finetune", "frame-finetune"])
def test_import_save_and_load_give_the_same_outputs(layout: str, suffix: str, tmp_path: Path) -> None:
    classes, options = (5, STRIDES[layout]) if layout in STRIDES else (0, {})
    state, file = official_state(layout, classes=classes), tmp_path / f"official{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    names = ["a", "b", "c", "d", "e"][:classes]
    report = import_checkpoint(file, tmp_path / "model", options=OPTIONS | options, classes=names)
    assert report.lines()[-1].startswith(f"{len(state)} tensors: ")
    assert report.lines()[-2] == "as in the official code: channel=0, attend_padding=True"
    loaded = auricle.load(report.path)
    _, direct = imported(state, **options)
    again = loaded.classifier if classes else loaded.objective
    assert again is not None
    for got, want in zip(outputs(again), outputs(direct), strict=True):
        assert torch.equal(got, want)
    wave = sounds([RATE])[0][0].numpy()
    assert np.isfinite(loaded.embed(wave, RATE).clip).all()
    assert loaded.classes == tuple(names)
    if classes:
        assert loaded.classify(wave, RATE).label in names


def test_a_file_wrapped_by_a_trainer_is_unwrapped(tmp_path: Path) -> None:
    file = tmp_path / "wrapped.pth"
    torch.save({"epoch": 3, "state_dict": official_state()}, file)
    assert read_state(file).keys() == official_state().keys()


def test_a_tensor_with_nan_is_named_as_the_file_names_it(tmp_path: Path) -> None:
    state = official_state()
    state["module.v.norm.bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"holds NaN or infinity in 1 tensor \(v\.norm\.bias\)\.$"):
        import_checkpoint(tmp_path / "nan.pth", tmp_path / "own", options=OPTIONS)


def test_files_that_cannot_be_used_are_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(official_state(), whole)
    cases = {
        "absent.pth": (None, "no such file"),
        "cut.pth": (whole.read_bytes()[:-3000], "damaged, or only a part of it was downloaded; download it again"),
        "half.pth": (whole.read_bytes()[: whole.stat().st_size // 2], r"\([\d,]+ bytes\) cannot be read"),
        "empty.pth": (b"", r"\(0 bytes\) cannot be read as a checkpoint"),
        "page.pth": (b"<!DOCTYPE html><html>not found</html>", "is not a checkpoint, is damaged"),
        "cut.safetensors": (b"\x00" * 40, "cannot be read as a checkpoint"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as raised:
            import_checkpoint(tmp_path / name, tmp_path / "out")
        assert name in str(raised.value)
        for internal in ("Pytorch", "RuntimeError", "archive", "weights_only", "pickle", "\n", "Safetensor"):
            assert internal not in str(raised.value)
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pth")
    with pytest.raises(CheckpointError, match=r"holds 1 value beside tensors \(epoch\)"):
        read_state(tmp_path / "mixed.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds list, expected a mapping"):
        read_state(tmp_path / "list.pth")
    assert not (tmp_path / "out").exists()


def test_a_file_that_could_run_code_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "hook": Trap(tmp_path / "sprung")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="holds objects that could run code"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.file,)


def test_tensors_that_repeat_a_few_stored_bytes_are_refused(tmp_path: Path) -> None:
    torch.save({"module.v.norm.weight": torch.zeros(1).expand(10**12)}, tmp_path / "hollow.pth")
    with pytest.raises(CheckpointError, match=r"fewer values are stored than 1 tensor should have \(module\.v\.norm"):
        read_state(tmp_path / "hollow.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 10**9}, "width must be at most 65,536, got 1,000,000,000"),
        ({"depth": 10**9}, "depth must be at most 1,000"),
        ({"width": 48_000, "depth": 12}, "make 331,776,000,000 weights; at most 10,000,000,000"),
        ({"width": 24_000, "depth": 1}, r"does not fit the network: .* tensors of another shape"),
        ({"window_frames": 900_000}, r"does not fit the network: 1 tensor of another shape \(encoder\.positions: \["),
    ],
)
def test_a_forged_size_is_refused_before_it_is_allocated(
    change: dict[str, int], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(official_state(), tmp_path / "official.pth")
    report = import_checkpoint(tmp_path / "official.pth", tmp_path / "own", options=OPTIONS)
    config = json.loads((report.path / "config.json").read_text())
    config["model"] |= change
    forged = save_checkpoint(tmp_path, "forged", weights=read_state(report.path / "weights.safetensors"), config=config)
    most = 0
    allocate = torch.empty

    def watched(*size: Any, **options: Any) -> Tensor:
        nonlocal most
        made = allocate(*size, **options)
        if made.device.type != "meta":
            most = max(most, made.numel())
        return made

    monkeypatch.setattr(torch, "empty", watched)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        auricle.load(forged)
    assert most < 10**6


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "official.pth"
    torch.save(official_state(), file)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(CheckpointError, match="not an empty directory"):
        import_checkpoint(file, tmp_path / "out", options=OPTIONS)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
