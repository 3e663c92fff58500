"""From the tokens of one layer to one vector per clip.

B batch, t time steps, f frequency rows, P prefix tokens, D width.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from auricle.errors import ConfigError
from auricle.methods.base import Encoded

Pooling = Literal["own", "mean", "rows", "cls", "summary"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


def pool(encoded: Encoded, layer: int, pooling: Pooling) -> Tensor:
    """One vector per clip of layer `layer` (an index into `encoded.layers`); padding does not count.

    own   [B, D]      as the method's paper pools; it is defined for the last layer only.
    mean  [B, D]      the mean over all tokens.
    rows  [B, f * D]  the mean over time of each frequency row, the rows side by side as in `Encoded.frames`.
    cls   [B, D]      the mean over the prefix tokens (SSAST has two).
    summary  [B, K]   what the method's authors read of each layer (ATST-Clip: the class token beside the mean).

    Raises:
        ConfigError: `own` for another layer than the last, or `cls` or `summary` of a network that has none.
    """
    if pooling == "own":
        if layer not in (-1, len(encoded.layers) - 1):
            raise ConfigError("pooling 'own' is defined for the last layer only; take mean, rows or cls for others.")
        return encoded.pooled.float()
    if pooling == "cls":
        if not encoded.prefix:
            raise ConfigError("pooling 'cls' needs prefix tokens, and this network has none; take mean or rows.")
        return encoded.prefix[layer].float().mean(1)
    if pooling == "summary":
        if not encoded.summaries:
            raise ConfigError("pooling 'summary' is for methods that define one (ATST); take own, mean or rows.")
        return encoded.summaries[layer].float()
    weight = encoded.valid.unsqueeze(-1).float()
    rows = (encoded.frames(layer).float() * weight).sum(1) / weight.sum(1)
    return rows if pooling == "rows" else rows.unflatten(1, (encoded.grid[0], -1)).mean(1)
