"""Checkpoints of ASiT as they circulate, in our names (and back).

The authors' training files hold a student, its teacher and two centres; ASiT_16kHz.pth holds the teacher. PretrainedSED
publishes detectors around the network under `model.`; a file that was fine-tuned in AST's way has `mlp_head`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from auricle.config import override
from auricle.errors import CheckpointError
from auricle.methods.asit.config import ASiTConfig
from auricle.methods.base import Imported, ImportedTensor, settle, unknown_tensors
from auricle.methods.spectrogram.official import PATCHES
from auricle.methods.spectrogram.recipes import seconds
from auricle.nn.patches import Pair, frequency_major, time_major

Kind = Literal["pretraining", "encoder", "classifier", "detector"]
# What the ViT is called in a file, without what stands before it in a training file.
_NETWORKS = ("backbone.", "model.asit.", "model.", "asit.", "pretrained.", "v.", "")
_PRETRAINEDSED = ("model.asit.", "model.", "asit.")
_BRANCH = re.compile(r"(?:(teacher|student|loss_cls|loss_data)[/.])?(?:module\.)?(.*)")
_BLOCK = re.compile(r"blocks\.(\d+)\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])\.(weight|bias)")
_ENCODER = PATCHES | {"norm.weight": "norm.weight", "norm.bias": "norm.bias"}
_PARTS = ("weight", "bias")
_PRETEXT = {
    **{f"head_cls.mlp.{i}.{p}": f"projector.bottleneck.{i}.{p}" for i in (0, 2, 4) for p in _PARTS},
    **{f"head_cls.cls_layer.{p}": f"projector.clip.{p}" for p in ("weight_g", "weight_v")},
    **{f"head_cls.data_layer.{p}": f"projector.patch.{p}" for p in ("weight_g", "weight_v")},
    **{f"head_recons.mlp.{i}.{p}": f"decoder.mlp.{i}.{p}" for i in (0, 2, 4) for p in _PARTS},
    **{f"head_recons.convTrans.{p}": f"decoder.patch.{p}" for p in _PARTS},
}
_CENTRES = {"loss_cls": "clip_centre.mean", "loss_data": "patch_centre.mean"}
_CLASSIFIER = {
    **{f"mlp_head.0.{p}": f"head.norm.{p}" for p in _PARTS},
    **{f"mlp_head.1.{p}": f"head.linear.{p}" for p in _PARTS},
}
_DETECTOR = {f"strong_head.{part}": f"head.linear.{part}" for part in _PARTS}
_UNUSED = {
    **{f"weak_head.{part}": "a head for labels of whole clips, which auricle does not read" for part in _PARTS},
    **{f"head.{part}": "a linear layer on the class token; auricle takes the network" for part in _PARTS},
}
_NEEDED = ("cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight")
_RELEASED_HEADS = {192: 3, 384: 6, 768: 12}
# What a fine-tuned file does not hold.
_UNKNOWN = ("stride_freq", "stride_time", "norm_mean", "norm_std")
_ASSUMED = {
    "sample_rate": f"sample_rate={ASiTConfig.sample_rate} (that of the weights that circulate; the official code says "
    "32000 and never looks)",
    "norm_mean": f"norm_mean={ASiTConfig.norm_mean}",
    "norm_std": f"norm_std={ASiTConfig.norm_std} (AST's of AudioSet)",
}


@dataclass(frozen=True)
class Place:
    """Where in a file a tensor is: the `branch` of a training file or "", the network's name, and its own."""

    branch: str
    network: str
    name: str


def place_of(key: str) -> Place | None:
    """The place of a tensor; None if it is none of ASiT's."""
    match = _BRANCH.fullmatch(key)
    assert match is not None
    branch, rest = match[1] or "", match[2]
    if branch in _CENTRES:
        return Place(branch, "", rest) if rest == "center" else None
    if rest in _PRETEXT or rest in _CLASSIFIER or rest in _DETECTOR or rest in _UNUSED:
        return Place(branch, "", rest)
    for network in _NETWORKS:
        name = rest.removeprefix(network)
        if rest.startswith(network) and (name in _ENCODER or _BLOCK.fullmatch(name)):
            return Place(branch, network, name)
    return None


