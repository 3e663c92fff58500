"""SSAMBA's settings and presets, each value with where the paper's code says so.

Paper: Shams, Dindar, Jiang, Mesgarani: SSAMBA: Self-Supervised Audio Representation Learning with Mamba State Space
Model, IEEE SLT 2024 (arXiv 2405.11831). Official code: SiavashShams/ssamba at 019b276, whose encoder is hustvl/Vim's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from auricle.config import check_ranges
from auricle.errors import ConfigError
from auricle.methods.base import Preset
from auricle.methods.spectrogram import recipes as shared
from auricle.methods.spectrogram.config import MaskedPatchConfig
from auricle.nn.mamba import Kind


@dataclass(frozen=True)
class SSAMBAConfig(MaskedPatchConfig):
    """`depth` Mamba layers, whose mixers have `expand * width` channels of `states` states and convolve `taps` steps.

    The defaults are those of the released models. `mixer` is bidirectional with a second set of weights ("v2"), with
    all but the decay rates shared ("v1"), or forward only ("none"); `divide` halves the sum of the directions of "v2".
    `pairs` runs the layers two by two, the second one over the tokens in the opposite order; otherwise one after the
    other. `rms_norm` takes RMSNorm for LayerNorm. The final norm is applied `final_norms` times.
    `cls_position` is where the class token stands among the patches. `drop_path` is the rate of the last layer.
    `seconds` is how `SSAMBAEncoder.per_second` forms its means: over time, or as the official code does.
    """

    COMPAT: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "official": {**MaskedPatchConfig.COMPAT["official"], "seconds": "official"}
    }

    depth: int = 24
    expand: int = 2
    states: int = 16
    taps: int = 4
    mixer: Kind = "v2"
    divide: bool = True
    pairs: bool = True
    rms_norm: bool = False
    final_norms: Literal[1, 2] = 2
    cls_position: Literal["first", "middle"] = "first"
    drop_path: float = 0.1
    seconds: Literal["time", "official"] = "time"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, positive=("expand", "states", "taps"), shares=("drop_path",))
        for name, most in {"expand": 16, "states": 256, "taps": 16}.items():
            if getattr(self, name) > most:
                raise ConfigError(f"{name} must be at most {most}, got {getattr(self, name)}.")
        if self.drop_path == 1:
            raise ConfigError("drop_path must be below 1, or nothing is left of the last layer.")
        if self.pairs and self.depth % 2:
            raise ConfigError(f"depth must be even to make pairs, got {self.depth}; set pairs=false or another depth.")

    def layer_weights(self) -> int:
        """About how many weights a layer has: the maps in and out, and those of both directions."""
        channels = self.expand * self.width
        return 3 * channels * self.width + 2 * channels * (self.width // 8 + 3 * self.states)


# Section 1.1 of the official scripts: the sizes differ in width only.
_SIZES = {"tiny": 192, "small": 384, "base": 768}


def _official(size: str) -> Preset:
    # run_mask_patch_amba.sh: SSAST's loop with AdamW and next to no decay; 300 of 512 tokens masked.
    pretrain = dataclasses.replace(
        shared.PRETRAINING, optimizer="adamw", weight_decay=5e-8, batch_size=64, lr=1e-4, validate_every=4000
    )
    # Any other data set wants a recipe of its own; this one suits short clips.
    finetune = dataclasses.replace(shared.ESC50, precision="auto")
    config = SSAMBAConfig(width=_SIZES[size], mask_count=300, mask_sampler="official", passes=2)
    return Preset(config, pretrain, finetune, note=f"the paper's {size} model")


# What trains in minutes on two cores: three pairs over tokens of two frames, and one shared pass.
_SHORT = SSAMBAConfig(
    width=192,
    depth=6,
    window_frames=112,
    patch_freq=128,
    patch_time=2,
    stride_freq=128,
    stride_time=2,
    finetune_stride_freq=128,
    finetune_stride_time=2,
    position_init="sincos",
    mask_sampler="random",
    mask_ratio=0.7,
    drop_path=0.0,
    **shared.SHORT_LATENT,
)

PRESETS: dict[str, Preset] = {size: _official(size) for size in _SIZES} | {
    "demo": Preset(
        _SHORT,
        shared.DEMO_PRETRAINING,
        shared.DEMO_FINETUNING,
        note="six layers, windows of 1.1 s: minutes on two cores",
    ),
    "test": Preset(
        dataclasses.replace(_SHORT, width=48, depth=4, window_frames=64, **shared.TINY_LATENT),
        shared.TEST_PRETRAINING,
        shared.TEST_FINETUNING,
        note="for tests: a step takes milliseconds",
    ),
}
