"""A light decoder: fills in the tokens of a grid that an encoder was not given.

R clips, N = f * t tokens of the grid, M of them that were encoded, D width. Token order is frequency-major.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.nn.patches import Pair


class GridBlock(nn.Module):
    """x += GELU(Linear(LN(depthwise convolution of x))), over a grid of tokens."""

    def __init__(self, width: int, kernel: Pair) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(width, width, kernel, padding=padding, groups=width)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [R, f, t, D], 0 where there is nothing, as beyond the edges."""
        # A view: the channels stay side by side in memory, which convolutions like.
        seen = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + F.gelu(self.linear(self.norm(seen)))


class GridDecoder(nn.Module):
    """Convolutions over the whole grid, from what was encoded of it and a learned vector everywhere else.

    Kernels are 3 x 3, or 1 x 7 where the grid has one row, as in data2vec 2.0 for images and for sound; depthwise, so
    that a layer costs about a twelfth of a transformer's.
    """

    def __init__(self, width: int, depth: int, rows: int) -> None:
        super().__init__()
        kernel = (1, 7) if rows == 1 else (3, 3)
        self.rows = rows
        self.fill = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.fill, std=0.02)
        self.blocks = nn.ModuleList(GridBlock(width, kernel) for _ in range(depth))

    def forward(self, kept: Tensor, ids: Tensor, there: Tensor, valid: Tensor) -> Tensor:
        """Tokens [R, M, D] at the places `ids` [R, M] of the grid, of which `there` [R, M] count, to [R, N, D].

        Nothing is seen of what lies outside `valid` [R, N].
        """
        places = valid.shape[1]
        # What does not count goes to a place beyond the grid.
        where = ids.masked_fill(~there, places).unsqueeze(-1).expand_as(kept)
        fill = self.fill.to(kept.dtype).expand(len(kept), places + 1, -1)
        x = fill.scatter(1, where, kept)[:, :places].unflatten(1, (self.rows, -1))
        inside = None if bool(valid.all()) else valid.unflatten(1, (self.rows, -1)).unsqueeze(-1)
        for block in self.blocks:
            x = block(x if inside is None else x * inside)
        return x.flatten(1, 2)
