"""From the tokens of one layer to one vector per clip.

B batch, t time steps, f frequency rows, P prefix tokens, D width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from auricle.errors import ConfigError
from auricle.methods.base import AudioEncoder, Encoded
from auricle.nn.steps import Steps, over_stretches

Pooling = Literal["own", "mean", "rows", "cls", "summary"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
# As users say which layers to read: blocks from 1 on, -1 is the last, "all", or "1,6,9-12"; None reads the last one as
# the method's paper does.
Layers = str | int | Sequence[int] | None


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


def block_index(number: str | int, depth: int) -> int | None:
    """The index into `Encoded.layers` of a block that is counted from 1 (-1 is the last); None if there is none."""
    block = int(number) if re.fullmatch(r"-?\d{1,9}", str(number)) else 0
    if not 1 <= abs(block) <= depth:
        return None
    return block - 1 if block > 0 else depth + block


def layer_indices(layers: Layers, depth: int) -> tuple[int, ...] | None:
    """The indices into `Encoded.layers` of some of `depth` blocks, in the order in which they were asked for.

    Raises:
        ConfigError: no such block, or one twice.
    """
    if layers is None or layers == "last":
        return None
    if layers == "all":
        return tuple(range(depth))
    numbers: list[str | int] = []
    for part in layers.split(",") if isinstance(layers, str) else [layers] if isinstance(layers, int) else layers:
        span = re.fullmatch(r"\s*(\d{1,4})-(\d{1,4})\s*", str(part))
        numbers += range(int(span[1]), int(span[2]) + 1) if span else [str(part).strip()]
    found = [block_index(number, depth) for number in numbers]
    chosen = tuple(index for index in found if index is not None)
    if len(chosen) != len(found) or not chosen:
        said = layers if isinstance(layers, str) else ",".join(map(str, numbers))
        raise ConfigError(
            f"layers {said}: the network has {depth} blocks; give numbers from 1 to {depth}, or from -{depth} to -1, "
            "such as 1,6,9-12, or all, or last."
        )
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"layers {layers}: a block is named twice; name each once.")
    return chosen


def layers_read(layers: tuple[int, ...] | None, frames: bool) -> tuple[int, ...]:
    """What an encoder is to be asked for, so that `vectors_of` or, with `frames`, `frames_of` finds it."""
    return ((-1,) if frames else ()) if layers is None else layers


def vectors_of(encoded: Encoded, layers: tuple[int, ...] | None) -> Tensor:
    """One vector per clip [B, K]: as the paper pools the last layer, or some layers side by side.

    Of each layer it is what the method's authors read (`summary`), or the mean over tokens where they read none.
    """
    if layers is None:
        return encoded.pooled
    pooling: Pooling = "summary" if encoded.summaries else "mean"
    return torch.cat([pool(encoded, layer, pooling) for layer in layers], dim=1)


def frames_of(encoded: Encoded, layers: tuple[int, ...] | None) -> Tensor:
    """One vector per time step [B, t, n f D]: of the last layer, or of n layers side by side."""
    return torch.cat([encoded.frames(layer) for layer in layers_read(layers, frames=True)], dim=-1)


def time_steps(encoded: Encoded, seconds: float = 0.0) -> Steps:
    """What a head for time steps reads: those of the last layer [B, t, f D], or means [B, n, D] over `seconds` each.

    A mean is over all tokens of a stretch, those of all frequency rows.
    """
    if not seconds:
        return Steps(encoded.frames(), encoded.times, encoded.valid)
    return over_stretches(columns_of(encoded), seconds)


def columns_of(encoded: Encoded) -> Steps:
    """The means over frequency rows of the last layer's tokens [B, t, D]."""
    return Steps(encoded.layers[-1].unflatten(1, encoded.grid).mean(1), encoded.times, encoded.valid)


def vector_width(encoder: AudioEncoder, layers: tuple[int, ...] | None) -> int:
    """K of `vectors_of`."""
    return encoder.dim if layers is None else len(layers) * encoder.summary_dim
