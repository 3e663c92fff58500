"""Compiles Triton's kernels for GPUs that need not be there: python compile_for_gpus.py CAPABILITY."""

from __future__ import annotations

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from auricle.kernels import convolution_triton, scan_triton

COUNTS = ("rows", "channels", "states", "length", "chunks", "backward_bits")
HALVES = ("u", "delta", "B", "C", "z", "out", "out_grad", "x", "y_grad")
OPTIONS = {"STEPS": 64, "CHANNELS": 8, "STATES": 16, "WIDTH": 4}


def compile_for(kernel: triton.JITFunction, capability: int) -> None:
    """With all options on, for bfloat16 inputs; raises if it cannot be."""
    signature, constants = {}, {}
    for parameter in kernel.params:
        name = parameter.name
        if parameter.is_constexpr:
            constants[name] = OPTIONS.get(name, True)
            signature[name] = "constexpr"
        elif name in COUNTS:
            signature[name] = "i32"
        elif "_" in name and name.rpartition("_")[2] in "kbesl":
            signature[name] = "i64"
        else:
            signature[name] = "*bf16" if name in HALVES else "*i64" if name == "lengths" else "*fp32"
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8})
    print(kernel.__name__, capability, len(compiled.asm["cubin"]))


if __name__ == "__main__":
    for kernel in (scan_triton._scan_forward, scan_triton._scan_backward, convolution_triton._convolve):
        compile_for(kernel, int(sys.argv[1]))
