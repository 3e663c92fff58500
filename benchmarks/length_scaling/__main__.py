"""How time and memory grow with the length of a clip: SSAMBA beside SSAST, the paper's baseline, and transformers.

    python -m benchmarks.length_scaling --out runs/lengths [--minutes 60] [--page] [--quick]

Run it in the folder of the repository. Each point is measured in a process of its own and kept in points.jsonl, so a
killed benchmark goes on where it was. A point beyond 60 seconds a pass or 12 GB is predicted from the two before it and
not run; the page says so. Peers that are not installed are left out (benchmarks/requirements-speed.txt). The same
command measures on a GPU where there is one, there also the scan of mamba_ssm, if it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks.length_scaling.contestants import CONTESTANTS, SSAMBA, SSAST, STORED, contestant
from benchmarks.length_scaling.measure import measure_point, measured
from benchmarks.length_scaling.page import write_page
from benchmarks.length_scaling.series import Point, Series, missing, predict, too_much

REPOSITORY = Path(__file__).resolve().parents[2]
# Among the powers of two, the paper's 22 thousand.
TINY = (512, 1024, 2048, 4096, 8192, 16384, 22528, 32768, 65536)
BASE = (512, 1024, 2048, 4096, 8192)


def plan(quick: bool) -> list[tuple[Series, tuple[int, ...]]]:
    """The series in the order of what they say: the two methods and the paper's baseline first."""
    if quick:
        return [(Series(c.name, "test", 1, training), (16, 32)) for c in CONTESTANTS for training in (False, True)]
    first = [Series(name, "tiny", 1, t) for t in (False, True) for name in (SSAMBA, SSAST, STORED)]
    others = [Series(c.name, "tiny", 1, t) for t in (False, True) for c in CONTESTANTS]
    larger = [Series(name, "base", 1, t) for t in (False, True) for name in (SSAMBA, SSAST, STORED)]
    fours = [Series(name, "tiny", 4, t) for t in (False, True) for name in (SSAMBA, SSAST, STORED)]
    series = [*first, *(s for s in others if s not in first), *larger, *fours]
    return [(s, BASE if s.size == "base" else TINY) for s in series]


def compute(plans: Sequence[tuple[Series, tuple[int, ...]]], out: Path, minutes: float, threads: int) -> bool:
    """Measure what is missing, until the minutes are over; whether all is there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    file, deadline = out / "points.jsonl", time.monotonic() + 60 * minutes
    known = read_points(file)
    for series, lengths in plans:
        who = contestant(series.contestant)
        if series.size not in who.sizes or not who.there(device):
            continue
        done = sorted((p for p in known if p.series == series), key=lambda p: p.tokens)
        for tokens in missing(lengths, done):
            if time.monotonic() > deadline:
                return False
            run = [p for p in done if p.seconds]
            expected = predict(run, tokens) if run else (0.0, 0.0)
            if too_much(*expected) or (done and not run):
                point = Point(series, tokens, *expected, predicted=True)
            else:
                point = measured(series, tokens, threads)
                if not point.seconds and run:
                    point = Point(series, tokens, *expected, predicted=True, note=point.note)
            done.append(point)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(point.row()) + "\n")
            what = f"{series.contestant}, {series.size}, batch {series.batch}, {series.work}"
            print(f"{what}, {tokens} tokens: {shown(point)}", flush=True)
    return True


def shown(point: Point) -> str:
    """One point for the terminal."""
    figures = f"{point.seconds:.3f} s, {point.mb:.0f} MB"
    return figures + (" (predicted)" if point.predicted else "") + (f" ({point.note})" if point.note else "")


def read_points(file: Path) -> list[Point]:
    """What was measured before; a last line that a kill has cut is measured again."""
    points = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            points.append(Point.of(json.loads(line)))
        except ValueError:
            break
    return points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/lengths"))
    parser.add_argument("--minutes", type=float, default=60.0, help="start no point after so many minutes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--page", action="store_true", help="write docs/length_scaling.md and its picture")
    parser.add_argument("--quick", action="store_true", help="very small networks and lengths: to try it")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        measure_point(options.point)
        return 0
    if options.page and options.quick:
        parser.error("--quick measures networks that nobody uses; leave out --page")
    options.out.mkdir(parents=True, exist_ok=True)
    complete = compute(plan(options.quick), options.out, options.minutes, options.threads)
    folder = REPOSITORY / "docs" if options.page else options.out
    points = read_points(options.out / "points.jsonl")
    written = write_page(points, folder, options.threads)
    print(f"written: {written}" + ("" if complete else "; the minutes are over, the same command goes on"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
