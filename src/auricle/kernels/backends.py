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
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from auricle.errors import ConfigError
from auricle.kernels import native

Backend = Literal["native", "triton", "torch"]
BACKENDS = ("native", "triton", "torch")
MISSING = "auricle was installed without its C++ kernels"
BUILD = "install a C++ compiler and reinstall auricle"

_asked: Backend | None = None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def backend(device: str) -> Backend:
    """The implementation for tensors on a kind of device ("cpu", "cuda", ...): the C++ kernels, Triton's, or torch.

    The variable AURICLE_KERNELS, or `use`, may ask for another; Triton's run on a CPU under TRITON_INTERPRET=1.

    Raises:
        ConfigError: what is asked for is unknown, or does not run here.
    """
    wanted = _asked or os.environ.get("AURICLE_KERNELS", "")
    if wanted:
        return _usable(_known(wanted), device)
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


def _usable(wanted: Backend, device: str) -> Backend:
    """What was asked for, if it runs on such a device."""
    otherwise = "leave AURICLE_KERNELS unset, or ask for other kernels"
    if wanted == "native" and device != "cpu":
        raise ConfigError(f"the native kernels run on CPUs, not on '{device}'; {otherwise}.")
    if wanted == "native" and native.kernels() is None:
        raise ConfigError(f"the native kernels were asked for, but {MISSING}; {BUILD}, or {otherwise}.")
    if wanted == "triton" and not find_spec("triton"):
        raise ConfigError(f"the Triton kernels were asked for, but triton is not installed; add it, or {otherwise}.")
    if wanted == "triton" and device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(f"the Triton kernels run on GPUs, not on '{device}'; {otherwise} (native, torch).")
    return wanted


def fast(device: str) -> bool:
    """Whether the kernels themselves, and not plain torch, compute on such a device, here and now.

    Raises:
        ConfigError: what is asked for is unknown or does not run here, or `torch.jit.trace` is at work.
    """
    if transformed() or backend(device) == "torch":
        return False
    if not torch.compiler.is_compiling() and torch._C._is_tracing():
        raise ConfigError(
            "torch.jit.trace cannot hold the kernels; use torch.export, or set AURICLE_KERNELS=torch, whose trace is "
            "good for one length."
        )
    return True


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp ...) or a derivative in forward mode is at work: they know
    torch's own operations, not these kernels."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def refuse_batches(gradient: Tensor | None) -> None:
    """For a way back.

    Raises:
        ConfigError: the gradient it got stands for many.
    """
    if gradient is not None and (transformed() or torch._C._functorch.is_legacy_batchedtensor(gradient)):
        raise ConfigError(
            "the kernels' way back takes one gradient at a time; leave out is_grads_batched and vectorize, or take "
            "torch.func for all of it (vjp, jacrev), which goes by plain torch."
        )


def eager(*tensors: Tensor | None) -> bool:
    """Whether a function of these is computed at once, and of numbers: no graph is made, no transform is at work, no
    tensor stands for others, and nobody looks on or counts. What torch's registration of an operator is for can then be
    left out, and the time that it takes."""
    return (
        not torch.compiler.is_compiling()
        and not transformed()
        and not torch._C._is_tracing()
        and not is_in_torch_dispatch_mode()
        and not torch._C._is_torch_function_mode_enabled()
        and all(x is None or _plain(x) for x in tensors)
    )


def _plain(x: Tensor) -> bool:
    """Whether memory holds the numbers themselves: not of a subclass, sparse, to be negated when read, or left out for
    being zero."""
    return (
        (type(x) is Tensor or type(x) is torch.nn.Parameter)
        and x.layout == torch.strided
        and not x.is_neg()
        and not x._is_zerotensor()
    )


def numbers_only(*tensors: Tensor | None) -> bool:
    """Whether nothing but numbers is wanted of a function of these: as `eager`, and no gradients either."""
    return not torch.is_grad_enabled() and eager(*tensors)


@functools.cache
def _notice() -> None:
    warnings.warn(
        f"{MISSING}, so scans run in plain torch, several times slower; {BUILD}.",
        stacklevel=4,
    )
