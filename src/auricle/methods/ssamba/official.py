"""Checkpoints published by SSAMBA's authors, and those that their code writes, in our names (and back).

The file says neither whether layers run in pairs, nor whether the directions are halved, nor how often the final norm
is applied: others load these files in three mutually different wrong ways. What is not given is assumed to be what the
authors' own scripts set, and the report says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from auricle.errors import CheckpointError
from auricle.methods.base import Imported
from auricle.methods.spectrogram.official import PATCHES, UNKNOWN, Layout, OfficialFile, has_head
from auricle.methods.ssamba.config import SSAMBAConfig
from auricle.methods.ssamba.model import SSAMBAEncoder
from auricle.nn.mamba import Kind

# What the authors' scripts set and no file records.
_ASSUMED = ("pairs", "divide", "final_norms", "cls_position")
# What the official recipes used (their run_*.sh).
_PUBLISHED = {
    "AudioSet": {"window_frames": 1024, "stride": 10, "norm_mean": -4.2677393, "norm_std": 4.5689974},
    "ESC-50": {"window_frames": 512, "stride": 10, "norm_mean": -6.6268077, "norm_std": 5.358466},
    "Speech Commands": {"window_frames": 128, "stride": 10, "norm_mean": -6.845978, "norm_std": 5.5654526},
    "UrbanSound": {
        "window_frames": 6144,
        "stride": 16,
        "norm_mean": -5.138443946838379,
        "norm_std": 4.229961395263672,
    },
}
_VIM_HEAD = "ImageNet head that SSAMBA never calls"
_LAYER = re.compile(r"layers\.(\d+)\.(mixer|norm)\.(.+)")
_SHARED = ("in_proj.", "out_proj.")
# What the second direction of "v2" has of its own; "v1" has `A_b_log` only.
_OWN = re.compile(r"D_b|(conv1d|x_proj|dt_proj)_b\..+")


def mixer_to_ours(name: str, kind: Kind) -> str:
    """Our name of a parameter of an official mixer."""
    if name.startswith(_SHARED):
        return name
    if kind == "v1" and name == "A_b_log":
        return "backward_A_log"
    ahead = {"A_b_log": "A_log", "D_b": "D"}.get(name, name.replace("_b.", "."))
    where = "forward_direction" if ahead == name else "backward_direction"
    return f"{where}.{ahead.replace('conv1d', 'conv')}"


def mixer_to_official(name: str) -> str:
    """The official name of a parameter of one of our mixers."""
    if name.startswith(_SHARED):
        return name
    if name == "backward_A_log":
        return "A_b_log"
    where, _, parameter = name.partition(".")
    parameter = parameter.replace("conv.", "conv1d.")
    if where == "forward_direction":
        return parameter
    return {"A_log": "A_b_log", "D": "D_b"}.get(parameter, parameter.replace(".", "_b.", 1))


def layout(kind: Kind = "v2") -> Layout:
    """How files name things whose mixers are of one kind."""

    def layer(name: str) -> str | None:
        match = _LAYER.fullmatch(name)
        if match is None:
            return None
        number, part, rest = match.groups()
        return f"layers.{number}.{part}.{mixer_to_ours(rest, kind) if part == 'mixer' else rest}"

    def layer_back(name: str) -> str:
        match = _LAYER.fullmatch(name)
        assert match is not None, name
        number, part, rest = match.groups()
        return f"layers.{number}.{part}.{mixer_to_official(rest) if part == 'mixer' else rest}"

    return Layout(
        title="SSAMBA",
        encoder=PATCHES | {"norm_f.weight": "norm.weight", "norm_f.bias": "norm.bias"},
        layer=layer,
        layer_back=layer_back,
        needed=("v.pos_embed", "v.patch_embed.proj.weight", "v.norm_f.weight", "v.layers.0.mixer.A_log"),
        unused={f"v.head.{part}": _VIM_HEAD for part in ("weight", "bias")},
    )


def recognises(keys: Mapping[str, Any]) -> bool:
    """Whether a state dict of these keys is SSAMBA's: a Vision Mamba with a pretext or a fine-tuning head."""
    bare = {key.removeprefix("module.") for key in keys}
    return "v.layers.0.mixer.A_log" in bare and has_head(bare)


