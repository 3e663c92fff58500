"""`auricle synth`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from auricle.cli.options import positive_float, positive_int, verb

if TYPE_CHECKING:
    from auricle.cli.options import Verbs


def add(verbs: Verbs) -> None:
    """Add the commands that make data."""
    p = verb(verbs, "synth", run_synth, "generate labelled sound scenes")
    p.add_argument("out", help="directory to make")
    p.add_argument("--clips", type=positive_int, default=400, help="how many")
    p.add_argument("--seconds", type=positive_float, default=2.5, help="length of each")
    p.add_argument("--seed", type=int, default=0)


def run_synth(args: argparse.Namespace) -> int:
    from auricle.data.synth import write_scenes

    path = write_scenes(Path(args.out), clips=args.clips, seconds=args.seconds, seed=args.seed)
    print(f"{args.clips} clips in {path}")
    return 0
