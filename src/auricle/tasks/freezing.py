"""Encoders of which all, or all but the last layers, stay as they are while a head learns."""

from __future__ import annotations

from torch import nn

from auricle.errors import ConfigError
from auricle.methods.base import AudioEncoder


def freeze(encoder: AudioEncoder, tuned_layers: int = 0) -> tuple[nn.Module, ...]:
    """Let nothing of an encoder learn but its last `tuned_layers` layers and the norm after them.

    Returns:
        What does not learn: the caller keeps it in evaluation mode, so that it drops nothing out.

    Raises:
        ConfigError: `tuned_layers` of a network without layers that are named `blocks`, or more than it has.
    """
    encoder.requires_grad_(False)
    if not tuned_layers:
        return (encoder,)
    blocks = getattr(encoder, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or tuned_layers > len(blocks):
        has = f"{len(blocks)}" if isinstance(blocks, nn.ModuleList) else "no"
        raise ConfigError(f"tuned_layers={tuned_layers}, but this network has {has} layers named blocks; take fewer.")
    rest = {name: module for name, module in encoder.named_children() if module is not blocks}
    norms = [module for name, module in rest.items() if name.startswith("norm")]
    for module in (*blocks[-tuned_layers:], *norms):
        module.requires_grad_(True)
    return (*blocks[:-tuned_layers], *(module for module in rest.values() if module not in norms))
