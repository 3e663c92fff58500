"""Fail if a test was skipped that should have run: only a missing GPU, or the missing data folder, excuses a skip."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

DATA = Path(os.environ.get("AURICLE_DATA", "../shared/data/public"))
EXCUSES = ("GPU", "CUDA") if DATA.is_dir() else ("GPU", "CUDA", "AURICLE_DATA", "AURICLE_GOLDEN")


def main() -> int:
    unexcused = []
    for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
        for skipped in case.iter("skipped"):
            reason = skipped.get("message", "")
            if not any(excuse in reason for excuse in EXCUSES):
                unexcused.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    for line in unexcused:
        print(f"skipped without excuse: {line}")
    return 1 if unexcused else 0


if __name__ == "__main__":
    sys.exit(main())
