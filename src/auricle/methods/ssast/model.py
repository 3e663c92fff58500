"""SSAST's encoder: the patches of a log-mel spectrogram through a transformer."""

from __future__ import annotations

from auricle.methods.spectrogram.transformer import TransformerEncoder
from auricle.methods.ssast.config import SSASTConfig


class SSASTEncoder(TransformerEncoder):
    """The audio spectrogram transformer; a class and a distillation token, as in DeiT, both go first."""

    PREFIX_TOKENS = ("cls_token", "dist_token")
    config: SSASTConfig

    def __init__(self, config: SSASTConfig) -> None:
        super().__init__(config)
