"""The selective scan by the C++ kernels: tensors in and out.

K scans in one call (the directions of a block), B batch, E channels, S states, L steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from auricle.kernels import native
from auricle.kernels.layout import room
from auricle.kernels.native import BLOCK, CHUNK

# u, delta, A, B, C, D, z, delta_bias and the initial state, as `scan` describes them.
Tensors = Sequence[Tensor | None]
Z, PARAMETERS = 6, (2, 5, 7, 8)


def forward(
    tensors: Tensors, lengths: Tensor | None, softplus: bool, reverse: Sequence[bool], keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """out [B, E, L], the last states [K, B, E, S] and, with `keep`, those before each chunk [K, B, chunks, S, E]."""
    u = tensors[0]
    assert u is not None
    last, saved = states_like(u, tensors[2], keep, CHUNK)
    problems, alive = _problems(tensors, lengths, softplus, reverse)
    out, partial = native.summed(problems, "out", u[0], u.dtype)
    for k, problem in enumerate(problems):
        problem.last = native.pointer(last[k])
        problem.saved = native.pointer(saved[k]) if keep else None
    native.run("scan_forward", problems)
    del alive, partial
    return out, last, saved


def states_like(u: Tensor, A: Tensor | None, keep: bool, chunk: int) -> tuple[Tensor, Tensor]:
    """Room for the last states [K, B, E, S] and those before each chunk of steps [K, B, chunks, S, E], in float32."""
    assert A is not None
    scans, batch, channels, length = u.shape
    chunks = (length + chunk - 1) // chunk if keep else 0
    return (
        u.new_empty(scans, batch, channels, A.shape[-1], dtype=torch.float32),
        u.new_empty(scans, batch, chunks, A.shape[-1], channels, dtype=torch.float32),
    )


def _problems(
    tensors: Tensors, lengths: Tensor | None, softplus: bool, reverse: Sequence[bool]
) -> tuple[list[native.Scan], list[Tensor | None]]:
    """The C structures, and the tensors that must live as long as they."""
    whole = [
        None if x is None else x.float().contiguous() if index in PARAMETERS else native.readable(x)
        for index, x in enumerate(tensors)
    ]
    assert whole[0] is not None
    valid = native.steps(lengths, whole[0].shape[-1])
    problems = []
    for k, backward in enumerate(reverse):
        parts = [x if x is None or index == Z else x[k] for index, x in enumerate(whole)]
        u, delta, A, B, C, D, z, bias, start = parts
        assert u is not None
        assert A is not None
        problems.append(
            native.Scan(
                batch=u.shape[0],
                channels=u.shape[1],
                states=A.shape[1],
                length=u.shape[2],
                softplus=softplus,
                reverse=backward,
                u=native.strided(u),
                delta=native.strided(delta),
                z=native.strided(z),
                b=native.strided(B),
                c=native.strided(C),
                a=native.pointer(A),
                skip=native.pointer(D),
                bias=native.pointer(bias),
                initial=native.pointer(start),
                lengths=native.pointer(valid),
            )
        )
    return problems, [*whole, valid]


def backward(
    out_grad: Tensor,
    last_grad: Tensor,
    saved: Tensor,
    tensors: Tensors,
    lengths: Tensor | None,
    softplus: bool,
    reverse: Sequence[bool],
) -> list[Tensor]:
    """Gradients of `tensors`, along the steps in their types, else in float32; that of an absent z is empty."""
    u, delta, A, z = *tensors[:3], tensors[Z]
    assert u is not None
    assert delta is not None
    assert A is not None
    (scans, batch, channels, length), states = u.shape, A.shape[-1]
    blocks = (channels + BLOCK - 1) // BLOCK
    out_grad, last_grad = native.readable(out_grad), last_grad.contiguous()
    u_grad, delta_grad = (room(u, native.readable(x).dtype) for x in (u, delta))
    shapes = {
        **dict.fromkeys(("b_grad", "c_grad"), (blocks, batch, length, states)),
        **dict.fromkeys(("a_grad", "initial_grad"), (batch, channels, states)),
        **dict.fromkeys(("skip_grad", "bias_grad"), (batch, channels)),
    }
    parts = {name: last_grad.new_empty(scans, *shape) for name, shape in shapes.items()}
    problems, alive = _problems((*tensors[:8], None), lengths, softplus, reverse)
    z_grad = partial = u.new_empty(0)
    if z is not None:
        z_grad, partial = native.summed(problems, "z_grad", z, native.readable(z).dtype)
    for k, problem in enumerate(problems):
        problem.saved, problem.last_grad = native.pointer(saved[k]), native.pointer(last_grad[k])
        problem.out_grad = native.strided(out_grad)
        problem.u_grad, problem.delta_grad = native.strided(u_grad[k]), native.strided(delta_grad[k])
        for name, tensor in parts.items():
            setattr(problem, name, native.pointer(tensor[k]))
    native.run("scan_backward", problems)
    del alive, partial
    return [
        u_grad,
        delta_grad,
        _total(parts["a_grad"]),
        _total(parts["b_grad"]).transpose(2, 3),
        _total(parts["c_grad"]).transpose(2, 3),
        _total(parts["skip_grad"]),
        z_grad,
        _total(parts["bias_grad"]),
        parts["initial_grad"],
    ]


def _total(parts: Tensor) -> Tensor:
    """The sum over the second dimension, of which a single part needs no pass."""
    return parts[:, 0] if parts.shape[1] == 1 else parts.sum(1)
