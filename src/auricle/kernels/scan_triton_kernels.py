"""Triton's kernels of the selective scan; `scan_triton` says which of them run, and on what.

A thread keeps the states of one channel, 4 neighbours at a time, and goes through the steps one after the other: then
no step waits for other threads. What is loaded has the shape [T, Q, W, P, C, R] of the threads from the start, so that
nothing is moved between threads but sums: T steps, W warps of P x C threads, and S = Q x P x R states, R = 4. P threads
share the states of a channel; a program has W x C channels.

Decays are exp2(d A'), A' = A log2(e). A step that is not there has d = 0, which leaves the state as it is.
"""

from __future__ import annotations

import triton
import triton.language as tl

from auricle.kernels.triton_steps import sigmoid, softplus, valid_steps

# Whether such a number is 1 or a multiple of 16 is not worth a compilation.
COUNTS = ("channels", "length", "chunks", "segment_steps", "segment_chunks", "segments")
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _at(x, places, i):
    """x[i], without the first dimension, exactly. It costs nothing where i is known when compiled."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.sum(tl.where(places == i, bits, 0), axis=0).to(tl.float32, bitcast=True)


@triton.jit
def _over_states(x):
    """The sum over the states: [T, 1, W, 1, C, 1]."""
    return tl.sum(tl.sum(tl.sum(x, axis=5, keep_dims=True), axis=1, keep_dims=True), axis=3, keep_dims=True)


@triton.jit
def _over_channels(x, PRECISE: tl.constexpr):
    """The sum over a program's channels, [T S], by the matrix unit: with 11 bits of x or, PRECISE, with 22."""
    T: tl.constexpr = x.shape[0]
    S: tl.constexpr = x.shape[1] * x.shape[3] * x.shape[5]
    CHANNELS: tl.constexpr = x.shape[2] * x.shape[4]
    table = tl.reshape(tl.permute(x, (0, 1, 3, 5, 2, 4)), (T * S, CHANNELS))
    ones = tl.full((CHANNELS, 16), 1.0, tl.float32)
    if PRECISE:
        # The bits that a number for the matrix unit has, and the rest.
        high = (table.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        sums = tl.dot(high, ones, tl.dot(table - high, ones, input_precision="tf32"), input_precision="tf32")
    else:
        sums = tl.dot(table, ones, input_precision="tf32")
    return tl.max(sums, axis=1)


@triton.jit
def _steps(STEPS: tl.constexpr):
    return tl.arange(0, STEPS)[:, None, None, None, None, None]


@triton.jit
def _channels(block, W: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """Channels of the threads: [1, 1, W, P, C, 1]."""
    # A thread must not take several neighbours, as the compiler would have it: each has its own channel.
    inner = tl.max_contiguous(tl.arange(0, C), [1])[None, None, None, None, :, None]
    outer = (tl.arange(0, W) * C)[None, None, :, None, None, None]
    return block * (W * C) + outer + inner + _partner(P) * 0


@triton.jit
def _partner(P: tl.constexpr):
    return tl.arange(0, P)[None, None, None, :, None, None]


@triton.jit
def _states(e, Q: tl.constexpr, P: tl.constexpr):
    """States of the threads: [1, Q, W, P, C, R]."""
    outer = tl.arange(0, Q)[None, :, None, None, None, None] * P + _partner(P)
    return outer * 4 + tl.arange(0, 4)[None, None, None, None, None, :] + e * 0


@triton.jit
def _load(base, at, ok):
    return tl.load(base + at, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _one(base, at, ok):
    """_load of what has no steps, without that dimension."""
    return tl.sum(_load(base, at, ok), axis=0)


@triton.jit
def _along(base, first, t, e, stride_e, stride_l):
    """Where [T, 1, W, P, C, 1] of a row at `base` is, from the place `first` on."""
    return base + first * stride_l + e.to(tl.int64) * stride_e + t * stride_l


@triton.jit
def _read(base, first, t, e, stride_e, stride_l, ok):
    return tl.load(_along(base, first, t, e, stride_e, stride_l), mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _maps(base, first, t, left, n, WAY: tl.constexpr, STATES: tl.constexpr):
    """[T, Q, W, P, C, R] of B or C: after the last of the `left` steps, its values again, which nothing depends on."""
    at = base + first * STATES + tl.minimum(t, left - 1) * WAY * STATES + n
    if n.shape[1] * n.shape[3] * 4 != STATES:
        return tl.load(at, mask=n < STATES, other=0.0).to(tl.float32)
    return tl.load(at).to(tl.float32)


@triton.jit
def _map(base, first, k, left, n, WAY: tl.constexpr, STATES: tl.constexpr):
    """_maps of the k-th step alone: [Q, W, P, C, R]."""
    return tl.sum(_maps(base, first, tl.full((1, 1, 1, 1, 1, 1), k, tl.int32), left, n, WAY, STATES), axis=0)


@triton.jit
def _place(i, valid, WAY: tl.constexpr):
    """Where step i of a scan is in memory."""
    return tl.cast(i if WAY == 1 else valid - 1 - i, tl.int64)


@triton.jit
def _sizes(raw, ok, SOFTPLUS: tl.constexpr):
    return tl.where(ok, softplus(raw), 0.0) if SOFTPLUS else tl.where(ok, raw, 0.0)


@triton.jit(do_not_specialize=COUNTS)
def summarise(
    x, z, delta, maps, A, bias, lengths, parts, totals,
    channels, length, segment_steps, segments, x_b, x_e, x_l, z_b, z_e, z_l, d_b, d_e, d_l,
    BACK: tl.constexpr, WAY: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_LENGTHS: tl.constexpr, STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, W: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """What a segment adds to the state after it or, BACK, to the gradient of the state before it; and its sum of d.

    The sum over the steps of exp2(A' distance) x_l map_l, where the distance is the sum of d between a step and the end
    that looks on: x is d u and the map is B or, BACK, x is the gradient of the output and the map is C.
    """
    row, segment = tl.program_id(2).to(tl.int64), tl.program_id(1) + BACK
    e, t = _channels(tl.program_id(0), W, P, C), _steps(T)
    n = _states(e, Q, P)
    here, both = e < channels, (e < channels) & (n < STATES)
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    rates = _one(A, e * STATES + n, both) * LOG2_E
    offset = _load(bias, e, here & HAS_BIAS)
    total, distance = rates * 0.0, tl.sum(offset * 0.0, axis=0)
    x += row * x_b
    z += row * z_b
    delta += row * d_b
    maps += row * length * STATES
    begin = segment * segment_steps
    tiles = tl.cdiv(tl.maximum(tl.minimum(valid - begin, segment_steps), 0), T)
    for j in range(0, tiles):
        i = begin + (j if BACK else tiles - 1 - j) * T
        ok, first = (t < valid - i) & here, _place(i, valid, WAY)
        d = _sizes(_read(delta, first, WAY * t, e, d_e, d_l, ok) + offset, ok, SOFTPLUS)
        weight = _read(x, first, WAY * t, e, x_e, x_l, ok)
        m = _maps(maps, first, t, valid - i, n, WAY, STATES)
        if HAS_Z:
            gate = _read(z, first, WAY * t, e, z_e, z_l, ok)
            weight *= gate * sigmoid(gate)
        if not BACK:
            weight *= d
        for s in tl.static_range(T):
            if BACK:
                distance += _at(d, t, s)
                total += tl.exp2(rates * distance) * (_at(weight, t, s) * _at(m, t, s))
            else:
                total += tl.exp2(rates * distance) * (_at(weight, t, T - 1 - s) * _at(m, t, T - 1 - s))
                distance += _at(d, t, T - 1 - s)
    of_channel = (row * segments + segment) * channels + e
    tl.store(parts + of_channel * STATES + n, total[None], mask=both)
    tl.store(totals + of_channel, distance[None], mask=here & (_partner(P) == 0))


@triton.jit(do_not_specialize=COUNTS)
def carry(
    parts, totals, A, start, channels, segments,
    BACK: tl.constexpr, HAS_START: tl.constexpr, STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, W: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Turns what each segment adds into the state before it or, BACK, into the gradient of the state after it."""
    row = tl.program_id(1).to(tl.int64)
    e, t = _channels(tl.program_id(0), W, P, C), _steps(T)
    n = _states(e, Q, P)
    here, both = e < channels, (e < channels) & (n < STATES)
    rates = _one(A, e * STATES + n, both) * LOG2_E
    state = _one(start, (row * channels + e) * STATES + n, both & HAS_START)
    for j in range(0, tl.cdiv(segments, T)):
        i = j * T + t
        # What the last one adds is not asked for.
        inner = i < segments - 1
        of_channel = (row * segments + (segments - 1 - i if BACK else i)) * channels + e
        part = _load(parts, of_channel * STATES + n, both & inner)
        decay = tl.exp2(_load(totals, of_channel, here & inner) * rates[None])
        before = part
        for k in tl.static_range(T):
            before = tl.where(t == k, state[None], before)
            state = _at(decay, t, k) * state + _at(part, t, k)
        tl.store(parts + of_channel * STATES + n, before, mask=both & (i < segments))


@triton.jit(do_not_specialize=COUNTS)
def scan_forward(
    u, delta, A, B, C_maps, D, z, bias, start, lengths, out, last, saved,
    channels, length, chunks, segment_steps, segments,
    u_b, u_e, u_l, d_b, d_e, d_l, z_b, z_e, z_l, o_b, o_e, o_l,
    WAY: tl.constexpr, ADD: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_START: tl.constexpr, HAS_LENGTHS: tl.constexpr, KEEP: tl.constexpr,
    CHUNK: tl.constexpr, STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, W: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Outputs of a segment from the state before it; with ADD they are added to what is there."""
    row, segment = tl.program_id(2).to(tl.int64), tl.program_id(1)
    e, t = _channels(tl.program_id(0), W, P, C), _steps(T)
    n = _states(e, Q, P)
    here, both = e < channels, (e < channels) & (n < STATES)
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    rates = _one(A, e * STATES + n, both) * LOG2_E
    skip, offset = _load(D, e, here & HAS_D), _load(bias, e, here & HAS_BIAS)
    state = _one(start, ((row * segments + segment) * channels + e) * STATES + n, both & HAS_START)
    u += row * u_b
    z += row * z_b
    delta += row * d_b
    out += row * o_b
    B += row * length * STATES
    C_maps += row * length * STATES
    begin = segment * segment_steps
    for i in range(begin, tl.minimum(begin + segment_steps, valid), T):
        if KEEP:  # noqa: SIM102 - known when compiled
            if i % CHUNK == 0:
                at = ((row * chunks + i // CHUNK) * channels + e) * STATES + n
                tl.store(saved + at, state[None], mask=both)
        ok, first = (t < valid - i) & here, _place(i, valid, WAY)
        d = _sizes(_read(delta, first, WAY * t, e, d_e, d_l, ok) + offset, ok, SOFTPLUS)
        x = _read(u, first, WAY * t, e, u_e, u_l, ok)
        b = _maps(B, first, t, valid - i, n, WAY, STATES)
        c = _maps(C_maps, first, t, valid - i, n, WAY, STATES)
        dx, y = d * x, x * skip
        for k in tl.static_range(T):
            state = tl.exp2(rates * _at(d, t, k)) * state + _at(dx, t, k) * _at(b, t, k)
            y += tl.where(t == k, _over_states((state * _at(c, t, k))[None]), 0.0)
        if HAS_Z:
            gate = _read(z, first, WAY * t, e, z_e, z_l, ok)
            y *= gate * sigmoid(gate)
        mine, place = ok & (_partner(P) == 0), _along(out, first, WAY * t, e, o_e, o_l)
        if ADD:
            y += tl.load(place, mask=mine, other=0.0).to(tl.float32)
        tl.store(place, y.to(out.dtype.element_ty), mask=mine)
    if segment == segments - 1:
        tl.store(last + (row * channels + e) * STATES + n, state[None], mask=both)


@triton.jit
def _advance(
    state, u, delta, B, i, valid, e, n, here, rates, offset, u_e, u_l, d_e, d_l,
    WAY: tl.constexpr, SOFTPLUS: tl.constexpr, STATES: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """The state T steps after step i."""
    t = _steps(T)
    ok, first = (t < valid - i) & here, _place(i, valid, WAY)
    d = _sizes(_read(delta, first, WAY * t, e, d_e, d_l, ok) + offset, ok, SOFTPLUS)
    dx = d * _read(u, first, WAY * t, e, u_e, u_l, ok)
    b = _maps(B, first, t, valid - i, n, WAY, STATES)
    for k in tl.static_range(T):
        state = tl.exp2(rates * _at(d, t, k)) * state + _at(dx, t, k) * _at(b, t, k)
    return state


@triton.jit(do_not_specialize=COUNTS)
def scan_backward(
    out_grad, carried, saved, u, delta, A, B, C_maps, D, z, bias, lengths,
    u_grad, delta_grad, z_grad, b_grad, c_grad, a_grad, skip_grad, bias_grad, start_grad,
    channels, length, chunks, segment_chunks, segments,
    g_b, g_e, g_l, u_b, u_e, u_l, d_b, d_e, d_l, z_b, z_e, z_l, ug_b, ug_e, ug_l, dg_b, dg_e, dg_l, zg_b, zg_e, zg_l,
    WAY: tl.constexpr, ADD: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, CHUNK: tl.constexpr, PART: tl.constexpr, PRECISE: tl.constexpr,
    STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, W: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradients of a segment from that of the state after it; with ADD, those of z are added to what is there.

    A chunk is first gone through to its end, and the state before each of its parts is kept; then back, T steps at a
    time, whose states are computed once more from the part's first. `a_grad` may be where `carried` is.
    """
    row, segment, block = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    e, t, parts = _channels(block, W, P, C), _steps(T), _steps(CHUNK // PART)
    n, first_of_channel = _states(e, Q, P), _partner(P) == 0
    here, both = e < channels, (e < channels) & (n < STATES)
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    rates = _one(A, e * STATES + n, both) * LOG2_E
    skip, offset = _load(D, e, here & HAS_D), _load(bias, e, here & HAS_BIAS)
    of_segment = ((row * segments + segment) * channels + e) * STATES + n
    # Between two steps: the gradient of the state by all that comes later.
    later = _one(carried, of_segment, both)
    rates_grad, skips, offsets = rates * 0.0, tl.sum(skip * 0.0, axis=0), tl.sum(skip * 0.0, axis=0)
    u += row * u_b
    z += row * z_b
    delta += row * d_b
    out_grad += row * g_b
    u_grad += row * ug_b
    z_grad += row * zg_b
    delta_grad += row * dg_b
    B += row * length * STATES
    C_maps += row * length * STATES
    of_maps = (block * tl.num_programs(2) + row) * length
    flat = tl.arange(0, T * Q * P * 4)
    t_flat, n_flat = flat // (Q * P * 4), flat % (Q * P * 4)
    begin = segment * segment_chunks
    many = tl.maximum(tl.minimum(tl.cdiv(valid, CHUNK) - begin, segment_chunks), 0)
    for back in range(0, many):
        chunk = begin + many - 1 - back
        state = _one(saved, ((row * chunks + chunk) * channels + e) * STATES + n, both)
        tiles = tl.cdiv(tl.minimum(valid - chunk * CHUNK, CHUNK), T)
        starts = tl.zeros((CHUNK // PART, Q, W, P, C, 4), tl.float32) + state[None]
        for j in range(1, tiles):
            state = _advance(
                state, u, delta, B, chunk * CHUNK + (j - 1) * T, valid, e, n, here, rates, offset,
                u_e, u_l, d_e, d_l, WAY, SOFTPLUS, STATES, T,
            )  # fmt: skip
            starts = tl.where(parts * (PART // T) == j, state[None], starts)
        for j in range(0, tiles):
            tile = tiles - 1 - j
            part = tile // (PART // T)
            state = _at(starts, parts, part)
            for before in range(part * (PART // T), tile):
                state = _advance(
                    state, u, delta, B, chunk * CHUNK + before * T, valid, e, n, here, rates, offset,
                    u_e, u_l, d_e, d_l, WAY, SOFTPLUS, STATES, T,
                )  # fmt: skip
            i = chunk * CHUNK + tile * T
            ok, first = (t < valid - i) & here, _place(i, valid, WAY)
            mine = ok & first_of_channel
            raw = _read(delta, first, WAY * t, e, d_e, d_l, ok) + offset
            x = _read(u, first, WAY * t, e, u_e, u_l, ok)
            y_grad = _read(out_grad, first, WAY * t, e, g_e, g_l, ok)
            d = _sizes(raw, ok, SOFTPLUS)
            dx = d * x
            decayed = tl.zeros((T, Q, W, P, C, 4), tl.float32)
            h, y = decayed, x * skip
            for k in tl.static_range(T):
                state *= tl.exp2(rates * _at(d, t, k))
                decayed = tl.where(t == k, state[None], decayed)
                state += _at(dx, t, k) * _map(B, first, k, valid - i, n, WAY, STATES)
                h = tl.where(t == k, state[None], h)
                if HAS_Z:
                    c = _map(C_maps, first, k, valid - i, n, WAY, STATES)
                    y += tl.where(t == k, _over_states((state * c)[None]), 0.0)
            if HAS_Z:
                gate = _read(z, first, WAY * t, e, z_e, z_l, ok)
                open = sigmoid(gate)
                z_part = y_grad * y * open * (1.0 + gate * (1.0 - open))
                place = _along(z_grad, first, WAY * t, e, zg_e, zg_l)
                if ADD:
                    z_part += tl.load(place, mask=mine, other=0.0).to(tl.float32)
                tl.store(place, z_part.to(z_grad.dtype.element_ty), mask=mine)
                y_grad *= gate * open
            at, known = (of_maps + first + WAY * t_flat) * STATES + n_flat, (t_flat < valid - i) & (n_flat < STATES)
            tl.store(c_grad + at, _over_channels(y_grad * h, PRECISE), mask=known)
            x_grad, rate_parts, b_parts = x * 0.0, x * 0.0, decayed
            for s in tl.static_range(T):
                later += _at(y_grad, t, T - 1 - s) * _map(C_maps, first, T - 1 - s, valid - i, n, WAY, STATES)
                b_parts = tl.where(t == T - 1 - s, (later * _at(dx, t, T - 1 - s))[None], b_parts)
                exponent_grad = later * _at(decayed, t, T - 1 - s)
                rates_grad += exponent_grad * _at(d, t, T - 1 - s)
                rate_parts += tl.where(t == T - 1 - s, _over_states((exponent_grad * rates)[None]), 0.0)
                b = _map(B, first, T - 1 - s, valid - i, n, WAY, STATES)
                x_grad += tl.where(t == T - 1 - s, _over_states((later * b)[None]), 0.0)
                later *= tl.exp2(rates * _at(d, t, T - 1 - s))
            tl.store(b_grad + at, _over_channels(b_parts, PRECISE), mask=known)
            raw_grad = rate_parts * LN_2 + x_grad * x
            if SOFTPLUS:
                raw_grad *= tl.where(raw > 20.0, 1.0, sigmoid(raw))
            raw_grad = tl.where(ok, raw_grad, 0.0)
            place = _along(u_grad, first, WAY * t, e, ug_e, ug_l)
            tl.store(place, (x_grad * d + y_grad * skip).to(u_grad.dtype.element_ty), mask=mine)
            place = _along(delta_grad, first, WAY * t, e, dg_e, dg_l)
            tl.store(place, raw_grad.to(delta_grad.dtype.element_ty), mask=mine)
            skips += tl.sum(y_grad * x, axis=0)
            offsets += tl.sum(raw_grad, axis=0)
    tl.store(a_grad + of_segment, rates_grad[None], mask=both)
    of_channel = (row * segments + segment) * channels + e
    tl.store(skip_grad + of_channel, skips[None], mask=here & first_of_channel)
    tl.store(bias_grad + of_channel, offsets[None], mask=here & first_of_channel)
    if segment == 0:
        tl.store(start_grad + (row * channels + e) * STATES + n, later[None], mask=both)
