"""Where the golden cases are, and altered copies of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from auricle.interop.parity import run_case

Change = Callable[[dict[str, Any]], None]
GOLDEN = Path(os.environ.get("AURICLE_GOLDEN") or Path(__file__).parents[2].parent / "shared" / "golden")
SYSTEMS = ("ssast", "ssamba", "atst", "asit")
# Cases of events and metrics, whose answers are JSON, are tested with the metrics.
CASES = sorted(
    meta.parent
    for system in SYSTEMS
    for meta in GOLDEN.glob(f"{system}/*/meta.json")
    if not (meta.parent / "expected.json").exists()
)
needs_goldens = pytest.mark.skipif(not CASES, reason="no golden cases found; set AURICLE_GOLDEN to their folder")


def each_case(cases: Iterable[Path] = CASES) -> pytest.MarkDecorator:
    """Parametrise a test over golden cases; it is skipped, by name, where there are none."""
    found = list(cases)
    absent = pytest.param(None, marks=needs_goldens, id="absent")
    return pytest.mark.parametrize(
        "case", found or [absent], ids=lambda case: f"{case.parent.name}-{case.name}" if case else None
    )


def computes(case: Path) -> str:
    return str(json.loads((case / "meta.json").read_text())["contract"]["computes"])


def inputs_of(case: Path) -> list[str]:
    return list(json.loads((case / "meta.json").read_text())["contract"]["inputs"])


def cases_of(family: str, system: str = "ssast") -> list[Path]:
    return [case for case in CASES if computes(case) == f"{system}/{family}"]


def altered(case: Path, to: Path, file: str, change: Callable[[str, Tensor], Tensor]) -> Path:
    """A copy of a case at `to/<system>/<case>` with every tensor of one of its files passed through `change`."""
    copy = to / case.parent.name / case.name
    shutil.copytree(case, copy, copy_function=shutil.copyfile)
    for path in (copy, *copy.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    tensors = {name: change(name, value).contiguous() for name, value in load_file(case / file).items()}
    save_file(tensors, copy / file)
    return copy


def keep(name: str, value: Tensor) -> Tensor:
    return value


def twin(
    case: Path, to: Path, meta: Change = lambda _: None, tensors: Callable[[str, Tensor], Tensor] = keep
) -> dict[str, Tensor]:
    """What is computed for a copy of a case with another meta.json and other tensors."""
    copy = altered(case, to, "io.safetensors", tensors)
    stated = json.loads((copy / "meta.json").read_text())
    meta(stated)
    (copy / "meta.json").write_text(json.dumps(stated))
    result = run_case(copy, to / "out")
    assert not result.error
    computed: dict[str, Tensor] = load_file(to / "out" / copy.parent.name / copy.name / "io.safetensors")
    return computed
