"""What does the same probe accuracy cost by a paper's pretext task and by masked latent prediction?

    python -m benchmarks.cheaper_pretraining --out runs/cheaper [--minutes 0.5,1,2,4] [--data FOLDER]

Run it in the folder of the repository. Killed and started again, it goes on where it was; with more minutes at the end
of --minutes, it adds points to the curves. It writes results.json and the page below --out and, with --page,
docs/cheaper_pretraining.md and its picture.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# One thread: several get in each other's way on two cores, and CPU time is compared. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.cheaper_pretraining.page import write_page
from benchmarks.cheaper_pretraining.stages import Settings, Study
from benchmarks.ssast_real_data.options import DOCS, finish, options

from auricle.config import parse_assignments


def main() -> int:
    usual = Settings()
    parser = options(__doc__, "runs/cheaper", "cheaper_pretraining", usual)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of masked latent prediction"
    )
    args = parser.parse_args()

    def run() -> Path:
        settings = Settings(
            minutes=args.minutes,
            generated_hours=args.generated_hours,
            latent=usual.latent | parse_assignments(args.set),
            seed=args.seed,
        )
        study = Study(args.out, args.data, settings)
        study.compute()
        return write_page(study, DOCS if args.page else args.out)

    return finish(run)


if __name__ == "__main__":
    sys.exit(main())
