"""What embedding a library takes: memory for a day of sound in one file, files per second, and what kill -9 changes.

    python benchmarks/embedding_library.py [--write] [--hours 24] [--files 5000] [--kills 5] [--threads N] [--seed 0]

The network is SSAST's preset `test`, trained for one step: the figures are about what is around it. Memory is what the
resident set of a fresh process grows by at its peak, from after it has embedded a minute of sound. With --write the
table goes to docs/library.md. Exit code 1 if a killed library differs from one that was left alone in a byte. About
four minutes on two cores, and 3 GB in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from resume_exactness import auricle, complete
from timing import interleaved, machine, spread, table, write_between

from auricle.inference import libraries
from auricle.inference.model import Model, load
from auricle.training.estimate import peak_mb

PAGE = Path(__file__).parent.parent / "docs" / "library.md"
RATE = 16000
Row = tuple[str, str, str]


def minute(seed: int) -> NDArray[np.float32]:
    """A minute of tones in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(60 * RATE) / RATE
    wave = 0.05 * rng.standard_normal(len(t)) + 0.2 * np.sin(2 * np.pi * (200 + 5 * rng.integers(1, 40) * t) * t)
    return wave.astype(np.float32)


def write_long(path: Path, hours: float) -> Path:
    """Ten different minutes, again and again."""
    minutes = [minute(seed) for seed in range(10)]
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for number in range(round(60 * hours)):
            file.write(minutes[number % len(minutes)])
    return path


def write_short(folder: Path, files: int) -> Path:
    """Files of half a second to two seconds."""
    folder.mkdir()
    rng, source = np.random.default_rng(0), minute(0)
    for number in range(files):
        size = int(rng.uniform(0.5, 2.0) * RATE)
        at = int(rng.integers(len(source) - size))
        soundfile.write(folder / f"{number:05d}.wav", source[at : at + size], RATE)
    return folder


def grown(model: Path, path: Path, out: Path) -> dict[str, float]:
    """What `measure_growth` prints, in a process of its own."""
    command = [sys.executable, __file__, "--grow", str(model), str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure_growth(model: Path, path: Path, out: Path) -> None:
    """Print by how many MB this process grows at its peak, and how long it takes."""
    loaded = load(model)
    first = out.with_name(f"first{out.suffix}")
    libraries.embed_library(loaded, [write_long(out.with_name("first.wav"), 1 / 60)], first)
    before, begin = peak_mb(), time.perf_counter()
    made = libraries.embed_library(loaded, [path], out)
    seconds = time.perf_counter() - begin
    print(json.dumps({"mb": peak_mb() - before, "seconds": seconds, "rows": len(made), "heard": float(made.ends[-1])}))


def memory(model: Path, folder: Path, hours: float) -> list[Row]:
    """Growth with the length of one file."""
    rows = []
    for length in (hours / 24, hours):
        path = write_long(folder / "long.wav", length)
        found = grown(model, path, folder / f"{length:g}.parquet")
        path.unlink()
        if found["heard"] != 3600 * length:
            sys.exit(f"the library ends at {found['heard']} s of {3600 * length}")
        what = f"memory, one file of {length:g} h"
        speed = 3600 * length / found["seconds"]
        rows.append((what, f"+{found['mb']:.0f} MB", f"{found['rows']:,} rows, {speed:,.0f} s of sound per second"))
        print(*rows[-1], sep="  ", flush=True)
    return rows


def plainly(model: Model, paths: Sequence[Path]) -> None:
    """A loop over files, as one writes it."""
    np.stack([model.embed_clip(path) for path in paths])


def speed(model: Path, folder: Path, files: int) -> list[Row]:
    """Many short files, beside a plain loop."""
    paths = sorted(write_short(folder / "short", files).iterdir())
    loaded, out = load(model), folder / "short.parquet"
    some = paths[: max(1, files // 5)]

    def as_library(chosen: Sequence[Path]) -> None:
        out.unlink(missing_ok=True)
        libraries.embed_library(loaded, chosen, out)

    times = interleaved({"library": lambda: as_library(some), "loop": lambda: plainly(loaded, some)}, 3)
    begin = time.perf_counter()
    as_library(paths)
    rate = files / (time.perf_counter() - begin)
    row = (
        f"{files:,} files of 0.5 to 2 s",
        f"{rate:,.0f} files/s",
        f"{spread(times['loop'].over(times['library']))} times a loop over `embed_clip`",
    )
    print(*row, sep="  ", flush=True)
    return [row]


def kill_once(command: list[str], parts: Path, log: Path, rng: random.Random) -> int:
    """Start, wait for one or two more parts and a moment, kill; returns how many parts there are."""

    def count() -> int:
        return len(list(parts.glob("part-*")))

    wanted = count() + rng.randint(1, 2)
    with log.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    while process.poll() is None and count() < wanted:
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.2))
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        sys.exit(f"it ended before it could be killed; raise --files: {' '.join(command)}\n{log.read_text()}")
    return count()


def exactness(model: Path, folder: Path, kills: int, seed: int) -> list[Row]:
    """Short files and one of two hours, embedded undisturbed and killed."""
    log, rng = folder / "log", random.Random(seed)
    write_long(folder / "short" / "02000-long.wav", 2.0)
    alone, disturbed = (auricle("embed", model, folder / "short", "--out", folder / f"{n}.parquet") for n in "ab")
    complete(alone, log)
    after = [kill_once(disturbed, folder / "b.parquet.parts", log, rng) for _ in range(kills)]
    complete(disturbed, log)
    digests = [hashlib.sha256((folder / f"{n}.parquet").read_bytes()).hexdigest() for n in "ab"]
    verdict = "equal bytes" if digests[0] == digests[1] else "DIFFERENT"
    row = (f"killed {kills} times by SIGKILL", verdict, f"with {', '.join(map(str, after))} parts finished")
    print(*row, sep="  ", flush=True)
    return [row]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    parser.add_argument("--grow", nargs=3, type=Path, metavar=("MODEL", "FILE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.grow:
        measure_growth(*options.grow)
        return 0
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        complete(auricle("synth", folder / "data", "--clips", 20, "--seconds", 1), folder / "log")
        budget = ("--preset", "test", "--steps", 1, "--quiet")
        complete(auricle("pretrain", "ssast", folder / "data", *budget, "--out", folder / "run"), folder / "log")
        rows = speed(folder / "run", folder, options.files)
        rows += exactness(folder / "run", folder, options.kills, options.seed)
        rows += memory(folder / "run", folder, options.hours)
    load_average = os.getloadavg()[0]
    text = f"{table(('what', 'measured', ''), rows)}\n\n{machine(options.threads)}; preset `test`."
    if load_average > options.threads + 1:
        text += f" The machine was busy (load average {load_average:.0f}): speeds are too low, the rest holds."
    print(f"\n{text}")
    if options.write:
        write_between(PAGE, "embedding_library", text)
    return 1 if any("DIFFERENT" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
