"""ASiT's settings, each value with where its code says so; presets are in presets.py.

Paper: Atito, Awais, Wang, Plumbley, Kittler: ASiT: Local-Global Audio Spectrogram vIsion Transformer for Event
Classification, IEEE/ACM TASLP 32, 2024 (arXiv 2211.13189).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from auricle.config import check_ranges
from auricle.errors import ConfigError
from auricle.methods.spectrogram.config import LatentConfig, TransformerConfig
from auricle.methods.spectrogram.encoder import build_frontend

PositionLayout = Literal["learned", "swapped"]
Drop = Literal["zeros", "noise", "time", "freq"]


@dataclass(frozen=True)
class ASiTConfig(TransformerConfig, LatentConfig):
    """A transformer over patches, a student that sees damaged spectrograms, and a teacher that follows it.

    `position_layout=swapped` reads the table of positions with its axes exchanged and stretches it for every length,
    as PretrainedSED's fine-tuned weights need it; `heard_frames` is then what the network hears at once. With
    `sequence_steps`, too, its tokens are those many even steps, as PretrainedSED's detectors read them (sequence.py).

    Two views of `view_seconds` are cut out of each clip, which begins elsewhere with probability `roll`. In each view,
    rectangles of up to `block_share` of both sides are replaced: by `drop` until from one half to `drop_share` of the
    view is gone, or with probability `alien_probability` by another clip until `alien_share` is.

    The student tells `clip_prototypes` and `patch_prototypes` apart at `student_temperature`; the teacher's goes from
    `teacher_temperature` to `final_teacher_temperature` over the share `temperature_warmup` of the training, and its
    momentum from `momentum` to 1. `projector_*` and `decoder_*` are the sizes of the heads, `drop_path` is that of the
    student's last block.

    `reconstruct_over` says what the error of hidden pixels is a mean over: "clips" counts every clip alike, so that it
    can be added up from micro-batches; "pixels", as the official code does, counts a clip by what is hidden of it.

    `compat` among the settings stands for the settings of that name in `COMPAT`: "official" for the quirks of the
    authors' code, "pretrainedsed" for those of the network in PretrainedSED, "detector" for how its detectors hear it.
    """

    COMPAT: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "official": {"channel": 0, "attend_padding": True, "reconstruct_over": "pixels"},
        "pretrainedsed": {"position_layout": "swapped", "heard_frames": 998},
        "detector": {"position_layout": "swapped", "heard_frames": 998, "sequence_steps": 250},
    }
    PRETEXT: ClassVar[frozenset[str]] = LatentConfig.PRETEXT | {
        *("view_seconds", "roll", "drop", "drop_share", "alien_probability", "alien_share", "block_share", "align"),
        *("clip_prototypes", "patch_prototypes", "projector_hidden", "projector_out"),
        *("decoder_hidden", "decoder_out", "drop_path", "student_temperature", "teacher_temperature"),
        *("final_teacher_temperature", "temperature_warmup", "centre_momentum", "momentum"),
        *("reconstruction_weight", "reconstruct_over"),
    }
    SHARED: ClassVar[frozenset[str]] = frozenset({"view_seconds", "drop_path"})

    window_frames: int = 592
    pooling: Literal["mean", "prefix"] = "prefix"
    position_layout: PositionLayout = "learned"
    heard_frames: int = 0
    sequence_steps: int = 0
    view_seconds: float = 5.935
    roll: float = 0.5
    drop: Drop = "zeros"
    drop_share: float = 0.7
    alien_probability: float = 0.5
    alien_share: float = 0.3
    block_share: float = 0.3
    align: int = 1
    clip_prototypes: int = 8192
    patch_prototypes: int = 1024
    projector_hidden: int = 2048
    projector_out: int = 256
    decoder_hidden: int = 768
    decoder_out: int = 128
    drop_path: float = 0.1
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    final_teacher_temperature: float = 0.07
    # 30 of 100 epochs, of which the last has the final temperature.
    temperature_warmup: float = 0.29
    centre_momentum: float = 0.9
    momentum: float = 0.996
    reconstruction_weight: float = 2.0
    reconstruct_over: Literal["clips", "pixels"] = "clips"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            positive=(
                *("view_seconds", "drop_share", "block_share", "align", "clip_prototypes", "patch_prototypes"),
                *("projector_hidden", "projector_out", "decoder_hidden", "decoder_out"),
                *("student_temperature", "teacher_temperature", "final_teacher_temperature"),
            ),
            not_negative=("heard_frames", "sequence_steps", "reconstruction_weight"),
            shares=(
                *("roll", "drop_share", "alien_probability", "alien_share", "block_share", "drop_path"),
                *("temperature_warmup", "centre_momentum", "momentum"),
            ),
        )
        if not self.drop_path < 1:
            raise ConfigError(f"drop_path must be below 1, got {self.drop_path}.")
        if self.align > 1 and self.align >= self.block_share * self.mel_bins:
            raise ConfigError(
                f"rectangles have at most {self.block_share * self.mel_bins:.0f} of {self.mel_bins} mel bins, so align "
                f"must be below that, got {self.align}; lower align or raise block_share."
            )
        if self.position_layout == "swapped" and (self.stride != self.kernel or self.attend_padding):
            raise ConfigError(
                "position_layout=swapped is for patches that do not overlap, and clips of their own length: "
                "leave out strides and attend_padding."
            )
        if self.position_layout == "learned":
            for name, instead in (("heard_frames", "set window_frames"), ("sequence_steps", "leave it out")):
                if getattr(self, name):
                    raise ConfigError(f"{name} has no effect without position_layout=swapped; {instead}.")

    def check_pretraining(self) -> None:
        super().check_pretraining()
        if self.position_layout == "swapped":
            raise ConfigError("position_layout=swapped is for weights that were fine-tuned with it, not to pretrain.")
        samples = torch.tensor([round(self.view_seconds * self.sample_rate)], device="cpu")
        frames = int(build_frontend(self).num_frames(samples))
        most = (self.grid[1] - 1) * self.stride_time + self.patch_time
        if frames > most:
            raise ConfigError(
                f"a view of {self.view_seconds:g} s has {frames} frames, more than the {most} that window_frames="
                f"{self.window_frames} has positions for; lower view_seconds or raise window_frames."
            )
