"""Compiles Triton's kernels for GPUs that need not be there: python compile_for_gpus.py CAPABILITY."""

from __future__ import annotations

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from auricle.kernels import convolution_triton, scan_triton
from auricle.kernels import scan_triton_kernels as scans

COUNTS = ("channels", "length", "chunks", "segment_steps", "segment_chunks", "segments", "rows", "backward_bits")
HALVES = ("u", "delta", "z", "out", "out_grad", "x", "y_grad", "u_grad", "delta_grad", "z_grad")
STATES = 16
CONVOLUTION = {"STEPS": 64, "CHANNELS": 32, "WIDTH": 4, "num_warps": 8}


def compile_for(kernel: triton.JITFunction, sizes: dict[str, int], capability: int) -> None:
    """With all options on, for bfloat16 inputs whose channels are neighbours; raises if it cannot be."""
    signature: dict[str, str] = {}
    constants: dict[str, object] = {}
    for parameter in kernel.params:
        name = parameter.name
        if parameter.is_constexpr or name.endswith("_e"):
            # The distance between channels is 1, which the compiler is told as it is at run time.
            constants[name] = 1 if name.endswith("_e") else sizes.get(name, True)
            signature[name] = "constexpr"
        elif name in COUNTS:
            signature[name] = "i32"
        elif "_" in name and name.rpartition("_")[2] in "kbl":
            signature[name] = "i64"
        else:
            signature[name] = "*bf16" if name in HALVES else "*i64" if name == "lengths" else "*fp32"
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": sizes["num_warps"]}
    )
    print(kernel.__name__, capability, len(compiled.asm["cubin"]))


if __name__ == "__main__":
    chunks = {"CHUNK": scan_triton.CHUNK, "PART": scan_triton.PART, "WAY": -1}
    forward = scan_triton.FORWARD.options(STATES) | chunks
    for kernel, sizes in (
        (scans.summarise, forward),
        (scans.carry, scan_triton.CARRY.options(STATES)),
        (scans.scan_forward, forward),
        (scans.scan_backward, scan_triton.BACKWARD.options(STATES) | chunks),
        (convolution_triton._convolve, CONVOLUTION),
    ):
        compile_for(kernel, sizes, int(sys.argv[1]))
