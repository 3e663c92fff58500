"""The selective scan by Triton: a program goes through one row and a few channels, 64 steps at a time.

Within a chunk, all steps are taken at once by a parallel prefix scan of the pairs (decay, input); from chunk to chunk,
the state is carried. Inputs may be float32, bfloat16 or float16; everything is computed in float32.

K scans in one call, B batch, E channels, S states, L steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from auricle.kernels.layout import room
from auricle.kernels.native import CHUNK, steps
from auricle.kernels.scan_native import Tensors, states_like
from auricle.kernels.triton_steps import CHANNELS, bits, position, sigmoid, softplus, valid_steps

WARPS = 8


@triton.jit
def _then(decay, state, next_decay, next_state):
    return decay * next_decay, next_decay * state + next_state


@triton.jit
def _along(base, i, e, valid, backward, stride_e, stride_l, ok):
    """[T, E] of a tensor [B, E, L] whose row begins at `base`, at steps i."""
    at = e[None, :] * stride_e + position(i, valid, backward)[:, None].to(tl.int64) * stride_l
    return tl.load(base + at, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _maps(base, i, n, valid, backward, stride_s, stride_l, ok):
    """[T, S] of B or C."""
    at = n[None, :] * stride_s + position(i, valid, backward)[:, None].to(tl.int64) * stride_l
    return tl.load(base + at, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _sizes(delta, i, e, valid, backward, stride_e, stride_l, ok, bias, SOFTPLUS: tl.constexpr):
    """Step sizes [T, E], 0 where there is no step: then the state stays as it is."""
    d = _along(delta, i, e, valid, backward, stride_e, stride_l, ok) + bias[None, :]
    if SOFTPLUS:
        d = softplus(d)
    return tl.where(ok, d, 0.0)


@triton.jit
def _scan_forward(
    u, delta, A, B, C, D, z, bias, start, lengths, out, last, saved,
    rows, channels, states, length, chunks, backward_bits,
    u_k, u_b, u_e, u_l, d_k, d_b, d_e, d_l, b_k, b_b, b_s, b_l, c_k, c_b, c_s, c_l, z_b, z_e, z_l, o_k, o_b, o_e, o_l,
    SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_START: tl.constexpr,
    HAS_LENGTHS: tl.constexpr, KEEP: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    row, k = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    e, n, t = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES), tl.arange(0, STEPS)
    here, there = e < channels, n < states
    both = here[:, None] & there[None, :]
    backward = (backward_bits >> k.to(tl.int32)) & 1
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    u += k * u_k + row * u_b
    delta += k * d_k + row * d_b
    B += k * b_k + row * b_b
    C += k * c_k + row * c_b
    z += row * z_b
    out += k * o_k + row * o_b
    rates = tl.load(A + (k * channels + e[:, None]) * states + n[None, :], mask=both, other=0.0).to(tl.float32)
    skip = tl.load(D + k * channels + e, mask=here & HAS_D, other=0.0).to(tl.float32)
    offset = tl.load(bias + k * channels + e, mask=here & HAS_BIAS, other=0.0).to(tl.float32)
    of_row = ((k * rows + row) * channels + e[:, None]) * states + n[None, :]
    state = tl.load(start + of_row, mask=both & HAS_START, other=0.0).to(tl.float32)
    for chunk in range(0, tl.cdiv(valid, STEPS)):
        if KEEP:
            at = (((k * rows + row) * chunks + chunk) * states + n[None, :]) * channels + e[:, None]
            tl.store(saved + at, state, mask=both)
        i = chunk * STEPS + t
        ok, known = (i < valid)[:, None] & here[None, :], (i < valid)[:, None] & there[None, :]
        d = _sizes(delta, i, e, valid, backward, d_e, d_l, ok, offset, SOFTPLUS)
        x = _along(u, i, e, valid, backward, u_e, u_l, ok)
        b = _maps(B, i, n, valid, backward, b_s, b_l, known)
        c = _maps(C, i, n, valid, backward, c_s, c_l, known)
        decays = tl.exp(d[:, :, None] * rates[None, :, :])
        decayed, h = tl.associative_scan((decays, (d * x)[:, :, None] * b[:, None, :]), 0, _then)
        h += decayed * state[None, :, :]
        y = tl.sum(h * c[:, None, :], axis=2) + x * skip[None, :]
        state = tl.sum(tl.where((t == STEPS - 1)[:, None, None], h, 0.0), axis=0)
        if HAS_Z:
            gate = _along(z, i, e, valid, backward, z_e, z_l, ok)
            y *= gate * sigmoid(gate)
        at = e[None, :] * o_e + position(i, valid, backward)[:, None].to(tl.int64) * o_l
        tl.store(out + at, y.to(out.dtype.element_ty), mask=ok)
    tl.store(last + of_row, state, mask=both)


@triton.jit
def _scan_backward(
    out_grad, last_grad, saved, u, delta, A, B, C, D, z, bias, lengths,
    u_grad, delta_grad, z_grad, b_grad, c_grad, a_grad, skip_grad, bias_grad, start_grad,
    rows, channels, states, length, chunks, backward_bits,
    u_k, u_b, u_e, u_l, d_k, d_b, d_e, d_l, b_k, b_b, b_s, b_l, c_k, c_b, c_s, c_l, z_b, z_e, z_l,
    og_b, og_e, og_l, ug_k, ug_b, ug_e, ug_l, zg_k, zg_b, zg_e, zg_l,
    SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_LENGTHS: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    block, row, k = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    e, n, t = block * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES), tl.arange(0, STEPS)
    here, there = e < channels, n < states
    both = here[:, None] & there[None, :]
    backward = (backward_bits >> k.to(tl.int32)) & 1
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    u += k * u_k + row * u_b
    delta += k * d_k + row * d_b
    B += k * b_k + row * b_b
    C += k * c_k + row * c_b
    z += row * z_b
    out_grad += row * og_b
    u_grad += k * ug_k + row * ug_b
    delta_grad += k * ug_k + row * ug_b
    z_grad += k * zg_k + row * zg_b
    rates = tl.load(A + (k * channels + e[:, None]) * states + n[None, :], mask=both, other=0.0).to(tl.float32)
    skip = tl.load(D + k * channels + e, mask=here & HAS_D, other=0.0).to(tl.float32)
    offset = tl.load(bias + k * channels + e, mask=here & HAS_BIAS, other=0.0).to(tl.float32)
    of_row = ((k * rows + row) * channels + e[:, None]) * states + n[None, :]
    # The gradient of the state after a chunk, before the decay of the step that follows it.
    carry = tl.load(last_grad + of_row, mask=both, other=0.0)
    rates_grad, skips, offsets = carry * 0.0, skip * 0.0, skip * 0.0
    of_maps = ((block * tl.num_programs(2) + k) * rows + row) * length
    many = tl.cdiv(valid, STEPS)
    for back in range(0, many):
        chunk = many - 1 - back
        i = chunk * STEPS + t
        ok, known = (i < valid)[:, None] & here[None, :], (i < valid)[:, None] & there[None, :]
        d = _sizes(delta, i, e, valid, backward, d_e, d_l, ok, offset, SOFTPLUS)
        x = _along(u, i, e, valid, backward, u_e, u_l, ok)
        b = _maps(B, i, n, valid, backward, b_s, b_l, known)
        c = _maps(C, i, n, valid, backward, c_s, c_l, known)
        # The states before each step: a prefix scan of the steps before, from the state that was saved.
        inner, earlier = (t > 0)[:, None] & ok, (t > 0)[:, None] & known
        d_before = _sizes(delta, i - 1, e, valid, backward, d_e, d_l, inner, offset, SOFTPLUS)
        x_before = _along(u, i - 1, e, valid, backward, u_e, u_l, inner)
        b_before = _maps(B, i - 1, n, valid, backward, b_s, b_l, earlier)
        decays_before = tl.exp(d_before[:, :, None] * rates[None, :, :])
        inputs_before = (d_before * x_before)[:, :, None] * b_before[:, None, :]
        decayed, before = tl.associative_scan((decays_before, inputs_before), 0, _then)
        at = (((k * rows + row) * chunks + chunk) * states + n[None, :]) * channels + e[:, None]
        before += decayed * tl.load(saved + at, mask=both, other=0.0)[None, :, :]
        decays = tl.exp(d[:, :, None] * rates[None, :, :])
        h = decays * before + (d * x)[:, :, None] * b[:, None, :]
        y_grad = _along(out_grad, i, e, valid, backward, og_e, og_l, ok)
        if HAS_Z:
            gate = _along(z, i, e, valid, backward, z_e, z_l, ok)
            open = sigmoid(gate)
            y = tl.sum(h * c[:, None, :], axis=2) + x * skip[None, :]
            at_z = e[None, :] * zg_e + position(i, valid, backward)[:, None].to(tl.int64) * zg_l
            tl.store(z_grad + at_z, y_grad * y * open * (1.0 + gate * (1.0 - open)), mask=ok)
            y_grad *= gate * open
        # The gradients of the states: the same scan from the end, each step decayed by the one that follows it.
        follows = (i + 1 < valid)[:, None] & here[None, :]
        d_after = _sizes(delta, i + 1, e, valid, backward, d_e, d_l, follows, offset, SOFTPLUS)
        decays_after = tl.exp(d_after[:, :, None] * rates[None, :, :])
        decayed, total = tl.associative_scan((decays_after, y_grad[:, :, None] * c[:, None, :]), 0, _then, reverse=True)
        total += decayed * carry[None, :, :]
        carry = tl.sum(tl.where((t == 0)[:, None, None], total, 0.0), axis=0)
        exponent_grad = total * decays * before
        x_grad = tl.sum(total * b[:, None, :], axis=2)
        rates_grad += tl.sum(exponent_grad * d[:, :, None], axis=0)
        raw_grad = tl.sum(exponent_grad * rates[None, :, :], axis=2) + x_grad * x
        if SOFTPLUS:
            raw = _along(delta, i, e, valid, backward, d_e, d_l, ok) + offset[None, :]
            raw_grad *= tl.where(raw > 20.0, 1.0, sigmoid(raw))
        raw_grad = tl.where(ok, raw_grad, 0.0)
        at = e[None, :] * ug_e + position(i, valid, backward)[:, None].to(tl.int64) * ug_l
        tl.store(u_grad + at, x_grad * d + y_grad * skip[None, :], mask=ok)
        tl.store(delta_grad + at, raw_grad, mask=ok)
        skips += tl.sum(y_grad * x, axis=0)
        offsets += tl.sum(raw_grad, axis=0)
        at_map = (of_maps + position(i, valid, backward)[:, None]) * states + n[None, :]
        tl.store(b_grad + at_map, tl.sum(total * (d * x)[:, :, None], axis=1), mask=known)
        tl.store(c_grad + at_map, tl.sum(y_grad[:, :, None] * h, axis=1), mask=known)
    first = tl.arange(0, 1)
    begun = (first < valid)[:, None] & here[None, :]
    d = _sizes(delta, first, e, valid, backward, d_e, d_l, begun, offset, SOFTPLUS)
    tl.store(start_grad + of_row, carry * tl.sum(tl.exp(d[:, :, None] * rates[None, :, :]), axis=0), mask=both)
    tl.store(a_grad + of_row, rates_grad, mask=both)
    of_channel = (k * rows + row) * channels + e
    tl.store(skip_grad + of_channel, skips, mask=here)
    tl.store(bias_grad + of_channel, offsets, mask=here)


def forward(
    tensors: Tensors, lengths: Tensor | None, softplus: bool, reverse: Sequence[bool], keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `scan_native.forward`; the output is in the type of u."""
    u, delta, A, B, C, D, z, bias, start = _ready(tensors)
    scans, rows, channels, length = u.shape
    last, saved = states_like(u, A, keep)
    out = room(u, u.dtype if scans == 1 else torch.float32)
    if lengths is not None:
        out.zero_()
    gate = u[0] if z is None else z
    _scan_forward[_grid(u)](
        *(
            u,
            delta,
            A,
            B,
            C,
            *(u if x is None else x for x in (D, z, bias, start)),
            _steps(lengths, u),
            out,
            last,
            saved,
        ),
        *(rows, channels, A.shape[-1], length, saved.shape[2], bits(reverse)),
        *(*u.stride(), *delta.stride(), *B.stride(), *C.stride(), *gate.stride(), *out.stride()),
        *(softplus, D is not None, z is not None, bias is not None, start is not None, lengths is not None, keep),
        *(CHUNK, CHANNELS, triton.next_power_of_2(A.shape[-1])),
        num_warps=WARPS,
    )
    return (out[0] if scans == 1 else out.sum(0)), last, saved


