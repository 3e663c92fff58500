"""Heads that turn an encoder's output into what a loss or a task wants."""

from __future__ import annotations

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
