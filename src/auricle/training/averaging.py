"""The mean of a network's weights over the ends of some epochs, in the memory of one network more."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Sums a module's weights whenever an epoch of a window ends; a checkpoint carries the sums.

    SSAST's code saves every epoch and adds them up afterwards, in the same order: the same mean, for a disk that holds
    all of them.

    Args:
        epochs: the first and the last, counted from 1.
    """

    def __init__(self, module: nn.Module, epochs: tuple[int, int], steps_per_epoch: int) -> None:
        self.module, self.epochs = module, epochs
        self.steps = {epoch * steps_per_epoch for epoch in range(epochs[0], epochs[1] + 1)}
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def after_step(self, step: int) -> None:
        """Add the weights if an epoch of the window ends with this step."""
        if step not in self.steps:
            return
        weights = {name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        if self.count:
            self.sums = {name: self.sums[name] + value for name, value in weights.items()}
        else:
            self.sums = {name: value.clone() for name, value in weights.items()}
        self.count += 1

    def mean(self) -> dict[str, Tensor]:
        """The mean of what was added."""
        return {name: value / self.count for name, value in self.sums.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The sums, for a checkpoint."""
        return {"average": torch.tensor(self.count), **{f"average.{name}": s for name, s in self.sums.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of `tensors`."""
        self.count = int(tensors["average"])
        prefix = "average."
        self.sums = {name.removeprefix(prefix): s for name, s in tensors.items() if name.startswith(prefix)}
