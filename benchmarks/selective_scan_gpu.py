"""How fast Triton's selective scan is on a GPU: beside the CUDA kernels of mamba_ssm, and in several block sizes.

    python benchmarks/selective_scan_gpu.py [--write] [--sweep]

The official kernels take part if the package mamba_ssm is installed. All compute the same scan, whose values and
gradients are first compared with float64 on the CPU. With --write, the table goes into docs/kernels.md; --sweep times
the blocks that the kernels could use instead and writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import triton
from timing import table, write_between
from torch import Tensor
from triton.testing import do_bench

from auricle.kernels import native, reference, scan_triton, selective_scan

ROOT = Path(__file__).parent.parent
PAGE, PLACE = ROOT / "docs" / "kernels.md", "measured on a GPU"
STATES = 16
# Rows, channels and steps: SSAMBA-tiny and base, of ten seconds and of the paper's longest clip.
SHAPES = ((1, 384, 2048), (1, 384, 22528), (16, 384, 512), (4, 384, 8192), (16, 1536, 512), (1, 1536, 8192))
TYPES = (torch.float32, torch.bfloat16)
BLOCKS = tuple(itertools.product((2, 4, 8), (32, 64, 128), (1, 2, 4, 8)))
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def numbers(rows: int, channels: int, length: int, dtype: torch.dtype, device: str, side_by_side: bool) -> list[Tensor]:
    """u, delta, A, B, C, D, z and delta_bias; `side_by_side`: channels are neighbours in memory, else steps are."""
    rng = torch.Generator().manual_seed(0)

    def sequence(width: int) -> Tensor:
        shape = (rows, length, width) if side_by_side else (rows, width, length)
        x = torch.randn(shape, generator=rng).to(device, dtype)
        return x.transpose(1, 2) if side_by_side else x

    rates = -torch.arange(1.0, STATES + 1).repeat(channels, 1).to(device)
    wide = [sequence(channels) for _ in range(3)]
    maps = [sequence(STATES) for _ in range(2)]
    skip, bias = torch.ones(channels, device=device), torch.full((channels,), -4.0, device=device)
    return [wide[0], wide[1], rates, *maps, skip, wide[2], bias]


def ours(*tensors: Tensor) -> Tensor:
    out = selective_scan(*tensors, delta_softplus=True)
    assert isinstance(out, Tensor)
    return out


def official(*tensors: Tensor) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    out: Tensor = selective_scan_fn(*tensors, delta_softplus=True)
    return out


def work(scan: Callable[..., Tensor], given: list[Tensor], training: bool) -> Callable[[], object]:
    if not training:

        def forward() -> Tensor:
            with torch.no_grad():
                return scan(*given)

        return forward
    leaves = [x.detach().requires_grad_() for x in given]
    out_grad = torch.ones_like(given[0])
    return lambda: torch.autograd.grad(scan(*leaves), leaves, out_grad)


def milliseconds(run: Callable[[], object]) -> float:
    return float(do_bench(run, warmup=20, rep=60, return_mode="median"))


def peak_mb(run: Callable[[], object]) -> float:
    """What a pass holds at its peak beyond its inputs."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def errors(scan: Callable[..., Tensor]) -> list[float]:
    """Relative errors of the output and of each gradient, in float32, against float64."""
    given = numbers(2, 48, 300, torch.float32, "cpu", True)
    found = []
    for function, dtype, device in ((scan, torch.float32, "cuda"), (truth, torch.float64, "cpu")):
        leaves = [x.detach().to(device, dtype).requires_grad_() for x in given]
        out = function(*leaves)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
    return [float((a.double().cpu() - b).norm() / b.norm()) for a, b in zip(*found, strict=True)]


def truth(*tensors: Tensor) -> Tensor:
    return reference.selective_scan(*tensors, delta_softplus=True)[0]


def compare() -> list[list[object]]:
    """A row for each shape, type and work: milliseconds and MB of ours and of the official kernels."""
    there = find_spec("mamba_ssm") is not None
    rows: list[list[object]] = []
    for (batch, channels, length), dtype, training in itertools.product(SHAPES, TYPES, (False, True)):
        mine = work(ours, numbers(batch, channels, length, dtype, "cuda", True), training)
        time, memory = milliseconds(mine), peak_mb(mine)
        row: list[object] = [f"{batch} x {channels} x {length:,}", str(dtype).removeprefix("torch.")]
        row += ["forward + backward" if training else "forward", f"{time:.3f}", f"{memory:.0f}"]
        if there:
            # Steps are neighbours in memory, as its own mixer gives them.
            theirs = work(official, numbers(batch, channels, length, dtype, "cuda", False), training)
            other, other_memory = milliseconds(theirs), peak_mb(theirs)
            row += [f"{other:.3f}", f"{other_memory:.0f}", f"{other / time:.2f}"]
        rows.append(row)
        print(*row, flush=True)
    return rows


def use_blocks(blocks: tuple[int, int, int]) -> None:
    """Channels and steps of a block, and the warps that work on it."""
    scan_triton.CHANNELS, scan_triton.CHUNK, scan_triton.WARPS = blocks
    native.CHUNK = blocks[1]


def compile_blocks(blocks: tuple[int, int, int]) -> None:
    """In a process of its own, so that many compile at a time: what is compiled stays in Triton's cache."""
    use_blocks(blocks)
    for length in (64, 333):
        with contextlib.suppress(Exception):
            work(ours, numbers(1, 384, length, torch.bfloat16, "cuda", True), True)()


def sweep() -> None:
    """The quickest blocks of each shape, forward and with the way back."""
    usual = (scan_triton.CHANNELS, native.CHUNK, scan_triton.WARPS)
    tried = [(e, t, w) for e, t, w in BLOCKS if 32 * w * 4 <= e * t * STATES <= 32 * w * 256]
    with multiprocessing.get_context("spawn").Pool(12) as pool:
        pool.map(compile_blocks, tried, chunksize=1)
    for (batch, channels, length), training in itertools.product(SHAPES[:4], (False, True)):
        given = numbers(batch, channels, length, torch.bfloat16, "cuda", True)
        found = []
        for blocks in tried:
            use_blocks(blocks)
            try:
                found.append((milliseconds(work(ours, given, training)), blocks))
            except Exception as error:
                print(blocks, type(error).__name__, str(error)[:100])
        use_blocks(usual)
        best = ", ".join(f"{blocks} {ms:.3f}" for ms, blocks in sorted(found)[:8])
        print(f"{batch}x{channels}x{length} {'both' if training else 'forward'}: {best}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: this measures a GPU, and torch sees none; benchmarks/selective_scan.py measures the CPU.")
    if options.sweep:
        sweep()
        return 0
    wrong = errors(ours)
    print("relative errors of", dict(zip(("out", *NAMES), (f"{e:.1e}" for e in wrong), strict=True)))
    header = ["rows x channels x steps", "type", "work", "ms", "MB"]
    if find_spec("mamba_ssm") is not None:
        header += ["mamba_ssm, ms", "mamba_ssm, MB", "mamba_ssm / ours"]
    rows = compare()
    said = (
        f"Made by `python benchmarks/selective_scan_gpu.py --write`: {torch.cuda.get_device_name()}, torch "
        f"{torch.__version__}, Triton {triton.__version__}. {STATES} states, softplus, D and z; memory beyond the "
        f"inputs. Against float64, the output and the gradients differ by at most {max(wrong):.0e} of their norm."
    )
    text = "\n\n".join([said, table(header, rows)])
    if options.write:
        write_between(PAGE, PLACE, text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
