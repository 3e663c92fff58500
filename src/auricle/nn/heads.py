"""Heads that turn an encoder's output into what a loss or a task wants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Predictor(nn.Sequential):
    """Linear, ReLU, Linear: predicts a raw patch from a token, [..., D] to [..., K]."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


class ClassifierHead(nn.Module):
    """LayerNorm (eps 1e-5) and Linear: a pooled embedding [B, D] to logits [B, C]."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(pooled))
        return logits


class LayerMixHead(nn.Module):
    """SUPERB's head for whole clips: a learned weighting of all layers, Linear to 256, mean over tokens, Linear.

    The weights are a softmax that starts even; there is no nonlinearity, as in s3prl.
    """

    def __init__(self, layers: int, width: int, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.projector = nn.Linear(width, 256)
        self.linear = nn.Linear(256, classes)

    def forward(self, layers: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Layers of tokens [B, N, D], of which `valid` [B, N] count, to logits [B, C]."""
        share = valid.to(layers[0].dtype) / valid.sum(1, keepdim=True)
        means = torch.stack([torch.einsum("bn,bnd->bd", share, tokens) for tokens in layers])
        logits: Tensor = self.linear(self.projector(torch.einsum("l,lbd->bd", self.weights.softmax(0), means)))
        return logits
