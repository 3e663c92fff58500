"""Settings that methods over patches of a spectrogram have in common.

They are inherited one by one into the flat config of a method, which adds what its layers need.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from auricle.config import check_ranges
from auricle.errors import ConfigError
from auricle.nn.losses import SoftmaxOver
from auricle.nn.patches import PositionInit, grid_size

C = TypeVar("C", bound="PatchConfig")

# Far above all that makes sense, and low enough that a forged file cannot ask for any amount of memory or time.
_AT_MOST = {"width": 65_536, "depth": 1_000, "mel_bins": 4_096, "window_frames": 1_000_000}
_MOST_WEIGHTS = 10**10


@dataclass(frozen=True)
class SpectrogramConfig:
    """A network of `depth` layers of `width` over the patches of a mel spectrogram.

    `window_frames` is the length the table of positions is made for.
    `channel` is what is heard of a file with several: "mean", or a number from 0.
    """

    width: int = 192
    depth: int = 12
    sample_rate: int = 16000
    channel: Literal["mean"] | int = "mean"
    mel_bins: int = 128
    norm_mean: float = -4.2677393
    norm_std: float = 4.5689974
    window_frames: int = 1024
    patch_freq: int = 16
    patch_time: int = 16

    def __post_init__(self) -> None:
        check_ranges(
            self,
            positive=("width", "depth", "mel_bins", "window_frames", "norm_std", "patch_freq", "patch_time"),
        )
        if not 1000 <= self.sample_rate <= 768_000:
            raise ConfigError(f"sample_rate must lie from 1,000 to 768,000 Hz, got {self.sample_rate}.")
        if self.channel != "mean" and self.channel < 0:
            raise ConfigError(f"channel must be 'mean' or the number of a channel, from 0, got {self.channel}.")
        if not math.isfinite(self.norm_mean):
            raise ConfigError(f"norm_mean must be a number, got {self.norm_mean}.")
        for name, most in _AT_MOST.items():
            if getattr(self, name) > most:
                raise ConfigError(f"{name} must be at most {most:,}, got {getattr(self, name):,}.")
        if (weights := self.depth * self.layer_weights()) > _MOST_WEIGHTS:
            raise ConfigError(
                f"width {self.width:,} and depth {self.depth:,} make {weights:,} weights; at most {_MOST_WEIGHTS:,}."
            )
        if self.mel_bins < self.patch_freq or self.window_frames < self.patch_time:
            raise ConfigError(
                f"a patch of {self.patch_freq}x{self.patch_time} does not fit into {self.mel_bins} mel bins x "
                f"{self.window_frames} frames."
            )

    def layer_weights(self) -> int:
        """About how many weights a layer has; a transformer block's by default."""
        return 12 * self.width**2

    @property
    def kernel(self) -> tuple[int, int]:
        return self.patch_freq, self.patch_time

    @property
    def grid(self) -> tuple[int, int]:
        """(f, t) of a clip of `window_frames`."""
        return grid_size((self.mel_bins, self.window_frames), self.kernel, self.kernel)

    def check_pretraining(self) -> None:
        """Raises ConfigError for settings of a network that is not made to be pretrained."""


@dataclass(frozen=True)
class LatentConfig(SpectrogramConfig):
    """A network with a choice of pretext tasks: its paper's, or masked latent prediction (`latent.py`).

    Of each clip, `latent_clones` masks keep the share `latent_keep` of the tokens, in blocks of `latent_block` x
    `latent_block`; the student encodes nothing else. It predicts the mean of the teacher's last `latent_layers` layers
    (0: of all) by a decoder of `latent_decoder_depth` layers, and with weight `latent_utterance` what the teacher makes
    of the clip. With weight `latent_reconstruction` it also rebuilds the patches. The teacher's momentum goes from
    `latent_momentum` to 1.
    """

    # Settings of the paper's own task that masked latent prediction reads, too.
    SHARED: ClassVar[frozenset[str]] = frozenset()
    LATENT: ClassVar[frozenset[str]] = frozenset(
        {
            *("latent_clones", "latent_keep", "latent_block", "latent_layers", "latent_decoder_depth"),
            *("latent_utterance", "latent_reconstruction", "latent_momentum"),
        }
    )
    PRETEXT: ClassVar[frozenset[str]] = LATENT | {"pretext"}

    pretext: Literal["paper", "latent"] = "paper"
    latent_clones: int = 16
    latent_keep: float = 0.2
    latent_block: int = 5
    latent_layers: int = 0
    latent_decoder_depth: int = 6
    latent_utterance: float = 1.0
    latent_reconstruction: float = 0.0
    latent_momentum: float = 0.9998

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            positive=("latent_clones", "latent_keep", "latent_block", "latent_decoder_depth"),
            not_negative=("latent_layers", "latent_utterance", "latent_reconstruction"),
            shares=("latent_keep", "latent_momentum"),
        )
        if self.latent_keep == 1:
            raise ConfigError("latent_keep must be below 1, or nothing is left to predict.")
        if self.latent_layers > self.depth:
            raise ConfigError(f"latent_layers is {self.latent_layers}, but there are {self.depth} layers.")

    @property
    def idle(self) -> frozenset[str]:
        """Settings of the pretext task that was not chosen."""
        if self.pretext == "paper":
            return self.LATENT
        return self.PRETEXT - self.LATENT - self.SHARED - {"pretext"}


