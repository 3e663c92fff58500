"""The selective scan in plain torch, for machines without the C++ kernels: a chunk of steps at a time.

Within a chunk, decays and inputs of all steps are computed at once; only the recurrence itself goes step by step, in
one fused multiply-add each. Nothing of the size of length x state is kept: the backward pass computes each chunk again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from auricle.kernels.backends import transformed
from auricle.kernels.reference import prepared

CHUNK = 64


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """`reference.selective_scan` for B and C of shape [B, S, L]; u, delta and z in one floating-point type."""
    (u, d, B, C, z), valid = prepared((u, delta, B, C, z), delta_bias, delta_softplus, lengths)
    state = u.new_zeros(*u.shape[:2], A.shape[1]) if initial_state is None else initial_state
    pieces = []
    # torch.func's transforms know no checkpoints.
    again = torch.is_grad_enabled() and not transformed()
    starts = range(0, u.shape[2], CHUNK)
    for start in reversed(starts) if reverse else starts:
        part = slice(start, start + CHUNK)
        arguments = (d[:, :, part], u[:, :, part], A, B[:, :, part], C[:, :, part], state, reverse)
        if again:
            y, state = checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state = _chunk(*arguments)
        pieces.append(y)
    y = torch.cat(pieces[::-1] if reverse else pieces, dim=2)
    if D is not None:
        y = y + u * D[:, None]
    if z is not None:
        y = y * F.silu(z)
    return (y if valid is None else torch.where(valid, y, 0.0)), state


def _chunk(
    d: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    decays = torch.exp(torch.einsum("bel,es->lbes", d, A))
    inputs = torch.einsum("bel,bsl->lbes", d * u, B)
    # Unbound, not indexed: the gradient of an index is as large as the chunk.
    steps = list(zip(decays.unbind(0), inputs.unbind(0), strict=True))
    states = []
    for decay, new in reversed(steps) if reverse else steps:
        state = torch.addcmul(new, decay, state)
        states.append(state)
    stacked = torch.stack(states[::-1] if reverse else states)
    return torch.einsum("lbes,bsl->bel", stacked, C), state
