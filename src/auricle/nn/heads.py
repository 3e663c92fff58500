"""Heads that turn an encoder's output into what a loss or a task wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.nn.batchnorm import BatchNorm

FramePooling = Literal["linear_softmax", "attention"]


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


class BatchNormHead(nn.Module):
    """BatchNorm without scale and shift, then Linear: a pooled embedding [B, D] to logits [B, C] (DINO's linear probe).

    Linear weights begin normal with standard deviation 0.01, the bias at 0.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(width, affine=False)
        self.linear = nn.Linear(width, classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(pooled))
        return logits


class ProjectionMLP(nn.Sequential):
    """Linear, BatchNorm, ReLU, Linear, without biases of its own: BYOL's projector and predictor, [N, D] to [N, K]."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__(
            nn.Linear(width, hidden, bias=False),
            BatchNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out, bias=False),
        )


class Bottleneck(nn.Sequential):
    """Three Linear layers with exact GELU between, to vectors of length 1: DINO's head before the prototypes."""

    def __init__(self, width: int, hidden: int = 2048, out: int = 256) -> None:
        super().__init__(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return F.normalize(x, dim=-1)


class Prototypes(nn.Module):
    """Cosines of vectors of length 1 with K learned directions, [..., D] to [..., K]: DINO's last layer.

    It is a linear map without bias under weight normalisation, whose lengths `weight_g` are 1 and are not learned; a
    teacher follows them as all parameters, and files may hold others.
    """

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(prototypes, 1), requires_grad=False)
        self.weight_v = nn.Parameter(torch.empty(prototypes, width))
        nn.init.trunc_normal_(self.weight_v, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_g * F.normalize(self.weight_v, dim=-1))


class FrameHead(nn.Module):
    """LayerNorm and Linear: a vector for each time step [B, t, D] to logits [B, t, C]; and clips from their frames.

    `pooling` says how a clip's probability follows from its frames': "linear_softmax" weighs each by itself (Wang et
    al. 2019), "attention" by a learned softmax over the classes, as the DCASE baseline does, whose head does not
    `normalise` either.
    """

    # Events are rare: a head that begins at one half spends its first steps on saying no.
    FIRST_LOGIT = -3.0

    def __init__(
        self, width: int, classes: int, pooling: FramePooling = "linear_softmax", normalise: bool = True
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if normalise else nn.Identity()
        self.linear = nn.Linear(width, classes)
        nn.init.constant_(self.linear.bias, self.FIRST_LOGIT)
        self.attention = nn.Linear(width, classes) if pooling == "attention" else None

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Frames [B, t, D] to logits [B, t, C] and the logits [B, t, C] of the attention, if there is one."""
        normed = self.norm(frames)
        return self.linear(normed), None if self.attention is None else self.attention(normed)


def pool_frames(probability: Tensor, attention: Tensor | None, valid: Tensor) -> Tensor:
    """The probability of each class in a clip [B, C] from those of its `valid` [B, t] frames [B, t, C].

    Args:
        attention: logits [B, t, C] of `FrameHead`; None: linear softmax.
    """
    weight = probability if attention is None else attention.softmax(-1).clamp(1e-7, 1.0)
    weight = weight * valid.unsqueeze(-1)
    return (probability * weight).sum(1) / weight.sum(1).clamp(min=1e-7)
