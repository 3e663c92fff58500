"""SSAMBA's parity cases, computed by the classes that train and serve."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auricle.interop import parity_patches as patches
from auricle.interop.parity_patches import Outputs
from auricle.kernels import causal_conv1d, selective_scan
from auricle.methods.ssamba import SSAMBAEncoder, import_state
from auricle.methods.ssamba.official import layout, mixer_to_ours
from auricle.methods.ssamba.superb import SuperbUpstream
from auricle.nn.mamba import Kind, Mamba

# Vision Mamba's own forward pass, which SSAMBA never calls: the class token after one final norm.
_VIM = {
    "vim_first_cls": {},
    "vim_middle_cls": {"use_middle_cls_token": True},
    "vim_middle_cls_sequential": {"use_middle_cls_token": True, "if_bidirectional": False},
}


def scans(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Selective scans, their last states, and the gradient of every input."""
    outputs: dict[str, Tensor] = {}
    for index, spec in enumerate(meta["cases"]):
        given, weight = _of_case(inputs, index)
        options = {"delta_softplus": spec["softplus"], "return_last_state": True}
        out, last = selective_scan(**given, **options)  # type: ignore[arg-type]
        (out * weight).sum().backward()
        outputs |= {f"case{index}.out": out, f"case{index}.last_state": last}
        outputs |= _gradients(given, f"case{index}.grad.")
    return _detached(outputs)


