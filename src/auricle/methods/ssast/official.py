"""Checkpoints published by SSAST's authors, and those that their code writes, in our names (and back).

A pretraining file is the flat state dict of their `ASTModel` inside DataParallel; a fine-tuned one has `mlp_head.*`
instead of the pretext heads, and records neither strides, input length and statistics, pooling nor label names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from auricle.config import override
from auricle.errors import CheckpointError
from auricle.methods.base import Imported, ImportedTensor
from auricle.methods.ssast.config import SSASTConfig
from auricle.methods.ssast.model import PREFIX

# timm's names inside `v.` to ours inside `encoder.`; blocks are named alike.
_ENCODER = {
    "cls_token": "cls_token",
    "dist_token": "dist_token",
    "pos_embed": "positions",
    "patch_embed.proj.weight": "patch.weight",
    "patch_embed.proj.bias": "patch.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
_OUTSIDE = {
    "mask_embed": "mask_token",
    **{f"cpredlayer.{i}.{p}": f"discriminative.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")},
    **{f"gpredlayer.{i}.{p}": f"generative.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")},
    **{f"mlp_head.0.{p}": f"head.norm.{p}" for p in ("weight", "bias")},
    **{f"mlp_head.1.{p}": f"head.linear.{p}" for p in ("weight", "bias")},
}
# What a fine-tuned file does not hold, and what the official recipes used (their run_*.sh).
_UNKNOWN = ("stride_freq", "stride_time", "window_frames", "norm_mean", "norm_std", "pooling")
_PUBLISHED = {
    "AudioSet": {"window_frames": 1024, "norm_mean": -4.2677393, "norm_std": 4.5689974},
    "ESC-50": {"window_frames": 512, "norm_mean": -6.6268077, "norm_std": 5.358466},
    "Speech Commands": {"window_frames": 128, "norm_mean": -6.845978, "norm_std": 5.5654526},
}
_STRUCTURE = ("p_input_fdim", "p_input_tdim")
_IMAGENET_HEADS = ("v.head.weight", "v.head.bias", "v.head_dist.weight", "v.head_dist.bias")


def recognises(keys: Mapping[str, Any]) -> bool:
    """Whether a state dict of these keys is SSAST's: a distilled ViT with a pretext or a fine-tuning head."""
    bare = {key.removeprefix("module.") for key in keys}
    return "v.dist_token" in bare and ("mask_embed" in bare or "mlp_head.1.weight" in bare)


def to_ours(key: str) -> str | None:
    """Our name of an official one (without `module.`), or None for a tensor that their forward never uses."""
    if key in _OUTSIDE:
        return _OUTSIDE[key]
    inner = key.removeprefix("v.")
    if inner == key:
        return None
    if inner in _ENCODER:
        return f"encoder.{_ENCODER[inner]}"
    return f"encoder.{inner}" if re.fullmatch(r"blocks\.\d+\.(norm|attn|mlp).*", inner) else None


def to_official(name: str) -> str:
    """The official name of one of ours, for reports and parity."""
    back = {ours: official for official, ours in _OUTSIDE.items()}
    back |= {f"encoder.{ours}": f"v.{official}" for official, ours in _ENCODER.items()}
    return back.get(name, "v." + name.removeprefix("encoder."))


def import_state(state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None) -> Imported:
    """An official state dict as ours.

    What the file holds is read from it: width, depth, patch, grid (`p_input_*`). Padding and masks are the official
    ones (`compat=official`). `options` are fields of SSASTConfig that the file does not hold: `heads` for a width that
    was never released, and for a fine-tuned file strides, length, input statistics and pooling (`_UNKNOWN`). A
    pretraining file has the statistics of the official pretraining data, unless others are given; `assumed` says so.

    Raises:
        CheckpointError: an unknown, missing or mis-shaped tensor, or a structure that must be given and is not.
    """
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    options = dict(options or {})
    kind = "classifier" if "mlp_head.1.weight" in bare else "pretraining"
    for key in ("v.pos_embed", "v.patch_embed.proj.weight", "v.norm.weight"):
        if key not in bare:
            raise CheckpointError(f"the SSAST checkpoint lacks '{key}'; is the file complete?")
    assumed = "" if kind == "classifier" else _assumptions(options)
    config = _config(bare, options, kind)
    tensors, ours, unknown = [], {}, []
    for key, value in bare.items():
        target, shape = to_ours(key), tuple(value.shape)
        if key in _STRUCTURE:
            tensors.append(ImportedTensor(key, "config.grid", shape, "structure", "sets the grid of positions"))
        elif key in _IMAGENET_HEADS:
            tensors.append(ImportedTensor(key, "", shape, "unused", "ImageNet head that SSAST never calls"))
        elif target is None:
            unknown.append(key)
        else:
            ours[target] = value.float()
            tensors.append(ImportedTensor(key, target, shape, "weight"))
    if unknown:
        raise CheckpointError(f"the SSAST checkpoint has {len(unknown)} unknown tensors: {', '.join(unknown[:10])}.")
    classes = len(bare["mlp_head.1.weight"]) if kind == "classifier" else 0
    size = {192: "tiny", 384: "small", 768: "base"}.get(config.width, "tiny")
    preset = f"{size}-{'frame' if config.patch_freq == config.mel_bins else 'patch'}"
    return Imported("ssast", kind, config, ours, tuple(tensors), preset, classes, assumed)  # type: ignore[arg-type]


