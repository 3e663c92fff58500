"""Patches of a log-mel spectrogram through a transformer: the encoder of SSAST and ASiT.

B batch, P prefix tokens, N patch tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from auricle.methods.spectrogram.config import TransformerConfig
from auricle.methods.spectrogram.encoder import PatchEncoder
from auricle.nn.transformer import Block, reset_linears, run_blocks


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

    def layers_of(self, x: Tensor, valid: Tensor | None, layers: Sequence[int]) -> list[Tensor]:
        """The outputs of blocks [B, P + M, D], and after them the final norm's; nothing attends to padding."""
        outputs, last = run_blocks(self.blocks, x, valid, layers)
        return [*outputs, self.norm(last)]
