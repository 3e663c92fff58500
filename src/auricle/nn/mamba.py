"""Mamba mixers in one direction and in both (Gu and Dao 2023; Vision Mamba, Zhu et al. 2024).

B batch, L tokens, D width, E = expand * D channels, S states, R rank of the step size, W taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from auricle.kernels import bidirectional_conv1d, bidirectional_scan, causal_conv1d, linear, selective_scan

Kind = Literal["v2", "v1", "none"]
# Step sizes at the start: log-uniform between these, and not below the floor.
LEAST_STEP, MOST_STEP, STEP_FLOOR = 1e-3, 1e-1, 1e-4
# The most tokens of a tile, on every machine: how a matrix product rounds may depend on it.
TILE = 1024


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

    def parts(self) -> tuple[Tensor, ...]:
        """The fields of `Maps` but the last."""
        taps, steps = self.conv, self.dt_proj
        assert taps.bias is not None
        return taps.weight[:, 0], taps.bias, self.x_proj.weight, steps.weight, steps.bias, self.D


class Maps(NamedTuple):
    """The parameters of K directions, side by side; those of "v1" share all but the rates, and have them once."""

    taps: Tensor  # [K, E, W]
    taps_bias: Tensor  # [K, E]
    x_proj: Tensor  # [K, R + 2 S, E]
    dt_proj: Tensor  # [K, E, R]
    dt_bias: Tensor  # [K, E]
    skip: Tensor  # [K, E]
    rates: Tensor  # A, [K, E, S], negative

    @classmethod
    def of(cls, sides: Sequence[Direction], rate_logs: Sequence[Tensor]) -> Maps:
        """From what directions have of their own, and the logarithms of their rates [E, S]."""
        each = [side_by_side(parts) for parts in zip(*(side.parts() for side in sides), strict=True)]
        return cls._make([*each, -torch.exp(side_by_side(rate_logs).float())])


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

        Without gradients, on a CPU, one direction goes through the sequence after the other, tile by tile: of the
        length of a row there are then only what is convolved, its gate, and what the first direction says, [E, L] each.
        """
        tiled = x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if tiled and x.numel():
            rows = max(1, TILE // x.shape[1])
            valid = [None] * len(x) if lengths is None else lengths.split(rows)
            groups = [self._in_tiles(*group, reverse) for group in zip(x.split(rows), valid, strict=False)]
            return torch.cat(groups) if len(groups) > 1 else groups[0]
        inner, z = self._halves(x)
        y, _ = scanned(self._maps(self._directions), inner, z, lengths, (reverse, reverse))
        return self._out(y)

    def _in_tiles(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
        """`forward` of some rows."""
        inner, z = self._halves(x)
        steps, seen = inner.shape[2], self.forward_direction.conv.weight.shape[2] - 1
        tiles = even_tiles(steps)
        said: dict[int, Tensor] = {}
        for number in self._directions:
            maps, state = self._maps([number]), None
            backward = reverse != bool(number)
            # The convolution of "v1" goes one way only.
            ways = backward if self.kind == "v2" else reverse, backward
            for start, stop in reversed(tiles) if backward else tiles:
                beside = (0, min(seen, steps - stop)) if ways[0] else (min(seen, start), 0)
                part = inner[..., start - beside[0] : stop + beside[1]]
                valid = None if lengths is None else lengths - start
                # Sums of half precision are rounded once, at their end.
                y, state = scanned(maps, part, z[..., start:stop], valid, ways, beside, state, wide=True)
                y = said[start].add_(y) if start in said else y
                said[start] = self._out(y.to(inner.dtype)) if number == self._directions[-1] else y
        return torch.cat([said[start] for start, _ in tiles], dim=1) if len(tiles) > 1 else said[0]

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is convolved, and the gate z, [B, E, L] both."""
        inner, z = linear(x, self.in_proj.weight).transpose(1, 2).chunk(2, dim=1)
        return inner, z

    @property
    def _directions(self) -> tuple[int, ...]:
        """0 is that of the order of tokens, 1 the other one."""
        return (0,) if self.kind == "none" else (0, 1)

    def _maps(self, directions: Sequence[int]) -> Maps:
        ahead = self.forward_direction
        if self.kind == "v2":
            sides = [(ahead, self.backward_direction)[number] for number in directions]
            return Maps.of(sides, [side.A_log for side in sides])
        logs = [ahead.A_log] if self.kind == "none" else [ahead.A_log, self.backward_A_log]
        return Maps.of([ahead], [logs[number] for number in directions])

    def _out(self, y: Tensor) -> Tensor:
        """What the directions say together [B, E, L], as tokens [B, L, D]."""
        mixed = linear(y.transpose(1, 2), self.out_proj.weight)
        # Half of the product is the product of the half, to the last bit, and is smaller.
        return 0.5 * mixed if self.kind == "v2" and self.divide else mixed

    def step(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Some more tokens x [B, l, D] of a stream, and what is remembered of those before: the last W - 1 inputs of
        the convolution [B, E, W - 1] and the scan's state [B, E, S]. Only for `kind="none"`, which sees nothing ahead.

        Returns:
            The output [B, l, D] and the new state. Pieces of any length give what the whole would.
        """
        if self.kind != "none":
            raise ValueError(f"a mixer of kind '{self.kind}' looks ahead and cannot stream; use kind='none'.")
        ahead = self.forward_direction
        inner, z = self._halves(x)
        seen = ahead.conv.weight.shape[2] - 1
        if state is None:
            zeros = inner.new_zeros(len(x), self.channels, seen)
            state = zeros, x.new_zeros(len(x), self.channels, ahead.states, dtype=torch.float32)
        joined = torch.cat([state[0], inner], dim=2)
        y, last = scanned(self._maps([0]), joined, z, None, (False, False), (seen, 0), state[1])
        return self._out(y), (joined[..., joined.shape[2] - seen :], last)


def even_tiles(steps: int) -> list[tuple[int, int]]:
    """Where tiles start and stop: as few as there may be, of the same size but for the last."""
    size = math.ceil(steps / math.ceil(steps / TILE))
    return [(start, min(start + size, steps)) for start in range(0, steps, size)]


def scanned(
    maps: Maps,
    x: Tensor,
    z: Tensor,
    lengths: Tensor | None,
    reverse: tuple[bool, bool],
    beside: tuple[int, int] = (0, 0),
    state: Tensor | None = None,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """What one direction, or both in one call of each kernel, make of a sequence or a tile of it.

    Args:
        maps: of the directions; the second one goes the other way.
        x: [B, E, before + L + after], what is convolved.
        z: the gate [B, E, L].
        lengths: [B] valid steps, counted from the tile's first one: below 0 or beyond L where a row ends elsewhere.
        reverse: whether the convolution and the scan of the first direction go from the end.
        beside: (before, after), steps beside the tile that only the convolution sees.
        state: [B, E, S] with which the scan of one direction begins.
        wide: give float32 for half precision.

    Returns:
        The sum of the directions [B, E, L], and the state after the last step of one direction [B, E, S]; empty for
        two.
    """
    u = convolved(maps, x, None if lengths is None else lengths + beside[0], reverse[0])
    u = u[..., beside[0] : u.shape[3] - beside[1]]
    rank, states = maps.dt_proj.shape[2], maps.rates.shape[2]
    r, b, c = products(u.transpose(2, 3), maps.x_proj).split([rank, states, states], dim=3)
    # The bias of the step size is added in the scan.
    delta = products(r, maps.dt_proj)
    if wide:
        u = u.to(torch.promote_types(u.dtype, torch.float32))
    each = u, delta.transpose(2, 3), maps.rates, b.transpose(2, 3), c.transpose(2, 3), maps.skip
    way = {"lengths": lengths, "reverse": reverse[1]}
    if len(maps.rates) == 1:
        given = *(part[0] for part in each), z, maps.dt_bias[0]
        found: tuple[Tensor, Tensor] = selective_scan(*given, True, True, initial_state=state, **way)  # type: ignore
        return found
    given = *(part.expand(2, *part.shape[1:]) for part in each), z, maps.dt_bias.expand(2, -1)
    return bidirectional_scan(*given, True, **way), x.new_empty(0)  # type: ignore


def convolved(maps: Maps, x: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """x [B, E, L] to the scans' u [K, B, E, L]."""
    if len(maps.taps) == 1:
        return causal_conv1d(x, maps.taps[0], maps.taps_bias[0], silu=True, lengths=lengths, reverse=reverse)[None]
    return bidirectional_conv1d(x, maps.taps, maps.taps_bias, silu=True, lengths=lengths, reverse=reverse)


def products(x: Tensor, weights: Tensor) -> Tensor:
    """x [K, B, L, M] by weights [K, N, M]: [K, B, L, N]."""
    if len(weights) == 1:
        return linear(x[0], weights[0])[None]
    return torch.bmm(x.flatten(1, 2), weights.transpose(1, 2)).unflatten(1, x.shape[1:3])


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """[K, ...] of K tensors; of one, without a copy."""
    return torch.stack(tuple(parts)) if len(parts) > 1 else parts[0][None]
