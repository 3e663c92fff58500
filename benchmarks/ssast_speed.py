"""How fast SSAST is, and how much memory it takes, beside transformers' AST and other front ends.

    python benchmarks/ssast_speed.py [--write] [--quick] [--threads N] [--repeats R]

All contestants get the same audio, batch and thread count, and take turns; a ratio is the median over turns, with the
least and the greatest. Memory is what the resident set of a fresh process grows by at its peak, while it does the work
twice, from after its imports and a turn with a very small network, which loads the libraries. Peers that are not
installed are left out (benchmarks/requirements-speed.txt). With --write, the tables go to docs/ssast_speed.md. About
twelve minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from reading import FILES, heard, read_by_loader, read_plainly, write_clips
from ssast_contestants import CPU, RATE, Run, Size, audio, batch_of, front_ends, ours, ssast_config, theirs
from threadpoolctl import threadpool_limits
from timing import Times, interleaved, machine, spread, table, write_page
from torch.nn.functional import cosine_similarity

from auricle.data.buckets import buckets_of, by_length
from auricle.methods import ssast
from auricle.training.estimate import peak_mb
from auricle.training.precision import has_fast_bf16

PAGE = Path(__file__).parent.parent / "docs" / "ssast_speed.md"
SIZES = (
    Size("tiny", 192, 3, 12, train_batch=8, embed_batch=8),
    Size("base", 768, 12, 12, train_batch=2, embed_batch=2),
)
QUICK = (Size("quick", 48, 3, 2, train_batch=2, embed_batch=2),)
WORK = ("embedding", "fine-tuning step", "pretraining step")
ATTENTION = ("eager", "sdpa")
OUR = "auricle"


def contestants(work: str, size: Size, precisions: tuple[str, ...]) -> dict[str, Run]:
    """Everyone who does this work, by name and precision."""
    runs = {f"{OUR} {p}": ours(work, size, p) for p in precisions}
    if work == "pretraining step":
        runs |= {f"{OUR} two passes {p}": ours(work, size, p, passes=2) for p in precisions}
    elif "fp32" in precisions:
        runs[f"{OUR} without front end fp32"] = ours(work, size, from_features=True)
    if find_spec("transformers"):
        for attention in ATTENTION:
            runs |= {f"transformers {attention} {p}": theirs(work, size, attention, p) for p in precisions}
        if work != "pretraining step":
            runs["transformers sdpa without front end fp32"] = theirs(work, size, "sdpa", from_features=True)
    return runs


def networks(
    sizes: tuple[Size, ...], precisions: tuple[str, ...], repeats: int, memory: bool
) -> Iterator[list[object]]:
    """Rows of the main table: work, size, batch, contestant, ms per clip, memory, and both over ours."""
    for size in sizes:
        for work in WORK:
            times = interleaved(contestants(work, size, precisions), repeats)
            grown = {name: grown_mb(work, size, name) for name in times if memory and "front end" not in name}
            for name, seconds in times.items():
                precision = name.rpartition(" ")[2]
                against = f"{OUR} without front end fp32" if "without" in name else f"{OUR} {precision}"
                mb, our_mb = grown.get(name, 0), grown.get(against, 0)
                yield [
                    work,
                    size.name,
                    size.batch(work),
                    name,
                    f"{1000 * seconds.median / size.batch(work):.0f}",
                    "" if name == against else spread(seconds.over(times[against])),
                    "" if precision == "bf16" or "bf16" not in precisions else default_ratio(seconds, times),
                    f"{mb:.0f}" if mb else "",
                    f"{mb / our_mb:.2f}" if mb and name != against else "",
                ]


def default_ratio(seconds: Times, times: dict[str, Times]) -> str:
    """An fp32 contestant over what auricle chooses by itself on a CPU with bf16 instructions."""
    return spread(seconds.over(times[f"{OUR} bf16"]))


def grown_mb(work: str, size: Size, name: str) -> float:
    """Memory of one contestant in a process of its own."""
    task = json.dumps({"work": work, "size": asdict(size), "name": name, "threads": torch.get_num_threads()})
    command = [sys.executable, __file__, "--memory-of", task]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(task: str) -> None:
    """In the fresh process, on Linux: print by how many MB its resident set grows."""
    given = json.loads(task)
    torch.set_num_threads(given["threads"])
    who, precision = given["name"].rsplit(" ", 1)

    def contestant(size: Size) -> Run:
        if who.startswith("transformers"):
            return theirs(given["work"], size, who.split()[1], precision)
        return ours(given["work"], size, precision, passes=2 if "two passes" in who else 1)

    contestant(QUICK[0])()
    # What the small network freed goes back to the system, so that it is counted again.
    ctypes.CDLL(None).malloc_trim(0)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    run = contestant(Size(**given["size"]))
    run()
    run()
    print(peak_mb() - before)


def agreement(sizes: tuple[Size, ...]) -> list[list[object]]:
    """Least cosine between our bf16 and fp32 embeddings, on emulated instructions if need be."""
    rows: list[list[object]] = []
    for size in sizes:
        small = replace(size, embed_batch=2)
        full, half = (ours("embedding", small, precision)() for precision in ("fp32", "bf16"))
        rows.append([size.name, f"{float(cosine_similarity(full, half.float()).min()):.6f}"])  # type: ignore[attr-defined]
    return rows


def front_end_rows(repeats: int, clips: int) -> list[list[object]]:
    """ms per clip of 10 s on one thread, and how many times as long as ours with as many filters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {name: (bins, run) for name, bins, run in front_ends(clips, 998)}
    with threadpool_limits(1), torch.no_grad():
        times = interleaved({name: run for name, (_, run) in found.items()}, repeats)
    torch.set_num_threads(threads)
    return [
        [
            name,
            bins,
            f"{1000 * times[name].median / clips:.2f}",
            "" if name.startswith(OUR) else spread(times[name].over(times[f"{OUR}, {bins} filters"])),
        ]
        for name, (bins, _) in found.items()
    ]


