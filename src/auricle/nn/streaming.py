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
        first: how many tokens of its window lie before it, and are not used.
        seam: where a window joins the one before it, the relative difference (L2) of what the two say about the two
            tokens beside the seam, which of all tokens that are used see least on one side: what the cut costs there.
            None in the first piece.
    """

    out: Tensor
    first: int
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
    yield from join_windows(((start, encode(tokens)) for start, tokens in _cut(pieces, window, context)), context)


def join_windows(windows: Iterable[tuple[int, Tensor]], context: int) -> Iterator[Piece]:
    """What is used of encoded windows that overlap by at least twice `context` tokens, a piece for each.

    Args:
        windows: where a window begins in the stream, and its tokens [B, l, D].
        context: tokens at the beginning of each window but the first that are not used.
    """
    held: tuple[int, Tensor] | None = None
    first, seam = 0, None
    for start, encoded in windows:
        if held is not None:
            at = start + context - held[0]
            yield Piece(held[1][:, first:at], first, seam)
            ours, theirs = encoded[:, context - 1 : context + 1].float(), held[1][:, at - 1 : at + 1].float()
            least = torch.finfo(torch.float32).tiny
            first, seam = context, float((ours - theirs).norm() / theirs.norm().clamp(min=least))
        held = start, encoded
    if held is not None:
        yield Piece(held[1][:, first:], first, seam)


def _cut(pieces: Iterable[Tensor], window: int, context: int) -> Iterator[tuple[int, Tensor]]:
    """Windows of a stream [B, l, D], each with where it begins."""
    held: Tensor | None = None
    start, hop = 0, window - 2 * context
    for piece in pieces:
        held = piece if held is None else torch.cat([held, piece], dim=1)
        # One token more than a window: there will be another one, and this one has a right end.
        while held.shape[1] > window:
            yield start, held[:, :window]
            # The next window begins so that its first `context` tokens are on the left of the seam.
            start, held = start + hop, held[:, hop:]
    if held is None or not held.shape[1]:
        raise ConfigError("a stream must have at least one token.")
    yield start, held
