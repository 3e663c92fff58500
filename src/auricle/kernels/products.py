"""Matrix products with weights on CPUs with AVX-512.

torch multiplies float32 by MKL, which uses AVX2 on processors of other makers than its own: half of what they can do.
oneDNN, which torch holds too, uses AVX-512 on all of them.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.kernels.backends import numbers_only


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, faster where it is float32 on a CPU and nothing is differentiated or compiled.

    Args:
        x: [..., K]; weight: [N, K]; bias: [N].

    Returns:
        [..., N].
    """
    if _by_onednn(x, weight, bias):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return F.linear(x, weight, bias)


def _by_onednn(*given: Tensor | None) -> bool:
    return (
        numbers_only(*given)
        and all(x is None or (x.dtype == torch.float32 and x.device.type == "cpu") for x in given)
        and not torch.is_autocast_enabled("cpu")
        and _has_avx512()
    )


@functools.cache
def _has_avx512() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
