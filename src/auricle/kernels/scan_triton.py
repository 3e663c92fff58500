"""The selective scan by Triton: which kernels run for a scan of some size, and on what.

A scan's steps are cut into segments that are worked on at the same time: what each adds to the state is found first,
then the states between them, then the outputs. A scan of many channels fills a GPU without that and goes through all of
its steps at once. Inputs may be float32, bfloat16 or float16; everything is computed in float32, and nothing depends on
the order in which programs run.

K scans in one call, B batch, E channels, S states, L steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from auricle.kernels import scan_triton_kernels as kernels
from auricle.kernels.layout import room
from auricle.kernels.native import steps
from auricle.kernels.scan_native import Tensors, states_like


class Threads(NamedTuple):
    """How the threads of a program share its work."""

    steps: int  # loaded at a time
    states: int  # of a thread, at most
    warps: int

    def options(self, states: int) -> dict[str, int]:
        """Sizes as `scan_triton_kernels` has them, for scans of some number of states."""
        fours = max(1, triton.next_power_of_2(states) // 4)
        sharing = min(32, max(1, 4 * fours // self.states))
        return {
            "STATES": states,
            "T": self.steps,
            "Q": fours // sharing,
            "H": 32 * self.warps,
            "P": sharing,
            "num_warps": self.warps,
        }

    def channels(self, states: int) -> int:
        """Of a program."""
        sizes = self.options(states)
        return sizes["H"] // sizes["P"]


# Chosen by benchmarks/selective_scan_gpu.py --sweep.
FORWARD, BACKWARD, CARRY = Threads(4, 16, 4), Threads(4, 16, 4), Threads(16, 4, 1)
# Channels x segments that a pass should have, and channels that are enough without segments.
FORWARD_WIDTH, BACKWARD_WIDTH = 65536, 24576
WHOLE_FORWARD, WHOLE_BACKWARD = 16384, 12288
LEAST_SEGMENT = 32
# Steps between the states that are kept for the way back, and between those of such a chunk that it goes to and fro by.
CHUNK, PART = 64, 16


def forward(
    tensors: Tensors, lengths: Tensor | None, softplus: bool, reverse: Sequence[bool], keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `scan_native.forward`; the output is in the type of u, and what is kept is [K, B, chunks, E, S]."""
    u, delta, A, B, C, D, z, bias, start = _ready(tensors)
    _, rows, channels, length = u.shape
    states = A.shape[-1]
    last, saved = states_like(u, A, keep, CHUNK)
    out = room(u[0], u.dtype)
    if lengths is not None:
        out.zero_()
    valid, gate = steps(lengths, length), u[0] if z is None else z
    segment = _segment(rows * channels, length, FORWARD_WIDTH, WHOLE_FORWARD, LEAST_SEGMENT)
    segments = triton.cdiv(length, segment)
    sizes = FORWARD.options(states)
    blocks = triton.cdiv(channels, FORWARD.channels(states))
    for k, backward in enumerate(reverse):
        before, begun = None if start is None else start[k], start is not None
        if segments > 1:
            before = _between(
                *(u[k], None, delta[k], B[k], A[k], None if bias is None else bias[k], valid, before),
                *(segment, segments, False, backward, softplus),
            )
            begun = True
        kernels.scan_forward[(blocks, segments, rows)](
            *(u[k], delta[k], A[k], B[k], C[k], u if D is None else D[k], gate, u if bias is None else bias[k]),
            *(u if before is None else before, u if valid is None else valid, out, last[k], saved[k]),
            *(channels, length, saved.shape[2], segment, segments),
            *(*u.stride()[1:], *delta.stride()[1:], *gate.stride(), *out.stride()),
            *(-1 if backward else 1, k > 0, softplus, D is not None, z is not None, bias is not None, begun),
            *(valid is not None, keep, CHUNK),
            **sizes,
        )
    return out, last, saved


