"""Cases that nobody published: other labels, sizes, seeds and options must give other answers, of the right shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import Change, altered, cases_of, each_case, keep, twin
from safetensors.torch import load_file, save_file
from torch import Tensor


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {n for n, x in before.items() if x.shape != after[n].shape or not torch.allclose(x, after[n], atol=1e-5)}


FRONTEND = cases_of("frontend")
SUPERB = {"superb_feat_a_pad", "superb_feat_a_cut"}


@each_case(FRONTEND)
def test_labels_are_what_the_case_says(case: Path, tmp_path: Path) -> None:
    def relabel(meta: dict[str, Any]) -> None:
        meta["tensors"]["label_mix_*"] = "soft labels over [/m/x,/m/y,/m/z,/m/w]; items: a=/m/w  b=/m/y,/m/w"

    got = twin(case, tmp_path, relabel)
    share = float(load_file(case / "io.safetensors")["mix_lambda_ab"])
    assert got["label_a"].tolist() == [0, 0, 0, 1]
    assert got["label_mix_ab"].tolist() == pytest.approx([0, 1 - share, 0, 1])


@each_case(FRONTEND)
@pytest.mark.parametrize(
    ("change", "touched"),
    [
        pytest.param(lambda m: m["conf"].update(mean=-6.6, std=5.4), "all with statistics", id="statistics"),
        pytest.param(lambda m: m["conf"].update(num_mel_bins=64), "all features", id="mel-bins"),
        pytest.param(lambda m: m.update(freqm=60), "feat_specaug", id="freqm"),
        pytest.param(
            lambda m: m["tensors"].update({"wave_*": "16 kHz except wave_22k (44100 Hz)"}), "feat_22k", id="rate"
        ),
    ],
)
def test_settings_of_the_front_end_reach_the_features(case: Path, change: Change, touched: str, tmp_path: Path) -> None:
    def without_field(name: str, x: Tensor) -> Tensor:
        return x[:, :64] if touched == "all features" and name == "noise_field" else x

    before = twin(case, tmp_path / "before")
    after = twin(case, tmp_path / "after", change, without_field)
    features = {name for name in before if not name.startswith("label")}
    expected = {
        "all with statistics": features - SUPERB - {"fbank_a_raw"},
        "all features": features,
    }.get(touched, {touched})
    assert changed(before, after) == expected


@each_case(FRONTEND)
def test_lengths_of_the_front_end_follow_the_case(case: Path, tmp_path: Path) -> None:
    def longer(name: str, x: Tensor) -> Tensor:
        if name == "noise_field":
            return torch.rand(200, 128)
        return torch.cat([x, x[:, :3000].flip(1)], dim=1) if name in ("wave_a", "wave_stereo") else x

    got = twin(case, tmp_path, lambda m: m.update(T_long=200, T_short=70), longer)
    for name, value in got.items():
        if name.startswith(("feat", "superb")):
            assert value.shape == (70 if name.endswith("_cut") else 200, 128), name


@each_case(FRONTEND)
def test_only_the_first_channel_is_heard(case: Path, tmp_path: Path) -> None:
    before = twin(case, tmp_path / "before")
    second = twin(case, tmp_path / "second", tensors=lambda n, x: x[[0, 0]] if n == "wave_stereo" else x)
    first = twin(case, tmp_path / "first", tensors=lambda n, x: x.flip(0) if n == "wave_stereo" else x)
    assert changed(before, second) == set()
    assert changed(before, first) == {"feat_stereo"}


@each_case(cases_of("finetune_forward"))
def test_other_strides_lengths_batches_and_classes(case: Path, tmp_path: Path) -> None:
    stated = json.loads((case / "meta.json").read_text())["finetune_args"]
    shape, stride = (stated["fshape"], stated["tshape"]), (stated["fstride"], max(1, stated["tstride"] - 1))
    frames, classes = stated["input_tdim"] + 37, 11

    def other(meta: dict[str, Any]) -> None:
        meta["finetune_args"] |= {"tstride": stride[1], "input_tdim": frames, "label_dim": classes}

    copy = altered(case, tmp_path / "head", "head.safetensors", keep)
    head = load_file(copy / "head.safetensors")
    weight = next(name for name in head if name.endswith("mlp_head.1.weight"))
    head |= {
        weight: torch.randn(classes, head[weight].shape[1]),
        weight.replace("weight", "bias"): torch.zeros(classes),
    }
    save_file(head, copy / "head.safetensors")
    got = twin(copy, tmp_path, other, lambda n, x: torch.randn(3, frames, 128) if n == "x" else x)
    tokens = ((128 - shape[0]) // stride[0] + 1) * ((frames - shape[1]) // stride[1] + 1)
    width = got["norm_out"].shape[-1]
    assert got["patch_embed_out"].shape == (3, tokens, width)
    assert got["pos_embed_adapted"].shape == (1, 2 + tokens, width)
    assert got["logits_avgtok"].shape == got["logits_cls"].shape == (3, classes)


@each_case(cases_of("pretrain_losses"))
def test_other_masks_and_batches(case: Path, tmp_path: Path) -> None:
    tokens = int(torch.tensor(json.loads((case / "meta.json").read_text())["grid"]).prod())

    def other(name: str, x: Tensor) -> Tensor:
        if name.startswith("mask_index"):
            return torch.stack([torch.randperm(tokens)[:11] for _ in range(3)])
        return torch.randn(3, *x.shape[1:]) if name == "x" else x

    got = twin(case, tmp_path, tensors=other)
    assert got["cpred"].shape == got["gpred"].shape == (3, 11, 256)
    assert got["norm_out_mpc"].shape[:2] == (3, 2 + tokens)
    assert float(got["joint_loss"]) == pytest.approx(float(got["nce"] + 10 * got["mse"]), rel=1e-6)


@each_case(cases_of("mask_sampler"))
def test_other_grids_sides_and_seeds(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        meta["cases"] = [{"f_dim": 4, "t_dim": 30, "mask_size": 40, "cluster_side": 3, "python_random_seed": 7}]

    got = twin(case, tmp_path, other, lambda n, x: torch.arange(0, 120, 3) if n == "case0.start_ids" else x)
    assert got.keys() == {"case0.mask_ids", "case0.frame_mask_ids"}
    assert all(len(ids) == 40 and ids.max() < 120 for ids in got.values())


@each_case(cases_of("superb_upstream"))
def test_other_lengths_and_numbers_of_waves(case: Path, tmp_path: Path) -> None:
    def third(meta: dict[str, Any]) -> None:
        meta["args"]["target_length"] = 73
        meta["contract"]["inputs"] = ["wav_0"]

    before = twin(case, tmp_path / "before")
    got = twin(case, tmp_path / "after", third)
    assert got.keys() == before.keys()
    assert got["features"].shape == (1, 73, 128)
    assert got["hidden_0"].shape[1] < before["hidden_0"].shape[1]


@each_case(cases_of("lr_traces"))
def test_other_recipes(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        pretrain = {"total_steps": 300, "lr": 0.01, "epoch_iter": 50, "eval_accs": [0.1] * 6}
        tune = {"steps_per_epoch": 4, "n_epochs": 5, "lr": 0.02, "head_lr": 10, "lrscheduler_start": 2}
        meta["cases"] = {"p": pretrain, "f": tune | {"lrscheduler_step": 2, "lrscheduler_decay": 0.1}}

    got = twin(case, tmp_path, other)
    assert got["p"].shape == (300,)
    assert got["p"][::50].tolist() == pytest.approx([0.01 * step / 1000 for step in range(0, 300, 50)])
    assert got["f"].shape == (20, 2)
    assert torch.allclose(got["f"][:, 1], 10 * got["f"][:, 0])
    assert got["f"][::4, 0].tolist() == pytest.approx([0.02, 0.02, 0.002, 0.002, 0.0002])


# ATST -------------------------------------------------------------------------------------------------------------


@each_case(cases_of("frontend", "atst"))
def test_another_front_end_and_other_crops(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        meta["arguments"] |= {"n_mels": 40, "win_length": 640, "hop_length": 80, "top_db": 30, "min": -70.0}
        meta["contract"]["parameters"] = {"crop_central_1000": {"length": 501, "pad": False}}

    got = twin(case, tmp_path, other)
    frames = got["power"].shape[3]
    assert got["power"].shape[2] == 40
    assert frames == load_file(case / "io.safetensors")["wave"].shape[2] // 80 + 1
    assert got["window"].shape == (640,)
    assert got["crop_central_1000"].shape == (1, 501)
    loud = got["decibel"][0]
    assert float(loud.max() - loud.min()) == pytest.approx(30, abs=1e-3)


@each_case([*cases_of("clip_encoder", "atst"), *cases_of("frame_embedding", "atst")])
def test_other_chunks_and_lengths(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        meta["contract"]["parameters"]["chunk_len"] = 81

    before, after = twin(case, tmp_path / "before"), twin(case, tmp_path / "after", other)
    moved = changed(before, after)
    if "audio" in load_file(case / "io.safetensors"):
        assert {"scene", "timestamp"} <= moved
        assert after["timestamp"].shape[1] != before["timestamp"].shape[1]
        assert "mel" not in moved
    else:
        assert moved == {name for name in before if "chunks" in name}


@each_case(cases_of("heads_schedules", "atst"))
def test_other_schedules(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        meta["contract"]["parameters"]["sched_step"] |= {"max_steps": 20, "warmup_steps": 1}
        meta["contract"]["parameters"]["lr_scales_0.75"] |= {"decay": 0.5, "depth": 3}

    got = twin(case, tmp_path, other)
    assert got["sched_step"].shape == (20,)
    assert float(got["sched_step"][0]) == 0
    assert float(got["sched_step"][1]) == pytest.approx(0.1)
    assert got["lr_scales_0.75"].tolist() == [0.125, 0.25, 0.5, 1.0]


@each_case(cases_of("c2f_finetune_step", "atst"))
def test_other_shares_of_a_teacher(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        meta["contract"]["parameters"]["multi_bce"]["lambda_d"] = 0.9

    before, after = twin(case, tmp_path / "before"), twin(case, tmp_path / "after", other)
    assert {name.split(".")[0] for name in changed(before, after)} == {"multi_bce"}
    mixed = 0.9 * after["multi_bce.loss_d"] + 0.1 * after["multi_bce.loss_c"]
    torch.testing.assert_close(after["multi_bce.loss"], mixed)
