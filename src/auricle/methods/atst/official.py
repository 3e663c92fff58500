"""Checkpoints published by ATST's authors, and those that their code and its users write, in our names (and back).

Training files hold a student and a teacher; the papers evaluate the teacher. An encoder alone comes under many names,
with or without a head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from auricle.config import override, spelled_out
from auricle.errors import CheckpointError
from auricle.methods.atst.config import ATSTConfig, ClipConfig, FrameConfig
from auricle.methods.atst.stated import Stated, read_stated
from auricle.methods.base import Imported, ImportedTensor, settle, unknown_tensors
from auricle.nn.heads import FramePooling
from auricle.nn.patches import frequency_major

# Where the encoder is. The first one is ATST-Frame beside the classifier that it is distilled from; then come training
# files, of which the teacher is used, and the student where it is alone.
ENCODERS = (
    *("student.", "model.teacher.encoder.", "teacher.encoder.", "teacher/module.backbone."),
    *("model.student.encoder.", "student.encoder."),
    *("encoder.encoder.frame_encoder.", "encoder.encoder.", "module.backbone.", "model.atst.", "encoder.", ""),
)
# Where the head of a fine-tuned file is: BatchNorm and Linear, or of detectors Linear alone; in trainings on DESED with
# the attention that pools a clip.
HEADS = ("head.", "linear.")
# Where PretrainedSED's detectors have it, and where all of its files have the network.
_STRONG = "strong_head."
_PRETRAINEDSED = "model.atst."
_FRAME_HEAD = {"linear": "linear", "linear_softmax": "attention"}
_ENCODER = {
    "cls_token": "cls_token",
    "pos_embed": "positions",
    "patch_embed.patch_embed.weight": "patch.weight",
    "patch_embed.patch_embed.bias": "patch.bias",
}
_BLOCK = re.compile(
    r"blocks\.\d+\.(norm[12]\.(weight|bias)|attn\.(qkv\.weight|proj\.(weight|bias))|mlp\.fc[12]\.(weight|bias))"
)
_UNUSED = {
    "student": "the student; the teacher is what is evaluated",
    "teacher": "the network that it was distilled from",
    "head": "a head for each time step, or of training; auricle takes the encoder",
    "weak": "a head for labels of whole clips, which auricle does not read",
    "mask": "the mask token, which this network never uses",
    "front end": "the front end, which has no weights",
}
_RELEASED_HEADS = {384: 6, 768: 12}


@dataclass(frozen=True)
class Variant:
    """One of the two networks: its name, settings, final norm, and the chunking its authors evaluate it with."""

    method: Literal["atst-clip", "atst-frame"]
    config: type[ATSTConfig]
    norm: str

    def finds(self, keys: Mapping[str, Any]) -> str | None:
        """Where in a file of these keys its encoder is; None if it is not there."""
        for prefix in ENCODERS:
            if f"{prefix}patch_embed.patch_embed.weight" in keys:
                return prefix if f"{prefix}{self.norm}.weight" in keys else None
        return None

    def to_ours(self, name: str) -> str | None:
        """Our name within the encoder of an official one; None if it has none."""
        if name.startswith(f"{self.norm}."):
            return f"norm.{name.removeprefix(f'{self.norm}.')}"
        return _ENCODER.get(name) or (name if _BLOCK.fullmatch(name) else None)

    def to_official(self, name: str) -> str:
        """The official name in a training file of one of our objective's, for reports and parity."""
        branch = "student" if name.startswith("student.") else "teacher"
        inner = name.removeprefix("student.")
        if inner == "mask_token.weight":
            return f"{branch}.encoder.mask_embed"
        if not inner.startswith("encoder."):
            return f"{branch}.{inner}"
        inner = inner.removeprefix("encoder.")
        back = {ours: theirs for theirs, ours in _ENCODER.items()}
        inner = re.sub(r"^norm\.", f"{self.norm}.", inner)
        return f"{branch}.encoder.{back.get(inner, inner)}"


CLIP = Variant("atst-clip", ClipConfig, "norm")
FRAME = Variant("atst-frame", FrameConfig, "norm_frame")


def import_state(
    variant: Variant,
    state: Mapping[str, Tensor],
    options: Mapping[str, Any] | None = None,
    stated: Mapping[str, Any] | None = None,
) -> Imported:
    """An official state dict as ours.

    What the file holds is read from it: from its tensors width, depth, length of the positions and sizes of the heads,
    from `stated` the analysis window, mel bins, patches and the length of a view, if they are there. `options` go
    before both. Patches are 64 mel bins by 4 frames unless something says otherwise, chunks are cut as officially
    (`compat=official`, for a fine-tuned file `chunking=downstream`). A file with a head for time steps gives a
    detector, which hears as many seconds at once as it has positions for (`compat=detector`). PretrainedSED's files,
    with that head or without, are heard as by its code (`compat=pretrainedsed`), unless `options` name another.

    Raises:
        CheckpointError: an unknown, missing or mis-shaped tensor, or a structure that must be given and is not.
    """
    found = variant.finds(state)
    assert found is not None
    named = "compat" in (options or {})
    options = spelled_out((variant.config(),), options or {})
    said = read_stated(stated or {}, options)
    file = _File(variant, state, found, said)
    config = file.config(options, {} if named else file.heard())
    for key, value in state.items():
        file.place(key, value, config)
    if file.unknown:
        raise unknown_tensors(variant.method, file.unknown)
    preset = "base" if config.width == 768 else "small"
    assumed = [f"{name}={getattr(config, name)}" for name in file.unstated(config) if name not in options]
    return Imported(
        variant.method,
        file.kind,
        config,
        file.ours,
        tuple(file.tensors),
        preset,
        file.classes,
        f"{', '.join(assumed)} (the official default)" if assumed else "",
        "batchnorm" if file.kind == "classifier" else "linear",
        said.words,
        file.pooling,
    )


