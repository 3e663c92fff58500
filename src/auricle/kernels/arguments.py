"""What the front doors take: the kernels read memory by the shapes and types that they are told, and check nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from auricle.errors import ConfigError

NUMBERS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
COUNTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check(given: Mapping[str, Tensor | None], shapes: Mapping[str, tuple[int, ...]], fitting: str) -> None:
    """Compare arguments by name: the type and device of all, and the shapes of those that are in `shapes`.

    Args:
        given: the first, which must be there, says the device; `lengths` holds whole numbers, all others real ones.
        fitting: what the shapes come from.

    Raises:
        ConfigError: one does not fit.
    """
    first, device = next((name, x.device) for name, x in given.items() if x is not None)
    for name, x in given.items():
        if x is None:
            continue
        if name in shapes and x.shape != shapes[name]:
            raise ConfigError(
                f"{name} must have the shape {tuple(shapes[name])} to fit {fitting}, got {tuple(x.shape)}."
            )
        if x.device != device:
            raise ConfigError(f"{name} is on '{x.device}' and {first} on '{device}'; move them to one device.")
        if name == "lengths" and x.dtype not in COUNTS:
            raise ConfigError(f"lengths must be whole numbers, as of torch.int64, not {x.dtype}.")
        if name != "lengths" and x.dtype not in NUMBERS:
            raise ConfigError(f"{name} must be of float32, bfloat16, float16 or float64, not {x.dtype}.")
