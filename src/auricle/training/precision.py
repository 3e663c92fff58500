"""Which numbers to compute with, and how to keep small gradients from vanishing among them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, cast, get_args

import torch

from auricle.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
# The loss is a sum over a batch when it is scaled, so that the scale starts well below the usual 2 ** 16 of a mean.
FIRST_SCALE = 2.0**4
LEAST_SCALE = 2.0**-24
# Steps without an overflow after which the scale is doubled.
STEADY_STEPS = 500


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the hardware multiplies it natively (many times slower elsewhere), fp16 on older GPUs.

    Raises:
        ConfigError: an unknown precision.
    """
    if precision == "auto":
        if has_fast_bf16(device):
            return "bf16"
        return "fp16" if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 7 else "fp32"
    if precision not in get_args(Precision):
        raise ConfigError(f"precision must be auto, fp32, bf16 or fp16, got '{precision}'.")
    return cast(Precision, precision)


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
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=half, enabled=precision != "fp32")


def next_scale(scale: float, steady: int, finite: bool) -> tuple[float, int]:
    """The scale of the next step's loss in fp16, and how many steps it has been steady.

    Half as much where a gradient was not finite, twice as much after STEADY_STEPS of finite ones.
    """
    if not finite:
        return scale / 2, 0
    return (scale * 2, 0) if steady + 1 >= STEADY_STEPS else (scale, steady + 1)
