"""One point, measured in a process of its own, so that its memory is nobody else's."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from benchmarks.length_scaling.contestants import ROWS, SIZES, work_of
from benchmarks.length_scaling.series import MOST_SECONDS, Point, Series, too_much

from auricle.training.estimate import MB, peak_mb

# Passes that take less are repeated, and the median counts.
REPEATED_SECONDS = 10.0
WARM_TOKENS = 8 * ROWS


def measured(series: Series, tokens: int, threads: int) -> Point:
    """Run the point; one that dies or takes far too long is a point without figures, and a note."""
    task = json.dumps({**vars(series), "tokens": tokens, "threads": threads})
    command = [sys.executable, "-m", "benchmarks.length_scaling", "--point", task]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20 * MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return Point(series, tokens, 0.0, 0.0, note="took too long")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1][:200]
        return Point(series, tokens, 0.0, 0.0, note=reason)
    found = json.loads(done.stdout.splitlines()[-1])
    note = "beyond the limits" if too_much(found["seconds"], found["mb"]) else ""
    return Point(series, tokens, found["seconds"], found["mb"], note=note)


def measure_point(task: str) -> None:
    """In the fresh process: print seconds of a pass, and the MB that the process grows by at its peak."""
    given = json.loads(task)
    torch.set_num_threads(given.pop("threads"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, size, tokens = given["contestant"], SIZES[given["size"]], given["tokens"]
    rest = (given["batch"], given["training"], device)
    # Loads the libraries, on a length that costs nothing.
    work_of(name, size, WARM_TOKENS, *rest)()
    before = _reset(device)
    run = work_of(name, size, tokens, *rest)
    times: list[float] = []
    while len(times) < 3 and sum(times) < REPEATED_SECONDS:
        begin = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": statistics.median(times), "mb": _peak(device) - before}))


def _reset(device: torch.device) -> float:
    """What is held before the network is made, in MB."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / MB
    # What the warm-up freed goes back to the system, so that it is counted again.
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / MB if device.type == "cuda" else peak_mb()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
