"""ASiT: local-global audio spectrogram vision transformer (Atito, Awais, Wang, Plumbley, Kittler; arXiv 2211.13189).

Read in this order: config.py (settings), model.py (the encoder), corruption.py (what the student does not see),
objective.py (what it learns), presets.py and recipes.py (trainings), official.py (checkpoints that circulate),
sequence.py (the encoder of PretrainedSED's detectors). The front end and the patches are those of ../spectrogram/, the
teacher's parts are in nn/. Official code: Sara-Ahmed/ASiT at 1f1d63c; docs/asit.md says where it differs from what is
done here.
"""

from __future__ import annotations

from auricle.methods.asit.config import ASiTConfig
from auricle.methods.asit.model import ASiTEncoder, for_finetuning
from auricle.methods.asit.objective import ASiTObjective
from auricle.methods.asit.official import import_state, recognises
from auricle.methods.asit.presets import PRESETS
from auricle.methods.asit.recipes import RECIPES
from auricle.methods.asit.sequence import SequenceEncoder
from auricle.methods.base import Capability, Objective
from auricle.methods.spectrogram.encoder import build_frontend
from auricle.methods.spectrogram.latent import LatentObjective

CAPABILITIES: frozenset[Capability] = frozenset({"pretrain", "embed", "finetune"})
CONFIG = ASiTConfig
# Trains in minutes on a laptop; the paper's sizes are asked for by name.
DEFAULT_PRESET = "demo"


def build_encoder(config: ASiTConfig) -> ASiTEncoder:
    """An encoder with fresh weights from torch's global generator."""
    return SequenceEncoder(config) if config.sequence_steps else ASiTEncoder(config)


def build_objective(config: ASiTConfig) -> Objective:
    """A student with fresh weights and its teacher, whose encoder is the objective's."""
    encoder = ASiTEncoder(config)
    if config.pretext == "paper":
        return ASiTObjective(encoder)
    latent = LatentObjective(encoder, config.view_seconds)
    encoder.drop_paths(config.drop_path)
    return latent


__all__ = [
    "CAPABILITIES",
    "CONFIG",
    "DEFAULT_PRESET",
    "PRESETS",
    "RECIPES",
    "ASiTConfig",
    "ASiTEncoder",
    "ASiTObjective",
    "build_encoder",
    "build_frontend",
    "build_objective",
    "for_finetuning",
    "import_state",
    "recognises",
]
