"""What pretraining SSAST on AudioSet-2M would cost on 1, 8 and 64 GPUs, and what binds.

    python benchmarks/pretraining_cost.py [--write] [--NAME VALUE ...]

Measured or counted here: parameters, floating-point operations of a step (torch.utils.flop_counter, on the real
objective), and seconds of audio that one core of this machine reads per second. Everything about GPUs and links is an
assumption with a name, a source and an option to change it; a rate that you measured replaces the assumed one
(--clips-per-second, from `auricle bench`). With --write, the page goes to docs/costs.md. About a minute.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from reading import FILES, reading_rate, write_clips
from ssast_contestants import audio, batch_of
from timing import machine, table, write_page
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from auricle.methods import ssast

PAGE = Path(__file__).parent.parent / "docs" / "costs.md"


@dataclass(frozen=True)
class Assumption:
    """A number that was not measured here: its option, value, unit, and where it is from."""

    option: str
    value: float
    unit: str
    source: str


ASSUMPTIONS = (
    Assumption("clips", 2_042_985, "clips", "AudioSet's unbalanced training list (research.google.com/audioset)"),
    Assumption("epochs", 10, "", "SSAST, run_mask_patch.sh"),
    Assumption("batch", 24, "clips per GPU", "SSAST, run_mask_patch.sh (there in all; more GPUs mean a larger batch)"),
    Assumption("peak", 989, "TFLOP/s per GPU", "NVIDIA's H100 SXM data sheet, bf16 without sparsity"),
    Assumption("utilisation", 0.3, "of the peak", "a guess; plain PyTorch on networks of this width: 0.2 to 0.4"),
    Assumption("cores", 14, "per GPU, all reading", "DGX H100: 112 cores for 8 GPUs"),
    Assumption("inside", 450, "GB/s per GPU and direction", "NVIDIA's H100 SXM data sheet: NVLink, 900 GB/s both ways"),
    Assumption("between", 50, "GB/s per GPU and direction", "DGX H100: a 400 Gbit/s adapter per GPU"),
    Assumption("node", 8, "GPUs per node", "DGX H100"),
)
UTILISATIONS = (0.2, 0.3, 0.4)


@dataclass(frozen=True)
class Step:
    """Seconds of one step on every GPU at once, were each resource alone."""

    compute: float
    input: float
    network: float

    @property
    def overlapped(self) -> float:
        return max(self.compute, self.input, self.network)

    @property
    def in_turn(self) -> float:
        return self.compute + self.input + self.network

    @property
    def binds(self) -> str:
        return max(("compute", "input", "network"), key=lambda name: float(getattr(self, name)))


def count_operations(preset: str) -> tuple[int, dict[int, int]]:
    """Parameters, and floating-point operations (a multiplication and an addition are two) of forward and backward of
    one clip of 10.2 s, with the official two passes and with one that serves both losses."""
    module = ssast.build_objective(ssast.PRESETS[preset].model).train()
    batch = batch_of(torch.from_numpy(audio(1, 1024)))
    operations = {}
    for passes in (2, 1):
        module.config = replace(module.config, passes=passes)
        # The counter does not know the fused attention of CPUs; written out, its products are counted like all others.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(batch, 0.0)["loss"].backward()
        operations[passes] = counter.get_total_flops()
    return sum(p.numel() for p in module.parameters()), operations


def step_of(
    gpus: int, operations: int, gradient_bytes: float, heard_per_core: float, a: dict[str, float], rate: float
) -> Step:
    """One step on `gpus`; `rate` clips per second and GPU, if it was measured."""
    compute = a["batch"] / rate if rate else a["batch"] * operations / (a["peak"] * 1e12 * a["utilisation"])
    # A ring sends and receives every gradient twice, but for the share that is at home; its slowest link decides.
    link = a["inside"] if gpus <= a["node"] else a["between"]
    network = 2 * (gpus - 1) / gpus * gradient_bytes / (link * 1e9)
    return Step(compute, a["batch"] * 10.0 / (heard_per_core * a["cores"]), network)


def rows_of(
    operations: dict[int, int],
    gradient_bytes: float,
    heard: dict[str, float],
    a: dict[str, float],
    options: argparse.Namespace,
) -> list[list[object]]:
    """The table: every kind of step on every number of GPUs, reading every kind of file."""
    rows: list[list[object]] = []
    for passes, kind in ((2, "flac, 16000 Hz"), (1, "flac, 16000 Hz"), (1, "flac, 44100 Hz")):
        for gpus in (1, 8, 64):
            # The rate is that of the official two passes.
            rate = options.clips_per_second * operations[2] / operations[passes]
            step = step_of(gpus, operations[passes], gradient_bytes, heard[kind], a, rate)
            steps = math.ceil(a["epochs"] * a["clips"] / (a["batch"] * gpus))
            hours = [steps * seconds / 3600 for seconds in (step.overlapped, step.in_turn)]
            row: list[object] = [passes, kind, gpus, f"{a['batch'] * gpus:.0f}", f"{steps:,}"]
            row += [f"{1000 * x:.1f}" for x in (step.compute, step.input, step.network)]
            row += [step.binds, f"{hours[0]:.1f} - {hours[1]:.1f}", f"{gpus * hours[0]:.0f}"]
            rows.append(row + ([f"{gpus * hours[0] * options.price:,.0f}"] if options.price else []))
    return rows


def by_utilisation(operations: dict[int, int], a: dict[str, float]) -> list[list[object]]:
    """GPU hours of compute alone, for each number of passes and each utilisation."""
    total = a["epochs"] * a["clips"] / (a["peak"] * 1e12) / 3600
    return [[passes, *(f"{total * operations[passes] / u:.0f}" for u in UTILISATIONS)] for passes in (2, 1)]


def page(options: argparse.Namespace, heard: dict[str, float]) -> str:
    """The page of the docs."""
    a = {x.option: float(getattr(options, x.option)) for x in ASSUMPTIONS}
    parameters, operations = count_operations(options.preset)
    header = ["passes", "files", "GPUs", "global batch", "steps", "compute ms", "input ms", "network ms", "binds"]
    header += ["hours", "GPU hours"] + (["price"] if options.price else [])
    given = {x.option: "" if a[x.option] == x.value else ", changed by an option" for x in ASSUMPTIONS}
    counted: list[list[object]] = [
        ["parameters", f"{parameters:,}", "counted; as many gradients in fp32 are exchanged per step"],
        ["operations of a clip, two passes", f"{operations[2] / 1e9:.0f} GFLOP", "counted, forward and backward"],
        ["operations of a clip, one pass", f"{operations[1] / 1e9:.0f} GFLOP", "counted, forward and backward"],
        *(
            [f"audio read, {kind}", f"{s:,.0f} s per second and core", "measured, one process, noise"]
            for kind, s in heard.items()
        ),
    ]
    rate = options.clips_per_second
    speed = (
        f" Compute is {rate:g} clips/s per GPU with two passes, as given, and in proportion with one." if rate else ""
    )
    parts = [
        "# What pretraining costs",
        f"SSAST {options.preset}, clips of 10.2 s, on AudioSet-2M. Made by `python benchmarks/pretraining_cost.py "
        f"--write`: {machine(torch.get_num_threads())}.",
        "Nobody ran these trainings: the first table was counted and measured, the second is assumed, the third is "
        "arithmetic on both.",
        "## Counted and measured here",
        table(["what", "value", "how"], counted),
        "## Assumed",
        table(
            ["option", "value", "unit", "source"],
            [[f"`--{x.option}`", f"{a[x.option]:,.10g}", x.unit, x.source + given[x.option]] for x in ASSUMPTIONS],
        ),
        "## What follows",
        "Per step, compute is batch x operations / (peak x utilisation), input is batch x 10 s / (cores x audio read), "
        "network is 2 (n - 1) / n x gradient bytes / the slowest link (a ring). The first number of hours is for "
        "perfect overlap, where only what binds counts, the second for none. The front end runs on the GPU, uncounted."
        + speed,
        table(header, rows_of(operations, 4.0 * parameters, heard, a, options)),
        "What the utilisation decides, on 8 GPUs where compute binds (GPU hours):",
        table(["passes", *(f"utilisation {u:g}" for u in UTILISATIONS)], by_utilisation(operations, a)),
        "More GPUs at 24 clips each are another recipe: the paper trained with 24 clips in all, and the learning rate "
        "must follow the batch. Audio that is already at 16 kHz costs a fraction of what resampling in training does. "
        "Cores of a GPU server differ from this machine's; measure there: `--cores`, `--clips-per-second`.",
    ]
    return "\n\n".join(parts) + "\n"


def measure_reading(clips: int) -> dict[str, float]:
    """Seconds of audio that one process reads per second, by kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            f"{kind}, {rate} Hz": write_clips(Path(folder), kind, rate, clips) for kind, rate in FILES if kind == "flac"
        }
        return {name: reading_rate(items) for name, items in kinds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/costs.md")
    for x in ASSUMPTIONS:
        parser.add_argument(
            f"--{x.option}", type=float, default=x.value, metavar="X", help=f"{x.unit or 'of the recipe'}"
        )
    parser.add_argument(
        "--clips-per-second", type=float, default=0.0, metavar="X", help="of two passes, measured, per GPU"
    )
    parser.add_argument("--price", type=float, default=0.0, metavar="X", help="of a GPU hour; adds a column")
    parser.add_argument("--preset", default="base-patch", choices=sorted(ssast.PRESETS), help="another network")
    parser.add_argument("--files", type=int, default=64, metavar="N", help="clips of 10 s that are written and read")
    options = parser.parse_args()
    for name, value in vars(options).items():
        if isinstance(value, float) and value <= 0 and name not in ("clips_per_second", "price"):
            parser.error(f"--{name} must be above 0, got {value:g}")
    text = page(options, measure_reading(options.files))
    print(text)
    if options.write:
        write_page(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
