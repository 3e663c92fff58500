"""SUPERB's input, as SSAST's authors made it and others took over (src/finetune/superb/upstream/ast)."""

from __future__ import annotations

from torch import Tensor, nn

from auricle.methods.spectrogram.config import PatchConfig
from auricle.methods.spectrogram.encoder import PatchEncoder


def superb_features(encoder: PatchEncoder, wave: Tensor, target_length: int) -> Tensor:
    """One waveform [S] to features [target_length, F]; what pads is 0 after normalising.

    The waveform keeps its mean, and the statistics are always AudioSet's.
    """
    log_mel = encoder.frontend(wave[None])[0]
    normalised = (log_mel - PatchConfig.norm_mean) / (2 * PatchConfig.norm_std)
    missing = max(0, target_length - len(normalised))
    return nn.functional.pad(normalised, (0, 0, 0, missing))[:target_length]
