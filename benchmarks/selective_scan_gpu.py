"""How fast Triton's selective scan is on a GPU: beside the CUDA kernels of mamba_ssm, and in several block sizes.

    python benchmarks/selective_scan_gpu.py [--write] [--sweep [--seconds N]] [--parts]

The official kernels take part if the package mamba_ssm is installed. All compute the same scan, whose values and
gradients are first compared with float64 on the CPU. With --write, the table goes into docs/kernels.md; --sweep times
what the kernels could use instead of their constants, --parts each kernel by itself; these write nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import triton
from timing import table, write_between
from torch import Tensor
from triton.testing import do_bench

from auricle.kernels import reference, scan_triton, selective_scan

ROOT = Path(__file__).parent.parent
PAGE, PLACE = ROOT / "docs" / "kernels.md", "measured on a GPU"
STATES = 16
# Rows, channels and steps: SSAMBA-tiny and base, of ten seconds and of the paper's longest clip.
SHAPES = ((1, 384, 2048), (1, 384, 22528), (16, 384, 512), (4, 384, 8192), (16, 1536, 512), (1, 1536, 8192))
TYPES = (torch.float32, torch.bfloat16)
# What the kernels could use instead of their constants.
CHOICES: tuple[dict[str, object], ...] = (
    {},
    {"FORWARD": scan_triton.Threads(4, 16, 1)},
    {"FORWARD": scan_triton.Threads(8, 16, 4)},
    {"FORWARD_WIDTH": 32768},
    {"FORWARD_WIDTH": 131072},
    {"WHOLE_FORWARD": 4096},
    {"WHOLE_FORWARD": 32768},
    {"BACKWARD": scan_triton.Threads(4, 8, 8)},
    {"BACKWARD": scan_triton.Threads(2, 16, 4)},
    {"PART": 8},
    {"PART": 32},
    {"BACKWARD_WIDTH": 65536},
    {"WHOLE_BACKWARD": 4096},
    {"WHOLE_BACKWARD": 32768},
)
BACKWARD_ONLY = ("BACKWARD", "PART", "BACKWARD_WIDTH", "WHOLE_BACKWARD")
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
        ms, memory = milliseconds(mine), peak_mb(mine)
        row: list[object] = [f"{batch} x {channels} x {length:,}", str(dtype).removeprefix("torch.")]
        row += ["forward + backward" if training else "forward", f"{ms:.3f}", f"{memory:.0f}"]
        if there:
            # Steps are neighbours in memory, as its own mixer gives them.
            theirs = work(official, numbers(batch, channels, length, dtype, "cuda", False), training)
            other, other_memory = milliseconds(theirs), peak_mb(theirs)
            row += [f"{other:.3f}", f"{other_memory:.0f}", f"{other / ms:.2f}"]
        rows.append(row)
        print(*row, flush=True)
    return rows


def use(choice: dict[str, object]) -> None:
    """Constants of the kernels by their names."""
    for name, value in choice.items():
        setattr(scan_triton, name, value)


def compile_choice(choice: dict[str, object]) -> None:
    """In a process of its own, so that many compile at a time: what is compiled stays in Triton's cache."""
    use(choice)
    for (batch, channels, length), dtype in itertools.product(SHAPES[:3], TYPES):
        with contextlib.suppress(Exception):
            work(ours, numbers(batch, channels, min(length, 4096), dtype, "cuda", True), True)()


def sweep(seconds: float) -> None:
    """The quickest constants for each shape, forward and with the way back; ends in about so many seconds."""
    until = time.monotonic() + seconds
    usual = {name: getattr(scan_triton, name) for choice in CHOICES for name in choice}
    with multiprocessing.get_context("spawn").Pool(14) as pool:
        # What is not compiled in half of the time is left out.
        waiting = [pool.apply_async(compile_choice, (choice,)) for choice in CHOICES]
        while time.monotonic() < until - seconds / 2 and not all(one.ready() for one in waiting):
            time.sleep(0.1)
        ready = [choice for choice, one in zip(CHOICES, waiting, strict=True) if one.ready()]
    print(f"{len(ready)} of {len(CHOICES)} choices are compiled", flush=True)
    for (batch, channels, length), training in itertools.product(SHAPES, (False, True)):
        for dtype in TYPES:
            given = numbers(batch, channels, length, dtype, "cuda", True)
            found: list[tuple[float, str]] = []
            for choice in ready:
                if time.monotonic() > until:
                    break
                if not training and any(name in BACKWARD_ONLY for name in choice):
                    continue
                use(usual | choice)
                said = ", ".join(f"{name} {tuple(x) if isinstance(x, tuple) else x}" for name, x in choice.items())
                try:
                    found.append((quick(work(ours, given, training)), said or "as it is"))
                except Exception as error:
                    print(said, type(error).__name__, str(error)[:100])
            use(usual)
            best = "; ".join(f"{ms:.3f} {said}" for ms, said in sorted(found))
            print(f"{batch}x{channels}x{length} {dtype} {'both' if training else 'forward'}: {best}", flush=True)


def quick(run: Callable[[], object]) -> float:
    return float(do_bench(run, warmup=4, rep=20, return_mode="median"))


def parts() -> None:
    """Milliseconds of each kernel, by the profiler."""
    for (batch, channels, length), dtype in itertools.product(SHAPES, TYPES):
        run = work(ours, numbers(batch, channels, length, dtype, "cuda", True), True)
        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(5):
                run()
            torch.cuda.synchronize()
        times = sorted(
            ((x.device_time_total / 5000, x.key, x.count // 5) for x in profile.key_averages()), reverse=True
        )
        said = "; ".join(f"{key[:28]} x{count} {ms:.3f}" for ms, key, count in times[:9])
        print(f"{batch}x{channels}x{length} {dtype}: {said}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--seconds", type=float, default=90.0, help="what a sweep may take (default 90)")
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: this measures a GPU, and torch sees none; benchmarks/selective_scan.py measures the CPU.")
    if options.sweep:
        # Whoever stops it stops its processes too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        sweep(options.seconds)
        return 0
    if options.parts:
        parts()
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
