"""The selective scan of Mamba: the front doors, and the torch operator behind which the fast kernels work.

K scans in one call, B batch, E channels, S states, L steps, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import torch
from torch import Tensor, library

from auricle.errors import ConfigError
from auricle.kernels import arguments, chunked, reference, scan_native
from auricle.kernels.backends import backend, eager, fast, numbers_only, refuse_batches
from auricle.kernels.layout import room

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
        B, C: [B, S, L]; [B, G, S, L] for groups of E / G channels, which are scanned one after the other; or constant
            [E, S], with which the scan goes step by step in plain torch: slow, and it stores length x states.
        D, delta_bias: [E].
        initial_state: [B, E, S] before the first step; zeros, if None.
        lengths: [B] valid steps of each row: what comes after them is not seen, and 0 comes out there.
        reverse: scan from the last valid step to the first.

    Returns:
        out [B, E, L] in the type of `u`; with `return_last_state`, also the state [B, E, S] after the last step, in
        float32 (float64 for float64 inputs). Computed in float32 at least.

    Raises:
        ConfigError: shapes, types or devices that do not fit each other.
    """
    others = {"delta": delta, "z": z, "D": D, "delta_bias": delta_bias}
    _check(u, A, {"B": B, "C": C}, others | {"initial_state": initial_state, "lengths": lengths})
    dims = {B.ndim, C.ndim}
    if u.dtype == torch.float64 or 2 in dims:
        positional = (u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        out, last = reference.selective_scan(*positional, initial_state=initial_state, lengths=lengths, reverse=reverse)
    elif 4 in dims:
        groups = math.lcm(*(x.shape[1] for x in (B, C) if x.ndim == 4))
        found = []
        for g in range(groups):
            own = slice(g * u.shape[1] // groups, (g + 1) * u.shape[1] // groups)
            maps = [x if x.ndim == 3 else x[:, g * x.shape[1] // groups] for x in (B, C)]
            scanned = selective_scan(
                *(u[:, own], delta[:, own], A[own], maps[0], maps[1]),
                D=None if D is None else D[own],
                z=None if z is None else z[:, own],
                delta_bias=None if delta_bias is None else delta_bias[own],
                delta_softplus=delta_softplus,
                return_last_state=True,
                initial_state=None if initial_state is None else initial_state[:, own],
                lengths=lengths,
                reverse=reverse,
            )
            found.append(scanned)
        out, last = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    else:
        each = [None if x is None else x[None] for x in (u, delta, A, B, C, D)]
        more = [None if x is None else x[None] for x in (delta_bias, initial_state)]
        out, lasts = _scans([*each, z, *more], lengths, delta_softplus, (reverse,))
        last = lasts[0]
    return (out, last) if return_last_state else out


def bidirectional_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """The sum of two selective scans in one call: the first from the start, the second from each row's last valid step.

    Args:
        u, delta: [2, B, E, L]; A: [2, E, S]; B, C: [2, B, S, L]; D, delta_bias: [2, E]: of each direction.
        z: [B, E, L]; lengths: [B]: of both.
        reverse: the first scans from the end, the second from the start.

    Returns:
        [B, E, L] in the type of `u`.

    Raises:
        ConfigError: shapes, types or devices that do not fit each other.
    """
    per_direction = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    for name, x in per_direction.items():
        if x is not None and (x.ndim == 0 or x.shape[0] != 2):
            raise ConfigError(f"{name} must hold two directions in its first dimension, got {tuple(x.shape)}.")
    if B.ndim != 4 or C.ndim != 4:
        raise ConfigError("B and C of two directions must be [2, B, S, L].")
    others = {"delta": delta[0], "D": None if D is None else D[0], "z": z, "lengths": lengths}
    others["delta_bias"] = None if delta_bias is None else delta_bias[0]
    _check(u[0], A[0], {"B": B[0], "C": C[0]}, others)
    ways = (reverse, not reverse)
    if u.dtype == torch.float64:
        found = []
        for k, backward in enumerate(ways):
            first = (u[k], delta[k], A[k], B[k], C[k], None if D is None else D[k], z)
            bias = None if delta_bias is None else delta_bias[k]
            options = {"lengths": lengths, "reverse": backward}
            found.append(reference.selective_scan(*first, bias, delta_softplus, **options)[0])  # type: ignore[arg-type]
        return found[0] + found[1]
    return _scans([u, delta, A, B, C, D, z, delta_bias, None], lengths, delta_softplus, ways)[0]


def _scans(
    tensors: scan_native.Tensors, lengths: Tensor | None, softplus: bool, reverse: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """The sum of the scans [B, E, L] and their last states [K, B, E, S], by the fastest kernels at hand."""
    u, A = tensors[0], tensors[2]
    assert u is not None
    assert A is not None
    if A.shape[-1] <= MAX_STATES and fast(u.device.type):
        keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
        scan: Callable[..., tuple[Tensor, ...]] = _scan
        if eager(*tensors, lengths):
            scan = _Differentiable.apply if keep else _scan_numbers
        out, last, _ = scan(*tensors, lengths, softplus, list(reverse), keep)
        return out, last
    outs, lasts = [], []
    with torch.autocast(u.device.type, enabled=False):
        whole = [None if x is None else x.float() for x in tensors]
        for k, backward in enumerate(reverse):
            parts = [x if x is None or index == scan_native.Z else x[k] for index, x in enumerate(whole)]
            out, last = chunked.selective_scan(*parts[:8], softplus, parts[8], lengths, backward)  # type: ignore
            outs.append(out)
            lasts.append(last)
    return sum(outs[1:], outs[0]).to(u.dtype), torch.stack(lasts)


def _check(u: Tensor, A: Tensor, maps: Mapping[str, Tensor], others: Mapping[str, Tensor | None]) -> None:
    if u.ndim != 3 or A.ndim != 2:
        raise ConfigError(f"u must be [B, E, L] and A [E, S], got {tuple(u.shape)} and {tuple(A.shape)}.")
    (batch, channels, length), states = u.shape, A.shape[1]
    if not length:
        raise ConfigError("a scan needs at least one step.")
    wanted = {
        "A": (channels, states),
        "delta": (batch, channels, length),
        "z": (batch, channels, length),
        "D": (channels,),
        "delta_bias": (channels,),
        "initial_state": (batch, channels, states),
        "lengths": (batch,),
    }
    arguments.check({"u": u, "A": A, **maps, **others}, wanted, "u and A")
    for name, tensor in maps.items():
        groups = tensor.shape[1] if tensor.ndim == 4 else 1
        shapes = {2: (channels, states), 3: (batch, states, length), 4: (batch, groups, states, length)}
        if tuple(tensor.shape) != shapes.get(tensor.ndim) or channels % groups:
            raise ConfigError(
                f"{name} must be [B, S, L], [B, G, S, L] or [E, S] to fit u and A, got {tuple(tensor.shape)}."
            )


# The operator, for K scans whose outputs are added: u and delta [K, B, E, L], A [K, E, S], B and C [K, B, S, L], D and
# delta_bias [K, E], z [B, E, L], initial_state [K, B, E, S]. Its third output, with `keep`, holds the states before
# each chunk, from which the backward pass computes again what it needs: S / 32 (Triton: S / 64) as much memory as u.


def _scan_numbers(
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
    reverse: Sequence[bool],
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    out, last, saved = _kernels(u).forward(tensors, lengths, softplus, reverse, keep)
    return out, last, saved


_scan = library.custom_op("auricle::selective_scan", _scan_numbers, mutates_args=(), device_types=("cpu", "cuda"))


def _kernels(u: Tensor) -> ModuleType:
    """The module that computes: it has `forward` and `backward`."""
    if backend(u.device.type) == "triton":
        # Not at the top: importing triton takes a second, and a CPU has no use for it.
        from auricle.kernels import scan_triton

        return scan_triton
    return scan_native


@_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
    return (room(u[0], u.dtype), *scan_native.states_like(u, A, bool(rest[-1]), _kernels(u).CHUNK))


def _gradients(
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
    initial_state: Tensor | None,
    lengths: Tensor | None,
    softplus: bool,
    reverse: Sequence[bool],
) -> list[Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias and the initial state; those of what is absent are empty."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    found = _kernels(u).backward(out_grad, last_grad, saved, tensors, lengths, softplus, reverse)
    return [
        u.new_empty(0) if given is None else gradient.to(given.dtype)
        for given, gradient in zip(tensors, found, strict=True)
    ]


_scan_backward = library.custom_op(
    "auricle::selective_scan_backward", _gradients, mutates_args=(), device_types=("cpu", "cuda")
)


@_scan_backward.register_fake
def _(out_grad: Tensor, last_grad: Tensor, saved: Tensor, u: Tensor, *rest: Tensor | None) -> list[Tensor]:
    def like(given: Tensor | None) -> Tensor:
        return u.new_empty(0) if given is None else torch.empty_like(given, memory_format=torch.contiguous_format)

    delta, A, B, C, D, z, delta_bias, initial_state = rest[:8]
    assert delta is not None
    assert B is not None
    assert C is not None
    along = [room(u, u.dtype), room(u, delta.dtype)]
    maps = [x.new_empty(*x.shape[:2], x.shape[3], x.shape[2]).transpose(2, 3) for x in (B, C)]
    z_grad = u.new_empty(0) if z is None else room(z, z.dtype)
    return [*along, like(A), *maps, like(D), z_grad, like(delta_bias), like(initial_state)]


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.softplus, ctx.reverse, _ = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(*tensors, output[2])
    # Zeros for what has no gradient, as the kept states, would be made in memory that is touched for nothing.
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, out_grad: Tensor | None, last_grad: Tensor | None, _: Tensor | None
) -> tuple:
    refuse_batches(out_grad)
    *tensors, lengths, saved = ctx.saved_tensors  # type: ignore[attr-defined]
    u, A = tensors[0], tensors[2]
    if out_grad is None:
        out_grad = torch.zeros_like(u[0])
    if last_grad is None:
        last_grad = saved.new_zeros(*u.shape[:3], A.shape[-1])
    options = ctx.softplus, ctx.reverse  # type: ignore[attr-defined]
    gradients: Callable[..., list[Tensor]] = _scan_backward
    if numbers_only(out_grad, last_grad, *tensors):
        gradients = _gradients
    found = gradients(out_grad, last_grad, saved, *tensors, lengths, *options)
    grads = [None if given is None else gradient for given, gradient in zip(tensors, found, strict=True)]
    return (*grads, None, None, None, None)


_scan.register_autograd(_differentiate, setup_context=_remember)


class _Differentiable(torch.autograd.Function):
    """The operator without its registration, for `eager` tensors of which some want gradients."""

    forward = staticmethod(_scan_numbers)
    setup_context = staticmethod(_remember)
    backward = staticmethod(_differentiate)
