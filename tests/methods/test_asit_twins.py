"""ASiT's cases with other lengths, strides, draws and settings: other answers, of the right shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import cases_of, each_case, twin
from torch import Tensor

from auricle.nn.patches import resize_positions


def stated(case: Path) -> dict[str, Any]:
    return dict(json.loads((case / "meta.json").read_text()))


@each_case(cases_of("finetune_ast_style", "asit"))
def test_the_stride_of_frequency_moves_along_time(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        meta["arguments"] |= {"fstride": 8, "tstride": 12, "input_tdim": 700}
        meta["contract"]["parameters"]["pos_embed_200"] = {"input_tdim": 200, "stride": [16, 10]}
        meta["tensors"]["pos_embed_200"] = {}

    got = twin(case, tmp_path, other, lambda n, x: torch.randn(2, 700, 128) if n == "x" else x)
    steps, rows = (700 - 16) // 8 + 1, (128 - 16) // 12 + 1
    assert got["pos_embed_resized"].shape[1] == 1 + steps * rows
    assert got["pos_embed_200"].shape[1] == 1 + 12 * 12
    assert got["logits"].shape == (2, stated(case)["arguments"]["label_dim"])


@each_case(cases_of("pretrainedsed_forward", "asit"))
@pytest.mark.parametrize("frames", [40, 998, 1205])
def test_any_number_of_whole_patches_is_heard_and_pooled(case: Path, frames: int, tmp_path: Path) -> None:
    got = twin(case, tmp_path, tensors=lambda n, x: torch.randn(2, 1, 128, frames) if n == "x" else x)
    assert got["out"].shape[:2] == (2, 1 + frames // 16 * 8)
    assert got["pos"].shape[:2] == (1, 1 + frames // 16 * 8)
    assert got["sequence250"].shape[:2] == (2, 250)


@each_case(cases_of("gmml_corruption", "asit"))
def test_other_sizes_and_draws(case: Path, tmp_path: Path) -> None:
    draws = torch.tensor([5, 7, 20, 10, 40, 2, 9, 30])

    def only(meta: dict[str, Any]) -> None:
        meta["contract"]["parameters"] = {"zeros_align1": {"align": 1, "fill": "zeros", "max_block": 0.5}}

    def other(name: str, x: Tensor) -> Tensor:
        if name in ("x", "x_replace"):
            return torch.ones(1, 60, 50)
        if name == "zeros_align1.draws":
            return draws
        return torch.tensor([0.15], dtype=torch.float64) if name == "zeros_align1.fraction" else x

    got = twin(case, tmp_path, only, other)
    want = torch.zeros(1, 60, 50)
    want[:, 5:25, 7:17], want[:, 40:49, 2:32] = 1, 1
    assert torch.equal(got["zeros_align1.mask"], want)
    assert torch.equal(got["zeros_align1.out"], 1 - want)


@each_case(cases_of("frontend", "asit"))
def test_other_rates_lengths_and_statistics(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        meta["arguments"] |= {"sample_rate": 16000, "num_frames": 77, "num_mel_bins": 64, "mean": -5.0, "std": 4.0}

    got = twin(case, tmp_path, other, lambda n, x: x[:, :9000] if n == "wave_short" else x[:, :32000])
    assert got["fbank_uncut"].shape == (198, 64)
    assert got["norm_long"].shape == got["norm_short"].shape == (77, 64)
    heard = 1 + (9000 - 400) // 160
    assert torch.allclose(got["norm_short"][heard:], torch.tensor(5 / 8))
    assert torch.allclose(got["fbank_short"][heard:], torch.tensor(0.0), atol=1e-6)
    torch.testing.assert_close(got["norm_long"], (got["fbank_long"] + 5) / 8)


@each_case(cases_of("schedules", "asit"))
def test_other_schedules(case: Path, tmp_path: Path) -> None:
    def other(meta: dict[str, Any]) -> None:
        parameters = meta["contract"]["parameters"]
        parameters["lr"] |= {"epochs": 6, "warmup_epochs": 0}
        parameters["teacher_temp"] = {"start": 0.02, "end": 0.05, "warmup_epochs": 4, "epochs": 6}

    got = twin(case, tmp_path, other)
    assert got["lr"].shape == (30,)
    assert float(got["lr"][0]) == pytest.approx(stated(case)["contract"]["parameters"]["lr"]["base"])
    assert got["teacher_temp"].tolist() == pytest.approx([0.02, 0.03, 0.04, 0.05, 0.05, 0.05])


@each_case(cases_of("vit_forward", "asit"))
def test_other_batches_through_the_network(case: Path, tmp_path: Path) -> None:
    before = twin(case, tmp_path / "before")
    got = twin(case, tmp_path / "after", tensors=lambda n, x: x.flip(0).repeat(2, 1, 1, 1) if n == "x" else x)
    for name, value in before.items():
        torch.testing.assert_close(got[name][[1, 0]], value, atol=1e-5, rtol=1e-4)


@each_case(cases_of("pretrain_step", "asit"))
def test_a_step_of_fewer_clips(case: Path, tmp_path: Path) -> None:
    images = ("clean", "corrupted", "mask")
    got = twin(case, tmp_path, tensors=lambda n, x: x[:2] if n.startswith(images) else x)
    total = got["loss_cls"] + got["loss_data"] + 2 * got["loss_recons"]
    torch.testing.assert_close(got["loss"], total)
    assert got["s_cls"].shape[0] == got["t_cls"].shape[0] == 4
    frames, bins = stated(case)["arguments"]["audio_size"]
    assert got["s_recons"].shape == (4, 1, frames, bins)


def test_positions_are_cut_in_the_middle_or_stretched_axis_by_axis() -> None:
    table = torch.randn(1, 8 * 37, 4)
    image = table.unflatten(1, (8, 37))
    cut = resize_positions(table, (8, 37), (8, 30)).unflatten(1, (8, 30))
    assert torch.equal(cut, image[:, :, 37 // 2 - 15 : 37 // 2 + 15])
    wide = resize_positions(table, (8, 37), (12, 37)).unflatten(1, (12, 37))
    want = torch.nn.functional.interpolate(image.permute(0, 3, 1, 2), size=(12, 37), mode="bilinear")
    torch.testing.assert_close(wide.permute(0, 3, 1, 2), want)
