"""Versions, machine and commit: what a result or a run records so that it can be understood later."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import auricle
from auricle.command import current_command


def environment() -> dict[str, Any]:
    """Versions and machine of this process.

    `command` is what was run. `cores` are the ones this process may use. `git` is the commit of an auricle that runs
    from a checkout, and None for an installed package.
    """
    # Imported here so that what only writes files does not wait for it.
    import torch

    return {
        "command": current_command(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "auricle": auricle.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": _git_state(Path(auricle.__file__).parent),
    }


def _processor() -> str:
    # platform.processor() is empty or only the architecture on most Linux systems.
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that `folder` is tracked in, and whether tracked files differ from it."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**variables, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        # A package installed inside some other project's checkout must not report that project's commit.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
