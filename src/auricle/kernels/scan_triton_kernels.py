"""Triton's kernels of the selective scan; `scan_triton` says which of them run, and on what.

A thread keeps the states of one channel and goes through the steps one after the other: then no step waits for other
threads, and nothing is moved between them but sums. Tensors have the shape [T, N, H] of T steps, N = 4 Q states of a
thread and H threads; where there are more states, P threads share a channel, and S = N P.

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
def _over_states(x, P: tl.constexpr):
    """The sum of x [N, H] over a channel's states: [1, 1, H]."""
    sums = tl.sum(x, axis=0)
    if P > 1:
        H: tl.constexpr = x.shape[1]
        apart = tl.reshape(sums, (H // 32, P, 32 // P))
        together = tl.broadcast_to(tl.sum(apart, axis=1, keep_dims=True), (H // 32, P, 32 // P))
        sums = tl.reshape(together, (H,))
    return _wide(sums)


@triton.jit
def _over_channels(x, P: tl.constexpr, PRECISE: tl.constexpr):
    """The sum of x [T, N, H] over a program's channels, [T S], by the matrix unit: of 11 bits or, PRECISE, of 22."""
    T: tl.constexpr = x.shape[0]
    Q: tl.constexpr = x.shape[1] // 4
    H: tl.constexpr = x.shape[2]
    table = tl.reshape(x, (T * Q * 4, H))
    if P > 1:
        apart = tl.permute(tl.reshape(x, (T, Q, 4, H // 32, P, 32 // P)), (0, 1, 4, 2, 3, 5))
        table = tl.reshape(apart, (T * Q * P * 4, H // P))
    ones = tl.full((H // P, 16), 1.0, tl.float32)
    if PRECISE:
        # The bits that a number for the matrix unit has, and the rest.
        high = (table.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        sums = tl.dot(high, ones, tl.dot(table - high, ones, input_precision="tf32"), input_precision="tf32")
    else:
        sums = tl.dot(table, ones, input_precision="tf32")
    return tl.max(sums, axis=1)


@triton.jit
def _steps(STEPS: tl.constexpr):
    return tl.arange(0, STEPS)[:, None, None]


@triton.jit
def _channels(block, H: tl.constexpr, P: tl.constexpr):
    """Channels of the threads: [H]."""
    thread = tl.arange(0, H)
    if P == 1:
        return block * H + thread
    return block * (H // P) + thread // 32 * (32 // P) + thread % (32 // P)


@triton.jit
def _partner(H: tl.constexpr, P: tl.constexpr):
    """Which of the threads of its channel each is: [H]."""
    return tl.arange(0, H) % 32 // (32 // P)


@triton.jit
def _wide(x):
    """[H] as [1, 1, H]."""
    return x[None, None, :]


# The compiler chooses for each load which thread has what, and moves everything else to fit. So one load is of [H], a
# number for each thread, or of [H, 4], four neighbours for each: then there is nothing to choose.


@triton.jit
def _fours(q: tl.constexpr, H: tl.constexpr, Q: tl.constexpr, P: tl.constexpr):
    """The q-th four states of the threads: [H, 4]."""
    return ((q * P + _partner(H, P)) * 4)[:, None] + tl.arange(0, 4)[None, :]


@triton.jit
def _known(n, STATES: tl.constexpr, ok):
    """`ok` [H, 4], where there is a state n: without a test, if there is always one."""
    if STATES < 4 or STATES & (STATES - 1):
        ok = ok & (n < STATES)
    return ok


@triton.jit
def _load_states(base, of_channel, ok, STATES: tl.constexpr, Q: tl.constexpr, P: tl.constexpr):
    """[N, H] of a tensor [E, S]; `of_channel` [H], and where it is meant."""
    H: tl.constexpr = of_channel.shape[0]
    found = tl.zeros((Q, 4, H), tl.float32)
    for q in tl.static_range(Q):
        at = base + of_channel[:, None] * STATES + _fours(q, H, Q, P)
        four = tl.trans(tl.load(at, mask=_known(_fours(q, H, Q, P), STATES, ok[:, None]), other=0.0).to(tl.float32))
        found = tl.where(_steps(Q) == q, four[None], found)
    return tl.reshape(found, (Q * 4, H))


@triton.jit
def _store_states(base, of_channel, ok, x, STATES: tl.constexpr, Q: tl.constexpr, P: tl.constexpr):
    """x [N, H] into a tensor [E, S]."""
    H: tl.constexpr = of_channel.shape[0]
    fours = tl.reshape(x, (Q, 4, H))
    for q in tl.static_range(Q):
        n = _fours(q, H, Q, P)
        four = tl.trans(_at(fours, _steps(Q), q))
        tl.store(base + of_channel[:, None] * STATES + n, four, mask=_known(n, STATES, ok[:, None]))


@triton.jit
def _load_channels(base, e, ok):
    """[1, 1, H] of a tensor [E]."""
    return _wide(tl.load(base + e, mask=ok, other=0.0).to(tl.float32))


@triton.jit
def _read(base, first, e, left, here, stride_e, stride_l, WAY: tl.constexpr, T: tl.constexpr):
    """[T, 1, H] of a row at `base`, from the place `first` on; 0 after the `left` steps."""
    t, found = _steps(T), tl.zeros((T, 1, e.shape[0]), tl.float32)
    for k in tl.static_range(T):
        at = base + (first + WAY * k) * stride_l + e.to(tl.int64) * stride_e
        step = _wide(tl.load(at, mask=here & (k < left), other=0.0).to(tl.float32))
        found = tl.where(t == k, step, found)
    return found


@triton.jit
def _write(base, first, e, left, here, stride_e, stride_l, x, WAY: tl.constexpr, ADD: tl.constexpr):
    """x [T, 1, H] to where `_read` reads."""
    t = _steps(x.shape[0])
    for k in tl.static_range(x.shape[0]):
        at, ok = base + (first + WAY * k) * stride_l + e.to(tl.int64) * stride_e, here & (k < left)
        step = tl.reshape(_at(x, t, k), (e.shape[0],))
        if ADD:
            step += tl.load(at, mask=ok, other=0.0).to(tl.float32)
        tl.store(at, step.to(base.dtype.element_ty), mask=ok)


@triton.jit
def _map(
    base, first, k, left, WAY: tl.constexpr, STATES: tl.constexpr, H: tl.constexpr, Q: tl.constexpr, P: tl.constexpr
):
    """[N, H] of B or C, k steps on: after the last of the `left` steps, its values again, which nothing depends on."""
    place = base + (first + WAY * tl.minimum(k, left - 1)) * STATES
    return _load_states(place, tl.zeros((H,), tl.int32), tl.full((H,), 1, tl.int1), STATES, Q, P)


@triton.jit
def _place(i, valid, WAY: tl.constexpr):
    """Where step i of a scan is in memory."""
    return tl.cast(i if WAY == 1 else valid - 1 - i, tl.int64)


@triton.jit
def _there(left, here, T: tl.constexpr):
    """Which steps and channels there are: [T, 1, H]."""
    return (_steps(T) < left) & _wide(here)


@triton.jit
def _sizes(raw, ok, SOFTPLUS: tl.constexpr):
    return tl.where(ok, softplus(raw), 0.0) if SOFTPLUS else tl.where(ok, raw, 0.0)


@triton.jit(do_not_specialize=COUNTS)
def summarise(
    x, z, delta, maps, A, bias, lengths, parts, totals,
    channels, length, segment_steps, segments, x_b, x_e, x_l, z_b, z_e, z_l, d_b, d_e, d_l,
    BACK: tl.constexpr, WAY: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_LENGTHS: tl.constexpr, STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, H: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """What a segment adds to the state after it or, BACK, to the gradient of the state before it; and its sum of d.

    The sum over the steps of exp2(A' distance) x_l map_l, where the distance is the sum of d between a step and the end
    that looks on: x is d u and the map is B or, BACK, x is the gradient of the output and the map is C.
    """
    row, segment = tl.program_id(2).to(tl.int64), tl.program_id(1) + BACK
    e, t = _channels(tl.program_id(0), H, P), _steps(T)
    here = e < channels
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    rates = _load_states(A, e, here, STATES, Q, P) * LOG2_E
    offset = _load_channels(bias, e, here & HAS_BIAS)
    total, distance = rates * 0.0, tl.sum(offset * 0.0, axis=0)
    x += row * x_b
    z += row * z_b
    delta += row * d_b
    maps += row * length * STATES
    begin = segment * segment_steps
    tiles = tl.cdiv(tl.maximum(tl.minimum(valid - begin, segment_steps), 0), T)
    for j in range(0, tiles):
        i = begin + (j if BACK else tiles - 1 - j) * T
        left, first = valid - i, _place(i, valid, WAY)
        d = _read(delta, first, e, left, here, d_e, d_l, WAY, T) + offset
        d = _sizes(d, _there(left, here, T), SOFTPLUS)
        weight = _read(x, first, e, left, here, x_e, x_l, WAY, T)
        if HAS_Z:
            gate = _read(z, first, e, left, here, z_e, z_l, WAY, T)
            weight *= gate * sigmoid(gate)
        if not BACK:
            weight *= d
        for s in tl.static_range(T):
            if BACK:
                distance += _at(d, t, s)
                m = _map(maps, first, s, left, WAY, STATES, H, Q, P)
                total += tl.exp2(rates * distance) * (_at(weight, t, s) * m)
            else:
                m = _map(maps, first, T - 1 - s, left, WAY, STATES, H, Q, P)
                total += tl.exp2(rates * distance) * (_at(weight, t, T - 1 - s) * m)
                distance += _at(d, t, T - 1 - s)
    of_channel = (row * segments + segment) * channels + e
    _store_states(parts, of_channel, here, total, STATES, Q, P)
    tl.store(totals + of_channel, tl.reshape(distance, (H,)), mask=here & (_partner(H, P) == 0))


@triton.jit(do_not_specialize=COUNTS)
def carry(
    parts, totals, A, start, channels, segments,
    BACK: tl.constexpr, HAS_START: tl.constexpr, STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, H: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Turns what each segment adds into the state before it or, BACK, into the gradient of the state after it."""
    row = tl.program_id(1).to(tl.int64)
    e, t = _channels(tl.program_id(0), H, P), _steps(T)
    here = e < channels
    rates = _load_states(A, e, here, STATES, Q, P) * LOG2_E
    state = _load_states(start, row * channels + e, here & HAS_START, STATES, Q, P)
    for j in range(0, tl.cdiv(segments, T)):
        # All are loaded before the first is used. What the last one adds is not asked for.
        added, apart = tl.zeros((T, 4 * Q, H), tl.float32), tl.zeros((T, 1, H), tl.float32)
        for k in tl.static_range(T):
            i = j * T + k
            of_channel = (row * segments + (segments - 1 - i if BACK else i)) * channels + e
            inner = here & (i < segments - 1)
            part = _load_states(parts, of_channel, inner, STATES, Q, P)[None]
            distance = _load_channels(totals, of_channel, inner)
            added = tl.where(t == k, part, added)
            apart = tl.where(t == k, distance, apart)
        for k in tl.static_range(T):
            i = j * T + k
            of_channel = (row * segments + (segments - 1 - i if BACK else i)) * channels + e
            _store_states(parts, of_channel, here & (i < segments), state, STATES, Q, P)
            state = tl.exp2(_at(apart, t, k) * rates) * state + _at(added, t, k)


@triton.jit(do_not_specialize=COUNTS)
def scan_forward(
    u, delta, A, B, C, D, z, bias, start, lengths, out, last, saved,
    channels, length, chunks, segment_steps, segments,
    u_b, u_e, u_l, d_b, d_e, d_l, z_b, z_e, z_l, o_b, o_e, o_l,
    WAY: tl.constexpr, ADD: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_START: tl.constexpr, HAS_LENGTHS: tl.constexpr, KEEP: tl.constexpr,
    CHUNK: tl.constexpr, STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, H: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Outputs of a segment from the state before it; with ADD they are added to what is there."""
    row, segment = tl.program_id(2).to(tl.int64), tl.program_id(1)
    e, t = _channels(tl.program_id(0), H, P), _steps(T)
    here, first_of_channel = e < channels, _partner(H, P) == 0
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    rates = _load_states(A, e, here, STATES, Q, P) * LOG2_E
    skip, offset = _load_channels(D, e, here & HAS_D), _load_channels(bias, e, here & HAS_BIAS)
    state = _load_states(start, (row * segments + segment) * channels + e, here & HAS_START, STATES, Q, P)
    u += row * u_b
    z += row * z_b
    delta += row * d_b
    out += row * o_b
    B += row * length * STATES
    C += row * length * STATES
    begin = segment * segment_steps
    for i in range(begin, tl.minimum(begin + segment_steps, valid), T):
        if KEEP:  # noqa: SIM102 - known when compiled
            if i % CHUNK == 0:
                _store_states(saved, (row * chunks + i // CHUNK) * channels + e, here, state, STATES, Q, P)
        left, first = valid - i, _place(i, valid, WAY)
        d = _read(delta, first, e, left, here, d_e, d_l, WAY, T) + offset
        d = _sizes(d, _there(left, here, T), SOFTPLUS)
        x = _read(u, first, e, left, here, u_e, u_l, WAY, T)
        if HAS_Z:
            gate = _read(z, first, e, left, here, z_e, z_l, WAY, T)
        dx, y = d * x, x * skip
        for k in tl.static_range(T):
            b = _map(B, first, k, left, WAY, STATES, H, Q, P)
            state = tl.exp2(rates * _at(d, t, k)) * state + _at(dx, t, k) * b
            c = _map(C, first, k, left, WAY, STATES, H, Q, P)
            y += tl.where(t == k, _over_states(state * c, P), 0.0)
        if HAS_Z:
            y *= gate * sigmoid(gate)
        _write(out, first, e, left, here & first_of_channel, o_e, o_l, y, WAY, ADD)
    if segment == segments - 1:
        _store_states(last, row * channels + e, here, state, STATES, Q, P)


@triton.jit
def _advance(
    state, u, delta, B, i, valid, e, here, rates, offset, u_e, u_l, d_e, d_l,
    WAY: tl.constexpr, SOFTPLUS: tl.constexpr, STATES: tl.constexpr,
    T: tl.constexpr, Q: tl.constexpr, H: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The state T steps after step i."""
    t, left, first = _steps(T), valid - i, _place(i, valid, WAY)
    d = _read(delta, first, e, left, here, d_e, d_l, WAY, T) + offset
    d = _sizes(d, _there(left, here, T), SOFTPLUS)
    dx = d * _read(u, first, e, left, here, u_e, u_l, WAY, T)
    for k in tl.static_range(T):
        b = _map(B, first, k, left, WAY, STATES, H, Q, P)
        state = tl.exp2(rates * _at(d, t, k)) * state + _at(dx, t, k) * b
    return state


@triton.jit(do_not_specialize=COUNTS)
def scan_backward(
    out_grad, carried, saved, u, delta, A, B, C, D, z, bias, lengths,
    u_grad, delta_grad, z_grad, b_grad, c_grad, a_grad, skip_grad, bias_grad, start_grad,
    channels, length, chunks, segment_chunks, segments,
    g_b, g_e, g_l, u_b, u_e, u_l, d_b, d_e, d_l, z_b, z_e, z_l, ug_b, ug_e, ug_l, dg_b, dg_e, dg_l, zg_b, zg_e, zg_l,
    WAY: tl.constexpr, ADD: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, CHUNK: tl.constexpr, PART: tl.constexpr, PRECISE: tl.constexpr,
    STATES: tl.constexpr, T: tl.constexpr, Q: tl.constexpr, H: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Gradients of a segment from that of the state after it; with ADD, those of z are added to what is there.

    A chunk is first gone through to its end, and the state before each of its parts is kept; then back, T steps at a
    time, whose states are computed once more from the part's first. `a_grad` may be where `carried` is.
    """
    row, segment, block = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    e, t, parts = _channels(block, H, P), _steps(T), _steps(CHUNK // PART)
    here, mine = e < channels, (e < channels) & (_partner(H, P) == 0)
    valid = valid_steps(lengths, row, length, HAS_LENGTHS)
    rates = _load_states(A, e, here, STATES, Q, P) * LOG2_E
    skip, offset = _load_channels(D, e, here & HAS_D), _load_channels(bias, e, here & HAS_BIAS)
    of_segment = (row * segments + segment) * channels + e
    # Between two steps: the gradient of the state by all that comes later.
    later = _load_states(carried, of_segment, here, STATES, Q, P)
    rates_grad, skips, offsets = rates * 0.0, tl.sum(skip * 0.0, axis=0), tl.sum(skip * 0.0, axis=0)
    u += row * u_b
    z += row * z_b
    delta += row * d_b
    out_grad += row * g_b
    u_grad += row * ug_b
    z_grad += row * zg_b
    delta_grad += row * dg_b
    B += row * length * STATES
    C += row * length * STATES
    of_maps = (block * tl.num_programs(2) + row) * length
    flat = tl.arange(0, T * Q * P * 4)
    t_flat, n_flat = flat // (Q * P * 4), flat % (Q * P * 4)
    begin = segment * segment_chunks
    many = tl.maximum(tl.minimum(tl.cdiv(valid, CHUNK) - begin, segment_chunks), 0)
    for back in range(0, many):
        chunk = begin + many - 1 - back
        state = _load_states(saved, (row * chunks + chunk) * channels + e, here, STATES, Q, P)
        tiles = tl.cdiv(tl.minimum(valid - chunk * CHUNK, CHUNK), T)
        starts = tl.broadcast_to(state[None], (CHUNK // PART, 4 * Q, H))
        for j in range(1, tiles):
            state = _advance(
                state, u, delta, B, chunk * CHUNK + (j - 1) * T, valid, e, here, rates, offset,
                u_e, u_l, d_e, d_l, WAY, SOFTPLUS, STATES, T, Q, H, P,
            )  # fmt: skip
            starts = tl.where(parts * (PART // T) == j, state[None], starts)
        for j in range(0, tiles):
            tile = tiles - 1 - j
            part = tile // (PART // T)
            state = _at(starts, parts, part)
            for before in range(part * (PART // T), tile):
                state = _advance(
                    state, u, delta, B, chunk * CHUNK + before * T, valid, e, here, rates, offset,
                    u_e, u_l, d_e, d_l, WAY, SOFTPLUS, STATES, T, Q, H, P,
                )  # fmt: skip
            i = chunk * CHUNK + tile * T
            left, first = valid - i, _place(i, valid, WAY)
            ok = _there(left, here, T)
            raw = _read(delta, first, e, left, here, d_e, d_l, WAY, T) + offset
            x = _read(u, first, e, left, here, u_e, u_l, WAY, T)
            y_grad = _read(out_grad, first, e, left, here, g_e, g_l, WAY, T)
            d = _sizes(raw, ok, SOFTPLUS)
            dx, y = d * x, x * skip
            decayed, h = tl.zeros((T, 4 * Q, H), tl.float32), tl.zeros((T, 4 * Q, H), tl.float32)
            for k in tl.static_range(T):
                state *= tl.exp2(rates * _at(d, t, k))
                decayed = (
                    tl.broadcast_to(state[None], (T, 4 * Q, H)) if k == 0 else tl.where(t == k, state[None], decayed)
                )
                state += _at(dx, t, k) * _map(B, first, k, left, WAY, STATES, H, Q, P)
                h = tl.where(t == k, state[None], h)
                if HAS_Z:
                    c = _map(C, first, k, left, WAY, STATES, H, Q, P)
                    y += tl.where(t == k, _over_states(state * c, P), 0.0)
            if HAS_Z:
                gate = _read(z, first, e, left, here, z_e, z_l, WAY, T)
                open = sigmoid(gate)
                z_part = y_grad * y * open * (1.0 + gate * (1.0 - open))
                _write(z_grad, first, e, left, mine, zg_e, zg_l, z_part, WAY, ADD)
                y_grad *= gate * open
            at, known = (of_maps + first + WAY * t_flat) * STATES + n_flat, (t_flat < left) & (n_flat < STATES)
            tl.store(c_grad + at, _over_channels(y_grad * h, P, PRECISE), mask=known)
            x_grad, rate_parts, b_parts = x * 0.0, x * 0.0, decayed
            for s in tl.static_range(T):
                later += _at(y_grad, t, T - 1 - s) * _map(C, first, T - 1 - s, left, WAY, STATES, H, Q, P)
                b_parts = tl.where(t == T - 1 - s, (later * _at(dx, t, T - 1 - s))[None], b_parts)
                exponent_grad = later * _at(decayed, t, T - 1 - s)
                rates_grad += exponent_grad * _at(d, t, T - 1 - s)
                rate_parts += tl.where(t == T - 1 - s, _over_states(exponent_grad * rates, P), 0.0)
                b = _map(B, first, T - 1 - s, left, WAY, STATES, H, Q, P)
                x_grad += tl.where(t == T - 1 - s, _over_states(later * b, P), 0.0)
                later *= tl.exp2(rates * _at(d, t, T - 1 - s))
            tl.store(b_grad + at, _over_channels(b_parts, P, PRECISE), mask=known)
            raw_grad = rate_parts * LN_2 + x_grad * x
            if SOFTPLUS:
                raw_grad *= tl.where(raw > 20.0, 1.0, sigmoid(raw))
            raw_grad = tl.where(ok, raw_grad, 0.0)
            _write(u_grad, first, e, left, mine, ug_e, ug_l, x_grad * d + y_grad * skip, WAY, False)
            _write(delta_grad, first, e, left, mine, dg_e, dg_l, raw_grad, WAY, False)
            skips += tl.sum(y_grad * x, axis=0)
            offsets += tl.sum(raw_grad, axis=0)
    _store_states(a_grad, of_segment, here, rates_grad, STATES, Q, P)
    tl.store(skip_grad + of_segment, tl.reshape(skips, (H,)), mask=mine)
    tl.store(bias_grad + of_segment, tl.reshape(offsets, (H,)), mask=mine)
    if segment == 0:
        _store_states(start_grad, row * channels + e, here, later, STATES, Q, P)