def _assumptions(options: Mapping[str, Any]) -> str:
    values = {"norm_mean": SSASTConfig.norm_mean, "norm_std": SSASTConfig.norm_std}
    missing = [f"{name}={value}" for name, value in values.items() if name not in options]
    return f"{', '.join(missing)} (AudioSet and LibriSpeech, the official pretraining data)" if missing else ""


def _ask(missing: Sequence[str], frame_mode: bool) -> CheckpointError:
    """The sentence for settings that have to be given, with what the official recipes used."""
    strides = {"stride_freq": 128, "stride_time": 1} if frame_mode else {"stride_freq": 10, "stride_time": 10}
    hints = [f"{name}={value}" for name, value in {**strides, "pooling": "mean"}.items() if name in missing]
    for recipe, values in _PUBLISHED.items():
        given = [f"{name}={value}" for name, value in values.items() if name in missing]
        hints += [f"{recipe}: {' '.join(given)}"] if given else []
    if "heads" in missing:
        hints.append("no released model has this width, so heads is for you to know")
    return CheckpointError(
        f"a fine-tuned SSAST file does not record {', '.join(missing)}; give each with --set KEY=VALUE "
        f"(the official recipes: {'; '.join(hints)})."
    )


def _config(bare: Mapping[str, Tensor], options: dict[str, Any], kind: str) -> SSASTConfig:
    kernel, positions = bare["v.patch_embed.proj.weight"], bare["v.pos_embed"]
    if kernel.ndim != 4 or positions.ndim != 3:
        raise CheckpointError(
            f"the SSAST checkpoint's v.patch_embed.proj.weight and v.pos_embed must have 4 and 3 dimensions, got the "
            f"shapes {tuple(kernel.shape)} and {tuple(positions.shape)}; is the file damaged?"
        )
    width, _, patch_freq, patch_time = kernel.shape
    blocks = [int(m[1]) for key in bare if (m := re.match(r"v\.blocks\.(\d+)\.", key))]
    if not blocks:
        raise CheckpointError("the SSAST checkpoint has no v.blocks.*; is the file complete?")
    depth = 1 + max(blocks)
    released = {192: 3, 384: 6, 768: 12}
    wanted = [*(() if width in released else ("heads",)), *(_UNKNOWN if kind == "classifier" else ())]
    missing = [name for name in wanted if name not in options]
    if missing and kind == "classifier":
        raise _ask(missing, frame_mode=patch_freq == 128)
    if missing:
        raise CheckpointError(
            f"the file does not hold the number of attention heads, and width {width} was never released; "
            f"give it with --set heads=H."
        )
    config = SSASTConfig(
        width=width,
        depth=depth,
        heads=options.pop("heads", released.get(width, 1)),
        patch_freq=patch_freq,
        patch_time=patch_time,
        stride_freq=patch_freq,
        stride_time=patch_time,
        window_frames=int(bare["p_input_tdim"]) if "p_input_tdim" in bare else 1024,
        mel_bins=int(bare["p_input_fdim"]) if "p_input_fdim" in bare else 128,
        finetune_stride_freq=128 if patch_freq == 128 else 10,
        finetune_stride_time=1 if patch_freq == 128 else 10,
        mask_count=400,
        **SSASTConfig.COMPAT["official"],
    )
    (config,) = override((config,), options)
    rows, columns = config.grid
    tokens = positions.shape[1] - PREFIX
    if rows * columns != tokens:
        raise CheckpointError(
            f"the file has positions for {tokens} tokens, but {config.mel_bins} mel bins x {config.window_frames} "
            f"frames with stride {config.stride} give {rows} x {columns} = {rows * columns}; correct the --set options."
        )
    if config.mask_count >= rows * columns - 1:
        # Only in files smaller than the released ones: keep the official share of 400 in 512.
        config = replace(config, mask_count=math.floor(rows * columns * 400 / 512))
    return config
