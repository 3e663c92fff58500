"""The selective scan as the official function for CPUs computes it, by which the kernels are measured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor) -> Tensor:
    """The official reference operation by operation (../shared/specs/ssamba.md, section 2.1): decays and inputs of all
    steps at once, then one step after the other. Only the steps are unbound, not indexed: the gradient of an index
    is as large as the whole, and the way back would be quadratic."""
    delta = F.softplus(delta + delta_bias[:, None])
    decays = torch.exp(torch.einsum("bel,es->bels", delta, A))
    inputs = torch.einsum("bel,bsl,bel->bels", delta, B, u)
    state = u.new_zeros(*u.shape[:2], A.shape[1])
    outputs = []
    for decay, new, c in zip(decays.unbind(2), inputs.unbind(2), C.unbind(2), strict=True):
        state = decay * state + new
        outputs.append(torch.einsum("bes,bs->be", state, c))
    return (torch.stack(outputs, dim=2) + u * D[:, None]) * F.silu(z)
