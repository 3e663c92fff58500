"""How fast the C++ selective scan is: beside a loop, beside plain torch, and beside what the machine could do.

    python benchmarks/selective_scan.py [--write] [--quick]

One thread on one core, which the process keeps to; all contestants take turns on the same numbers (one row, the width
of SSAMBA-tiny), and a ratio is the median over turns with the least and the greatest. CPU time of the process is
counted, so that what else the machine does disturbs little. With --write, the tables go into docs/kernels.md. llama.cpp
takes part if ggml-python is installed (benchmarks/requirements-speed.txt). About two minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from official_scan import loop
from timing import Times, interleaved, machine, spread, table, write_page
from torch import Tensor

from auricle.errors import ConfigError
from auricle.kernels import backends, native, scan_native, selective_scan
from auricle.training.estimate import peak_mb

ROOT = Path(__file__).parent.parent
# Of the page, what follows this heading is measured.
PAGE, HEADING = ROOT / "docs" / "kernels.md", "## Measured\n"
CHANNELS, STATES = 384, 16
LENGTHS, MEMORY_LENGTHS = (2048, 8192), (2048, 4096, 8192, 16384)
SETS = ("avx512", "avx2", "portable")
# Multiply-adds per channel, state and step beside the exponential: forward d A, x B, the state, y; the way back does
# the same again and then eight more.
FORWARD_OPERATIONS, BOTH_OPERATIONS = 4, 16
# Per channel and step beside the decays: softplus takes an exponential and a logarithm, counted as another, and SiLU an
# exponential.
OTHER_EXPONENTIALS = 3
WORK = ("forward", "forward + backward")


def ours(*tensors: Tensor) -> Tensor:
    out = selective_scan(*tensors, delta_softplus=True)
    assert isinstance(out, Tensor)
    return out


def plain(*tensors: Tensor) -> Tensor:
    with backends.use("torch"):
        return ours(*tensors)


CONTESTANTS: dict[str, Callable[..., Tensor]] = {"native": ours, "plain torch": plain, "loop": loop}


def numbers(length: int) -> list[Tensor]:
    """u, delta, A, B, C, D, z and delta_bias of one row, channels side by side."""
    rng = torch.Generator().manual_seed(0)

    def sequence(width: int) -> Tensor:
        return torch.randn(1, length, width, generator=rng).transpose(1, 2)

    rates = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)
    parts = [sequence(CHANNELS), sequence(CHANNELS), rates, sequence(STATES), sequence(STATES)]
    return [*parts, torch.ones(CHANNELS), sequence(CHANNELS), torch.randn(CHANNELS, generator=rng) - 4]


def work(
    scan: Callable[..., Tensor], kind: str, length: int, dtype: torch.dtype = torch.float32
) -> Callable[[], object]:
    given = [x.to(dtype) if x.ndim == 3 else x for x in numbers(length)]
    if kind == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return scan(*given)

        return forward
    leaves = [x.requires_grad_() for x in given]
    out_grad = torch.ones(1, length, CHANNELS, dtype=dtype).transpose(1, 2)
    return lambda: torch.autograd.grad(scan(*leaves), leaves, out_grad)


def times(kind: str, length: int, repeats: int) -> dict[str, Times]:
    """CPU seconds of everyone; the fast ones do it many times in a turn."""
    many = {"native": max(1, 40960 // length), "plain torch": 1, "loop": 1}
    runs = {name: work(scan, kind, length) for name, scan in CONTESTANTS.items()}

    def turn(name: str) -> Callable[[], object]:
        return lambda: [runs[name]() for _ in range(many[name])]

    found = interleaved({name: turn(name) for name in runs}, repeats, time.process_time)
    return {name: Times(tuple(s / many[name] for s in taken.seconds)) for name, taken in found.items()}


def against_others(lengths: tuple[int, ...], repeats: int) -> list[list[object]]:
    rows: list[list[object]] = []
    for length in lengths:
        for kind in WORK:
            found = times(kind, length, repeats)
            for name, taken in found.items():
                ratio = "" if name == "native" else spread(taken.over(found["native"]), 1)
                rows.append([length, kind, name, f"{1000 * taken.median:.2f}", ratio])
    return rows


def against_ggml(lengths: tuple[int, ...], repeats: int) -> list[list[object]]:
    """Forward only, without D and z, which llama.cpp computes apart from its scan."""
    if not find_spec("ggml"):
        return []
    from ggml_scan import ggml_scan

    rows: list[list[object]] = []
    for length in lengths:
        u, delta, A, B, C, *_ = numbers(length)
        run, found = ggml_scan(u, delta, A, B, C)
        many = max(1, 40960 // length)

        def native_scan(*given: Tensor, many: int = many) -> None:
            for _ in range(many):
                selective_scan(*given, delta_softplus=True)

        turns = {"native": partial(native_scan, u, delta, A, B, C), "ggml": run}
        with torch.no_grad():
            times = interleaved(turns, repeats, time.process_time)
            torch.testing.assert_close(
                found, selective_scan(u, delta, A, B, C, delta_softplus=True), rtol=1e-4, atol=1e-4
            )
        native_times = Times(tuple(s / many for s in times["native"].seconds))
        rows.append([length, "forward, no D or z", "native", f"{1000 * native_times.median:.2f}", ""])
        ratio = spread(times["ggml"].over(native_times), 1)
        rows.append([length, "forward, no D or z", "ggml", f"{1000 * times['ggml'].median:.2f}", ratio])
    return rows


def peak_rates(instructions: str) -> tuple[float, float]:
    """Exponentials and multiply-adds per second of one core, by the kernels' own vectors (peak_rates.cpp)."""
    sys.path.insert(0, str(ROOT))
    from hatch_build import COMMON, SOURCES, X86

    width = {"avx512": 16, "avx2": 8, "portable": 4}[instructions]
    compiler = os.environ.get("CXX") or next(c for c in ("g++", "clang++", "c++") if shutil.which(c))
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder, "peak_rates"))
        source = [str(Path(__file__).with_name("peak_rates.cpp")), f"-I{SOURCES}", f"-DWIDTH={width}", "-w"]
        subprocess.run([compiler, *COMMON, *X86[instructions], *source, "-o", program], check=True)
        exponentials, multiply_adds = subprocess.run(
            [program], capture_output=True, text=True, check=True
        ).stdout.split()
    return float(exponentials), float(multiply_adds)


