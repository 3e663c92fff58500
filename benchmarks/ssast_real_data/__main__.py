"""What is pretraining worth? SSAST pretrained once on unlabelled recordings and generated sound, judged on seven tasks.

    python -m benchmarks.ssast_real_data --out runs/real [--minutes 2,5,15,45,90] [--data ../shared/data/public]
    python -m benchmarks.ssast_real_data --method ssamba --out runs/real-ssamba    # another method

Run it in the folder of the repository. Killed and started again, it goes on where it was; with more minutes at the end
of --minutes, it adds points to the curve. It writes results.json below --out and, with --page, docs/METHOD_real_data.md
and its picture. A minute is 200 steps of any method, about what one core of an AMD EPYC does of SSAST's in a minute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# One thread: several get in each other's way on two cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.ssast_real_data.options import DOCS, finish, options
from benchmarks.ssast_real_data.page import write_page
from benchmarks.ssast_real_data.stages import STATISTICS, Bench, Settings
from benchmarks.ssast_real_data.tables import RANDOM

from auricle.config import parse_assignments


def main() -> int:
    usual = Settings()
    parser = options(__doc__, "runs/real", "METHOD_real_data", usual)
    parser.add_argument("--method", default=usual.method, help="what is pretrained, in its demo preset")
    parser.add_argument("--compare-at", type=float, default=usual.compared_minutes, help="budget to compare corpora at")
    parser.add_argument("--steps-per-minute", type=int, default=usual.steps_per_minute)
    parser.add_argument("--finetune-steps", type=int, default=usual.finetune_steps)
    parser.add_argument("--finetune-folds", type=int, default=0, help="the first so many folds of a set (0: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the pretraining")
    parser.add_argument("--only", choices=("both", "public", "generated"), help="one corpus, probes alone")
    args = parser.parse_args()

    def run() -> Path:
        settings = Settings(
            method=args.method,
            steps_per_minute=args.steps_per_minute,
            minutes=args.minutes,
            compared_minutes=args.compare_at,
            generated_hours=args.generated_hours,
            finetune_steps=args.finetune_steps,
            finetune_folds=args.finetune_folds,
            seed=args.seed,
            pretrain=usual.pretrain | parse_assignments(args.set),
        )
        bench = Bench(args.out, args.data, settings)
        compute(bench, args.only)
        return write_page(bench, DOCS if args.page else args.out)

    return finish(run)


def compute(bench: Bench, only: str | None) -> None:
    """All stages, those first that say most; the page can be written after any of them."""
    minutes = bench.settings.minutes
    compared = [m for m in minutes if m <= bench.settings.compared_minutes]
    curve(bench, only or "both", compared)
    for name in (*RANDOM, *STATISTICS):
        bench.probed(name)
    if only:
        return
    for corpus in ("public", "generated"):
        curve(bench, corpus, compared)
    curve(bench, "both", minutes)
    for start in ("scratch", f"both-{minutes[-1]:g}"):
        bench.finetuned(start)


def curve(bench: Bench, corpus: str, minutes: Sequence[float]) -> None:
    for budget in minutes:
        bench.pretrained(corpus, budget)
        bench.probed(f"{corpus}-{budget:g}")


if __name__ == "__main__":
    sys.exit(main())