def loader_rows(repeats: int, clips: int) -> list[list[object]]:
    """Audio-hours read per second: our loader (all checks, nothing kept) and a plain loop of soundfile and soxr."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, rate in FILES:
            items = write_clips(Path(folder), kind, rate, clips)
            readers = {"auricle's loader": partial(read_by_loader, items), "plain loop": partial(read_plainly, items)}
            times = interleaved(readers, repeats)
            for who, seconds in times.items():
                over = "" if who == "auricle's loader" else spread(seconds.over(times["auricle's loader"]))
                rows.append([f"{kind}, {rate} Hz", who, f"{heard(items) / 3600 / seconds.median:.2f}", over])
    return rows


def padding_rows(size: Size, repeats: int, clips: int) -> list[list[object]]:
    """Pretraining on clips of 0.5 to 10 s (log-uniform): batches as the loader makes them, and batches as drawn."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(np.log(0.5), np.log(10.0), clips))
    rows = size.train_batch
    kept = clips // rows * rows
    order = by_length(buckets_of(lengths, 10.255), rows, 0, rng)[:kept].reshape(-1, rows)
    objective = ssast.build_objective(ssast_config(size)).train()
    waves = torch.from_numpy(audio(rows, 1024))

    def epoch(batches: np.ndarray) -> None:
        for batch in batches:
            own = torch.from_numpy((lengths[batch] * RATE).astype(np.int64))
            objective(batch_of(waves[:, : int(own.max())], own), 0.0)["loss"].backward()

    drawn = np.arange(kept).reshape(-1, rows)
    times = interleaved({"to its bucket": lambda: epoch(order), "to the longest": lambda: epoch(drawn)}, repeats)
    table_rows: list[list[object]] = []
    for name, batches in (("to its bucket", order), ("to the longest", drawn)):
        padded = 1 - lengths[batches].sum() / (rows * lengths[batches].max(1)).sum()
        over = "" if batches is order else spread(times[name].over(times["to its bucket"]))
        table_rows.append([name, f"{100 * padded:.0f} %", f"{1000 * times[name].median / kept:.0f}", over])
    return table_rows


