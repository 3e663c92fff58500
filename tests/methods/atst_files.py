"""State dicts as ATST's official code writes them: its names, random values, any size."""

from __future__ import annotations

import torch
from torch import Tensor

HEADS = 2


def encoder_state(
    kind: str, prefix: str = "", *, width: int = 24, depth: int = 2, columns: int = 20
) -> dict[str, Tensor]:
    """An encoder of `kind` "clip" or "frame" under a prefix."""
    norm = "norm" if kind == "clip" else "norm_frame"
    shapes: dict[str, tuple[int, ...]] = {
        "mask_embed": (1, 1, width),
        "pos_embed": (1, 1 + columns, width),
        "patch_embed.patch_embed.weight": (width, 256),
        "patch_embed.patch_embed.bias": (width,),
        f"{norm}.weight": (width,),
        f"{norm}.bias": (width,),
    }
    if kind == "clip":
        shapes["cls_token"] = (1, 1, width)
    for block in range(depth):
        inside = {
            **{f"norm{i}.{part}": (width,) for i in (1, 2) for part in ("weight", "bias")},
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
        }
        shapes |= {f"blocks.{block}.{name}": shape for name, shape in inside.items()}
    generator = torch.Generator().manual_seed(len(prefix))
    return {prefix + name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def mlp_state(prefix: str, width: int, hidden: int = 16, out: int = 8) -> dict[str, Tensor]:
    """A projector or predictor under a prefix."""
    return {
        f"{prefix}.0.weight": torch.randn(hidden, width),
        f"{prefix}.1.weight": torch.ones(hidden),
        f"{prefix}.1.bias": torch.zeros(hidden),
        f"{prefix}.1.running_mean": torch.zeros(hidden),
        f"{prefix}.1.running_var": torch.ones(hidden),
        f"{prefix}.1.num_batches_tracked": torch.tensor(7),
        f"{prefix}.3.weight": torch.randn(out, hidden),
    }


def training_state(kind: str, prefix: str = "model.", width: int = 24) -> dict[str, Tensor]:
    """A Lightning training file's state dict."""
    return {
        **encoder_state(kind, f"{prefix}student.encoder.", width=width),
        **mlp_state(f"{prefix}student.projector", width),
        **mlp_state(f"{prefix}student.predictor", 8),
        **encoder_state(kind, f"{prefix}teacher.encoder.", width=width),
        **mlp_state(f"{prefix}teacher.projector", width),
    }


def head_state(classes: int, width: int, prefix: str = "head.") -> dict[str, Tensor]:
    """The head of a fine-tuned file."""
    return {
        f"{prefix}norm.running_mean": torch.zeros(width),
        f"{prefix}norm.running_var": torch.ones(width),
        f"{prefix}norm.num_batches_tracked": torch.tensor(3),
        f"{prefix}linear.weight": torch.randn(classes, width),
        f"{prefix}linear.bias": torch.zeros(classes),
    }
