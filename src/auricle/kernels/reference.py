"""What the kernels compute, operation by operation, in plain torch: the truth that the fast ones are tested against.

B batch, E channels, S states, L steps, G groups. float64 stays float64; other types are computed in float32 and
returned in the type of `u`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """h_l = exp(d_l A) h_{l-1} + d_l u_l B_l;  y_l = C_l h_l;  out = (y + D u) silu(z), one step after the other.

    Shapes are those of `auricle.kernels.selective_scan`; returns `out` [B, E, L] and the last state [B, E, S].
    """
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    length = u.shape[2]
    rates = A.to(dtype)
    along = [None if t is None else t.to(dtype) for t in (u, delta, B, C, z)]
    offset = None if delta_bias is None else delta_bias.to(dtype)
    (x, d, B, C, z), valid = prepared(along, offset, delta_softplus, lengths)
    inputs, outputs = per_channel(B, u), per_channel(C, u)
    state = x.new_zeros(*u.shape[:2], A.shape[1]) if initial_state is None else initial_state.to(dtype)
    columns: dict[int, Tensor] = {}
    # Taken apart at once: the gradient of an index is as large as the whole, and the way back would be quadratic.
    sizes, values = d.unsqueeze(3).unbind(2), x.unsqueeze(3).unbind(2)
    ins, outs = inputs.unbind(3), outputs.unbind(3)
    for step in reversed(range(length)) if reverse else range(length):
        now = sizes[step]
        state = torch.exp(now * rates) * state + now * values[step] * ins[step]
        columns[step] = (state * outs[step]).sum(-1)
    y = torch.stack([columns[step] for step in range(length)], dim=2)
    if D is not None:
        y = y + x * D.to(dtype)[:, None]
    if z is not None:
        y = y * F.silu(z)
    if valid is not None:
        y = torch.where(valid, y, 0.0)
    return y.to(u.dtype), state.to(dtype)


def prepared(
    sequences: Sequence[Tensor | None], delta_bias: Tensor | None, delta_softplus: bool, lengths: Tensor | None
) -> tuple[list[Any], Tensor | None]:
    """u, the sizes of steps, B, C and z from u, delta, B, C and z; and which steps are valid, [B, 1, L].

    Zeros are put into the padding before anything is computed, so that not even what is no number there gets into a
    value or a gradient.
    """
    along: list[Any] = list(sequences)
    valid = valid_steps(lengths, along[0].shape[2])
    if valid is not None:
        # A constant map [E, S] has no steps.
        masks = {3: valid, 4: valid[:, None]}
        along = [x if x is None or x.ndim == 2 else torch.where(masks[x.ndim], x, 0.0) for x in along]
    d = along[1] if delta_bias is None else along[1] + delta_bias[:, None]
    if delta_softplus:
        d = F.softplus(d)
    # Without time, a step of padding leaves the state as it is.
    along[1] = d if valid is None else torch.where(valid, d, 0.0)
    return along, valid


def valid_steps(lengths: Tensor | None, length: int) -> Tensor | None:
    """[B, 1, L], true where there is no padding."""
    return None if lengths is None else (torch.arange(length, device=lengths.device) < lengths[:, None])[:, None]


def per_channel(x: Tensor, u: Tensor) -> Tensor:
    """B or C in any of its forms ([B, S, L], [B, G, S, L] or constant [E, S]) as [B, E, S, L]."""
    batch, channels, length = u.shape
    if x.ndim == 2:
        return x[None, :, :, None].expand(batch, channels, -1, length)
    if x.ndim == 3:
        return x[:, None].expand(-1, channels, -1, -1)
    return x.repeat_interleave(channels // x.shape[1], dim=1)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    silu: bool = False,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Depthwise convolution of x [B, E, L] with weight [E, W], each step seeing the W - 1 before it and itself.

    With `reverse`, it sees those after it. Steps from `lengths` [B] on are zero, going in and coming out.
    """
    valid = valid_steps(lengths, x.shape[2])
    if valid is not None:
        x = torch.where(valid, x, 0.0)
    taps = weight.shape[1]
    if reverse:
        padded, weight = F.pad(x, (0, taps - 1)), weight.flip(1)
    else:
        padded = F.pad(x, (taps - 1, 0))
    y = F.conv1d(padded, weight[:, None].to(x.dtype), None if bias is None else bias.to(x.dtype), groups=x.shape[1])
    if silu:
        y = F.silu(y)
    return y if valid is None else torch.where(valid, y, 0.0)
