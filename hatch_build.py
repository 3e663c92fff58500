"""Builds the C++ kernels into the package; without a compiler, the package works without them, slower.

One object per instruction set, each with its own flags, so that a wheel runs on every processor of its kind. No
-ffast-math: a library that is linked with it makes the whole process flush denormal numbers.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    # `python hatch_build.py` builds in place, and the benchmarks want the flags: neither needs hatchling.
    BuildHookInterface = object

ROOT = Path(__file__).parent
SOURCES = ROOT / "src" / "auricle" / "kernels" / "native"
LIBRARY = ROOT / "src" / "auricle" / "kernels" / "libauricle_kernels.so"
COMMON = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wno-ignored-attributes", "-Wno-psabi"]
COMMON += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
X86 = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mprefer-vector-width=512"],
}


class KernelBuildHook(BuildHookInterface):
    """Called by hatchling before a wheel, editable ones included, is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        LIBRARY.unlink(missing_ok=True)
        if not build():
            return
        build_data["pure_python"] = False
        build_data["artifacts"].append(str(LIBRARY.relative_to(ROOT)))
        # No Python or torch interface is linked, so one wheel serves every version of both.
        build_data["tag"] = f"py3-none-{_platform_tag()}"


def _platform_tag() -> str:
    import sysconfig

    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def build() -> bool:
    """Compile the library beside the Python files; False, with a word on standard error, where that fails."""
    compiler = os.environ.get("CXX") or next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    if compiler is None:
        print("auricle: no C++ compiler, so scans will run in plain torch", file=sys.stderr)
        return False
    machine = platform.machine().lower()
    kinds: dict[str, list[str]] = X86 if machine in ("x86_64", "amd64") else {"portable": []}
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        try:
            for name, flags in {**kinds, "dispatch": []}.items():
                objects.append(str(Path(folder, f"{name}.o")))
                source = str(SOURCES / f"{name}.cpp")
                subprocess.run([compiler, *COMMON, *flags, "-c", source, "-o", objects[-1]], check=True)
            partial = str(Path(folder, LIBRARY.name))
            static = ["-static-libstdc++", "-static-libgcc"] if sys.platform == "linux" else []
            subprocess.run([compiler, "-shared", "-pthread", *static, *objects, "-o", partial], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"auricle: the C++ kernels do not build, so scans will run in plain torch: {error}", file=sys.stderr)
            return False
        shutil.move(partial, LIBRARY)
    return True


if __name__ == "__main__":
    sys.exit(0 if build() else 1)
