"""What the kernels compute, operation by operation, in plain torch: the truth that the fast ones are tested against.

B batch, E channels, S states, L steps, G groups. float64 stays float64; other types are computed in float32 and
returned in the type of `u`.
"""

from __future__ import annotations

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
    d = delta.to(dtype) if delta_bias is None else delta.to(dtype) + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        d = F.softplus(d)
    x, decay_rates = u.to(dtype), A.to(dtype)
    inputs, outputs = per_channel(B, u).to(dtype), per_channel(C, u).to(dtype)
    state = x.new_zeros(*u.shape[:2], A.shape[1]) if initial_state is None else initial_state.to(dtype)
    columns: dict[int, Tensor] = {}
    # Taken apart at once: the gradient of an index is as large as the whole, and the way back would be quadratic.
    sizes, values = d.unsqueeze(3).unbind(2), x.unsqueeze(3).unbind(2)
    ins, outs = inputs.unbind(3), outputs.unbind(3)
    for step in reversed(range(length)) if reverse else range(length):
        now = sizes[step]
        new = torch.exp(now * decay_rates) * state + now * values[step] * ins[step]
        y = (new * outs[step]).sum(-1)
        if lengths is not None:
            # Padding neither changes the state nor says anything.
            real = (step < lengths)[:, None]
            new, y = torch.where(real[..., None], new, state), torch.where(real, y, 0.0)
        state = new
        columns[step] = y
    y = torch.stack([columns[step] for step in range(length)], dim=2)
    if D is not None:
        y = y + x * D.to(dtype)[:, None]
    if z is not None:
        y = y * F.silu(z.to(dtype))
    if lengths is not None:
        y = y * (torch.arange(length, device=u.device) < lengths[:, None])[:, None]
    return y.to(u.dtype), state.to(dtype)


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
    valid = None
    if lengths is not None:
        valid = (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None]
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
