"""Teacher-student learning beside SSAST: ASiT, ATST-Clip and ATST-Frame at equal cost, on clips and on events.

    python -m benchmarks.teacher_student --out runs/teacher-student [--minutes 10] [--data ../shared/data/public]

Run it in the folder of the repository. Killed and started again, it goes on where it was. --part and --methods take a
share of the stages, so that two cores can work in one --out (let the steps be timed first: --part speed). It writes
results.json below --out and, with --page, docs/teacher_student.md and its picture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# One thread: several get in each other's way on two cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.ssast_real_data.options import DOCS, finish, options
from benchmarks.ssast_real_data.tables import RANDOM
from benchmarks.teacher_student.page import write_page
from benchmarks.teacher_student.stages import Study
from benchmarks.teacher_student.systems import METHODS, STUDENT, TEACHER, Settings

PARTS = ("speed", "pretraining", "clips", "frozen", "tuned")


def main() -> int:
    usual = Settings()
    parser = options(__doc__, "runs/teacher-student", "teacher_student", usual)
    parser.add_argument("--tune-steps", type=int, default=usual.tune_steps, help="of a detector")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    parser.add_argument("--methods", default=",".join(METHODS), help="only these, separated by commas")
    args = parser.parse_args()
    methods = args.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"unknown method: {', '.join(sorted(unknown))}; choose from {', '.join(METHODS)}")

    def run() -> Path | None:
        settings = Settings(
            minutes=args.minutes,
            generated_hours=args.generated_hours,
            tune_steps=args.tune_steps,
            seed=args.seed,
        )
        study = Study(args.out, args.data, settings)
        compute(study, args.part or PARTS, methods)
        return write_page(study, DOCS if args.page else args.out)

    return finish(run, "the page needs --part clips and frozen of all methods")


def compute(study: Study, parts: Sequence[str], methods: Sequence[str]) -> None:
    """The stages of some parts, each of which does what it needs of the parts before it; random weights come last."""
    if "speed" in parts:
        study.speeds()
    if "pretraining" in parts:
        for method in methods:
            study.pretrained(method)
    if "clips" in parts:
        for method in methods:
            study.probed(method, (study.settings.budget, *RANDOM))
    if "frozen" in parts:
        for method in methods:
            study.read(method)
    if "tuned" in parts:
        for method in methods:
            study.tuned(method)
        if {STUDENT, TEACHER} <= set(methods):
            study.combined()
        for method in methods:
            study.tuned(method, random_weights=0)


if __name__ == "__main__":
    sys.exit(main())