def convolutions(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Causal depthwise convolutions, and the gradient of every input."""
    outputs: dict[str, Tensor] = {}
    for index, spec in enumerate(meta["cases"]):
        given, weight = _of_case(inputs, index)
        out = causal_conv1d(given["x"], given["weight"], given.get("bias"), silu=spec["silu"])
        (out * weight).sum().backward()
        outputs |= {f"case{index}.out": out, **_gradients(given, f"case{index}.grad.")}
    return _detached(outputs)


def mixer(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """A Mamba mixer, and the gradients of its input and of all its parameters."""
    args, weights = meta["args"], patches.load(case / "weights.safetensors")
    kind = _kind(args)
    sizes = {"expand": args["expand"], "states": args["d_state"], "taps": args["d_conv"]}
    network = Mamba(args["d_model"], **sizes, kind=kind, divide=args["if_devide_out"])
    network.load_state_dict({mixer_to_ours(name, kind): value for name, value in weights.items()})
    x = inputs["x"].clone().requires_grad_()
    y = network(x)
    (y * inputs["loss_weight"]).sum().backward()
    parameters = {name: network.get_parameter(mixer_to_ours(name, kind)) for name in weights}
    return _detached({"y": y, **_gradients({"x": x, **parameters}, "grad.")})


def finetune_forward(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """A checkpoint adapted for fine-tuning: every layer as the official code sees it, both norms, all poolings."""
    args = meta["finetune_args"]
    pretrained = _encoder(case, args["vision_mamba_config"])
    with torch.no_grad():
        head = patches.load(case / "head.safetensors")
        tuned = patches.Finetuned(pretrained, args, head, layout(), inputs["x"])
        outputs, encoder, grid = tuned.outputs, tuned.encoder, tuned.tokens.grid
        assert isinstance(encoder, SSAMBAEncoder)
        stages = list(encoder.stages(outputs["tokens_in"]))
        for number, stage in enumerate(stages):
            for place, (read, said) in enumerate(zip(stage.sums, stage.hidden, strict=True)):
                layer = number * len(stage.sums) + place
                # The second layer of a pair runs over the tokens from the end, and the sum is kept unscaled.
                order = [1] if place else []
                outputs[f"layer_{layer}_hidden"] = said.flip(order)
                outputs[f"layer_{layer}_residual"] = (read * 2.0**stage.halvings).flip(order)
        normed = encoder.final(encoder.last_sum(stages[-1]))
        outputs["norm_f_first"], outputs["norm_f_second"] = normed[0], normed[-1]
        if "logits_avgtok_1sec" in meta.get("shapes", meta["tensors"]):
            outputs["logits_avgtok_1sec"] = tuned.model.head(encoder.per_second(normed[-1], grid))
    return outputs, None


def pretrain_losses(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Both losses on given masks, and the gradient of every parameter under its official name."""
    imported = import_state(patches.load(case / "weights.safetensors"), _options(meta["args"]["vision_mamba_config"]))
    # In evaluation mode as the case: nothing is dropped.
    objective = patches.pretraining(imported).eval()
    return patches.pretrain_losses(objective, inputs, layout().to_official)


def config_variants(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """One checkpoint under every configuration that the official code accepts, pooled in both ways."""
    outputs: dict[str, Tensor] = {}
    x = inputs["x"]
    with torch.no_grad():
        for name, change in meta["variants"].items():
            for pooled, pooling in (("avgtok", "mean"), ("cls", "prefix")):
                encoder = _encoder(case, {**meta["base"], **change}, {"pooling": pooling})
                outputs[f"{name}.{pooled}"] = encoder.forward_features(x, patches.all_frames(x)).pooled
        for name, change in _VIM.items():
            place = "middle" if change.get("use_middle_cls_token") else "first"
            own = {"pooling": "prefix", "final_norms": 1, "cls_position": place}
            encoder = _encoder(case, {**meta["base"], **change}, own)
            outputs[f"{name}.features"] = encoder.forward_features(x, patches.all_frames(x)).pooled
    return outputs, None


def superb_upstream(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The upstream that SUPERB's downstream tasks see."""
    stated = dict(re.findall(r"(\w+)=(True|False)", meta["vision_mamba_config"]))
    encoder = _encoder(case, {name: value == "True" for name, value in stated.items()})
    upstream = SuperbUpstream(encoder, meta["window_secs"]).eval()
    waves = [inputs[name] for name in sorted(inputs, key=lambda name: int(name.removeprefix("wav_")))]
    with torch.no_grad():
        outputs = {"hidden_0": upstream(waves), "features_first_window": next(upstream.windows(waves))}
    return {**outputs, "pos_embed_adapted": upstream.encoder.positions.detach()}, None


def _encoder(case: Path, vim: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> SSAMBAEncoder:
    """The case's checkpoint, imported as users do it, under a configuration of Vision Mamba and settings of ours."""
    options = {**_options(vim), **(own or {})}
    encoder = patches.pretraining(import_state(patches.load(case / "weights.safetensors"), options)).encoder.eval()
    assert isinstance(encoder, SSAMBAEncoder)
    return encoder


def _options(vim: Mapping[str, Any]) -> dict[str, Any]:
    """Vision Mamba's arguments as our settings; what fuses operations or casts float32 to itself changes no number."""
    options: dict[str, Any] = {}
    for theirs, ours in (("rms_norm", "rms_norm"), ("if_bidirectional", "pairs"), ("if_devide_out", "divide")):
        if theirs in vim:
            options[ours] = vim[theirs]
    if "bimamba_type" in vim:
        options["mixer"] = _kind(vim)
    return options


def _kind(vim: Mapping[str, Any]) -> Kind:
    """Which mixer Vision Mamba builds: any name that it does not know scans forward only."""
    if vim.get("if_bimamba") or vim["bimamba_type"] == "v1":
        return "v1"
    return "v2" if vim["bimamba_type"] == "v2" else "none"


def _of_case(inputs: Mapping[str, Tensor], index: int) -> tuple[dict[str, Tensor], Tensor]:
    """A sub-case's arguments by name, ready to be differentiated, and the weights of its loss."""
    prefix = f"case{index}."
    given = {name.removeprefix(prefix): x.clone() for name, x in inputs.items() if name.startswith(prefix)}
    weight = given.pop("loss_weight")
    return {name: x.requires_grad_() for name, x in given.items()}, weight


def _gradients(given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": x.grad for name, x in given.items() if x.grad is not None}


def _detached(outputs: Mapping[str, Tensor]) -> Outputs:
    return {name: value.detach() for name, value in outputs.items()}, None


FAMILIES = {
    "ssamba/selective_scan": scans,
    "ssamba/causal_conv1d": convolutions,
    "ssamba/mixer": mixer,
    "ssamba/finetune_forward": finetune_forward,
    "ssamba/pretrain_losses": pretrain_losses,
    "ssamba/config_variants": config_variants,
    "ssamba/superb_upstream": superb_upstream,
}
