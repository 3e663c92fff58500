"""State dicts as ASiT's official code and its descendants write them: their names, random values, any size."""

from __future__ import annotations

import torch
from torch import Tensor

HEADS = 2
COLUMNS = 6


def vit_state(prefix: str = "", *, width: int = 24, depth: int = 2, tokens: int = 8 * COLUMNS) -> dict[str, Tensor]:
    """A ViT under a prefix."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + tokens, width),
        "patch_embed.proj.weight": (width, 1, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    linears |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for block in range(depth):
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{name}.{part}": (width,) for part in ("weight", "bias")}
        for name, shape in linears.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return _random(shapes, prefix)


def network_state(prefix: str, *, width: int = 24) -> dict[str, Tensor]:
    """A student or a teacher with its heads: 20 and 10 prototypes, 16 and 8 wide; 12 and 6 in the decoder."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (wide, out) in {0: (width, 16), 2: (16, 16), 4: (16, 8)}.items():
        shapes |= {f"head_cls.mlp.{layer}.weight": (out, wide), f"head_cls.mlp.{layer}.bias": (out,)}
    for name, prototypes in (("cls_layer", 20), ("data_layer", 10)):
        shapes |= {f"head_cls.{name}.weight_g": (prototypes, 1), f"head_cls.{name}.weight_v": (prototypes, 8)}
    for layer, (wide, out) in {0: (width, 12), 2: (12, 12), 4: (12, 6)}.items():
        shapes |= {f"head_recons.mlp.{layer}.weight": (out, wide), f"head_recons.mlp.{layer}.bias": (out,)}
    shapes |= {"head_recons.convTrans.weight": (6, 1, 16, 16), "head_recons.convTrans.bias": (1,)}
    return vit_state(f"{prefix}backbone.", width=width) | _random(shapes, prefix)


def training_file() -> dict[str, dict[str, Tensor]]:
    """What main_ASiT.py saves, without what is not a tensor."""
    return {
        "student": network_state("module."),
        "teacher": network_state(""),
        "loss_cls": {"center": torch.randn(1, 20)},
        "loss_data": {"center": torch.randn(1, 10)},
    }


def detector_state(*, classes: int = 5, width: int = 24) -> dict[str, Tensor]:
    """PretrainedSED's."""
    return (
        vit_state("model.", width=width) | head_state("strong_head", classes, width) | head_state("weak_head", 7, width)
    )


def head_state(name: str, classes: int, width: int = 24) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(classes, width), f"{name}.bias": torch.randn(classes)}


def finetuned_state(prefix: str = "module.v.", *, classes: int = 5, tokens: int = 12 * 9) -> dict[str, Tensor]:
    """A network that was fine-tuned in AST's way, whose table fits strides of 10 x 10."""
    outer = prefix.removesuffix("v.").removesuffix("pretrained.")
    norm = {f"{outer}mlp_head.0.weight": torch.ones(24), f"{outer}mlp_head.0.bias": torch.zeros(24)}
    return vit_state(prefix, tokens=tokens) | norm | head_state(f"{outer}mlp_head.1", classes)


def _random(shapes: dict[str, tuple[int, ...]], prefix: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(prefix))
    return {prefix + name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
