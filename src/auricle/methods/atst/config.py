"""Settings of ATST-Clip and ATST-Frame, each value with where their code says so; presets are in presets.py.

Papers: Li, Li: ATST: Audio Representation Learning with Teacher-Student Transformer, Interspeech 2022 (2204.12076);
Li, Shao, Li: Self-Supervised Audio Teacher-Student Transformer for Both Clip-Level and Frame-Level Tasks, IEEE/ACM
TASLP 32, 2024 (2306.04186).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from auricle.audio.mel import LEAST_DB
from auricle.config import check_ranges
from auricle.errors import ConfigError
from auricle.methods.spectrogram.config import LatentConfig, SpectrogramConfig
from auricle.nn.patches import PositionInit

Chunking = Literal["whole", "downstream", "scene", "filled"]
# What published detectors hear: all clips are filled up to the same length.
DETECTOR: Mapping[str, Any] = {"chunking": "filled", "window_seconds": 10.0}


@dataclass(frozen=True)
class ATSTConfig(SpectrogramConfig):
    """What both share: the front end, a transformer over patches, a student, and a teacher that follows it.

    Decibels are normalised to (x - norm_mean) / (2 norm_std); the official range of -79.6482 to 50.6842 dB becomes -1
    to 1. `window_frames` is the length of the table of positions: more frames go through the network in chunks of
    `chunk_frames` (0: as many as the table has). `chunking` says how chunks are cut and put together:

        whole       of whole patches, all of them, each counting by its tokens
        downstream  as the official fine-tuning does, which drops short rests (docs/atst.md)
        scene       as the official embedding function does, which weighs a short rest like a whole chunk
        filled      as detectors that were trained on clips of one length hear: like whole, after a clip shorter than
                    `window_seconds` was filled up with silence, which is attended to; a time step begins with its patch

    Long audio is cut into windows of `window_seconds`; the floor of the decibels is that of a window, and none of them
    is below `least_db`.

    `projector_hidden` and `projector_out` are the sizes of projector and predictor, `momentum` is the teacher's at the
    start, `drop_path` of the last block. A view is a crop of `view_seconds`, into which another clip is mixed with a
    share of up to `view_mixup`. Linear weights begin with standard deviation `init_std`, positions as `position_init`
    says (`PatchConfig`).
    """

    COMPAT: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    PRETEXT: ClassVar[frozenset[str]] = frozenset(
        {"projector_hidden", "projector_out", "momentum", "view_seconds", "view_mixup"}
    )
    # Whether the official fine-tuning divides a chunk's sum by the rest of the clip, and the frames of a chunk beyond
    # which it counts at all.
    OFFICIAL_REST: ClassVar[bool] = False
    OFFICIAL_LEAST: ClassVar[int] = 0

    width: int = 384
    depth: int = 12
    heads: int = 6
    mel_bins: int = 64
    norm_mean: float = -14.482
    norm_std: float = 32.58310
    window_frames: int = 1001
    patch_freq: int = 64
    patch_time: int = 4
    fft_size: int = 1024
    fft_window: int = 1024
    hop_samples: int = 160
    lowest_hz: float = 60.0
    highest_hz: float = 7800.0
    top_db: float = 80.0
    least_db: float = LEAST_DB
    chunk_frames: int = 0
    chunking: Chunking = "whole"
    window_seconds: float = 60.0
    drop_path: float = 0.1
    projector_hidden: int = 4096
    projector_out: int = 256
    momentum: float = 0.99
    view_seconds: float = 10.0
    view_mixup: float = 0.4
    init_std: float = 0.02
    position_init: PositionInit = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            positive=(
                *("heads", "fft_size", "fft_window", "hop_samples", "highest_hz", "top_db", "window_seconds"),
                *("projector_hidden", "projector_out", "view_seconds", "init_std"),
            ),
            not_negative=("lowest_hz", "chunk_frames"),
            shares=("drop_path", "momentum", "view_mixup"),
        )
        if self.width % self.heads:
            raise ConfigError(f"width ({self.width}) must be a multiple of heads ({self.heads}).")
        if not self.lowest_hz < self.highest_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"the filters must lie between 0 and half the sample rate, {self.sample_rate / 2:g} Hz, got "
                f"lowest_hz={self.lowest_hz:g} and highest_hz={self.highest_hz:g}."
            )
        if self.fft_window > self.fft_size:
            raise ConfigError(f"fft_window ({self.fft_window}) must not be longer than fft_size ({self.fft_size}).")
        if not self.drop_path < 1:
            raise ConfigError(f"drop_path must be below 1, got {self.drop_path}.")
        columns = self.columns_of(1 + round(self.view_seconds * self.sample_rate) // self.hop_samples)
        if columns > self.grid[1]:
            raise ConfigError(
                f"a view of {self.view_seconds:g} s has {columns} time steps, more than the {self.grid[1]} that "
                f"window_frames={self.window_frames} has positions for; lower view_seconds or raise window_frames."
            )

    def check_pretraining(self) -> None:
        super().check_pretraining()
        if self.chunking == "filled":
            raise ConfigError(
                "chunking=filled is for detectors that hear clips of one length, not to pretrain; leave it out."
            )

    @property
    def chunk(self) -> int:
        """Frames from the beginning of a chunk to the next."""
        frames = min(self.chunk_frames or self.window_frames, self.window_frames)
        frames = max(frames, self.patch_time)
        return frames // self.patch_time * self.patch_time if self.of_whole_patches else frames

    @property
    def of_whole_patches(self) -> bool:
        """Whether chunks are of whole patches, of which a clip's last one may reach into padding."""
        return self.chunking in ("whole", "filled")

    def columns_of(self, frames: int) -> int:
        """Time steps of a clip of so many frames: one for each that begins before the clip's end.

        The official code drops what does not fill a patch. With frames centred as here, it is all heard if the last
        patch reaches into padding, but for a frame that is centred at the very end of the clip.
        """
        if self.of_whole_patches:
            return max(1, -(-(frames - 1) // self.patch_time))
        return max(1, frames // self.patch_time)


@dataclass(frozen=True)
class ClipConfig(ATSTConfig):
    """ATST-Clip: two crops of a clip, each changed in its own way, are to have the same class token.

    `compat` among the settings stands for the settings of that name in `COMPAT`: "official" for the authors' chunking
    and the first channel, "detector" for what their detector of AudioSet-Strong hears.
    """

    COMPAT: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "official": {"channel": 0, "chunking": "downstream", "chunk_frames": 601},
        "detector": DETECTOR,
    }

    OFFICIAL_REST: ClassVar[bool] = True

    view_seconds: float = 6.0


@dataclass(frozen=True)
class FrameConfig(ATSTConfig, LatentConfig):
    """ATST-Frame: what a student makes of masked time steps is to be what the teacher makes of them unmasked.

    Spans of `mask_length` steps that begin at the share `mask_ratio / mask_length` of steps, and may overlap, are
    masked. With `symmetric`, teacher and student see both views, else the teacher the first and the student the second.
    `augment_teacher` and `augment_student` say which of the two views is changed; what is masked is the same in both.

    `compat` among the settings stands for the settings of that name in `COMPAT`: "official" for the authors' chunking
    and the first channel, "detector" for what their detector of AudioSet-Strong hears, "pretrainedsed" for what
    PretrainedSED's networks hear.
    """

    COMPAT: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "official": {"channel": 0, "chunking": "scene", "chunk_frames": 1001},
        "detector": DETECTOR,
        "pretrainedsed": {**DETECTOR, "least_db": -50.0},
    }

    PRETEXT: ClassVar[frozenset[str]] = (
        ATSTConfig.PRETEXT
        | LatentConfig.PRETEXT
        | {"symmetric", "augment_teacher", "augment_student", "mask_ratio", "mask_length"}
    )
    SHARED: ClassVar[frozenset[str]] = frozenset({"view_seconds"})
    OFFICIAL_LEAST: ClassVar[int] = 20

    symmetric: bool = True
    augment_teacher: bool = False
    augment_student: bool = True
    mask_ratio: float = 0.65
    mask_length: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, positive=("mask_length",))
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio must lie between 0 and 1, got {self.mask_ratio}.")
