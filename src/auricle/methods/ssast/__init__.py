"""SSAST: self-supervised audio spectrogram transformer (Gong et al., AAAI 2022, arXiv 2110.09784).

Read in this order: config.py (settings and presets), model.py (the encoder), objective.py (the pretext task),
recipes.py (published fine-tunings), official.py (published checkpoints). Official code: YuanGongND/ssast at a1a3eec;
where it and the paper differ, the code is the default and the paper's form an option (`softmax_over`), because the
published weights were made by the code.
"""

from __future__ import annotations

import torch

from auricle.methods.base import Capability
from auricle.methods.ssast.config import PRESETS, SSASTConfig
from auricle.methods.ssast.model import SSASTEncoder, adapt_encoder
from auricle.methods.ssast.objective import SSASTObjective
from auricle.methods.ssast.official import import_state, recognises
from auricle.methods.ssast.recipes import RECIPES

CAPABILITIES: frozenset[Capability] = frozenset({"pretrain", "embed", "finetune"})
CONFIG = SSASTConfig
# Trains in minutes on a laptop; the paper's sizes are asked for by name.
DEFAULT_PRESET = "demo"


def build_encoder(config: SSASTConfig) -> SSASTEncoder:
    """An encoder with fresh weights from torch's global generator."""
    return SSASTEncoder(config)


def build_objective(config: SSASTConfig) -> SSASTObjective:
    """The pretext task around an encoder with fresh weights."""
    return SSASTObjective(SSASTEncoder(config))


def for_finetuning(encoder: SSASTEncoder, seconds: float) -> SSASTEncoder:
    """The encoder with its fine-tuning strides and positions for clips of `seconds`."""
    frames = int(encoder.frontend.num_frames(torch.tensor(round(seconds * encoder.sample_rate))))
    return adapt_encoder(encoder, encoder.config.for_finetuning(frames))


__all__ = [
    "CAPABILITIES",
    "CONFIG",
    "DEFAULT_PRESET",
    "PRESETS",
    "RECIPES",
    "SSASTConfig",
    "SSASTEncoder",
    "SSASTObjective",
    "adapt_encoder",
    "build_encoder",
    "build_objective",
    "for_finetuning",
    "import_state",
    "recognises",
]
