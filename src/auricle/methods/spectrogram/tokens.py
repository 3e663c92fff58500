"""The tokens of a spectrogram's patches, and what a pretext task may ask of any encoder over them.

B clips, T frames, F mel bins, (f, t) grid of patches, N = f * t tokens, M of them, P prefix tokens, D width.
Token order is frequency-major: token = row * t + column.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from auricle.methods.base import SpectrogramEncoder


@dataclass(frozen=True)
class Tokens:
    """Patch embeddings [B, N, D], their grid, and the columns [B, t] that are attended to."""

    embeddings: Tensor
    grid: tuple[int, int]
    valid: Tensor

    def token_valid(self) -> Tensor:
        """[B, N]: the columns' validity for every row."""
        return self.valid.repeat(1, self.grid[0])


class TokenEncoder(SpectrogramEncoder):
    """Patches of a spectrogram through layers that take any of a clip's tokens: a pretext task may leave some out."""

    @property
    @abstractmethod
    def prefix(self) -> int:
        """P, the number of tokens before the patches."""

    @abstractmethod
    def placed(self, features: Tensor, frames: Tensor) -> Tokens:
        """Patch embeddings with positions of features [B, T, F] and frames [B] that fit the table of positions."""

    @abstractmethod
    def encode(self, placed: Tensor, valid: Tensor | None = None, layers: Iterable[int] | None = None) -> list[Tensor]:
        """Outputs [B, P + M, D] of `layers` (all, if None), and after them the final norm's.

        Tokens with positions [B, M, D] may be any of each clip, in their order; nothing attends to those that `valid`
        [B, M] excludes.
        """

    def pool(self, normed: Tensor, valid: Tensor) -> Tensor:
        """[B, D]: the mean over a clip's own patch tokens, `valid` [B, M] of outputs [B, P + M, D]."""
        return token_mean(normed[:, self.prefix :], valid)


def token_mean(x: Tensor, valid: Tensor) -> Tensor:
    """The mean [B, D] of the `valid` [B, N] ones of tokens [B, N, D]."""
    weight = valid.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1)
