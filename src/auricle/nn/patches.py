"""Spectrograms to patches, and tables of positions for grids of patches.

B batch, T frames, F mel bins, (f, t) patch grid, N = f * t tokens, K = kernel area, D width.
Token order is frequency-major: token = row * t + column, so time varies fastest.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]
PositionInit = Literal["normal", "sincos"]


def grid_size(size: Pair, kernel: Pair, stride: Pair) -> Pair:
    """Patches that fit wholly into `size` = (F, T)."""
    (F_, T), (kf, kt), (sf, st) = size, kernel, stride
    return (F_ - kf) // sf + 1, (T - kt) // st + 1


def columns_for(frames: Tensor, kernel: int, stride: int) -> Tensor:
    """Columns [B] that cover all of `frames` [B]: the last one may reach past the end."""
    return 1 + torch.div(frames - kernel + stride - 1, stride, rounding_mode="floor").clamp(min=0)


def patchify(features: Tensor, kernel: Pair, stride: Pair) -> Tensor:
    """features [B, T, F] to raw patches [B, N, K]; within a patch, index = df * kernel_t + dt."""
    image = features.transpose(1, 2)
    if stride == kernel:
        # A reshape: several times faster than the general unfold.
        (rows, columns), (high, wide) = grid_size((image.shape[1], image.shape[2]), kernel, stride), kernel
        whole = image[:, : rows * high, : columns * wide]
        return whole.unflatten(2, (columns, wide)).unflatten(1, (rows, high)).transpose(2, 3).flatten(3).flatten(1, 2)
    return F.unfold(image.unsqueeze(1), kernel_size=kernel, stride=stride).transpose(1, 2)


def unpatchify(patches: Tensor, grid: Pair, kernel: Pair) -> Tensor:
    """Patches [B, N, K] that do not overlap back to features [B, T, F]."""
    size = (grid[0] * kernel[0], grid[1] * kernel[1])
    image = F.fold(patches.transpose(1, 2), output_size=size, kernel_size=kernel, stride=kernel)
    return image.squeeze(1).transpose(1, 2)


def time_major(tokens: Tensor, grid: Pair) -> Tensor:
    """Tokens [B, f * t, D] in the order of codes that see a spectrogram as [time, frequency]."""
    return tokens.unflatten(1, grid).transpose(1, 2).flatten(1, 2)


def frequency_major(tokens: Tensor, grid: Pair) -> Tensor:
    """The reverse of `time_major`; `grid` is (f, t) here too."""
    return time_major(tokens, (grid[1], grid[0]))


def resize_positions(table: Tensor, grid: Pair, new_grid: Pair) -> Tensor:
    """A table of positions [1, f * t, D] for another grid, as SSAST adapts it (ast_models.py, fine-tuning branch).

    Per axis: the centre is cut out where the new grid is smaller, and interpolated (bilinear, corners not aligned)
    where it is larger. The official code slices frequency with the time length; that bug is mended here.
    """
    image = table.transpose(1, 2).unflatten(2, grid)
    for axis, (have, want) in enumerate(zip(grid, new_grid, strict=True), start=2):
        if want < have:
            image = image.narrow(axis, have // 2 - want // 2, want)
        elif want > have:
            size = [image.shape[2], image.shape[3]]
            size[axis - 2] = want
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
    return image.flatten(2).transpose(1, 2)


@torch.no_grad()
def reset_positions(table: Tensor, grid: Pair, start: PositionInit) -> None:
    """A fresh table of positions [1, P + f * t, D]: truncated normal values, or waves for the f * t of the patches."""
    nn.init.trunc_normal_(table, std=0.02)
    if start == "sincos":
        # As strong as an embedded patch, or few steps of training would hardly tell positions apart.
        table[:, -grid[0] * grid[1] :] = 0.3 * sincos_positions(grid, table.shape[-1])


def sincos_positions(grid: Pair, width: int) -> Tensor:
    """Sine-cosine positions [1, f * t, D]: half of the width says the row, half the column; all of it, if one row."""
    rows, columns = grid
    if rows == 1:
        table = _sincos(torch.arange(columns), width)
    else:
        row_part, column_part = (
            _sincos(torch.arange(rows), width // 2),
            _sincos(torch.arange(columns), width - width // 2),
        )
        table = torch.cat([row_part.repeat_interleave(columns, 0), column_part.repeat(rows, 1)], dim=1)
    return table.unsqueeze(0)


def _sincos(steps: Tensor, width: int) -> Tensor:
    rates = 10000.0 ** -(torch.arange((width + 1) // 2) / ((width + 1) // 2))
    angles = steps[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
