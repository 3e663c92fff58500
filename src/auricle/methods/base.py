"""What a method offers to the rest of the library, and what the library asks of it.

A method is a module (`Method`): settings, presets, and functions that build its networks. Its networks are of the
abstract classes below; everything else (tasks, training, inference, evaluation) calls nothing of a network that is not
named here. `tests/conformance` checks every registered method against these promises.

B batch, S samples, T frames, F features of a frame, N tokens, P prefix tokens, D width, (f, t) token grid.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from auricle.audio.frontends import Frontend
from auricle.audio.read import Channel
from auricle.config import DataclassInstance, TrainConfig
from auricle.data.batch import Batch
from auricle.data.labels import Task
from auricle.errors import CheckpointError, ConfigError, plural
from auricle.methods.layers import NO_LAYERS, LayerOutputs
from auricle.nn.collapse import effective_rank, feature_spread
from auricle.nn.heads import FramePooling

Capability = Literal["pretrain", "embed", "finetune", "decode"]


@runtime_checkable
class MethodConfig(DataclassInstance, Protocol):
    """The settings of a method: a flat frozen dataclass of plain values that checks itself and has a default for each.

    A method with a front end (`Method.build_frontend`) also has the fields `norm_mean` and `norm_std`: the mean and the
    standard deviation of what the front end gives, which are measured on the user's data. A class attribute
    `COMPAT: Mapping[str, Mapping[str, Any]]`, if there is one, says which settings `compat=NAME` stands for, and
    `PRETEXT: frozenset[str]` which fields only the pretext task reads. Where there are several pretext tasks, the field
    `pretext` names the one that `build_objective` builds, and the property `idle: frozenset[str]` the fields that only
    the others read.
    """

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that the network takes."""
        ...

    @property
    def channel(self) -> Channel:
        """What is heard of a file with several channels: "mean", or a number from 0."""
        ...


@dataclass(frozen=True)
class Encoded:
    """What an encoder says about a batch of clips.

    Of layers that were not asked for, `layers`, `prefix` and `summaries` hold nothing (`LayerOutputs`).

    Attributes:
        layers: outputs of each layer [B, N, D], patch or frame tokens only; the last one after the final norm.
        prefix: the cls-like tokens [B, P, D] of each layer; empty if there are none.
        grid: (f, t) with N = f * t; token = row * t + column unless the method documents another order.
        times: centres [t] in seconds from the start of the clip.
        valid: [B, t], False for columns that hold nothing but padding.
        pooled: [B, D], pooled as the method's paper pools.
        summaries: of each layer, the vector [B, K] that the method's own probes read of a clip; empty if they read
            `pooled` only.
    """

    layers: LayerOutputs
    prefix: LayerOutputs
    grid: tuple[int, int]
    times: Tensor
    valid: Tensor
    pooled: Tensor
    summaries: LayerOutputs = NO_LAYERS

    def frames(self, layer: int = -1) -> Tensor:
        """One vector per time step [B, t, f * D]: the frequency rows side by side."""
        tokens = self.layers[layer]
        rows, columns = self.grid
        return tokens.unflatten(1, (rows, columns)).transpose(1, 2).flatten(2)


class AudioEncoder(nn.Module, ABC):
    """A network from waveforms to embeddings.

    A subclass sets the attributes and writes `forward`. In evaluation mode a clip gives the same result whatever it is
    batched with, unless a setting of the method asks for an official program's behaviour, and nothing is drawn.

    Attributes:
        config: what it was built from; building from it again makes the same network with other weights.
        sample_rate: Hz of its input.
        channel: what is heard of a file with several: "mean", or a number from 0.
        dim: D, the width of a token and of `Encoded.pooled`.
        num_layers: how many layers `Encoded.layers` has.
        frame_rate: time steps per second.
        min_samples: the least that is not padded.
        window_samples: long audio is cut into windows of so many samples ...
        window_hop: ... that start every so many samples, so that time steps continue evenly from window to window.
    """

    config: MethodConfig
    sample_rate: int
    channel: Channel
    dim: int
    num_layers: int
    frame_rate: float
    min_samples: int
    window_samples: int
    window_hop: int

    @property
    def summary_dim(self) -> int:
        """K, the width of a layer's part of `Encoded.summaries`, or D without them."""
        return self.dim

    @abstractmethod
    def forward(self, waves: Tensor, lengths: Tensor | None = None, layers: Iterable[int] | None = None) -> Encoded:
        """What a batch of clips becomes.

        Args:
            waves: [B, S] float32 in [-1, 1] at `sample_rate`.
            lengths: [B] valid samples (all, if None).
            layers: those that the result is to hold (all, if None), counted from 0, or from the end by -1, ...;
                `Encoded.pooled` needs none. The others' outputs take no memory where there are no gradients.

        Raises:
            ConfigError: `waves` or `lengths` of another shape.
            IndexError: there is no such layer.
        """

    if TYPE_CHECKING:

        def __call__(
            self, waves: Tensor, lengths: Tensor | None = None, layers: Iterable[int] | None = None
        ) -> Encoded: ...


