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
    """Run the point; one that dies or takes far too long is a point without figures, and a note.

    On a GPU, whose memory torch counts and gives back, all points are measured in this process.
    """
    if torch.cuda.is_available():
        try:
            return _point(series, tokens, measure(series, tokens))
        except torch.cuda.OutOfMemoryError:
            return Point(series, tokens, 0.0, 0.0, note="out of memory")
    task = json.dumps({**vars(series), "tokens": tokens, "threads": threads})
    command = [sys.executable, "-m", "benchmarks.length_scaling", "--point", task]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20 * MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return Point(series, tokens, 0.0, 0.0, note="took too long")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1][:200]
        return Point(series, tokens, 0.0, 0.0, note=reason)
    return _point(series, tokens, json.loads(done.stdout.splitlines()[-1]))


def _point(series: Series, tokens: int, found: tuple[float, float]) -> Point:
    seconds, mb = found
    return Point(series, tokens, seconds, mb, note="beyond the limits" if too_much(seconds, mb) else "")


def measure_point(task: str) -> None:
    """In the fresh process: measure and print."""
    given = json.loads(task)
    torch.set_num_threads(given.pop("threads"))
    tokens = given.pop("tokens")
    print(json.dumps(measure(Series(**given), tokens)))


def measure(series: Series, tokens: int) -> tuple[float, float]:
    """Seconds of a pass, and the MB by which the process, or what torch holds of a GPU, grows at its peak."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, size, rest = series.contestant, SIZES[series.size], (series.batch, series.training, device)
    # Loads the libraries, on a length that costs nothing.
    work_of(name, size, WARM_TOKENS, *rest)()
    before = _reset(device)
    run = work_of(name, size, tokens, *rest)
    if device.type == "cuda":
        # Kernels are compiled and chosen at a first pass.
        run()
        _wait(device)
    # The CPU time of a single thread does not depend on what else the machine does.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    times: list[float] = []
    while len(times) < 3 and sum(times) < REPEATED_SECONDS:
        begin = clock()
        run()
        _wait(device)
        times.append(clock() - begin)
    return statistics.median(times), _peak(device) - before


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
