"""Is the network still telling inputs apart? Two numbers that fall when features collapse."""

from __future__ import annotations

import torch
from torch import Tensor

from auricle.nn.batchnorm import batch_statistics


def effective_rank(features: Tensor) -> float:
    """exp(entropy of the normalised singular values) of centred features [N, D] (RankMe, without its epsilon)."""
    centred = (features - features.mean(0)).double()
    values = torch.linalg.svdvals(centred)
    total = values.sum()
    if not total > 0:
        return 0.0
    share = values / total
    return float(torch.exp(-(share * share.clamp(min=1e-300).log()).sum()))


def feature_spread(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation over inputs, relative to the root mean square; features [N, D]."""
    scale = features.square().mean().sqrt()
    return float(features.std(0, correction=0).mean() / scale.clamp(min=1e-12))


def unit_spread(features: Tensor, together: bool = False) -> Tensor:
    """Mean [] over dimensions of the standard deviation of features [N, D] scaled to length 1.

    Features that lie evenly in all directions have D ** -0.5; near 0 they all point the same way. As BYOL's descendants
    log it: unbiased, sqrt(variance + 1e-6), and with `together` over the rows of all processes, which all must call it.
    """
    unit = torch.nn.functional.normalize(features.detach().float(), dim=-1)
    if together:
        _, variance, rows = batch_statistics(unit)
        variance = variance * rows / (rows - 1)
    else:
        variance = unit.var(0)
    return (variance + 1e-6).sqrt().mean()
