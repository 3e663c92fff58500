"""SSAST: self-supervised audio spectrogram transformer (Gong et al., AAAI 2022, arXiv 2110.09784).

Read in this order: config.py (settings and presets), model.py (the encoder), ../spectrogram/ (front end, patches and
the pretext task, which other methods share), recipes.py (published fine-tunings), official.py (published checkpoints).
Official code: YuanGongND/ssast at a1a3eec; where it and the paper differ, the code is the default and the paper's form
an option (`softmax_over`), because the published weights were made by the code.
"""

from __future__ import annotations

from auricle.methods.base import Capability, Objective
from auricle.methods.spectrogram.encoder import adapt_encoder, build_frontend, for_finetuning
from auricle.methods.spectrogram.latent import LatentObjective
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.ssast.config import PRESETS, SSASTConfig
from auricle.methods.ssast.model import SSASTEncoder
from auricle.methods.ssast.official import import_state, recognises
from auricle.methods.ssast.recipes import RECIPES

CAPABILITIES: frozenset[Capability] = frozenset({"pretrain", "embed", "finetune"})
CONFIG = SSASTConfig
# Trains in minutes on a laptop; the paper's sizes are asked for by name.
DEFAULT_PRESET = "demo"


def build_encoder(config: SSASTConfig) -> SSASTEncoder:
    """An encoder with fresh weights from torch's global generator."""
    return SSASTEncoder(config)


def build_objective(config: SSASTConfig) -> Objective:
    """The pretext task around an encoder with fresh weights."""
    encoder = SSASTEncoder(config)
    return LatentObjective(encoder) if config.pretext == "latent" else MaskedPatchObjective(encoder)


__all__ = [
    "CAPABILITIES",
    "CONFIG",
    "DEFAULT_PRESET",
    "PRESETS",
    "RECIPES",
    "SSASTConfig",
    "SSASTEncoder",
    "adapt_encoder",
    "build_encoder",
    "build_frontend",
    "build_objective",
    "for_finetuning",
    "import_state",
    "recognises",
]
