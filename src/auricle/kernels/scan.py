"""The selective scan of Mamba: one front door, and the torch operator behind which the C++ kernel works.

B batch, E channels, S states, L steps, G groups.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, library

from auricle.errors import ConfigError
from auricle.kernels import chunked, native, reference

MAX_STATES = 256


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan (Gu and Dao 2023, Algorithm 2), with the names and shapes of the field's own function.

        d   = softplus(delta + delta_bias)
        h_l = exp(d_l A) h_{l-1} + d_l u_l B_l
        out = (C_l h_l + D u_l) silu(z_l)

    Args:
        u, delta, z: [B, E, L]; fastest where channels are neighbours in memory (`x.transpose(1, 2)` of [B, L, E]).
        A: [E, S], negative.
        B, C: [B, S, L]; [B, G, S, L] for groups of E / G channels; or constant [E, S].
        D, delta_bias: [E].
        initial_state: [B, E, S] before the first step; zeros, if None.
        lengths: [B] valid steps of each row: what comes after them is not seen, and 0 comes out there.
        reverse: scan from the last valid step to the first.

    Returns:
        out [B, E, L] in the type of `u`; with `return_last_state`, also the state [B, E, S] after the last step, in
        float32 (float64 for float64 inputs). Computed in float32 at least.

    Raises:
        ConfigError: shapes that do not fit each other.
    """
    others = {"delta": delta, "z": z, "D": D, "delta_bias": delta_bias}
    _check(u, A, {"B": B, "C": C}, others | {"initial_state": initial_state, "lengths": lengths})
    if u.dtype == torch.float64 or B.ndim != 3 or C.ndim != 3:
        arguments = (u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        out, last = reference.selective_scan(*arguments, initial_state=initial_state, lengths=lengths, reverse=reverse)
        return (out, last) if return_last_state else out
    with torch.autocast(u.device.type, enabled=False):
        tensors = [None if x is None else x.float() for x in (u, delta, A, B, C, D, z, delta_bias, initial_state)]
        if u.device.type == "cpu" and A.shape[1] <= MAX_STATES and native.kernels() is not None:
            out, last, _ = _scan(*tensors, lengths, delta_softplus, reverse)
        else:
            if u.device.type == "cpu":
                _notice()
            *most, start = tensors
            out, last = chunked.selective_scan(*most, delta_softplus, start, lengths, reverse)  # type: ignore
    out = out.to(u.dtype)
    return (out, last) if return_last_state else out


@functools.cache
def _notice() -> None:
    warnings.warn(
        "auricle was installed without its C++ kernels, so scans run in plain torch, several times slower; "
        "install a C++ compiler and reinstall auricle.",
        stacklevel=3,
    )


def _check(u: Tensor, A: Tensor, maps: Mapping[str, Tensor], others: Mapping[str, Tensor | None]) -> None:
    if u.ndim != 3 or A.ndim != 2:
        raise ConfigError(f"u must be [B, E, L] and A [E, S], got {tuple(u.shape)} and {tuple(A.shape)}.")
    (batch, channels, length), states = u.shape, A.shape[1]
    if not length:
        raise ConfigError("a scan needs at least one step.")
    wanted: dict[str, tuple[int, ...]] = {
        "A": (channels, states),
        "delta": (batch, channels, length),
        "z": (batch, channels, length),
        "D": (channels,),
        "delta_bias": (channels,),
        "initial_state": (batch, channels, states),
        "lengths": (batch,),
    }
    for name, tensor in {"A": A, **others}.items():
        if tensor is not None and tuple(tensor.shape) != wanted[name]:
            raise ConfigError(f"{name} must have the shape {wanted[name]} to fit u and A, got {tuple(tensor.shape)}.")
    for name, tensor in maps.items():
        groups = tensor.shape[1] if tensor.ndim == 4 else 1
        shapes = {2: (channels, states), 3: (batch, states, length), 4: (batch, groups, states, length)}
        if tuple(tensor.shape) != shapes.get(tensor.ndim) or channels % groups:
            raise ConfigError(
                f"{name} must be [B, S, L], [B, G, S, L] or [E, S] to fit u and A, got {tuple(tensor.shape)}."
            )


# The operator. Its third output holds the states before each chunk, from which the backward pass computes again what it
# needs: S / CHUNK as much memory as u, whatever the length.


@library.custom_op("auricle::selective_scan", mutates_args=(), device_types="cpu")
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    struct, alive = _problem((u, delta, A, B, C, D, z, delta_bias, initial_state), lengths, softplus, reverse)
    out, last, saved = _outputs(u, A)
    struct.out, struct.last, struct.saved = native.strided(out), native.pointer(last), native.pointer(saved)
    native.run("scan_forward", [struct])
    del alive
    return out, last, saved


@_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(u, A)


def _outputs(u: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    chunks = (length + native.CHUNK - 1) // native.CHUNK
    return (
        torch.empty_like(u),
        u.new_empty(batch, channels, A.shape[1]),
        u.new_empty(batch, chunks, channels, A.shape[1]),
    )


def _problem(
    tensors: Sequence[Tensor | None], lengths: Tensor | None, softplus: bool, reverse: bool
) -> tuple[native.Scan, tuple[Tensor | None, ...]]:
    """The C structure of a scan, and the tensors that must live as long as it.

    `tensors` are u, delta, A, B, C, D, z, delta_bias and the initial state.
    """
    u, delta, A, B, C, D, z, delta_bias, initial_state = tensors
    assert u is not None
    assert A is not None
    rates, skip, bias, start = (None if x is None else x.contiguous() for x in (A, D, delta_bias, initial_state))
    valid = None if lengths is None else lengths.clamp(0, u.shape[2]).to(torch.int64).contiguous()
    struct = native.Scan(
        batch=u.shape[0],
        channels=u.shape[1],
        states=A.shape[1],
        length=u.shape[2],
        softplus=softplus,
        reverse=reverse,
        u=native.strided(u),
        delta=native.strided(delta),
        z=native.strided(z),
        b=native.strided(B),
        c=native.strided(C),
        a=native.pointer(rates),
        skip=native.pointer(skip),
        bias=native.pointer(bias),
        initial=native.pointer(start),
        lengths=native.integers(valid),
    )
    return struct, (u, delta, B, C, z, rates, skip, bias, start, valid)


@library.custom_op("auricle::selective_scan_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    out_grad: Tensor,
    last_grad: Tensor,
    saved: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of u, delta, A, B, C, D, z (empty without z), delta_bias and the initial state."""
    struct, alive = _problem((u, delta, A, B, C, D, z, delta_bias, None), lengths, softplus, reverse)
    (batch, channels, length), states = u.shape, A.shape[1]
    blocks = (channels + native.BLOCK - 1) // native.BLOCK
    last_grad = last_grad.contiguous()
    grads = {"u_grad": torch.empty_like(u), "delta_grad": torch.empty_like(delta)}
    grads["z_grad"] = u.new_empty(0) if z is None else torch.empty_like(z)
    parts = {name: u.new_empty(blocks, batch, length, states) for name in ("b_grad", "c_grad")}
    parts |= {name: u.new_empty(batch, channels, states) for name in ("a_grad", "initial_grad")}
    parts |= {name: u.new_empty(batch, channels) for name in ("skip_grad", "bias_grad")}
    struct.saved, struct.out_grad, struct.last_grad = (
        native.pointer(saved),
        native.strided(out_grad),
        native.pointer(last_grad),
    )
    for name, tensor in grads.items():
        setattr(struct, name, native.strided(tensor if tensor.ndim == 3 else None))
    for name, tensor in parts.items():
        setattr(struct, name, native.pointer(tensor))
    native.run("scan_backward", [struct])
    del alive
    return [
        grads["u_grad"],
        grads["delta_grad"],
        parts["a_grad"].sum(0),
        parts["b_grad"].sum(0).transpose(1, 2),
        parts["c_grad"].sum(0).transpose(1, 2),
        parts["skip_grad"].sum(0),
        grads["z_grad"],
        parts["bias_grad"].sum(0),
        parts["initial_grad"],
    ]


@_scan_backward.register_fake
def _(
    out_grad: Tensor,
    last_grad: Tensor,
    saved: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    *rest: object,
) -> list[Tensor]:
    (batch, channels, length), states = u.shape, A.shape[1]
    per_step = u.new_empty(batch, length, states).transpose(1, 2)
    return [
        torch.empty_like(u),
        torch.empty_like(delta),
        u.new_empty(channels, states),
        per_step,
        torch.empty_like(per_step),
        u.new_empty(channels),
        u.new_empty(0) if z is None else torch.empty_like(z),
        u.new_empty(channels),
        u.new_empty(batch, channels, states),
    ]


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.softplus, ctx.reverse = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(*tensors, output[2])


def _differentiate(ctx: torch.autograd.function.FunctionCtx, out_grad: Tensor, last_grad: Tensor, _: Tensor) -> tuple:
    u, delta, A, B, C, D, z, bias, start, lengths, saved = ctx.saved_tensors  # type: ignore[attr-defined]
    options = ctx.softplus, ctx.reverse  # type: ignore[attr-defined]
    found = _scan_backward(out_grad, last_grad, saved, u, delta, A, B, C, D, z, bias, lengths, *options)
    grads: list[Tensor | None] = list(found)
    for index, given in ((5, D), (6, z), (7, bias), (8, start)):
        if given is None:
            grads[index] = None
    return (*grads, None, None, None)


_scan.register_autograd(_differentiate, setup_context=_remember)
