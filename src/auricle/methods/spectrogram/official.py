"""Checkpoints that SSAST's code and its descendants write: what is the same in all of their files.

A pretraining file is the flat state dict of their model inside DataParallel: the encoder under `v.`, the mask token,
two pretext heads, and the grid of the positions. A fine-tuned one has `mlp_head.*` instead of the pretext heads, and
records neither strides, input length and statistics, pooling nor label names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

from torch import Tensor

from auricle.config import override
from auricle.errors import CheckpointError
from auricle.methods.base import Imported, ImportedTensor, settle, unknown_tensors
from auricle.methods.spectrogram.config import MaskedPatchConfig

C = TypeVar("C", bound=MaskedPatchConfig)

# Names inside `v.` to ours inside `encoder.`
PATCHES = {
    "cls_token": "cls_token",
    "pos_embed": "positions",
    "patch_embed.proj.weight": "patch.weight",
    "patch_embed.proj.bias": "patch.bias",
}
_OUTSIDE = {
    "mask_embed": "mask_token",
    **{f"cpredlayer.{i}.{p}": f"discriminative.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")},
    **{f"gpredlayer.{i}.{p}": f"generative.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")},
    **{f"mlp_head.0.{p}": f"head.norm.{p}" for p in ("weight", "bias")},
    **{f"mlp_head.1.{p}": f"head.linear.{p}" for p in ("weight", "bias")},
}
_STRUCTURE = ("p_input_fdim", "p_input_tdim")
# What a fine-tuned file does not hold.
UNKNOWN = ("stride_freq", "stride_time", "window_frames", "norm_mean", "norm_std", "pooling")
# The masks of the official pretraining on 512 tokens.
_OFFICIAL_MASKS, _OFFICIAL_TOKENS = 400, 512


@dataclass(frozen=True)
class Layout:
    """How one method's files name things.

    Attributes:
        title: the method's name in messages.
        encoder: names inside `v.` to ours inside `encoder.`, outside the layers.
        layer: the name of a layer's tensor inside `v.` as ours inside `encoder.`; None if it is none of a layer.
        layer_back: the reverse of `layer`.
        needed: tensors without which a file is not complete.
        unused: tensors that the official forward pass never reads, with what they are.
    """

    title: str
    encoder: Mapping[str, str]
    layer: Callable[[str], str | None]
    layer_back: Callable[[str], str]
    needed: Sequence[str]
    unused: Mapping[str, str]

    def to_ours(self, key: str) -> str | None:
        """Our name of an official one (without `module.`), or None for a tensor that their forward never uses."""
        if key in _OUTSIDE:
            return _OUTSIDE[key]
        inner = key.removeprefix("v.")
        if inner == key:
            return None
        ours = self.encoder.get(inner) or self.layer(inner)
        return f"encoder.{ours}" if ours else None

    def to_official(self, name: str) -> str:
        """The official name of one of ours, for reports and parity."""
        back = {ours: official for official, ours in _OUTSIDE.items()}
        back |= {f"encoder.{ours}": f"v.{official}" for official, ours in self.encoder.items()}
        return back.get(name) or "v." + self.layer_back(name.removeprefix("encoder."))


class OfficialFile:
    """A state dict of official names, with what can be read from it.

    Attributes:
        tensors: by their names without `module.`
        kind: which of our modules it belongs to.

    Raises:
        CheckpointError: it lacks what every file of `layout` has.
    """

    def __init__(self, layout: Layout, state: Mapping[str, Tensor]) -> None:
        self.layout = layout
        self.tensors = {key.removeprefix("module."): value for key, value in state.items()}
        self.kind: Literal["pretraining", "classifier"] = (
            "classifier" if "mlp_head.1.weight" in self.tensors else "pretraining"
        )
        for key in layout.needed:
            if key not in self.tensors:
                raise CheckpointError(f"the {layout.title} checkpoint lacks '{key}'; is the file complete?")

    @cached_property
    def kernel(self) -> tuple[int, int, int]:
        """Width of the network, and height and length of a patch."""
        kernel, positions = self.tensors["v.patch_embed.proj.weight"], self.tensors["v.pos_embed"]
        if kernel.ndim != 4 or positions.ndim != 3:
            raise CheckpointError(
                f"the {self.layout.title} checkpoint's v.patch_embed.proj.weight and v.pos_embed must have 4 and 3 "
                f"dimensions, got the shapes {tuple(kernel.shape)} and {tuple(positions.shape)}; is the file damaged?"
            )
        width, _, high, wide = kernel.shape
        return width, high, wide

    @property
    def size(self) -> str:
        """The released size of this width, which recipes go by."""
        return {192: "tiny", 384: "small", 768: "base"}.get(self.kernel[0], "tiny")

    def settings(self) -> dict[str, Any]:
        """The settings of front end, patches and masks that the file holds or its code always has."""
        width, high, wide = self.kernel
        return {
            "width": width,
            "patch_freq": high,
            "patch_time": wide,
            "stride_freq": high,
            "stride_time": wide,
            "window_frames": int(self.tensors["p_input_tdim"]) if "p_input_tdim" in self.tensors else 1024,
            "mel_bins": int(self.tensors["p_input_fdim"]) if "p_input_fdim" in self.tensors else 128,
            "mask_count": _OFFICIAL_MASKS,
            **MaskedPatchConfig.COMPAT["official"],
        }

    def assumed_statistics(self, options: Mapping[str, Any]) -> str:
        """In words, the input statistics of a pretraining file that are not given in `options`."""
        if self.kind == "classifier":
            return ""
        values = {"norm_mean": MaskedPatchConfig.norm_mean, "norm_std": MaskedPatchConfig.norm_std}
        missing = [f"{name}={value}" for name, value in values.items() if name not in options]
        return f"{', '.join(missing)} (AudioSet and LibriSpeech, the official pretraining data)" if missing else ""

    def ask(self, missing: Sequence[str], hints: Sequence[str]) -> CheckpointError:
        """The sentence for settings that have to be given; `hints` are what the official recipes used."""
        return CheckpointError(
            f"a fine-tuned {self.layout.title} file does not record {', '.join(missing)}; give each with "
            f"--set KEY=VALUE (the official recipes: {'; '.join(hints)})."
        )

    def fit(self, config: C, options: Mapping[str, Any], prefix: int) -> C:
        """`config` with `options` laid over it, checked against the file's positions; `prefix` tokens go first.

        Raises:
            CheckpointError: the grid has another number of tokens than the file has positions.
        """
        (config,) = override((config,), options)
        rows, columns = config.grid
        tokens = self.tensors["v.pos_embed"].shape[1] - prefix
        if rows * columns != tokens:
            raise CheckpointError(
                f"the file has positions for {tokens} tokens, but {config.mel_bins} mel bins x "
                f"{config.window_frames} frames with stride {config.stride} give {rows} x {columns} = "
                f"{rows * columns}; {settle(options)}."
            )
        if config.mask_count >= rows * columns - 1:
            # Only in files smaller than the released ones: keep the official share.
            config = replace(config, mask_count=math.floor(rows * columns * _OFFICIAL_MASKS / _OFFICIAL_TOKENS))
        return config

    def imported(
        self,
        method: str,
        config: MaskedPatchConfig,
        preset: str,
        assumed: str,
        unused: Mapping[str, str] | None = None,
    ) -> Imported:
        """Every tensor under our name, or in the report with why it is not used.

        Args:
            unused: besides those of the layout, tensors that `config` has no use for, with the reason.

        Raises:
            CheckpointError: a tensor that the layout does not know.
        """
        tensors, ours, unknown = [], {}, []
        without_use = {**self.layout.unused, **(unused or {})}
        for key, value in self.tensors.items():
            target, shape = self.layout.to_ours(key), tuple(value.shape)
            if key in _STRUCTURE:
                tensors.append(ImportedTensor(key, "config.grid", shape, "structure", "sets the grid of positions"))
            elif key in without_use:
                tensors.append(ImportedTensor(key, "", shape, "unused", without_use[key]))
            elif target is None:
                unknown.append(key)
            else:
                ours[target] = value.float()
                tensors.append(ImportedTensor(key, target, shape, "weight"))
        if unknown:
            raise unknown_tensors(self.layout.title, unknown)
        classes = len(self.tensors["mlp_head.1.weight"]) if self.kind == "classifier" else 0
        return Imported(method, self.kind, config, ours, tuple(tensors), preset, classes, assumed)


def has_head(bare: Mapping[str, Any] | set[str]) -> bool:
    """Whether these names (without `module.`) hold a pretext head or a fine-tuning head."""
    return "mask_embed" in bare or "mlp_head.1.weight" in bare