@dataclass(frozen=True)
class PatchConfig(SpectrogramConfig):
    """Patches that may overlap, and a table of positions that is stretched or cut for other lengths.

    Clips shorter than `window_frames` use the first columns of the table of positions.
    `attend_padding` lets padding take part and pads every clip to `window_frames`, as the official code of these
    methods does; without it, a clip gives the same result whatever it is batched with.
    `pad_normalised` pads with 0 after normalising (SUPERB's form), not with a log-mel of 0 before it.
    `pooling` is over the patch tokens ("mean"), or over the tokens before them ("prefix").
    """

    stride_freq: int = 16
    stride_time: int = 16
    finetune_stride_freq: int = 10
    finetune_stride_time: int = 10
    pooling: Literal["mean", "prefix"] = "mean"
    attend_padding: bool = False
    pad_normalised: bool = False
    position_init: PositionInit = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, positive=("stride_freq", "stride_time", "finetune_stride_freq", "finetune_stride_time"))

    @property
    def stride(self) -> tuple[int, int]:
        return self.stride_freq, self.stride_time

    @property
    def grid(self) -> tuple[int, int]:
        """(f, t) of a clip of `window_frames`; the official code drops the frames after the last whole patch."""
        rows, columns = grid_size((self.mel_bins, self.window_frames), self.kernel, self.stride)
        if not self.attend_padding:
            columns = 1 + math.ceil((self.window_frames - self.patch_time) / self.stride_time)
        return rows, columns

    def check_pretraining(self) -> None:
        super().check_pretraining()
        if self.stride != self.kernel:
            raise ConfigError(
                f"pretraining needs patches that do not overlap: stride {self.stride} must equal the patch "
                f"{self.kernel}."
            )

    def for_finetuning(self: C, frames: int) -> C:
        """The same network with the denser strides of fine-tuning and a table of positions for `frames`."""
        return dataclasses.replace(
            self,
            stride_freq=self.finetune_stride_freq,
            stride_time=self.finetune_stride_time,
            window_frames=max(frames, self.patch_time),
        )


@dataclass(frozen=True)
class TransformerConfig(PatchConfig):
    """Layers that are transformer blocks of `heads` heads; linear weights begin with standard deviation `init_std`."""

    heads: int = 3
    init_std: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, positive=("heads", "init_std"))
        if self.width % self.heads:
            raise ConfigError(f"width ({self.width}) must be a multiple of heads ({self.heads}).")


@dataclass(frozen=True)
class MaskedPatchConfig(PatchConfig, LatentConfig):
    """A network over patches and SSAST's pretext task: masked patches are told apart and reconstructed.

    `mask_count` tokens of a whole window are masked if it is above 0, the same share of a shorter clip; otherwise the
    share `mask_ratio` of a clip's own tokens.

    `compat=official` among the settings stands for the quirks of the official code in `COMPAT`; each is an option of
    its own, and one that is given beside it wins.
    """

    COMPAT: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "official": {"channel": 0, "attend_padding": True, "mask_sampler": "official", "passes": 2}
    }
    PRETEXT: ClassVar[frozenset[str]] = LatentConfig.PRETEXT | {
        *("task", "mask_count", "mask_ratio", "mask_sampler", "passes", "generative_weight", "softmax_over")
    }

    task: Literal["joint", "discriminative", "generative"] = "joint"
    mask_count: int = 0
    mask_ratio: float = 0.78
    mask_sampler: Literal["cluster", "random", "official"] = "cluster"
    passes: Literal[1, 2] = 1
    generative_weight: float = 10.0
    softmax_over: SoftmaxOver = "predictions"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, not_negative=("mask_count", "generative_weight"))
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio must lie between 0 and 1, got {self.mask_ratio}.")
