"""What does the same probe accuracy cost by a paper's pretext task and by masked latent prediction?

    python -m benchmarks.cheaper_pretraining --out runs/cheaper [--minutes 0.5,1,2,4] [--data FOLDER]

Run it in the folder of the repository. Killed and started again, it goes on where it was; with more minutes at the end
of --minutes, it adds points to the curves. It writes results.json and the page below --out and, with --page,
docs/cheaper_pretraining.md and its picture. About 50 minutes of one core.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# One thread: several get in each other's way on two cores, and CPU time is compared. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.cheaper_pretraining.page import write_page
from benchmarks.cheaper_pretraining.stages import Settings, Study
from benchmarks.ssast_real_data.__main__ import REPOSITORY, budgets

from auricle.config import parse_assignments
from auricle.errors import AuricleError


def main() -> int:
    usual = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/cheaper"))
    parser.add_argument("--data", type=Path, help="folder of the recordings (AURICLE_DATA, else ../shared/data/public)")
    parser.add_argument("--minutes", type=budgets, default=usual.minutes, help="budgets of pretraining, rising")
    parser.add_argument("--generated-hours", type=float, default=usual.generated_hours)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of masked latent prediction"
    )
    parser.add_argument("--page", action="store_true", help="write docs/cheaper_pretraining.md and its picture")
    args = parser.parse_args()
    data = args.data or Path(os.environ.get("AURICLE_DATA") or REPOSITORY.parent / "shared/data/public")
    try:
        settings = Settings(
            minutes=args.minutes,
            generated_hours=args.generated_hours,
            latent=usual.latent | parse_assignments(args.set),
            seed=args.seed,
        )
        study = Study(args.out, data, settings)
        study.compute()
        page = write_page(study, REPOSITORY / "docs" if args.page else args.out)
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"written: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