def check_waves(waves: Tensor, lengths: Tensor | None = None) -> None:
    """Raises ConfigError unless waves are [B, S] and lengths, if given, [B]."""
    if waves.ndim != 2:
        raise ConfigError(
            f"waves must be [B, S], a row for each clip, got the shape {list(waves.shape)}; one clip is wave[None]."
        )
    if lengths is not None and lengths.shape != waves.shape[:1]:
        raise ConfigError(
            f"lengths must be [B], a number of samples for each of {plural(len(waves), 'clip')}, got the shape "
            f"{list(lengths.shape)}."
        )


class SpectrogramEncoder(AudioEncoder):
    """An encoder in two halves, between which a task may change the features: SpecAugment needs one.

    Attributes:
        frontend: waveforms to features, without weights.
    """

    frontend: Frontend

    @property
    @abstractmethod
    def pad_value(self) -> float:
        """What stands beyond a clip's end in the features, and in the stripes that SpecAugment masks."""

    @abstractmethod
    def features(self, waves: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """waves [B, S] as in `forward`; normalised features [B, T, F] and the frames [B] of each clip."""

    @abstractmethod
    def forward_features(self, features: Tensor, frames: Tensor, layers: Iterable[int] | None = None) -> Encoded:
        """features [B, T, F] and frames [B], as `features` gives them; `layers` as in `forward`."""

    def forward(self, waves: Tensor, lengths: Tensor | None = None, layers: Iterable[int] | None = None) -> Encoded:
        check_waves(waves, lengths)
        return self.forward_features(*self.features(waves, lengths), layers)


class EncoderOnly(nn.Module):
    """An encoder whose file holds no pretext task and no classifier; its weights are named `encoder.*` as in those."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder


class Trainable(nn.Module, ABC):
    """What the training loop trains: an encoder with a loss. It knows no optimizer, device, trainer or logger.

    All that is saved and resumed is in its state dict: a teacher network is a submodule, its counters are buffers.

    Attributes:
        partners: how many other clips are to come with each in `Batch.partners`, to be mixed into it.
        whole_batch: whether the loss is one of the whole batch, as with batch normalisation, so that it is not that of
            micro-batches.
    """

    encoder: AudioEncoder
    partners: int = 0
    whole_batch: bool = False

    @abstractmethod
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, its `weight` (the number of terms that it is a mean over), and scalars to log, all of shape [].

        What is drawn for a clip is drawn from `batch.draw`; dropout alone may use torch's global generator.
        `progress` in [0, 1) is the share of the training that is done.
        """

    if TYPE_CHECKING:

        def __call__(self, batch: Batch, progress: float) -> dict[str, Tensor]: ...

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step, for teachers and the like; the default does nothing."""


@dataclass(frozen=True)
class Reconstruction:
    """A pretext task for the eye: features [B, T, F] in the front end's units.

    Attributes:
        original: the features of the clips.
        hidden: True where the network did not see them.
        rebuilt: the features with the hidden ones predicted.
        frames: [B], how many of each clip's frames hold sound.
    """

    original: Tensor
    hidden: Tensor
    rebuilt: Tensor
    frames: Tensor


class Objective(Trainable):
    """A pretraining objective around an encoder. A subclass writes `forward`; the rest has defaults.

    Attributes:
        loss_note: a sentence for readers of the loss curve, if the loss does not say what they expect.
    """

    loss_note: str = ""

    @property
    def encoders(self) -> tuple[AudioEncoder, ...]:
        """The encoder that is evaluated, and those that begin with the same weights, such as a student's."""
        return (self.encoder,)

    def score(self, losses: Mapping[str, float]) -> float:
        """How good a validation is, higher is better, from what `forward` returned; it drives a plateau schedule.

        The default is the loss with its sign changed.
        """
        return -losses["loss"]

    @torch.no_grad()
    def monitor(self, batch: Batch) -> dict[str, float]:
        """Signs of collapse on clips as they are; it must hold `effective_rank`.

        The default is the effective rank and the spread of the pooled embeddings.
        """
        pooled = self.encoder(batch.audio.data, batch.audio.lengths, layers=()).pooled.float()
        return {"effective_rank": effective_rank(pooled), "feature_spread": feature_spread(pooled)}

    def reconstruct(self, batch: Batch) -> Reconstruction | None:
        """For pictures: what was hidden of the clips and how it is filled in; None if nothing is ever rebuilt."""
        return None


@dataclass(frozen=True)
class Preset:
    """A named configuration: the network with its objective, and how to pretrain and fine-tune it."""

    model: MethodConfig
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

    def fit(self, config: MethodConfig) -> tuple[MethodConfig, TrainConfig]:
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

    `assumed` are settings that the file does not hold and that were not given, with where they come from; `stated` are
    those that the file holds as plain values, in its words. `head` is a classifier's, `pooling` a detector's, which is
    linear on each time step.
    """

    method: str
    kind: Literal["pretraining", "encoder", "classifier", "detector"]
    config: MethodConfig
    state: dict[str, Tensor]
    tensors: tuple[ImportedTensor, ...]
    preset: str
    classes: int = 0
    assumed: str = ""
    head: Literal["linear", "batchnorm"] = "linear"
    stated: str = ""
    pooling: FramePooling = "linear_softmax"


def unknown_tensors(title: str, names: Sequence[str]) -> CheckpointError:
    """What is raised for tensors of a file that a method does not know; up to ten are named."""
    found = plural(len(names), "unknown tensor")
    return CheckpointError(f"the {title} checkpoint has {found}: {', '.join(names[:10])}.")


def settle(options: Mapping[str, Any] | None) -> str:
    """What to do about a file that does not fit its settings: `options` are those that the user gave."""
    return "correct the --set options" if options else "is the file whole? If so, give its settings by --set KEY=VALUE"


def quirks(config: MethodConfig) -> dict[str, Any]:
    """The settings of a network that follow published code (`COMPAT`) where the method's defaults do otherwise."""
    kind = type(config)
    groups = getattr(kind, "COMPAT", {}).values()
    pretext: frozenset[str] = getattr(kind, "PRETEXT", frozenset())
    usual = {f.name: f.default for f in dataclasses.fields(kind)}
    return {
        name: value
        for group in groups
        for name, value in group.items()
        if name not in pretext and getattr(config, name) == value != usual[name]
    }


class Method(Protocol):
    """The module of a method, as the registry loads it.

    `config` is always of the method's own `CONFIG`, and `encoder` what its own `build_encoder` makes: that is why they
    are not typed here.
    """

    @property
    def CAPABILITIES(self) -> frozenset[Capability]:
        """What it can do; the rest of the library goes by these. `build_objective` is for those that can "pretrain"."""
        ...

    @property
    def CONFIG(self) -> type[MethodConfig]: ...

    @property
    def PRESETS(self) -> Mapping[str, Preset]: ...

    @property
    def RECIPES(self) -> Mapping[str, Recipe]: ...

    @property
    def DEFAULT_PRESET(self) -> str:
        """The preset that is used where none is named: it trains in minutes on a laptop."""
        ...

    def build_frontend(self, config: Any) -> Frontend | None:
        """What `norm_mean` and `norm_std` are statistics of, without the network; None if it measures nothing."""
        ...

    def build_encoder(self, config: Any) -> AudioEncoder:
        """An encoder with fresh weights from torch's global generator."""
        ...

    def build_objective(self, config: Any) -> Objective:
        """The pretext task around an encoder with fresh weights; the encoder's weights are named `encoder.*`."""
        ...

    def for_finetuning(self, encoder: Any, seconds: float) -> AudioEncoder:
        """The encoder in the form in which it is fine-tuned on clips of `seconds`, with its weights."""
        ...

    def recognises(self, keys: Mapping[str, Any]) -> bool:
        """Whether a foreign state dict of these keys is one of this method's."""
        ...

    def import_state(
        self,
        state: Mapping[str, Tensor],
        options: Mapping[str, Any] | None = None,
        stated: Mapping[str, Any] | None = None,
    ) -> Imported:
        """A foreign state dict in our names; `options` are settings that the file does not hold.

        `stated` are the settings that stand beside the tensors in the file, as its trainer named them
        (`hyper_parameters` of Lightning, `args` of DINO). A method whose files hold none ignores them.

        Raises:
            CheckpointError: an unknown, missing or mis-shaped tensor, or a setting that must be given and is not.
        """
        ...
