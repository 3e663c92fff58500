"""ATST-Frame as the registry sees it; see the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from auricle.methods.atst import official
from auricle.methods.atst.config import FrameConfig
from auricle.methods.atst.model import FrameEncoder, build_frontend, for_finetuning
from auricle.methods.atst.objective import FrameObjective
from auricle.methods.atst.presets import FRAME_PRESETS as PRESETS
from auricle.methods.atst.recipes import FRAME_RECIPES as RECIPES
from auricle.methods.base import Capability, Imported, Objective
from auricle.methods.spectrogram.latent import LatentObjective

CAPABILITIES: frozenset[Capability] = frozenset({"pretrain", "embed", "finetune"})
CONFIG = FrameConfig
# Trains in minutes on a laptop; the paper's sizes are asked for by name.
DEFAULT_PRESET = "demo"


def build_encoder(config: FrameConfig) -> FrameEncoder:
    """An encoder with fresh weights from torch's global generator."""
    return FrameEncoder(config)


def build_objective(config: FrameConfig) -> Objective:
    """A student with fresh weights and its teacher, whose encoder is the objective's."""
    encoder = FrameEncoder(config)
    return LatentObjective(encoder, config.view_seconds) if config.pretext == "latent" else FrameObjective(encoder)


def recognises(keys: Mapping[str, Any]) -> bool:
    """Whether a state dict of these keys holds ATST-Frame's encoder, under any of the names it circulates by."""
    return official.FRAME.finds(keys) is not None


def import_state(
    state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None, stated: Mapping[str, Any] | None = None
) -> Imported:
    """See `auricle.methods.atst.official.import_state`."""
    return official.import_state(official.FRAME, state, options, stated)


__all__ = [
    "CAPABILITIES",
    "CONFIG",
    "DEFAULT_PRESET",
    "PRESETS",
    "RECIPES",
    "build_encoder",
    "build_frontend",
    "build_objective",
    "for_finetuning",
    "import_state",
    "recognises",
]