def backward(
    out_grad: Tensor,
    last_grad: Tensor,
    saved: Tensor,
    tensors: Tensors,
    lengths: Tensor | None,
    softplus: bool,
    reverse: Sequence[bool],
) -> list[Tensor]:
    """As `scan_native.backward`."""
    u, delta, A, B, C, D, z, bias, _ = _ready(tensors)
    (scans, rows, channels, length), states = u.shape, A.shape[-1]
    blocks = triton.cdiv(channels, CHANNELS)
    u_grad, delta_grad = room(u, torch.float32), room(u, torch.float32)
    z_grad = room(u, torch.float32) if z is not None else u_grad
    if lengths is not None:
        for gradient in (u_grad, delta_grad, z_grad):
            gradient.zero_()
    b_grad, c_grad = (last_grad.new_zeros(blocks, scans, rows, length, states) for _ in range(2))
    a_grad, start_grad = (last_grad.new_empty(scans, rows, channels, states) for _ in range(2))
    skip_grad, bias_grad = (last_grad.new_empty(scans, rows, channels) for _ in range(2))
    gate = u[0] if z is None else z
    _scan_backward[_grid(u)](
        *(out_grad, last_grad.contiguous(), saved, u, delta, A, B, C, *(u if x is None else x for x in (D, z, bias))),
        *(_steps(lengths, u), u_grad, delta_grad, z_grad, b_grad, c_grad, a_grad, skip_grad, bias_grad, start_grad),
        *(rows, channels, states, length, saved.shape[2], bits(reverse)),
        *(*u.stride(), *delta.stride(), *B.stride(), *C.stride(), *gate.stride()),
        *(*out_grad.stride(), *u_grad.stride(), *z_grad.stride()),
        *(softplus, D is not None, z is not None, bias is not None, lengths is not None),
        *(CHUNK, CHANNELS, triton.next_power_of_2(states)),
        num_warps=WARPS,
    )
    return [
        u_grad,
        delta_grad,
        a_grad.sum(1),
        b_grad.sum(0).transpose(2, 3),
        c_grad.sum(0).transpose(2, 3),
        skip_grad.sum(1),
        z_grad.sum(0),
        bias_grad.sum(1),
        start_grad,
    ]


def _ready(tensors: Tensors) -> list[Tensor]:
    """Parameters without gaps; what is absent stays None, which the type does not say."""
    ready = [x.contiguous() if x is not None and index in (2, 5, 7, 8) else x for index, x in enumerate(tensors)]
    return ready  # type: ignore[return-value]


def _steps(lengths: Tensor | None, u: Tensor) -> Tensor:
    """Valid steps, or, where there are none to read, anything."""
    valid = steps(lengths, u.shape[-1])
    return u if valid is None else valid


def _grid(u: Tensor) -> tuple[int, int, int]:
    scans, rows, channels, _ = u.shape
    return triton.cdiv(channels, CHANNELS), rows, scans
