"""Kill training five times with SIGKILL, start it again each time, and compare the bits with a run that was left alone.

    python benchmarks/resume_exactness.py [--finetune] [--preset demo] [--steps 40] [--kills 5] [--seed 0]

With 0 and with 2 processes that read ahead; with --finetune, fine-tuning as well as pretraining. Every kill falls a
random moment after one to three new checkpoints have appeared. Prints a table; exit code 1 if a weight, an optimizer
value or a logged number differs. About two minutes on two cores, twice that with --finetune.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

FILES = ("weights.safetensors", "optimizer.safetensors", "metrics.jsonl")


@dataclass(frozen=True)
class Row:
    """One run that was killed: where, how long it took in all, and which files differ from the run left alone."""

    training: str
    workers: int
    killed_after: tuple[int, ...]
    seconds: float
    differing: tuple[str, ...]


def auricle(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "auricle", *map(str, arguments)]


def complete(command: list[str], log: Path) -> None:
    """Run a command to its end; stop everything if it fails."""
    with log.open("a") as file:
        code = subprocess.run(command, stdout=file, stderr=file).returncode
    if code:
        sys.exit(f"exit code {code}: {' '.join(command)}\n{log.read_text()}")


def newest(run: Path) -> int:
    return max((int(p.name.removeprefix("step-")) for p in run.glob("step-*")), default=0)


def kill_once(command: list[str], run: Path, log: Path, rng: random.Random) -> int:
    """Start, wait for new checkpoints and a moment more, kill; returns the newest checkpoint."""
    before, wanted, seen = newest(run), rng.randint(1, 3), set[int]()
    with log.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    while process.poll() is None and len(seen) < wanted:
        seen |= {newest(run)} - {before}
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.5))
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        sys.exit(f"it ended before it could be killed; raise --steps: {' '.join(command)}\n{log.read_text()}")
    return newest(run)


def digests(run: Path, steps: int) -> dict[str, str]:
    last = run / f"step-{steps:06d}"
    files = {name: (run if name == "metrics.jsonl" else last) / name for name in FILES}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def compare(training: str, command: list[str], folder: Path, options: argparse.Namespace) -> list[Row]:
    """Run `command` undisturbed, then killed with 0 and with 2 workers."""
    log = folder / f"{training}.log"
    alone = folder / f"{training}-alone"
    complete([*command, "--out", str(alone)], log)
    wanted = digests(alone, options.steps)
    rows = []
    for workers in (0, 2):
        rng, begin = random.Random(options.seed + workers), time.monotonic()
        run = folder / f"{training}-{workers}"
        again = [*command, "--workers", str(workers), "--out", str(run)]
        killed = tuple(kill_once(again, run, log, rng) for _ in range(options.kills))
        complete(again, log)
        got = digests(run, options.steps)
        differing = tuple(name for name in FILES if got[name] != wanted[name])
        rows.append(Row(training, workers, killed, time.monotonic() - begin, differing))
        print_row(rows[-1])
    return rows


def print_row(row: Row) -> None:
    verdict = "equal" if not row.differing else "DIFFERENT: " + ", ".join(row.differing)
    steps = " ".join(map(str, row.killed_after))
    print(f"{row.training:12} {row.workers:7} {steps:22} {row.seconds:7.0f}  {verdict}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finetune", action="store_true", help="fine-tune as well")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        complete(auricle("synth", data, "--clips", 60, "--seconds", 1.5), folder / "synth.log")
        budget = ("--steps", options.steps, "--checkpoint-every", max(1, options.steps // 20))
        augmented = ("--set", "mixup=0.5", "--set", "noise=true")
        pretrain = auricle("pretrain", "ssast", data, "--preset", options.preset, *budget)
        finetune = auricle("finetune", folder / "pretraining-alone", data, *budget, *augmented)
        print(f"{'training':12} {'workers':>7} {'killed after step':22} {'seconds':>7}  bits")
        rows = compare("pretraining", pretrain, folder, options)
        if options.finetune:
            rows += compare("fine-tuning", finetune, folder, options)
    return 1 if any(row.differing for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
