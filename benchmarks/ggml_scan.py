"""The selective scan of ggml, the library of llama.cpp, over tensors of torch (package ggml-python)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import ggml
import torch
from torch import Tensor


def ggml_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Callable[[], None], Tensor]:
    """What computes the scan of one row, softplus of delta included, by as many threads as torch has, and its output.

    u and delta [1, E, L], A [E, S], B and C [1, S, L] are copied once; each call fills the output [1, E, L] anew.
    """
    wide = [x.transpose(1, 2).contiguous() for x in (u, delta, B, C)]
    (_, channels, steps), states = u.shape, A.shape[1]
    room = 8 * 4 * (u.numel() + B.numel()) + 2**22
    context = ggml.ggml_init(ggml.ggml_init_params(mem_size=room, mem_buffer=None, no_alloc=False))

    def given(x: Tensor, *shape: int) -> object:
        kind = ggml.GGML_TYPE_I32 if x.dtype == torch.int32 else ggml.GGML_TYPE_F32
        held = ggml.ggml_new_tensor(context, kind, len(shape), (ctypes.c_int64 * len(shape))(*shape))
        ctypes.memmove(ggml.ggml_get_data(held), x.data_ptr(), 4 * x.numel())
        return held

    # Mamba has one channel a head; the state begins at zero, that of sequence 0 is taken.
    start, row = torch.zeros(states * channels), torch.zeros(1, dtype=torch.int32)
    along = [given(wide[0], 1, channels, steps, 1), given(wide[1], channels, steps, 1)]
    maps = [given(x, states, 1, steps, 1) for x in wide[2:]]
    rates = given(A.contiguous(), states, channels)
    out = ggml.ggml_ssm_scan(context, given(start, states, 1, channels, 1), *along, rates, *maps, given(row, 1))
    graph = ggml.ggml_new_graph(context)
    ggml.ggml_build_forward_expand(graph, out)
    values = (ctypes.c_float * u.numel()).from_address(ggml.ggml_get_data(out))
    found = torch.frombuffer(values, dtype=torch.float32).view(1, steps, channels).transpose(1, 2)
    return lambda: ggml.ggml_graph_compute_with_ctx(context, graph, torch.get_num_threads()), found
