"""Patches of a log-mel spectrogram through a transformer: the encoder of SSAST and ASiT.

B batch, P prefix tokens, N patch tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from auricle.methods.spectrogram.config import TransformerConfig
from auricle.methods.spectrogram.encoder import PatchEncoder, Tokens
from auricle.nn.transformer import Block, reset_linears


class TransformerEncoder(PatchEncoder):
    """Pre-norm blocks (ViT) and a final norm over the prefix tokens and the patches."""

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.num_layers = config.depth
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal linear weights, zero biases; tokens and positions as `reset_positions`."""
        reset_linears(self.blocks, self.config.init_std)
        self.reset_positions()

    def transform(self, tokens: Tokens) -> list[Tensor]:
        """Every block's output [B, P + N, D], and after them the final norm's; nothing attends to padding."""
        x = self.with_prefix(tokens)
        keep = None
        if not bool(tokens.valid.all()):
            keep = nn.functional.pad(tokens.token_valid(), (self.prefix, 0), value=True)[:, None, None, :]
        outputs = []
        for block in self.blocks:
            x = block(x, keep)
            outputs.append(x)
        outputs.append(self.norm(x))
        return outputs
