"""State dicts as SSAST's official code writes them: its names, random values, any size."""

from __future__ import annotations

import torch
from networks import LAYOUTS
from torch import Tensor

from auricle.nn.patches import grid_size

HEADS = 3


def official_state(
    layout: str = "patch",
    *,
    width: int = 24,
    depth: int = 2,
    frames: int = 64,
    classes: int = 0,
    prefix: str = "module.",
) -> dict[str, Tensor]:
    """A pretraining file, or with `classes` a fine-tuned one, whose positions fit the strides of `layout`."""
    sizes = LAYOUTS[layout]
    kernel = (sizes["patch_freq"], sizes["patch_time"])
    rows, columns = grid_size((128, frames), kernel, (sizes["stride_freq"], sizes["stride_time"]))
    shapes: dict[str, tuple[int, ...]] = {
        "v.cls_token": (1, 1, width),
        "v.pos_embed": (1, 2 + rows * columns, width),
        "v.dist_token": (1, 1, width),
        "v.patch_embed.proj.weight": (width, 1, *kernel),
        "v.patch_embed.proj.bias": (width,),
    }
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    linears |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for block in range(depth):
        for norm in ("norm1", "norm2"):
            shapes |= {f"v.blocks.{block}.{norm}.{part}": (width,) for part in ("weight", "bias")}
        for name, shape in linears.items():
            shapes |= {f"v.blocks.{block}.{name}.weight": shape, f"v.blocks.{block}.{name}.bias": shape[:1]}
    shapes |= {"v.norm.weight": (width,), "v.norm.bias": (width,)}
    shapes |= {
        f"v.{head}.{part}": (10, width)[: 2 - (part == "bias")] for head in ("head", "head_dist") for part in PARTS
    }
    if classes:
        shapes |= {"mlp_head.0.weight": (width,), "mlp_head.0.bias": (width,)}
        shapes |= {"mlp_head.1.weight": (classes, width), "mlp_head.1.bias": (classes,)}
    else:
        area = kernel[0] * kernel[1]
        shapes["mask_embed"] = (1, 1, width)
        for head in ("cpredlayer", "gpredlayer"):
            shapes |= {f"{head}.0.weight": (width, width), f"{head}.0.bias": (width,)}
            shapes |= {f"{head}.2.weight": (area, width), f"{head}.2.bias": (area,)}
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if not classes:
        state |= {"p_input_fdim": torch.tensor(128), "p_input_tdim": torch.tensor(frames)}
    return {prefix + name: value for name, value in state.items()}


PARTS = ("weight", "bias")
