"""Patches and positions: round trips, the order of tokens and values, and the official way to adapt a table."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.nn.patches import (
    columns_for,
    grid_size,
    patchify,
    resize_positions,
    sincos_positions,
    unpatchify,
)

Pair = tuple[int, int]


@pytest.mark.parametrize(
    "frames, patch, frame",
    [(100, 108, 99), (128, 144, 127), (512, 600, 511), (600, 708, 599), (1000, 1188, 999), (1024, 1212, 1023)],
)
def test_fine_tuning_grids_are_those_of_the_paper(frames: int, patch: int, frame: int) -> None:
    rows, columns = grid_size((128, frames), (16, 16), (10, 10))
    assert (rows, rows * columns) == (12, patch)
    assert grid_size((128, frames), (128, 2), (128, 1)) == (1, frame)


@pytest.mark.parametrize("grid, kernel", [((8, 4), (16, 16)), ((1, 30), (128, 2)), ((4, 5), (3, 7))])
def test_unpatchify_undoes_patchify(grid: Pair, kernel: Pair) -> None:
    features = torch.randn(3, grid[1] * kernel[1], grid[0] * kernel[0])
    patches = patchify(features, kernel, kernel)
    assert patches.shape == (3, grid[0] * grid[1], kernel[0] * kernel[1])
    assert torch.equal(unpatchify(patches, grid, kernel), features)


def test_tokens_are_frequency_major_and_values_too() -> None:
    # A feature's value says where it is: 1000 * mel bin + frame.
    features = (1000.0 * torch.arange(6)[None] + torch.arange(8.0)[:, None])[None]
    patches = patchify(features, (3, 2), (3, 2))
    token = patches[0, 1 * 4 + 2]  # row 1, column 2: mel bins 3-5, frames 4-5
    assert token.tolist() == [3004, 3005, 4004, 4005, 5004, 5005]


@pytest.mark.parametrize("kernel, stride", [((16, 16), (16, 16)), ((16, 16), (10, 10)), ((128, 2), (128, 1))])
def test_a_convolution_is_a_linear_map_of_patches(kernel: Pair, stride: Pair) -> None:
    features = torch.randn(2, 40, 128)
    conv = torch.nn.Conv2d(1, 24, kernel, stride)
    convolved = conv(features.transpose(1, 2)[:, None]).flatten(2).transpose(1, 2)
    linear = F.linear(patchify(features, kernel, stride), conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(convolved, linear, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel, stride", [(16, 16), (16, 10), (2, 2), (2, 1), (1, 1)])
def test_columns_cover_every_frame_and_none_is_superfluous(kernel: int, stride: int) -> None:
    for frames in range(1, 80):
        columns = int(columns_for(torch.tensor(frames), kernel, stride))
        assert (columns - 1) * stride + kernel >= frames
        assert columns == 1 or (columns - 2) * stride + kernel < frames


# Positions -------------------------------------------------------------------------------------------------------


def official(table: Tensor, grid: Pair, new_grid: Pair) -> Tensor:
    """The two steps of ast_models.py: time first (resized to 8 rows, a constant of that code), then frequency."""
    (p_f, p_t), (f, t) = grid, new_grid
    image = table.transpose(1, 2).reshape(1, table.shape[2], p_f, p_t)
    if t < p_t:
        start = p_t // 2 - t // 2
        image = image[:, :, :, start : start + t]
    else:
        image = F.interpolate(image, size=(8, t), mode="bilinear")
    if f < p_f:
        start = p_f // 2 - f // 2
        # `t` in that code, which crashes.
        image = image[:, :, start : start + f, :]
    else:
        image = F.interpolate(image, size=(f, t), mode="bilinear")
    return image.reshape(1, table.shape[2], f * t).transpose(1, 2)


@pytest.mark.parametrize(
    "grid, new_grid",
    [
        ((8, 10), (12, 9)),  # patches: frequency stretched, time cut
        ((8, 10), (12, 20)),  # both stretched
        ((8, 10), (8, 10)),
        ((8, 64), (12, 50)),  # the released models on ESC-50
        ((8, 64), (12, 101)),  # and on AudioSet
        ((8, 10), (6, 9)),  # both cut
        ((1, 80), (1, 59)),  # frames: cut
        ((1, 48), (1, 109)),  # frames: stretched
        ((1, 512), (1, 127)),
    ],
)
def test_positions_are_adapted_as_the_official_code_does(grid: Pair, new_grid: Pair) -> None:
    table = torch.randn(1, grid[0] * grid[1], 12)
    got = resize_positions(table, grid, new_grid)
    assert got.shape == (1, new_grid[0] * new_grid[1], 12)
    torch.testing.assert_close(got, official(table, grid, new_grid), atol=1e-6, rtol=0)


def test_a_shorter_table_is_the_middle_of_the_longer_one() -> None:
    table = torch.arange(512.0).view(1, 512, 1)
    assert resize_positions(table, (1, 512), (1, 127)).flatten().tolist() == list(range(193, 320))


def test_the_same_grid_gives_the_same_table() -> None:
    table = torch.randn(1, 80, 6)
    assert torch.equal(resize_positions(table, (8, 10), (8, 10)), table)


def test_a_constant_stays_constant_and_a_ramp_stays_rising() -> None:
    assert torch.equal(resize_positions(torch.ones(1, 20, 2), (4, 5), (9, 11)), torch.ones(1, 99, 2))
    ramp = resize_positions(torch.arange(5.0).repeat(4).view(1, 20, 1), (4, 5), (4, 11)).view(4, 11)
    assert (ramp.diff(dim=1) >= 0).all()
    assert torch.equal(ramp, ramp[:1].expand(4, 11))


@pytest.mark.parametrize("grid", [(8, 14), (1, 56)])
@pytest.mark.parametrize("width", [48, 49, 50, 192])
def test_sine_positions_have_the_shape_and_tell_all_places_apart(grid: Pair, width: int) -> None:
    table = sincos_positions(grid, width)[0]
    assert table.shape == (grid[0] * grid[1], width)
    assert table.abs().max() <= 1
    distances = torch.cdist(table, table) + torch.eye(len(table))
    assert distances.min() > 0.1
