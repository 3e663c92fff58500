"""`auricle parity`: recompute what official code computed, and compare.

A case is a folder with `meta.json`, `io.safetensors` and, where it has them, weights. `meta["contract"]["computes"]`
says what to compute; only the inputs that the contract names are handed on, so nothing can be copied from the answers.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auricle.errors import DataError

Outputs = tuple[dict[str, Tensor], dict[str, Any] | None]
Family = Callable[[Path, dict[str, Tensor], dict[str, Any]], Outputs]


@dataclass(frozen=True)
class Compared:
    """One expected value: the largest absolute and relative error, the rule applied, and whether it holds."""

    name: str
    absolute: float
    relative: float
    rule: str
    passed: bool
    note: str = ""


@dataclass
class CaseResult:
    """A case: passed if it is known, ran, and every expected value was reproduced."""

    case: str
    computes: str
    rows: list[Compared] = field(default_factory=list)
    error: str = ""

    @property
    def passed(self) -> bool:
        return not self.error and bool(self.rows) and all(row.passed for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "computes": self.computes,
            "passed": self.passed,
            "error": self.error,
            "tensors": [row.__dict__ for row in self.rows],
        }


def families() -> dict[str, Family]:
    """What can be computed, by the contract's name."""
    from auricle.interop import parity_asit, parity_atst, parity_metrics, parity_sed, parity_ssamba, parity_ssast

    runners = (parity_asit, parity_atst, parity_ssamba, parity_ssast, parity_metrics, parity_sed)
    return {name: family for runner in runners for name, family in runner.FAMILIES.items()}


def find_cases(paths: Sequence[Path]) -> list[Path]:
    """Case folders at or below the given paths, sorted.

    Raises:
        DataError: a path that does not exist, or no case below it.
    """
    cases: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path}: no such folder of parity cases.")
        found = [path] if (path / "meta.json").is_file() else sorted(p.parent for p in path.rglob("meta.json"))
        if not found:
            raise DataError(f"{path}: holds no parity case; a case is a folder with a meta.json.")
        cases.extend(found)
    return cases


def run_case(case: Path, outputs: Path | None = None) -> CaseResult:
    """Compute one case, compare it, and write what was computed below `outputs`."""
    name = "/".join(case.resolve().parts[-2:])
    try:
        meta = json.loads((case / "meta.json").read_text(encoding="utf-8"))
        computes = meta["contract"]["computes"]
    except (OSError, ValueError, KeyError) as error:
        return CaseResult(name, "?", error=f"meta.json cannot be read: {error}")
    result = CaseResult(name, computes)
    family = families().get(computes)
    if family is None:
        result.error = f"auricle does not compute '{computes}' (yet)"
        return result
    names = meta["contract"].get("inputs", [])
    try:
        stored = load_file(case / "io.safetensors") if (case / "io.safetensors").is_file() else {}
        tensors, values = family(case, {n: stored[n] for n in names if n in stored}, meta)
    except Exception as error:  # whatever is wrong with one case, the others still have to be judged
        result.error = f"{type(error).__name__}: {error}"
        return result
    if outputs is not None:
        _write_outputs(outputs / name, tensors, values)
    expected = {n: t for n, t in stored.items() if n not in names}
    result.rows += [_compare(n, tensors.get(n), t, meta) for n, t in sorted(expected.items())]
    if (case / "expected.json").is_file():
        want = json.loads((case / "expected.json").read_text(encoding="utf-8"))
        result.rows += _compare_values(values or {}, want, meta)
    return result


def _compare(name: str, got: Tensor | None, want: Tensor, meta: dict[str, Any]) -> Compared:
    rule = next((r for pattern, r in meta["contract"].get("compare", []) if fnmatch.fnmatchcase(name, pattern)), None)
    if rule is None:
        tolerance = meta.get("tolerance")
        rule = {"atol": tolerance} if isinstance(tolerance, int | float) else {"atol": 0.0}
    text = " ".join(f"{key} {value:g}" for key, value in rule.items())
    if got is None:
        return Compared(name, float("inf"), float("inf"), text, False, "not computed")
    if got.shape != want.shape:
        return Compared(
            name, float("inf"), float("inf"), text, False, f"shape {tuple(got.shape)}, want {tuple(want.shape)}"
        )
    got64, want64 = got.double(), want.double()
    # Infinities and NaN are part of some contracts: they must stand in the same places.
    special = ~torch.isfinite(want64)
    same = torch.where(want64.isnan(), got64.isnan(), got64 == want64)
    finite = ~special
    error = (got64 - want64).abs()[finite]
    size = want64.abs()[finite]
    largest = float(size.max()) if size.numel() else 0.0
    allowed = rule.get("atol", 0.0) + rule.get("rtol", 0.0) * size + rule.get("of_max", 0.0) * largest
    passed = bool(same[special].all()) and bool((error <= allowed).all())
    absolute = float(error.max()) if error.numel() else 0.0
    relative = float((error / size.clamp(min=1e-12)).max()) if error.numel() else 0.0
    return Compared(name, absolute, relative, text, passed)


def _compare_values(got: dict[str, Any], want: dict[str, Any], meta: dict[str, Any]) -> list[Compared]:
    from auricle.interop.parity_metrics import compare_json

    rows = []
    for path, have, expect, passed, rule in compare_json(got, want, meta):
        numeric = isinstance(have, int | float) and isinstance(expect, int | float)
        error = abs(float(have) - float(expect)) if numeric else 0.0
        relative = error / max(abs(float(expect)), 1e-12) if numeric else 0.0
        rows.append(Compared(path, error, relative, rule, passed, "" if passed else f"got {have}, want {expect}"))
    return rows


def _write_outputs(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any] | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if tensors:
        save_file({n: t.detach().contiguous() for n, t in tensors.items()}, folder / "io.safetensors")
    if values is not None:
        (folder / "expected.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