def import_state(
    state: Mapping[str, Tensor], options: Mapping[str, Any] | None = None, stated: Mapping[str, Any] | None = None
) -> Imported:
    """An official state dict as ours.

    What the file holds is read from it: width, depth, states, patch, grid (`p_input_*`), the kind of the mixers (by
    their second set of weights) and of the norms (by their biases), in all layers: where only some of them have such a
    tensor, it is the others' that are missing. `options` are fields of SSAMBAConfig: for a
    fine-tuned file strides, length, input statistics and pooling have to be given (`UNKNOWN`), everything else may be.
    `mixer` and `rms_norm` may contradict the file, as the official code may: it drops the weights that it has no use
    for without a word (so its SUPERB wrapper takes LayerNorm weights as RMSNorm's), here they are reported as unused.

    Raises:
        CheckpointError: an unknown, missing or mis-shaped tensor, or a structure that must be given and is not.
    """
    options = dict(options or {})
    file = OfficialFile(layout(), state)
    kind, rms_norm = _mixer_kind(file.tensors), _rms_norm(file.tensors)
    assumed = file.assumed_statistics(options)
    missing = [name for name in UNKNOWN if name not in options]
    if missing and file.kind == "classifier":
        raise file.ask(missing, _hints(missing))
    config = SSAMBAConfig(**file.settings(), **_layers(file), mixer=kind, rms_norm=rms_norm, seconds="official")
    config = file.fit(config, options, len(SSAMBAEncoder.PREFIX_TOKENS))
    structure = [f"{name}={getattr(config, name)}" for name in _ASSUMED if name not in options]
    if structure:
        assumed = "; ".join(filter(None, (assumed, f"{', '.join(structure)} (the official scripts)")))
    file.layout = layout(config.mixer)
    unused = {key: why for key in file.tensors if (why := _without_use(key, config))}
    imported = file.imported("ssamba", config, file.size, assumed, unused)
    if config.cls_position == "middle":
        imported.state["encoder.positions"] = _cls_first(imported.state["encoder.positions"])
    return imported


def _mixer_kind(tensors: Mapping[str, Tensor]) -> Kind:
    """The simplest kind that has a place for every mixer's weights."""
    names = {match[3] for match in _members(tensors) if match[2] == "mixer"}
    if any(_OWN.fullmatch(name) for name in names):
        return "v2"
    return "v1" if "A_b_log" in names else "none"


def _rms_norm(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no norm has a bias."""
    biased = any(match[2] == "norm" and match[3] == "bias" for match in _members(tensors))
    return not biased and "v.norm_f.bias" not in tensors


def _members(tensors: Mapping[str, Tensor]) -> Iterator[re.Match[str]]:
    """Number, part and name of each tensor of a layer."""
    return filter(None, (_LAYER.fullmatch(key.removeprefix("v.")) for key in tensors))


def _layers(file: OfficialFile) -> dict[str, Any]:
    """The sizes of the layers."""
    numbers = [int(match[1]) for match in _members(file.tensors)]
    rates, taps = file.tensors["v.layers.0.mixer.A_log"], file.tensors.get("v.layers.0.mixer.conv1d.weight")
    if rates.ndim != 2 or taps is None or taps.ndim != 3 or len(rates) % file.kernel[0]:
        raise CheckpointError(
            f"the SSAMBA checkpoint's v.layers.0.mixer.A_log and conv1d.weight must be [E, S] and [E, 1, W] with a "
            f"multiple E of {file.kernel[0]} channels; is the file damaged?"
        )
    return {
        "depth": 1 + max(numbers),
        "expand": len(rates) // file.kernel[0],
        "states": rates.shape[1],
        "taps": taps.shape[2],
    }


def _without_use(key: str, config: SSAMBAConfig) -> str:
    """Why a tensor of the file is not used under settings that contradict it; empty if it is."""
    match = _LAYER.fullmatch(key.removeprefix("v."))
    part, name = (match[2], match[3]) if match else ("norm", key.removeprefix("v.norm_f."))
    if config.rms_norm and part == "norm" and name == "bias" and key.startswith("v."):
        return "RMSNorm has no bias"
    own, shared = bool(_OWN.fullmatch(name)), name == "A_b_log"
    if part == "mixer" and ((own and config.mixer != "v2") or (shared and config.mixer == "none")):
        return f"a mixer of kind '{config.mixer}' has no second direction of its own"
    return ""


def _cls_first(positions: Tensor) -> Tensor:
    """Positions [1, 1 + N, D] in the order of the scans as ours: that of the class token, then the patches'."""
    middle = (positions.shape[1] - 1) // 2
    return torch.cat([positions[:, middle : middle + 1], positions[:, :middle], positions[:, middle + 1 :]], dim=1)


def _hints(missing: list[str]) -> list[str]:
    """What the official recipes used for the missing settings."""
    hints = ["pooling=mean"] if "pooling" in missing else []
    for recipe, values in _PUBLISHED.items():
        stride = values["stride"]
        settings = {"stride_freq": stride, "stride_time": stride, **values}
        given = [f"{name}={value}" for name, value in settings.items() if name in missing]
        hints += [f"{recipe}: {' '.join(given)}"] if given else []
    return hints
