"""Sequences without end, for networks that look both ways: overlapping windows, and what they cost.

A network that only looks back needs none of this: `nn.mamba.Mamba.step` carries its state and is exact.

B batch, D width, L tokens of the stream, l tokens of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from auricle.errors import ConfigError


@dataclass(frozen=True)
class Piece:
    """The next tokens of a stream, encoded.

    Attributes:
        out: [B, l, D].
        seam: where a window joins the one before it, the relative difference (L2) of what the two say about the two
            tokens beside the seam, which of all tokens that are used see least on one side: what the cut costs there.
            None in the first piece.
    """

    out: Tensor
    seam: float | None


def in_windows(
    encode: Callable[[Tensor], Tensor], pieces: Iterable[Tensor], window: int, context: int
) -> Iterator[Piece]:
    """Encode a stream [B, l, D] of pieces of any length, `window` tokens at a time, in memory that does not grow.

    Every token is used once, from a window in which at least `context` tokens lie on either side of it, or all that
    there are. A stream that fits into a window is encoded exactly.

    Args:
        encode: [B, l, D] to [B, l, D'].
        window: tokens that are encoded at once; more than twice `context`.
        context: tokens on each side of a window's seam that are encoded but not used.

    Raises:
        ConfigError: windows too short for their context, a stream without tokens.
    """
    if context < 1 or window <= 2 * context:
        raise ConfigError(
            f"a window of {window} tokens must be longer than twice its context of {context} >= 1 tokens."
        )
    held: Tensor | None = None
    tail: Tensor | None = None
    for piece in pieces:
        held = piece if held is None else torch.cat([held, piece], dim=1)
        # One token more than a window: there will be another one, and this one has a right end.
        while held.shape[1] > window:
            encoded = encode(held[:, :window])
            yield _joined(encoded, tail, window - context, context)
            tail = encoded[:, window - context - 1 :]
            # The next window begins so that its first `context` tokens are on the left of the seam.
            held = held[:, window - 2 * context :]
    if held is None or not held.shape[1]:
        raise ConfigError("a stream must have at least one token.")
    yield _joined(encode(held), tail, held.shape[1], context)


def _joined(encoded: Tensor, tail: Tensor | None, end: int, context: int) -> Piece:
    """What is used of a window up to `end`, and how it fits `tail`: the window before, from one before the seam on."""
    if tail is None:
        return Piece(encoded[:, :end], None)
    ours, theirs = encoded[:, context - 1 : context + 1].float(), tail[:, :2].float()
    least = torch.finfo(torch.float32).tiny
    seam = float((ours - theirs).norm() / theirs.norm().clamp(min=least))
    return Piece(encoded[:, context:end], seam)