def recognises(keys: Mapping[str, Any]) -> bool:
    """Whether a state dict of these keys holds ASiT's ViT, under any of the names it circulates by.

    It is a ViT like others: blocks with biases, a class token, and no distillation token.
    """
    if any(key.endswith("dist_token") for key in keys):
        return False
    names = {place.name for place in map(place_of, keys) if place}
    return names >= {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.bias"}


def import_state(
    state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None, stated: Mapping[str, Any] | None = None
) -> Imported:
    """An official state dict as ours.

    What the file holds is read from it: width, depth, patch, grid, sizes of the heads. Padding and channels are the
    official ones (`compat=official`); PretrainedSED's files, known by their names, have `compat=pretrainedsed`, and
    those with a head for time steps give a detector (`compat=detector`). The teacher is what is evaluated; a file that
    lacks the student or the centres gives an encoder. `options` are fields of ASiTConfig that the file does not hold:
    `heads` for a width that was never released, `mel_bins` other than 128, and for a fine-tuned file strides and input
    statistics. Sample rate and statistics are assumed where they are not given, and `assumed` says so.

    Raises:
        CheckpointError: an unknown, missing or mis-shaped tensor, or a structure that must be given and is not.
    """
    file = _File(state)
    config = file.config(dict(options or {}))
    tensors, ours = [], {}
    for key, value in state.items():
        target, note = file.target(file.places[key])
        shape = tuple(value.shape)
        if not target:
            tensors.append(ImportedTensor(key, "", shape, "unused", note))
            continue
        if target.endswith("positions") and config.position_layout == "swapped":
            note = "read with its axes swapped, as PretrainedSED does"
        ours[target] = turned(target, value.float(), config.grid)
        tensors.append(ImportedTensor(key, target, shape, "weight", note))
    preset = {384: "small", 768: "base"}.get(config.width, "tiny")
    assumed = ", ".join(text for name, text in _ASSUMED.items() if name not in (options or {}))
    return Imported("asit", file.kind, config, ours, tuple(tensors), preset, file.classes, assumed)


def turned(name: str, value: Tensor, grid: Pair, back: bool = False) -> Tensor:
    """An official tensor as ours, or `back`: their images are [time, mel], and their tokens run along mel first."""
    if name.endswith("positions"):
        order = time_major if back else frequency_major
        return torch.cat([value[:, :1], order(value[:, 1:], grid)], dim=1)
    return value.transpose(2, 3).contiguous() if name.endswith("patch.weight") and value.ndim == 4 else value


def official_names(depth: int) -> list[str]:
    """The official names of a network with its heads, in the order of its parameters."""
    first, last = list(_ENCODER)[: len(PATCHES)], list(_ENCODER)[len(PATCHES) :]
    inner = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    blocks = [f"blocks.{i}.{layer}.{part}" for i in range(depth) for layer in inner for part in _PARTS]
    return [*(f"backbone.{name}" for name in (*first, *blocks, *last)), *_PRETEXT]


def to_ours(name: str) -> str:
    """Our name in a student or a teacher of one of `official_names`."""
    inner = name.removeprefix("backbone.")
    return _PRETEXT.get(name) or f"encoder.{_ENCODER.get(inner, inner)}"


class _File:
    """A state dict of ASiT's, and what it holds.

    Raises:
        CheckpointError: it has tensors that are not ASiT's, or lacks what every file has.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        places = {key: place_of(key) for key in state}
        if unknown := [key for key, place in places.items() if place is None]:
            raise unknown_tensors("ASiT", unknown)
        self.places = {key: place for key, place in places.items() if place}
        branches = {place.branch for place in self.places.values()}
        self.kind: Kind = "encoder"
        if {"teacher", "student", *_CENTRES} <= branches:
            self.kind = "pretraining"
        # The branch that is evaluated.
        self.main = next((branch for branch in ("teacher", "student") if branch in branches), "")
        self.tensors = {place.name: state[key] for key, place in self.places.items() if place.branch == self.main}
        if "mlp_head.1.weight" in self.tensors:
            self.kind = "classifier"
        elif "strong_head.weight" in self.tensors:
            self.kind = "detector"
        head = {"classifier": "mlp_head.1.weight", "detector": "strong_head.weight"}.get(self.kind)
        self.classes = len(self.tensors[head]) if head else 0
        self.networks = {place.network for place in self.places.values() if place.name == "cls_token"}
        for name in _NEEDED:
            if name not in self.tensors:
                raise CheckpointError(f"the ASiT checkpoint lacks '{name}'; is the file complete?")

    def target(self, place: Place) -> tuple[str, str]:
        """Our name of a tensor; or an empty one, and why it is not used."""
        if place.branch in _CENTRES:
            return (_CENTRES[place.branch], "") if self.kind == "pretraining" else ("", "a centre of pretraining")
        if self.kind != "pretraining" and place.branch != self.main:
            return "", "the student; the teacher is what is evaluated"
        if place.name in _UNUSED:
            return "", _UNUSED[place.name]
        if ours := (_CLASSIFIER | _DETECTOR).get(place.name):
            return ours, ""
        if place.name in _PRETEXT:
            if self.kind != "pretraining":
                return "", "a head of pretraining, which only goes on from a whole training file"
            ours = _PRETEXT[place.name]
        else:
            ours = to_ours(f"backbone.{place.name}")
        return ("student." if place.branch == "student" and self.kind == "pretraining" else "") + ours, ""

    def config(self, options: dict[str, Any]) -> ASiTConfig:
        kernel, positions = self.tensors["patch_embed.proj.weight"], self.tensors["pos_embed"]
        if kernel.ndim != 4 or positions.ndim != 3:
            raise CheckpointError(
                "the ASiT checkpoint's patch_embed.proj.weight and pos_embed must have 4 and 3 dimensions, got the "
                f"shapes {tuple(kernel.shape)} and {tuple(positions.shape)}; is the file damaged?"
            )
        width, _, wide, high = kernel.shape
        self._ask(width, options)
        found = "pretrainedsed" if self.networks & set(_PRETRAINEDSED) else "official"
        found = "detector" if self.kind == "detector" else found
        settings = {
            "width": width,
            "depth": 1 + max(int(match[1]) for name in self.tensors if (match := _BLOCK.fullmatch(name))),
            "heads": _RELEASED_HEADS.get(width, 1),
            **{"patch_freq": high, "patch_time": wide, "stride_freq": high, "stride_time": wide},
            "compat": found,
            **self._sizes(),
            **options,
        }
        tokens = positions.shape[1] - 1
        mel_bins, strides = int(settings.get("mel_bins", ASiTConfig.mel_bins)), settings["stride_freq"]
        rows = (mel_bins - high) // max(1, strides) + 1
        columns = tokens // max(1, rows)
        if "window_frames" not in settings:
            settings["window_frames"] = max(wide, (columns - 1) * settings["stride_time"] + wide)
        if "view_seconds" not in settings:
            # Networks smaller than the released ones have fewer positions than a view of theirs.
            settings["view_seconds"] = min(ASiTConfig.view_seconds, seconds(settings["window_frames"]))
        (config,) = override((ASiTConfig(),), settings)
        if config.grid[0] * config.grid[1] != tokens:
            raise CheckpointError(
                f"the file has positions for {tokens} tokens, but {config.mel_bins} mel bins x "
                f"{config.window_frames} frames with stride {config.stride} give {config.grid[0]} x {config.grid[1]} = "
                f"{config.grid[0] * config.grid[1]}; {settle(options)}."
            )
        return config

    def _ask(self, width: int, options: Mapping[str, Any]) -> None:
        """Raises CheckpointError for settings that have to be given."""
        needed = [*(() if width in _RELEASED_HEADS else ("heads",)), *(_UNKNOWN if self.kind == "classifier" else ())]
        missing = [name for name in needed if name not in options]
        if missing and self.kind == "classifier":
            raise CheckpointError(
                f"a fine-tuned ASiT file does not record {', '.join(missing)}; give each with --set KEY=VALUE "
                "(AST's recipes: strides 10 x 10; AudioSet: norm_mean=-4.2677393 norm_std=4.5689974; ESC-50: "
                "norm_mean=-6.6268077 norm_std=5.358466; Speech Commands: norm_mean=-6.845978 norm_std=5.5654526)."
            )
        if missing:
            raise CheckpointError(
                f"the file does not hold the number of attention heads, and width {width} was never released; "
                "give it with --set heads=H."
            )

    def _sizes(self) -> dict[str, int]:
        """Sizes of the heads of pretraining."""
        if self.kind != "pretraining":
            return {}
        names: Sequence[tuple[str, str]] = (
            ("clip_prototypes", "head_cls.cls_layer.weight_v"),
            ("patch_prototypes", "head_cls.data_layer.weight_v"),
            ("projector_hidden", "head_cls.mlp.0.weight"),
            ("projector_out", "head_cls.mlp.4.weight"),
            ("decoder_hidden", "head_recons.mlp.0.weight"),
            ("decoder_out", "head_recons.mlp.4.weight"),
        )
        lacking = [official for _, official in names if official not in self.tensors]
        if lacking:
            raise CheckpointError(f"the ASiT checkpoint lacks '{lacking[0]}'; is the file complete?")
        return {ours: len(self.tensors[official]) for ours, official in names}
