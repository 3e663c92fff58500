"""The time steps of a network, as heads read them: its own, or means over longer stretches.

B batch, t time steps, n stretches, K width of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Steps:
    """Time steps of a batch of clips.

    Attributes:
        values: [B, t, K].
        times: centres [t] in seconds from the start of the clip.
        valid: [B, t], False where there is nothing but padding.
    """

    values: Tensor
    times: Tensor
    valid: Tensor


def over_stretches(steps: Steps, seconds: float) -> Steps:
    """Means over the valid steps whose centres lie in the same stretch of `seconds`, counted from time 0.

    For one second that is SSAMBA's pooling `ft_avgtok_1sec` (specification, section 1.3), over time and not, as in the
    official code, over neighbours in the order of tokens. A stretch without any step does not occur; `times` are the
    middles of the others, though the last one may not be whole.
    """
    number, place = torch.unique_consecutive((steps.times / seconds).floor().long(), return_inverse=True)
    shape, weight = (len(steps.values), len(number)), steps.valid.to(steps.values.dtype)
    summed = steps.values.new_zeros(*shape, steps.values.shape[2])
    summed = summed.index_add(1, place, steps.values * weight.unsqueeze(-1))
    count = weight.new_zeros(*shape).index_add(1, place, weight)
    times = ((number + 0.5) * seconds).to(steps.times.dtype)
    return Steps(summed / count.clamp(min=1).unsqueeze(-1), times, count > 0)
