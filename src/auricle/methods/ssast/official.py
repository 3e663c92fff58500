"""Checkpoints published by SSAST's authors, and those that their code writes, in our names (and back)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from auricle.errors import CheckpointError
from auricle.methods.base import Imported
from auricle.methods.spectrogram.official import PATCHES, UNKNOWN, Layout, OfficialFile, has_head
from auricle.methods.ssast.config import SSASTConfig
from auricle.methods.ssast.model import SSASTEncoder

# What the official recipes used (their run_*.sh).
_PUBLISHED = {
    "AudioSet": {"window_frames": 1024, "norm_mean": -4.2677393, "norm_std": 4.5689974},
    "ESC-50": {"window_frames": 512, "norm_mean": -6.6268077, "norm_std": 5.358466},
    "Speech Commands": {"window_frames": 128, "norm_mean": -6.845978, "norm_std": 5.5654526},
}
_RELEASED_HEADS = {192: 3, 384: 6, 768: 12}
_IMAGENET = "ImageNet head that SSAST never calls"
_BLOCK = re.compile(r"blocks\.(\d+)\.(norm|attn|mlp).*")


def _block(name: str) -> str | None:
    """Blocks are named alike."""
    return name if _BLOCK.fullmatch(name) else None


LAYOUT = Layout(
    title="SSAST",
    encoder=PATCHES | {"dist_token": "dist_token", "norm.weight": "norm.weight", "norm.bias": "norm.bias"},
    layer=_block,
    layer_back=str,
    needed=("v.pos_embed", "v.patch_embed.proj.weight", "v.norm.weight"),
    unused={f"v.{head}.{part}": _IMAGENET for head in ("head", "head_dist") for part in ("weight", "bias")},
)
to_ours, to_official = LAYOUT.to_ours, LAYOUT.to_official


def recognises(keys: Mapping[str, Any]) -> bool:
    """Whether a state dict of these keys is SSAST's: a distilled ViT with a pretext or a fine-tuning head."""
    bare = {key.removeprefix("module.") for key in keys}
    return "v.dist_token" in bare and has_head(bare)


def import_state(
    state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None, stated: Mapping[str, Any] | None = None
) -> Imported:
    """An official state dict as ours.

    What the file holds is read from it: width, depth, patch, grid (`p_input_*`). Padding and masks are the official
    ones (`compat=official`). `options` are fields of SSASTConfig that the file does not hold: `heads` for a width that
    was never released, and for a fine-tuned file strides, length, input statistics and pooling (`UNKNOWN`). A
    pretraining file has the statistics of the official pretraining data, unless others are given; `assumed` says so.

    Raises:
        CheckpointError: an unknown, missing or mis-shaped tensor, or a structure that must be given and is not.
    """
    options = dict(options or {})
    file = OfficialFile(LAYOUT, state)
    assumed = file.assumed_statistics(options)
    width, patch_freq, _ = file.kernel
    blocks = [int(m[1]) for key in file.tensors if (m := _BLOCK.fullmatch(key.removeprefix("v.")))]
    if not blocks:
        raise CheckpointError("the SSAST checkpoint has no v.blocks.*; is the file complete?")
    frame_mode = patch_freq == 128
    needed = [*(() if width in _RELEASED_HEADS else ("heads",)), *(UNKNOWN if file.kind == "classifier" else ())]
    missing = [name for name in needed if name not in options]
    if missing and file.kind == "classifier":
        raise file.ask(missing, _hints(missing, frame_mode))
    if missing:
        raise CheckpointError(
            f"the file does not hold the number of attention heads, and width {width} was never released; "
            f"give it with --set heads=H."
        )
    config = SSASTConfig(
        depth=1 + max(blocks),
        heads=options.pop("heads", _RELEASED_HEADS.get(width, 1)),
        finetune_stride_freq=128 if frame_mode else 10,
        finetune_stride_time=1 if frame_mode else 10,
        **file.settings(),
    )
    config = file.fit(config, options, len(SSASTEncoder.PREFIX_TOKENS))
    preset = f"{file.size}-{'frame' if config.patch_freq == config.mel_bins else 'patch'}"
    return file.imported("ssast", config, preset, assumed)


def _hints(missing: Sequence[str], frame_mode: bool) -> list[str]:
    """What the official recipes used for the missing settings."""
    strides = {"stride_freq": 128, "stride_time": 1} if frame_mode else {"stride_freq": 10, "stride_time": 10}
    hints = [f"{name}={value}" for name, value in {**strides, "pooling": "mean"}.items() if name in missing]
    for recipe, values in _PUBLISHED.items():
        given = [f"{name}={value}" for name, value in values.items() if name in missing]
        hints += [f"{recipe}: {' '.join(given)}"] if given else []
    if "heads" in missing:
        hints.append("no released model has this width, so heads is for you to know")
    return hints
