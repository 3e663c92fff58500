"""What the parity cases of methods over patches of a spectrogram have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.interop.official import build
from auricle.methods.base import Imported
from auricle.methods.spectrogram.config import PatchConfig
from auricle.methods.spectrogram.encoder import PatchEncoder, adapt_encoder
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.spectrogram.masks import Mask
from auricle.methods.spectrogram.official import Layout
from auricle.methods.spectrogram.tokens import Tokens
from auricle.nn.patches import patchify
from auricle.tasks.classification import Classifier

Outputs = tuple[dict[str, Tensor], dict[str, Any] | None]


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of a case."""
    loaded: dict[str, Tensor] = load_file(path)
    return loaded


def pretraining(imported: Imported) -> MaskedPatchObjective:
    """The objective of an imported pretraining checkpoint."""
    objective = build(imported)
    assert isinstance(objective, MaskedPatchObjective)
    return objective


def all_frames(x: Tensor) -> Tensor:
    """The frames [B] of features [B, T, F] without padding."""
    return torch.full((len(x),), x.shape[1])


class Finetuned:
    """A pretraining checkpoint adapted to other strides and another length, with a head, in evaluation mode.

    Attributes:
        tokens: the patches of the input.
        outputs: what every such case expects; the caller adds what its layers say.
    """

    def __init__(
        self, pretrained: PatchEncoder, args: Mapping[str, Any], head: Mapping[str, Tensor], layout: Layout, x: Tensor
    ) -> None:
        self.config: PatchConfig = dataclasses.replace(
            pretrained.config,
            stride_freq=args["fstride"],
            stride_time=args["tstride"],
            mel_bins=args["input_fdim"],
            window_frames=args["input_tdim"],
        )
        self.encoder = adapt_encoder(pretrained, self.config)
        self.model = Classifier(self.encoder, [str(i) for i in range(args["label_dim"])]).eval()
        named = {str(layout.to_ours(key.removeprefix("module."))): value for key, value in head.items()}
        self.model.head.load_state_dict({name.removeprefix("head."): value for name, value in named.items()})
        self.tokens: Tokens = self.encoder.embed_patches(x, all_frames(x))[0]
        self.outputs = {
            "patch_embed_out": self.tokens.embeddings,
            "tokens_in": self.encoder.with_prefix(self.encoder.with_positions(self.tokens)),
            "pos_embed_adapted": self.encoder.positions.detach(),
        }
        for name, pooling in (("avgtok", "mean"), ("cls", "prefix")):
            self.encoder.config = dataclasses.replace(self.config, pooling=pooling)  # type: ignore[arg-type]
            encoded = self.encoder.forward_features(x, all_frames(x))
            self.outputs[f"logits_{name}"] = self.model.logits(encoded)


def pretrain_losses(
    objective: MaskedPatchObjective, inputs: Mapping[str, Tensor], to_official: Callable[[str], str]
) -> Outputs:
    """Both losses on given masks, and the gradient of every parameter under its official name."""
    tokens, features = objective.encoder.embed_patches(inputs["x"], all_frames(inputs["x"]))
    masks = [_mask(inputs[f"mask_index_{task}"]) for task in ("mpc", "mpg")]
    losses, passes = objective.losses(tokens, features, *masks)
    losses["loss"].backward()
    c = objective.config
    outputs = {
        "acc": losses["accuracy"],
        "nce": losses["nce"],
        "mse": losses["mse"],
        "joint_loss": losses["loss"],
        "cpred": objective.discriminative(passes["discriminative"].masked),
        "gpred": objective.generative(passes["generative"].masked),
        "norm_out_mpc": passes["discriminative"].normed,
        "norm_out_mpg": passes["generative"].normed,
        "patches": patchify(features, c.kernel, c.stride),
    }
    for name, parameter in objective.named_parameters():
        if parameter.grad is not None:
            outputs[f"grad.{to_official(name)}"] = parameter.grad
    return {name: value.detach() for name, value in outputs.items()}, None


def _mask(ids: Tensor) -> Mask:
    return Mask(ids, torch.ones_like(ids, dtype=torch.bool))
