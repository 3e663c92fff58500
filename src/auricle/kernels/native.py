"""The C++ kernels through ctypes: which library, and tensors as the structures of `native/scan.h`."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_int, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auricle.errors import ConfigError
from auricle.kernels.layout import room

LIBRARY = Path(__file__).with_name("libauricle_kernels.so")
# As in scan.h, with which they are compared when the library is loaded: steps between the states that are kept for the
# way back, channels of one task, and taps of a convolution.
ABI = 3
CHUNK, BLOCK, MAX_TAPS = 32, 64, 16
# Names of instruction sets, on all processors.
INSTRUCTIONS = ("avx512", "avx2", "neon", "portable")
# The types of numbers that the kernels read and write, as `Type` of scan.h has them.
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class Strided(Structure):
    """A tensor [B, E, L]; an absent one has no data."""

    _fields_ = (("data", c_void_p), *((name, c_int64) for name in ("row", "channel", "step", "type")))


class Scan(Structure):
    """`struct Scan` of scan.h."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "channels", "states", "length")),
        *((name, c_int32) for name in ("softplus", "reverse")),
        *((name, Strided) for name in ("u", "delta", "z", "b", "c")),
        *((name, c_void_p) for name in ("a", "skip", "bias", "initial", "lengths")),
        *((name, Strided) for name in ("out_before", "out")),
        *((name, c_void_p) for name in ("last", "saved")),
        ("out_grad", Strided),
        ("last_grad", c_void_p),
        *((name, Strided) for name in ("z_grad_before", "u_grad", "delta_grad", "z_grad")),
        *((name, c_void_p) for name in ("b_grad", "c_grad", "a_grad", "skip_grad", "bias_grad", "initial_grad")),
    )


class Convolution(Structure):
    """`struct Convolution` of scan.h."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "channels", "length", "width")),
        *((name, c_int32) for name in ("silu", "reverse")),
        ("x", Strided),
        *((name, c_void_p) for name in ("weight", "bias", "lengths")),
        *((name, Strided) for name in ("out", "out_grad", "x_grad_before", "x_grad")),
        *((name, c_void_p) for name in ("weight_grad", "bias_grad")),
    )


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The kernels, or None where they were not built for this machine.

    Raises:
        ConfigError: AURICLE_ISA names no instructions, or some that the kernels cannot use here.
    """
    wanted = os.environ.get("AURICLE_ISA", "")
    loaded = _load()
    if wanted:
        _set_isa(loaded, wanted)
    return loaded


def _load() -> ctypes.CDLL | None:
    """The library, if it is one for this machine and these structures."""
    if not LIBRARY.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None
    if loaded.auricle_abi() != ABI:
        return None
    ours = (CHUNK, BLOCK, MAX_TAPS, ctypes.sizeof(Scan), ctypes.sizeof(Convolution))
    loaded.auricle_sizes.restype = POINTER(c_int64 * len(ours))
    if tuple(loaded.auricle_sizes().contents) != ours:
        return None
    loaded.auricle_isa.restype = loaded.auricle_isas.restype = c_char_p
    for name, kind in (("scan", Scan), ("convolution", Convolution)):
        for way in ("forward", "backward"):
            getattr(loaded, f"auricle_{name}_{way}").argtypes = (POINTER(kind), c_int64, c_int)
            getattr(loaded, f"auricle_{name}_{way}").restype = None
    return loaded


def instruction_set() -> str:
    """What the kernels use, of `INSTRUCTIONS`, or "" without a library."""
    loaded = kernels()
    return loaded.auricle_isa().decode() if loaded else ""


def set_instruction_set(name: str) -> None:
    """Use some of `INSTRUCTIONS`; "" for the best that this processor has. Without a library, nothing is set.

    Raises:
        ConfigError: there are none of that name, or this processor or build lacks them.
    """
    _set_isa(kernels(), name)


def _set_isa(loaded: ctypes.CDLL | None, name: str) -> None:
    if loaded is None:
        if name and name not in INSTRUCTIONS:
            raise ConfigError(f"there are no instructions '{name}'; AURICLE_ISA may be {' or '.join(INSTRUCTIONS)}.")
        return
    if loaded.auricle_set_isa(name.encode()):
        here = " or ".join(loaded.auricle_isas().decode().split())
        raise ConfigError(f"the kernels have no instructions '{name}' on this processor; AURICLE_ISA may be {here}.")


def run(name: str, problems: list[Any]) -> None:
    """Call `auricle_<name>` on some problems at once."""
    loaded = kernels()
    assert loaded is not None
    array = (type(problems[0]) * len(problems))(*problems)
    getattr(loaded, f"auricle_{name}")(array, len(problems), torch.get_num_threads())


def strided(x: Tensor | None) -> Strided:
    """[B, E, L] of any strides; the tensor must outlive the call."""
    if x is None:
        return Strided()
    return Strided(x.data_ptr(), *x.stride(), TYPES[x.dtype])


def readable(x: Tensor) -> Tensor:
    """The tensor in a type that the kernels read."""
    return x if x.dtype in TYPES else x.float()


def summed(problems: Sequence[Any], name: str, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Let all problems add what they give as `name`, in float32; the sum is in `dtype` and laid out as `like` is.

    Returns:
        The sum, and what holds a part of it in between: it must outlive the call.
    """
    total = room(like, dtype)
    partial = total if dtype == torch.float32 or len(problems) == 1 else room(like, torch.float32)
    for problem in problems:
        if problem is not problems[0]:
            setattr(problem, f"{name}_before", strided(partial))
        setattr(problem, name, strided(total if problem is problems[-1] else partial))
    return total, partial


def pointer(x: Tensor | None) -> int | None:
    """Where a contiguous tensor begins: of float32, or `steps`."""
    return None if x is None else x.data_ptr()


def steps(lengths: Tensor | None, length: int) -> Tensor | None:
    """Valid steps as the kernels take them: int64, between 0 and `length`."""
    return None if lengths is None else lengths.clamp(0, length).to(torch.int64).contiguous()
