"""Which implementation a device's kernels come from, and how to ask for another."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

import torch

from auricle.errors import ConfigError
from auricle.kernels import native

Backend = Literal["native", "triton", "torch"]
BACKENDS = ("native", "triton", "torch")

_asked: Backend | None = None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def backend(device: str) -> Backend:
    """The implementation for tensors on a kind of device ("cpu", "cuda", ...): the C++ kernels, Triton's, or torch.

    The variable AURICLE_KERNELS, or `use`, may ask for another; Triton's run on a CPU under TRITON_INTERPRET=1.
    """
    if _asked is not None:
        return _asked
    wanted = os.environ.get("AURICLE_KERNELS", "")
    if wanted:
        return _known(wanted)
    if device == "cuda" and find_spec("triton"):
        return "triton"
    if device == "cpu" and native.kernels() is not None:
        return "native"
    if device == "cpu":
        _notice()
    return "torch"


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Within this context, all kernels come from "native", "triton" or "torch".

    Raises:
        ConfigError: another name.
    """
    global _asked
    before, _asked = _asked, _known(name)
    try:
        yield
    finally:
        _asked = before


def _known(name: str) -> Backend:
    for known in BACKENDS:
        if name == known:
            return known  # type: ignore[return-value]
    raise ConfigError(f"there are no kernels '{name}'; choose one of {', '.join(BACKENDS)}.")


@functools.cache
def _notice() -> None:
    warnings.warn(
        "auricle was installed without its C++ kernels, so scans run in plain torch, several times slower; "
        "install a C++ compiler and reinstall auricle.",
        stacklevel=4,
    )
