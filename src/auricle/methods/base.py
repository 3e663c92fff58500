"""What every method offers to the rest of the library.

B batch, S samples, N tokens, P prefix tokens, D width, (f, t) token grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from auricle.audio.read import Channel
from auricle.config import DataclassInstance, TrainConfig
from auricle.data.batch import Batch
from auricle.data.labels import Task

Capability = Literal["pretrain", "embed", "finetune", "decode"]


@dataclass(frozen=True)
class Encoded:
    """What an encoder says about a batch of clips.

    Attributes:
        layers: outputs of each layer [B, N, D], patch or frame tokens only; the last one after the final norm.
        prefix: the cls-like tokens [B, P, D] of each layer, or an empty tuple.
        grid: (f, t) with N = f * t; token = row * t + column unless the method documents another order.
        times: centres [t] in seconds from the start of the clip.
        valid: [B, t], False for columns that hold nothing but padding.
        pooled: [B, D], pooled as the method's paper pools.
    """

    layers: tuple[Tensor, ...]
    prefix: tuple[Tensor, ...]
    grid: tuple[int, int]
    times: Tensor
    valid: Tensor
    pooled: Tensor

    def frames(self, layer: int = -1) -> Tensor:
        """One vector per time step [B, t, f * D]: the frequency rows side by side."""
        tokens = self.layers[layer]
        rows, columns = self.grid
        return tokens.unflatten(1, (rows, columns)).transpose(1, 2).flatten(2)


@runtime_checkable
class AudioEncoder(Protocol):
    """A network from waveforms to embeddings.

    `frame_rate` is time steps per second, `min_samples` the least that is not padded. Long audio is cut into windows of
    `window_samples` that start every `window_hop` samples, so that time steps continue evenly from window to window.
    `channel` is what is heard of a file with several: "mean", or a number from 0.
    """

    sample_rate: int
    channel: Channel
    dim: int
    num_layers: int
    frame_rate: float
    min_samples: int
    window_samples: int
    window_hop: int

    def __call__(self, waves: Tensor, lengths: Tensor | None = None) -> Encoded:
        """waves [B, S] float32 at `sample_rate`, lengths [B] valid samples (all, if None)."""
        ...


class Objective(Protocol):
    """A pretraining objective: a module around an encoder that knows no optimizer, device, trainer or logger."""

    encoder: Any

    def __call__(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss` and scalars to log; `progress` in [0, 1] is the share of the training that is done."""
        ...

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step, for teachers and the like."""
        ...


@dataclass(frozen=True)
class Preset:
    """A named configuration: the network with its objective, and how to pretrain and fine-tune it."""

    model: Any
    pretrain: TrainConfig
    finetune: TrainConfig
    note: str = ""


@dataclass(frozen=True)
class Recipe:
    """A published fine-tuning on one data set: what it changes of a pretrained network, and how it trains.

    Attributes:
        task: one label per clip, or several.
        model: fields of the method's config that take these values.
        train: the whole training.
        note: one line for `auricle list`.
    """

    task: Task
    model: Mapping[str, Any]
    train: TrainConfig
    note: str

    def fit(self, config: Any) -> tuple[Any, TrainConfig]:
        """The network's config and the training for a network of `config`."""
        return dataclasses.replace(config, **self.model), self.train


@dataclass(frozen=True)
class ImportedTensor:
    """One tensor of a foreign checkpoint: where it went, or why it is not used."""

    source: str
    target: str
    shape: tuple[int, ...]
    use: Literal["weight", "structure", "unused"]
    note: str = ""


@dataclass(frozen=True)
class Imported:
    """A foreign checkpoint in our terms: `kind` says which module `state` belongs to, `preset` whose recipes fit it.

    `assumed` are settings that the file does not hold and that were not given, with where they come from.
    """

    method: str
    kind: Literal["pretraining", "classifier"]
    config: Any
    state: dict[str, Tensor]
    tensors: tuple[ImportedTensor, ...]
    preset: str
    classes: int = 0
    assumed: str = ""


class Method(Protocol):
    """The module of a method, as the registry loads it."""

    CAPABILITIES: frozenset[Capability]
    CONFIG: type[DataclassInstance]
    PRESETS: Mapping[str, Preset]
    RECIPES: Mapping[str, Recipe]
    DEFAULT_PRESET: str

    def build_encoder(self, config: Any) -> Any: ...
    def build_objective(self, config: Any) -> Any: ...
    def for_finetuning(self, encoder: Any, seconds: float) -> Any: ...
    def recognises(self, keys: Mapping[str, Any]) -> bool: ...
    def import_state(self, state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None) -> Imported: ...