def page(options: argparse.Namespace) -> str:
    """Everything measured, as the page of the docs."""
    sizes = QUICK if options.quick else SIZES
    precisions = ("fp32", "bf16") if has_fast_bf16(CPU) else ("fp32",)
    header = [
        "work",
        "size",
        "batch",
        "contestant",
        "ms per clip",
        "time / ours",
        "time / our default",
        "MB",
        "MB / ours",
    ]
    rows = list(networks(sizes, precisions, options.repeats, memory=not options.quick))
    if "bf16" not in precisions:
        rows = [row[:6] + row[7:] for row in rows]
        header = header[:6] + header[7:]
    peers = "" if find_spec("transformers") else "transformers is not installed, so it is missing here.\n"
    bf16 = "" if "bf16" in precisions else "This CPU has no bf16 instructions, so both sides compute in fp32.\n"
    parts = [
        "# Speed of SSAST",
        f"Made by `python benchmarks/ssast_speed.py --write`: {machine(torch.get_num_threads())}.\n{bf16}{peers}",
        "## Beside transformers' AST",
        "Same width, depth, tokens, audio, batch and threads; random weights; clips of 10.2 s (512 tokens), for "
        "fine-tuning 5.1 s (600 tokens). From waveforms, with each one's own front end, unless it says otherwise. "
        "transformers has no masked pretraining: beside our pretraining step stands its classification step on as many "
        "tokens. A step is forward, backward, clipping and a fused Adam(W). Ratios above 1 are in our favour: the "
        f"median of {options.repeats} turns with the least and the greatest. MB is what a fresh process grows by at "
        "its peak, while it does the work twice, from after its imports and a turn with a very small network.",
        table(header, rows),
        "Least cosine between our bf16 and our fp32 embeddings of two clips:",
        table(["size", "cosine"], agreement(sizes)),
        "## Front ends",
        "Clips of 10 s, one thread. ASTFeatureExtractor uses NumPy where torchaudio is not installed, as here; what "
        "torchaudio would compute is timed as the same operations in torch. kaldi-native-fbank refuses 128 filters at "
        "16 kHz (one is empty), so it is compared at 80.",
        table(
            ["front end", "filters", "ms per clip", "time / ours"],
            front_end_rows(options.repeats + 2, 2 if options.quick else 8),
        ),
        "## Reading",
        "Clips of 10 s of noise, which is the hardest for FLAC, in one process, from the file system's cache. auricle "
        "checks every file for truncation and values that are not finite; the plain loop does not. Workers "
        "(`--workers`) multiply it.",
        table(
            ["files", "reader", "audio-hours per second", "time / ours"],
            loader_rows(options.repeats, 8 if options.quick else 64),
        ),
        "## Clips of different lengths",
        "A pass over clips of 0.5 to 10 s, forward and backward of the smallest network above, in batches of "
        f"{sizes[0].train_batch}.",
        table(
            ["padded", "padding", "ms per clip", "time / ours"],
            padding_rows(sizes[0], max(1, options.repeats - 1), 8 if options.quick else 48),
        ),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/ssast_speed.md")
    parser.add_argument("--quick", action="store_true", help="one very small network, no memory: seconds, to try it")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="R", help="turns that are timed, after one that is not"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        measure_memory(options.memory_of)
        return 0
    if options.write and options.quick:
        parser.error("--quick times a network that nobody uses; leave out --write")
    torch.set_num_threads(options.threads)
    # Of the peers' front ends: torchaudio is missing, and a filter is empty.
    warnings.filterwarnings("ignore", message=".*(torchaudio|At least one mel filter|Empty filters).*")
    text = page(options)
    print(text)
    if options.write:
        write_page(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