def moved_bytes(kind: str, length: int) -> int:
    """What must be read and written once: u, delta, z, out, B and C; on the way back also the states of every 32
    steps (written and read), the gradient that comes in and those that go out."""
    along, maps = 4 * CHANNELS * length, 4 * STATES * length
    forward = 4 * along + 2 * maps
    if kind == "forward":
        return forward
    kept = 2 * along * STATES // scan_native.CHUNK
    return forward + kept + 4 * along + 2 * maps + 3 * along + 2 * maps


def bandwidth(size: int) -> float:
    """Bytes per second, read and written, of a sum of as many bytes in all."""
    a, b, c = (torch.ones(size // 12) for _ in range(3))
    best = 0.0
    for _ in range(30):
        begin = time.process_time()
        for _ in range(10):
            torch.add(a, b, out=c)
        best = max(best, 10 * 12 * len(a) / (time.process_time() - begin))
    return best


def against_the_machine(length: int, repeats: int) -> list[list[object]]:
    rows: list[list[object]] = []
    for instructions in available():
        exponentials, multiply_adds = peak_rates(instructions)
        for kind, operations in zip(WORK, (FORWARD_OPERATIONS, BOTH_OPERATIONS), strict=True):
            passes = 1 if kind == "forward" else 2
            count = passes * CHANNELS * length * (STATES + OTHER_EXPONENTIALS)
            size = moved_bytes(kind, length)
            speed = bandwidth(size)
            run = work(ours, kind, length)
            # The best run, as the peak rates are the best of theirs.
            seconds = min(interleaved({"native": run}, 20 * repeats, time.process_time)["native"].seconds)
            limit = max(count / exponentials, size / speed)
            arithmetic = count / exponentials + operations * CHANNELS * STATES * length / multiply_adds
            rows.append(
                [
                    instructions,
                    kind,
                    f"{count / 1e6:.1f} M at {exponentials / 1e9:.1f} G/s",
                    f"{size / 1e6:.1f} MB at {speed / 1e9:.0f} GB/s",
                    f"{1000 * limit:.2f}",
                    f"{1000 * arithmetic:.2f}",
                    f"{1000 * seconds:.2f}",
                    f"{seconds / limit:.2f}",
                    f"{seconds / max(arithmetic, size / speed):.2f}",
                ]
            )
    return rows


def half_precision(length: int, repeats: int) -> list[list[object]]:
    """Sequences in 16 bits, read and written by the kernels, beside converting them before and after."""
    rows: list[list[object]] = []
    for dtype in (torch.bfloat16, torch.float16):
        for kind in WORK:

            def converted(*tensors: Tensor, dtype: torch.dtype = dtype) -> Tensor:
                return ours(*(x.float() for x in tensors)).to(dtype)

            runs = {scan.__name__: work(scan, kind, length, dtype) for scan in (ours, converted)}
            found = interleaved(runs, 20 * repeats, time.process_time)
            best = {name: min(taken.seconds) for name, taken in found.items()}
            ratio = spread(found["converted"].over(found["ours"]), 2)
            rows.append([str(dtype)[6:], kind, *(f"{1000 * best[name]:.2f}" for name in runs), ratio])
    return rows


def spent(kind: str, length: int, repeats: int) -> list[list[object]]:
    """Where the time of one call goes: in the kernels, in the first touch of what they write, and around them."""
    called, again = 0.0, 0.0
    original = native.run

    def twice(name: str, problems: list[Any]) -> None:
        """The second call finds the memory in use."""
        nonlocal called, again
        begin = time.process_time()
        original(name, problems)
        middle = time.process_time()
        original(name, problems)
        called, again = called + middle - begin, again + time.process_time() - middle

    rows: list[list[object]] = []
    for instructions in available():
        run = work(ours, kind, length)
        found = []
        native.run = twice
        for _ in range(20 * repeats):
            called, again = 0.0, 0.0
            begin = time.process_time()
            run()
            found.append((again, called - again, time.process_time() - begin - called - again))
        native.run = original
        parts = [statistics.median(part) for part in zip(*found, strict=True)]
        rows.append([instructions, kind, *(f"{1000 * part:.2f}" for part in parts)])
    return rows


def available() -> Iterator[str]:
    """Each instruction set that this processor has, while the kernels use it."""
    for instructions in SETS:
        try:
            native.set_instruction_set(instructions)
        except ConfigError:
            continue
        yield instructions
    native.set_instruction_set("")


def grown_mb(name: str, length: int) -> float:
    """By how much a fresh process grows at its peak while it does a forward and backward pass."""
    command = [sys.executable, __file__, "--memory-of", name, str(length)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(name: str, length: int) -> None:
    torch.set_num_threads(1)
    work(CONTESTANTS[name], WORK[1], 64)()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    work(CONTESTANTS[name], WORK[1], length)()
    print(peak_mb() - before)


def memory(lengths: tuple[int, ...]) -> list[list[object]]:
    rows: list[list[object]] = []
    for length in lengths:
        slow = f"{grown_mb('loop', length):.0f}" if length <= LENGTHS[-1] else ""
        mb = grown_mb("native", length)
        plain_mb = f"{grown_mb('plain torch', length):.0f}" if slow else ""
        rows.append([length, f"{mb:.0f}", f"{1024 * mb / length:.1f}", plain_mb, slow])
    return rows


def tables(options: argparse.Namespace) -> str:
    lengths, repeats = ((256, 512), 2) if options.quick else (LENGTHS, options.repeats)
    command = "`python benchmarks/selective_scan.py --write`"
    parts = [
        f"Made by {command}: {machine(1)}. One thread, pinned to one core, CPU time; batch 1, {CHANNELS} channels, "
        f"{STATES} states (SSAMBA-tiny), float32, softplus, D and z. CPU time leaves out what other jobs take; "
        f"core, caches and memory are shared with them: the load was {os.getloadavg()[1]:.0f} at the start.",
        "### Beside a loop and plain torch",
        "The loop follows the official reference operation by operation. Plain torch is what a machine without a "
        "compiler uses. ggml is the library of llama.cpp, as the package ggml-python builds it. Times are medians over "
        "turns of all contestants, each of which finds the caches and the memory as the one before left them.",
        table(
            ["steps", "work", "scan", "ms", "time / native"],
            [*against_others(lengths, repeats), *against_ggml(lengths, repeats)],
        ),
        "### Beside what the machine could do",
        f"At {lengths[0]} steps. The limit is the greater of two times: that of the exponentials (one decay for each "
        "channel, state and step, and three more for each channel and step: softplus, its logarithm and SiLU; twice, "
        "for the way back computes them again) at the rate of a loop that does nothing else, and that of the bytes "
        "that must be read and written once at the rate of a sum of arrays of the same size. The limit with arithmetic "
        f"adds {FORWARD_OPERATIONS} multiply-adds per channel, state and step ({BOTH_OPERATIONS} with the way back) at "
        "their own peak rate. Peak rates (`benchmarks/peak_rates.cpp`) and times are the best of this run, in which "
        "native repeats alone: they are less than the medians above.",
        table(
            [
                "instructions",
                "work",
                "exponentials",
                "bytes",
                "limit, ms",
                "with arithmetic, ms",
                "native, ms",
                "native / limit",
                "/ with arithmetic",
            ],
            against_the_machine(lengths[0], max(3, repeats)),
        ),
        "### Where the time goes",
        f"At {lengths[0]} steps, the medians of calls whose kernels run twice: the second time, what they write to is "
        "in use already. What is around the kernels is autograd, Python and the sums over blocks of channels.",
        table(
            ["instructions", "work", "kernels, ms", "first touch of fresh memory, ms", "around the kernels, ms"],
            [row for kind in WORK for row in spent(kind, lengths[0], max(3, repeats))],
        ),
        "### In half precision",
        f"At {lengths[0]} steps, the best of each and the median of their ratios with the least and the greatest.",
        table(
            ["sequences", "work", "native, ms", "converted before and after, ms", "time / native"],
            half_precision(lengths[0], max(3, repeats)),
        ),
        "### Memory of a forward and backward pass",
        "What a fresh process grows by at its peak, tensors and gradients included.",
        table(
            ["steps", "native, MB", "KB per step", "plain torch, MB", "loop, MB"],
            memory(lengths if options.quick else MEMORY_LENGTHS),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/kernels.md")
    parser.add_argument("--quick", action="store_true", help="short scans, to try it")
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="R", help="turns that are timed, after one that is not"
    )
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        measure_memory(options.memory_of[0], int(options.memory_of[1]))
        return 0
    if options.write and options.quick:
        parser.error("--quick times scans that nobody runs; leave out --write")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    text = tables(options)
    print(text)
    if options.write:
        written = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
        write_page(PAGE, f"{written}{HEADING}\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
