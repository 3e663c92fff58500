"""Heads trained by gradient: the MLP, and linear or MLP heads on a learned mix of layers.

N clips, L layers, D width, H hidden units, C classes. Sets are small, so every step sees all clips.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from auricle.data.randomness import torch_seed

Array = NDArray[Any]
HIDDEN = 256
DROPOUT = 0.1
STEPS = 150
LR = 2e-3
WEIGHT_DECAY = 1e-2
# A layer's weight has one number to learn it by, and must get from 1 / L to 1 within the steps.
MIX_LR = 0.1


class Network(nn.Module):
    """A softmax-weighted sum of layers (Yang et al., SUPERB, 2021) where the input has several, then a classifier."""

    def __init__(self, shape: tuple[int, ...], classes: int, hidden: int = 0) -> None:
        super().__init__()
        width = shape[-1]
        self.mix = nn.Parameter(torch.zeros(shape[0])) if len(shape) == 2 else None
        body = [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(DROPOUT)] if hidden else []
        self.body = nn.Sequential(*body, nn.Linear(hidden or width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """X [N, D] or [N, L, D] to logits [N, C]."""
        if self.mix is not None:
            x = torch.einsum("l,nld->nd", self.mix.softmax(0), x)
        logits: Tensor = self.body(x)
        return logits

    def scores(self, x: Array) -> Array:
        """Logits [N, C] in evaluation mode."""
        self.eval()
        with torch.no_grad():
            return np.asarray(self(torch.from_numpy(np.asarray(x, np.float32))).numpy())

    def mixture(self) -> Array | None:
        """The weight of each layer [L]."""
        return None if self.mix is None else np.asarray(self.mix.detach().softmax(0).numpy())


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation over clips; a dimension that does not vary keeps its scale."""
    mean, std = x.mean(0), x.std(0)
    return mean, np.where(std > 1e-8 * max(1.0, float(std.max())), std, 1.0)


def train_mlp(x: Array, y: Array, seed: int) -> Network:
    """256 ReLU units, dropout 0.1, 150 steps of AdamW over all clips, cosine from 2e-3 to 0; classes weigh alike.

    X [N, D] or [N, L, D], standardised; y [N] class numbers. Weights and dropout follow from the seed.
    """
    inputs, targets, weight = _tensors(x, y)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(torch_seed(seed, "mlp"))
        network = Network(x.shape[1:], len(weight), HIDDEN)
        groups: list[dict[str, Any]] = [{"params": network.body.parameters(), "weight_decay": WEIGHT_DECAY}]
        if network.mix is not None:
            groups.append({"params": [network.mix], "lr": MIX_LR, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=LR)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), targets, weight).backward()
            optimizer.step()
            schedule.step()
    return network


def train_linear(x: Array, y: Array, c: float) -> Network:
    """Multinomial logistic regression with the penalty |W|^2 / (2 C), on a mix that is learned with it, by L-BFGS.

    X [N, L, D] standardised, y [N] class numbers. Nothing is drawn: it starts from zero and equal weights. With one
    layer it is scikit-learn's `LogisticRegression(C, class_weight="balanced")`.
    """
    inputs, targets, weight = _tensors(x, y)
    network = Network(x.shape[1:], len(weight))
    last = network.body[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=100, tolerance_grad=1e-5, history_size=20, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(inputs), targets, weight) + last.weight.square().sum() / (2 * c * len(y))
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    return network


def _tensors(x: Array, y: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets, and balanced class weights N / (C * count)."""
    counts = np.bincount(y)
    weight = torch.from_numpy((len(y) / (len(counts) * counts)).astype(np.float32))
    return torch.from_numpy(np.asarray(x, np.float32)), torch.from_numpy(np.asarray(y, np.int64)), weight
