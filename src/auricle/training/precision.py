"""Which numbers to compute with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

from auricle.errors import ConfigError


def resolve_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto` is bf16 where the hardware multiplies it natively, fp32 elsewhere (where bf16 is many times slower).

    Raises:
        ConfigError: an unknown precision.
    """
    if precision == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"precision must be auto, fp32 or bf16, got '{precision}'.")
    return "bf16" if precision == "bf16" else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run on instructions of their own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        # Emulated bf16 is several times slower than fp32; these private probes are all that torch offers.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)
    return False


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context a forward pass runs in; `precision` is resolved."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