def backward(
    out_grad: Tensor,
    last_grad: Tensor,
    saved: Tensor,
    tensors: Tensors,
    lengths: Tensor | None,
    softplus: bool,
    reverse: Sequence[bool],
) -> list[Tensor]:
    """As `scan_native.backward`; gradients along the steps are in the types of what they are of."""
    u, delta, A, B, C, D, z, bias, _ = _ready(tensors)
    (_, rows, channels, length), states = u.shape, A.shape[-1]
    u_grad, delta_grad = room(u, u.dtype), room(u, delta.dtype)
    z_grad = u_grad[0] if z is None else room(z, z.dtype)
    if lengths is not None:
        for gradient in (u_grad, delta_grad, z_grad):
            gradient.zero_()
    valid, gate = steps(lengths, length), u[0] if z is None else z
    segment = _segment(rows * channels, length, BACKWARD_WIDTH, WHOLE_BACKWARD, CHUNK)
    segments = triton.cdiv(length, segment)
    sizes = BACKWARD.options(states)
    blocks = triton.cdiv(channels, BACKWARD.channels(states))
    precise = torch.float32 in (u.dtype, tensors[3].dtype)  # type: ignore[union-attr]
    start_grad = torch.empty_like(last_grad, memory_format=torch.contiguous_format)
    sums: list[list[Tensor]] = []
    for k, way in enumerate(reverse):
        carried = last_grad[k].contiguous()
        offset = u if bias is None else bias[k]
        rates_grad = last_grad.new_empty(rows, 1, channels, states)
        if segments > 1:
            carried = rates_grad = _between(
                *(out_grad, z, delta[k], C[k], A[k], None if bias is None else bias[k], valid, carried),
                *(segment, segments, True, way, softplus),
            )
        maps = torch.empty if valid is None else torch.zeros
        b_grad, c_grad = (maps(blocks, rows, length, states, device=u.device) for _ in range(2))
        skip_grad, bias_grad = (last_grad.new_empty(rows, segments, channels) for _ in range(2))
        kernels.scan_backward[(blocks, segments, rows)](
            *(out_grad, carried, saved[k], u[k], delta[k], A[k], B[k], C[k], u if D is None else D[k], gate, offset),
            *(u if valid is None else valid, u_grad[k], delta_grad[k], z_grad, b_grad, c_grad, rates_grad),
            *(skip_grad, bias_grad, start_grad[k]),
            *(channels, length, saved.shape[2], segment // CHUNK, segments),
            *(*out_grad.stride(), *u.stride()[1:], *delta.stride()[1:], *gate.stride()),
            *(*u_grad.stride()[1:], *delta_grad.stride()[1:], *z_grad.stride()),
            *(
                -1 if way else 1,
                k > 0,
                softplus,
                D is not None,
                z is not None,
                bias is not None,
                valid is not None,
                CHUNK,
                PART,
                precise,
            ),
            **sizes,
        )
        sums.append(
            [b_grad.sum(0), c_grad.sum(0), rates_grad.sum((0, 1)), skip_grad.sum((0, 1)), bias_grad.sum((0, 1))]
        )
    b_all, c_all, a_all, skips, offsets = (_stacked(parts) for parts in zip(*sums, strict=True))
    return [
        *(u_grad, delta_grad, a_all, b_all.transpose(2, 3), c_all.transpose(2, 3), skips),
        *(z_grad, offsets, start_grad),
    ]


def _segment(width: int, length: int, wanted: int, enough: int, least: int) -> int:
    """Steps of a segment: a power of 2 times `least`, or what holds them all where the scans are wide enough."""
    whole = least * triton.next_power_of_2(triton.cdiv(length, least))
    if width >= enough:
        return whole
    return min(whole, least * triton.next_power_of_2(max(1, length * width // (wanted * least))))


def _between(
    x: Tensor,
    z: Tensor | None,
    delta: Tensor,
    maps: Tensor,
    A: Tensor,
    bias: Tensor | None,
    valid: Tensor | None,
    end: Tensor | None,
    segment: int,
    segments: int,
    back: bool,
    reverse: bool,
    softplus: bool,
) -> Tensor:
    """States before each segment [B, segments, E, S] or, `back`, their gradients after each, from that at the end."""
    (rows, channels, length), states = x.shape, A.shape[-1]
    parts = A.new_empty(rows, segments, channels, states, dtype=torch.float32)
    totals = A.new_empty(rows, segments, channels, dtype=torch.float32)
    gate = x if z is None else z
    kernels.summarise[(triton.cdiv(channels, FORWARD.channels(states)), segments - 1, rows)](
        *(x, gate, delta, maps, A, x if bias is None else bias, x if valid is None else valid, parts, totals),
        *(channels, length, segment, segments, *x.stride(), *gate.stride(), *delta.stride()),
        *(back, -1 if reverse else 1, softplus, z is not None, bias is not None, valid is not None),
        **FORWARD.options(states),
    )
    kernels.carry[(triton.cdiv(channels, CARRY.channels(states)), rows)](
        *(parts, totals, A, A if end is None else end, channels, segments, back, end is not None),
        **CARRY.options(states),
    )
    return parts


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))


def _ready(tensors: Tensors) -> list[Tensor]:
    """Parameters without gaps, and maps [K, B, L, S] in float32: few, and read often. What is absent stays None."""
    ready = [x.contiguous() if x is not None and index in (2, 5, 7, 8) else x for index, x in enumerate(tensors)]
    for index in (3, 4):
        wide = ready[index].transpose(2, 3)  # type: ignore[union-attr]
        ready[index] = wide.to(torch.float32, memory_format=torch.contiguous_format).contiguous()
    return ready  # type: ignore[return-value]
