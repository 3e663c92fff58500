"""Pre-norm transformer blocks as in ViT and DeiT, with fused attention.

B batch, N tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.kernels import linear

# Up to so many tokens, the square of their number is less to keep than what a block keeps anyway.
PLAIN_TOKENS = 128


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q, k, v [B, H, N, d]; `keep` [B, 1, 1, N] is False for what nobody attends to.

    torch's fused kernel, but for training in bf16 on a CPU, where its backward pass takes four to seven times as long
    as plain operations.
    """
    plain = q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if not plain or q.shape[2] > PLAIN_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if keep is not None:
        scores = scores.masked_fill(~keep, -torch.inf)
    return scores.softmax(-1) @ v


class Linear(nn.Linear):
    """torch's layer, by the fastest product there is (`auricle.kernels.linear`)."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., K]: [..., N]."""
        return linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head self-attention: one fused qkv projection, scale (D / H) ** -0.5."""

    def __init__(self, width: int, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """x [B, N, D]; `keep` [B, 1, 1, N] is False for tokens that nobody may attend to."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, keep)
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(B, N, D))
        return projected


class MLP(nn.Module):
    """Linear, exact (erf) GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected


class DropPath(nn.Module):
    """In training, drops what a branch adds for some clips of a batch, and raises the rest by as much (timm's)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """x [B, ...]; drawn for each clip from torch's global generator, as dropout is."""
        if not self.training or not self.probability:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.probability
        return x * kept / (1 - self.probability)


class Block(nn.Module):
    """x += Attention(LN(x)); x += MLP(LN(x)), LayerNorm eps 1e-6 as in timm's ViT.

    `drop_path` is the probability with which each of the two is left out of a clip in training.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, *, qkv_bias: bool = True, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), keep))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def run_blocks(
    blocks: nn.ModuleList, x: Tensor, valid: Tensor | None, layers: Collection[int]
) -> tuple[list[Tensor], Tensor]:
    """Blocks one after the other over x [B, P + N, D]: the outputs of those of the numbers `layers`, and the last's.

    Of the last N tokens nobody attends to those that `valid` [B, N] excludes; None, or nothing but True: to all.
    """
    keep = None
    if valid is not None and not bool(valid.all()):
        keep = F.pad(valid, (x.shape[1] - valid.shape[1], 0), value=True)[:, None, None, :]
    outputs = []
    for number, block in enumerate(blocks):
        x = block(x, keep)
        if number in layers:
            outputs.append(x)
    return outputs, x


def reset_linears(module: nn.Module, std: float = 0.02) -> None:
    """ViT's start: truncated normal weights and zero biases of all linear layers in a module."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
