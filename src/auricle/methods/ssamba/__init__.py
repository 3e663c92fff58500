"""SSAMBA: self-supervised audio Mamba (Shams et al., IEEE SLT 2024, arXiv 2405.11831).

SSAST with bidirectional Mamba layers for its transformer. Read in this order: config.py (settings and presets),
model.py (the layers; front end, patches and the pretext task are ../spectrogram/, as SSAST's), recipes.py (published
fine-tunings), official.py (published checkpoints). Official code: SiavashShams/ssamba at 019b276 over hustvl/Vim.
"""

from __future__ import annotations

from auricle.methods.base import Capability, Objective
from auricle.methods.spectrogram.encoder import adapt_encoder, build_frontend, for_finetuning
from auricle.methods.spectrogram.latent import LatentObjective
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.ssamba.config import PRESETS, SSAMBAConfig
from auricle.methods.ssamba.model import SSAMBAEncoder
from auricle.methods.ssamba.official import import_state, recognises
from auricle.methods.ssamba.recipes import RECIPES

CAPABILITIES: frozenset[Capability] = frozenset({"pretrain", "embed", "finetune"})
CONFIG = SSAMBAConfig
# Trains in minutes on a laptop; the paper's sizes are asked for by name.
DEFAULT_PRESET = "demo"


def build_encoder(config: SSAMBAConfig) -> SSAMBAEncoder:
    """An encoder with fresh weights from torch's global generator."""
    return SSAMBAEncoder(config)


def build_objective(config: SSAMBAConfig) -> Objective:
    """The pretext task around an encoder with fresh weights."""
    encoder = SSAMBAEncoder(config)
    return LatentObjective(encoder) if config.pretext == "latent" else MaskedPatchObjective(encoder)


__all__ = [
    "CAPABILITIES",
    "CONFIG",
    "DEFAULT_PRESET",
    "PRESETS",
    "RECIPES",
    "SSAMBAConfig",
    "SSAMBAEncoder",
    "adapt_encoder",
    "build_encoder",
    "build_frontend",
    "build_objective",
    "for_finetuning",
    "import_state",
    "recognises",
]
