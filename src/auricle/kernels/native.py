"""The C++ kernels through ctypes: which library, and tensors as the structures of `native/scan.h`."""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auricle.errors import ConfigError

LIBRARY = Path(__file__).with_name("libauricle_kernels.so")
ABI = 2
# Steps between the states that are kept for the way back; the C++ kernels have their own (scan_native.py).
CHUNK = 64


class Strided(Structure):
    """A tensor [B, E, L] of float32; an absent one has no data."""

    _fields_ = (("data", POINTER(c_float)), ("row", c_int64), ("channel", c_int64), ("step", c_int64))


class Scan(Structure):
    """`struct Scan` of scan.h."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "channels", "states", "length")),
        *((name, c_int32) for name in ("softplus", "reverse")),
        *((name, Strided) for name in ("u", "delta", "z", "b", "c")),
        *((name, POINTER(c_float)) for name in ("a", "skip", "bias", "initial")),
        ("lengths", POINTER(c_int64)),
        ("out", Strided),
        *((name, POINTER(c_float)) for name in ("last", "saved")),
        ("out_grad", Strided),
        ("last_grad", POINTER(c_float)),
        *((name, Strided) for name in ("u_grad", "delta_grad", "z_grad")),
        *(
            (name, POINTER(c_float))
            for name in ("b_grad", "c_grad", "a_grad", "skip_grad", "bias_grad", "initial_grad")
        ),
    )


class Convolution(Structure):
    """`struct Convolution` of scan.h."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "channels", "length", "width")),
        *((name, c_int32) for name in ("silu", "reverse")),
        ("x", Strided),
        *((name, POINTER(c_float)) for name in ("weight", "bias")),
        ("lengths", POINTER(c_int64)),
        *((name, Strided) for name in ("out", "out_grad", "x_grad")),
        *((name, POINTER(c_float)) for name in ("weight_grad", "bias_grad")),
    )


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The kernels, or None where they were not built for this machine."""
    if not LIBRARY.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None
    if loaded.auricle_abi() != ABI:
        return None
    loaded.auricle_isa.restype = loaded.auricle_isas.restype = c_char_p
    for name, kind in (("scan", Scan), ("convolution", Convolution)):
        for way in ("forward", "backward"):
            getattr(loaded, f"auricle_{name}_{way}").argtypes = (POINTER(kind), c_int64, c_int)
            getattr(loaded, f"auricle_{name}_{way}").restype = None
    wanted = os.environ.get("AURICLE_ISA", "")
    if wanted:
        _set_isa(loaded, wanted)
    return loaded


def instruction_set() -> str:
    """What the kernels use: "avx512", "avx2", "neon", "portable", or "" without a library."""
    loaded = kernels()
    return loaded.auricle_isa().decode() if loaded else ""


def set_instruction_set(name: str) -> None:
    """Use "avx512", "avx2", "neon" or "portable"; "" for the best that this processor has.

    Raises:
        ConfigError: this processor or build lacks it.
    """
    loaded = kernels()
    if loaded is not None:
        _set_isa(loaded, name)


def _set_isa(loaded: ctypes.CDLL, name: str) -> None:
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
    return Strided(pointer(x), *x.stride())


def pointer(x: Tensor | None) -> Any:
    """Where a contiguous float32 tensor begins."""
    return None if x is None else ctypes.cast(x.data_ptr(), POINTER(c_float))


def integers(x: Tensor | None) -> Any:
    """Where a contiguous int64 tensor begins."""
    return None if x is None else ctypes.cast(x.data_ptr(), POINTER(c_int64))


def steps(lengths: Tensor | None, length: int) -> Tensor | None:
    """Valid steps as the kernels take them: int64, between 0 and `length`."""
    return None if lengths is None else lengths.clamp(0, length).to(torch.int64).contiguous()
