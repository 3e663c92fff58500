"""Mamba mixers in one direction and in both (Gu and Dao 2023; Vision Mamba, Zhu et al. 2024).

B batch, L tokens, D width, E = expand * D channels, S states, R rank of the step size, W taps.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.kernels import bidirectional_conv1d, bidirectional_scan, causal_conv1d, selective_scan

Kind = Literal["v2", "v1", "none"]
# Step sizes at the start: log-uniform between these, and not below the floor.
LEAST_STEP, MOST_STEP, STEP_FLOOR = 1e-3, 1e-1, 1e-4


class Direction(nn.Module):
    """What one direction of a mixer has of its own: convolution, step sizes, input and output maps, decay rates."""

    def __init__(self, channels: int, states: int, taps: int, rank: int) -> None:
        super().__init__()
        self.states, self.rank = states, rank
        self.conv = nn.Conv1d(channels, channels, taps, groups=channels)
        self.x_proj = nn.Linear(channels, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The step sizes' start; everything else keeps PyTorch's."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        draw = torch.rand(len(self.dt_proj.bias))
        step = torch.exp(draw * math.log(MOST_STEP / LEAST_STEP) + math.log(LEAST_STEP)).clamp(min=STEP_FLOOR)
        # The inverse of softplus.
        self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def convolved(self, x: Tensor, lengths: Tensor | None = None, reverse: bool = False) -> Tensor:
        """x [B, E, L] to the scan's u."""
        taps = self.conv.weight[:, 0]
        return causal_conv1d(x, taps, self.conv.bias, silu=True, lengths=lengths, reverse=reverse)

    def selected(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u [B, E, L] to the scan's delta [B, E, L], B and C [B, S, L]: what the input selects."""
        r, b, c = self.x_proj(u.transpose(1, 2)).split([self.rank, self.states, self.states], dim=-1)
        # The bias of the step size is added in the scan.
        delta = F.linear(r, self.dt_proj.weight)
        return delta.transpose(1, 2), b.transpose(1, 2), c.transpose(1, 2)

    def rates(self) -> Tensor:
        """A [E, S], negative."""
        return -torch.exp(self.A_log.float())


class Mamba(nn.Module):
    """A Mamba mixer.

    Args:
        kind: "v2" has a full second direction that scans from the end; "v1" scans the same convolved sequence from the
            end, with decay rates of its own and all else shared; "none" scans forward only.
        divide: halve the sum of the directions of "v2", as the published SSAMBA weights need.
    """

    def __init__(
        self, width: int, *, expand: int = 2, states: int = 16, taps: int = 4, kind: Kind = "v2", divide: bool = True
    ) -> None:
        super().__init__()
        self.kind, self.divide, self.channels = kind, divide, expand * width
        rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * self.channels, bias=False)
        self.forward_direction = Direction(self.channels, states, taps, rank)
        if kind == "v2":
            self.backward_direction = Direction(self.channels, states, taps, rank)
        elif kind == "v1":
            self.backward_A_log = nn.Parameter(self.forward_direction.A_log.detach().clone())
        self.out_proj = nn.Linear(self.channels, width, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None, reverse: bool = False) -> Tensor:
        """x [B, L, D], lengths [B] valid tokens (all, if None): [B, L, D], zero beyond the lengths.

        The backward direction starts at a row's last valid token, so a padded row equals the clip alone. `reverse`
        is as if the valid tokens came in the opposite order, in and out: the directions change places.
        """
        inner, z = (half.transpose(1, 2) for half in self.in_proj(x).chunk(2, dim=-1))
        if self.kind == "v2":
            y = self._both(inner, z, lengths, reverse)
        else:
            y = self._shared(inner, z, lengths, reverse)
        mixed: Tensor = self.out_proj(y.transpose(1, 2))
        # Half of the product is the product of the half, to the last bit, and is smaller.
        return 0.5 * mixed if self.kind == "v2" and self.divide else mixed

    def _both(self, x: Tensor, z: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
        """Two directions with everything of their own, in one call of each kernel."""
        sides = self.forward_direction, self.backward_direction

        def both(name: str) -> Tensor:
            return torch.stack([side.get_parameter(name) for side in sides])

        u = bidirectional_conv1d(
            x, both("conv.weight")[:, :, 0], both("conv.bias"), silu=True, lengths=lengths, reverse=reverse
        )
        batch, channels, length = x.shape
        rank, states = sides[0].rank, sides[0].states
        chosen = torch.bmm(
            u.transpose(2, 3).reshape(2, batch * length, channels), both("x_proj.weight").transpose(1, 2)
        )
        r, b, c = chosen.split([rank, states, states], dim=-1)
        delta = torch.bmm(r, both("dt_proj.weight").transpose(1, 2))
        delta, b, c = (part.view(2, batch, length, -1).transpose(2, 3) for part in (delta, b, c))
        rates = torch.stack([side.rates() for side in sides])
        return bidirectional_scan(
            u, delta, rates, b, c, both("D"), z, both("dt_proj.bias"), True, lengths=lengths, reverse=reverse
        )

    def _shared(self, x: Tensor, z: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
        """One direction, or two that share all but the decay rates."""
        ahead = self.forward_direction
        u = ahead.convolved(x, lengths=lengths, reverse=reverse)
        delta, b, c = ahead.selected(u)
        if self.kind == "none":
            inputs = u, delta, ahead.rates(), b, c, ahead.D, z, ahead.dt_proj.bias
            y = selective_scan(*inputs, True, lengths=lengths, reverse=reverse)
            assert isinstance(y, Tensor)
            return y
        rates = torch.stack([ahead.rates(), -torch.exp(self.backward_A_log.float())])
        twice = [part.expand(2, *part.shape) for part in (u, delta, b, c, ahead.D, ahead.dt_proj.bias)]
        u, delta, b, c, skip, bias = twice
        return bidirectional_scan(u, delta, rates, b, c, skip, z, bias, True, lengths=lengths, reverse=reverse)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Some more tokens x [B, l, D] of a stream, and what is remembered of those before: the last W - 1 inputs of
        the convolution [B, E, W - 1] and the scan's state [B, E, S]. Only for `kind="none"`, which sees nothing ahead.

        Returns:
            The output [B, l, D] and the new state. Pieces of any length give what the whole would.
        """
        if self.kind != "none":
            raise ValueError(f"a mixer of kind '{self.kind}' looks ahead and cannot stream; use kind='none'.")
        ahead = self.forward_direction
        inner, z = (half.transpose(1, 2) for half in self.in_proj(x).chunk(2, dim=-1))
        kept = ahead.conv.weight.shape[-1] - 1
        if state is None:
            zeros = inner.new_zeros(len(x), self.channels, kept)
            state = zeros, x.new_zeros(len(x), self.channels, ahead.states, dtype=torch.float32)
        joined = torch.cat([state[0], inner], dim=2)
        u = ahead.convolved(joined)[..., kept:]
        delta, b, c = ahead.selected(u)
        y, last = selective_scan(
            *(u, delta, ahead.rates(), b, c, ahead.D, z, ahead.dt_proj.bias, True, True), initial_state=state[1]
        )
        return self.out_proj(y.transpose(1, 2)), (joined[..., joined.shape[2] - kept :], last)