class _File:
    """A state dict whose encoder is under `prefix`, while it is translated."""

    def __init__(self, variant: Variant, state: Mapping[str, Tensor], prefix: str, stated: Stated) -> None:
        self.variant, self.state, self.prefix, self.stated = variant, state, prefix, stated
        self.tensors: list[ImportedTensor] = []
        self.ours: dict[str, Tensor] = {}
        self.unknown: list[str] = []
        self.head = next((h for h in HEADS if f"{h}linear.weight" in state and f"{h}norm.running_mean" in state), "")
        # Of a detector, what its head's tensors are called and what we call them.
        self.frame_head: dict[str, str] = {} if self.head else self._frame_head()
        attends = "head.attention.weight" in self.frame_head.values()
        self.pooling: FramePooling = "attention" if attends else "linear_softmax"
        # Of a training file, what stands before "teacher." and "student.".
        self.outer = prefix.removesuffix("teacher.encoder.") if prefix.endswith("teacher.encoder.") else None
        self.kind: Literal["pretraining", "encoder", "classifier", "detector"] = "encoder"
        if self.outer is not None and f"{self.outer}student.predictor.0.weight" in state:
            self.kind = "pretraining"
        elif self.head:
            self.kind = "classifier"
        elif self.frame_head:
            self.kind = "detector"
        self.classes = 0
        if self.kind in ("classifier", "detector"):
            self.classes = len(state[next(iter(self.frame_head), f"{self.head}linear.weight")])

    def _frame_head(self) -> dict[str, str]:
        """Our names of the tensors of a head for time steps, by those of the file; none without one."""
        parts = ("weight", "bias")
        if self.variant is FRAME and f"{_STRONG}weight" in self.state:
            return {f"{_STRONG}{part}": f"head.linear.{part}" for part in parts}
        for head in HEADS:
            weight = self.state.get(f"{head}linear.weight")
            # ATST-Clip's classifiers read the class token beside the mean, its detectors what Frame's do.
            if weight is not None and (self.variant is FRAME or self._reads_steps(weight)):
                names = {f"{head}{n}.{p}": f"head.{ours}.{p}" for n, ours in _FRAME_HEAD.items() for p in parts}
                return {name: ours for name, ours in names.items() if name in self.state}
        return {}

    def _reads_steps(self, weight: Tensor) -> bool:
        """Whether a head is as wide as a time step of the published networks, which have one row of patches."""
        return weight.shape[-1] == len(self.state[f"{self.prefix}patch_embed.patch_embed.weight"])

    def config(self, options: dict[str, Any], heard: dict[str, Any]) -> ATSTConfig:
        patch = self.state[f"{self.prefix}patch_embed.patch_embed.weight"]
        positions = self.state.get(f"{self.prefix}pos_embed")
        blocks = [int(m[1]) for key in self.state if (m := re.match(re.escape(self.prefix) + r"blocks\.(\d+)\.", key))]
        if positions is None or not blocks or patch.ndim != 2 or positions.ndim != 3:
            raise CheckpointError(
                f"the {self.variant.method} checkpoint lacks positions or blocks, or they are misshapen; is the file "
                "complete?"
            )
        width, area = patch.shape
        if "heads" not in options and width not in _RELEASED_HEADS:
            raise CheckpointError(
                f"the file does not hold the number of attention heads, and width {width} was never released; "
                "give it with --set heads=H."
            )
        config = self.variant.config()
        settings = {
            "width": width,
            "depth": 1 + max(blocks),
            "heads": _RELEASED_HEADS.get(width, 1),
            **self.variant.config.COMPAT["official"],
            **heard,
            **self._projections(),
            **self.stated.settings,
            **options,
        }
        high, wide = (int(settings.get(name, getattr(config, name))) for name in ("patch_freq", "patch_time"))
        rows = int(settings.get("mel_bins", config.mel_bins)) // max(high, 1)
        if high * wide != area or not rows or (positions.shape[1] - 1) % rows:
            raise CheckpointError(
                f"the file has patches of {area} values and {positions.shape[1] - 1} positions, which "
                f"patch_freq={high}, patch_time={wide} and {rows} rows of patches do not make; {settle(options)}."
            )
        columns = (positions.shape[1] - 1) // rows
        settings.setdefault("window_frames", columns * wide + 1)
        rate, hop = (settings.get(name, getattr(config, name)) for name in ("sample_rate", "hop_samples"))
        if settings["chunking"] == "filled":
            settings.setdefault("window_seconds", columns * wide * hop / rate)
        if self.stated.seconds is not None and self.chunks_as_views(settings["chunking"]):
            settings |= {"chunk_frames": int(self.stated.seconds * rate / hop) + 1, **options}
        if "view_seconds" not in options:
            # Networks smaller than the released ones have fewer positions than a view of theirs.
            view = self.stated.seconds or config.view_seconds
            settings["view_seconds"] = min(view, (settings["window_frames"] - 1) * hop / rate)
        (config,) = override((config,), settings)
        return config

    def chunks_as_views(self, chunking: str) -> bool:
        """Whether the official code cuts chunks as long as the views in training.

        Its linear probes and all of ATST-Frame's downstream code do, fine-tuning of ATST-Clip always takes 6 s, and
        ATST-Frame's get_scene_embedding 1001 frames.
        """
        return chunking == "downstream" and (self.variant is FRAME or self.kind != "classifier")

    def heard(self) -> dict[str, Any]:
        """What the code that the file is from hears and how it cuts it, where that is not `compat=official`.

        The length of its windows is that of the table of positions.
        """
        if self.kind == "classifier":
            return {"chunking": "downstream"}
        theirs = self.variant is FRAME and (f"{_STRONG}weight" in self.frame_head or self.prefix == _PRETRAINEDSED)
        if not theirs and self.kind != "detector":
            return {}
        group = "pretrainedsed" if theirs else "detector"
        settings = {**self.variant.config.COMPAT[group], "channel": "mean", "chunk_frames": 0}
        del settings["window_seconds"]
        return settings

    def unstated(self, config: ATSTConfig) -> list[str]:
        """The settings among those that files may state, of which this one says nothing."""
        window = [] if "fft_window" in self.stated.settings else ["fft_window"]
        chunks = self.stated.seconds is None and self.chunks_as_views(config.chunking)
        return [*window, *(["chunk_frames"] if chunks else [])]

    def _projections(self) -> dict[str, int]:
        if self.kind != "pretraining":
            return {}
        first, last = (self.state[f"{self.outer}student.projector.{layer}.weight"] for layer in (0, 3))
        return {"projector_hidden": len(first), "projector_out": len(last)}

    def place(self, key: str, value: Tensor, config: ATSTConfig) -> None:
        """Put one tensor under our name, or into the report with why it is not used."""
        target, why = self._target(key)
        if target is None and not why:
            self.unknown.append(key)
            return
        shape = tuple(value.shape)
        if target is None:
            self.tensors.append(ImportedTensor(key, "", shape, "unused", _UNUSED[why]))
            return
        if target.endswith("positions"):
            value = torch.cat([value[:, :1], frequency_major(value[:, 1:], config.grid)], dim=1)
        self.ours[target] = value.float() if value.is_floating_point() else value
        self.tensors.append(ImportedTensor(key, target, shape, "weight"))

    def _target(self, key: str) -> tuple[str | None, str]:
        """Our name of a tensor, or None and a reason among _UNUSED; neither, if it is unknown."""
        if self.kind == "pretraining":
            inner = key.removeprefix(self.outer or "")
            branch, _, rest = inner.partition(".")
            ours = {"student": "student.", "teacher": ""}.get(branch)
            if ours is None:
                return None, ""
            if rest.startswith("encoder."):
                return self._encoder(ours, rest.removeprefix("encoder."))
            return (ours + rest, "") if rest.startswith(("projector.", "predictor.")) else (None, "")
        if key.startswith(self.prefix) and (self.prefix or self._encoder("", key)[0] or key == "mask_embed"):
            return self._encoder("", key.removeprefix(self.prefix))
        if self.kind == "classifier" and key.startswith(self.head):
            return "head." + key.removeprefix(self.head), ""
        if self.kind == "detector" and key in self.frame_head:
            return self.frame_head[key], ""
        # A student that is alone is the network, and what else is its own is of training.
        branch = self.prefix.removesuffix("encoder.") if self.prefix.endswith("student.encoder.") else ""
        return None, _why_unused(key.removeprefix(branch))

    def _encoder(self, ours: str, name: str) -> tuple[str | None, str]:
        if name == "mask_embed":
            if self.variant is FRAME and self.kind == "pretraining":
                return f"{ours}mask_token.weight", ""
            return None, "mask"
        target = self.variant.to_ours(name)
        return (f"{ours}encoder.{target}", "") if target else (None, "")


def _why_unused(key: str) -> str:
    if key.startswith(("student/", "student.", "model.student.")):
        return "student"
    if key.startswith("model.atst_mel."):
        return "front end"
    if key.startswith("weak_head."):
        return "weak"
    if re.match(r"(teacher/module\.|module\.|model\.|)(head|strong_head|projector|predictor)\.", key):
        return "head"
    return "teacher" if key.startswith("teacher.") else ""
