"""Compare the `expected.json` of a golden case with what was computed, by the tolerances of its meta.json."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from auricle.errors import DataError


class _Absent:
    def __repr__(self) -> str:
        return "<absent>"


ABSENT: Final = _Absent()
"""Stands for a value that one side lacks; unlike None, which is JSON's null."""


class JsonCheck(NamedTuple):
    """One compared leaf, or one missing or unexpected subtree, and the rule that judged it."""

    path: str
    got: Any
    want: Any
    ok: bool
    rule: str


def compare_json(got: Any, want: Any, meta: Mapping[str, Any]) -> list[JsonCheck]:
    """Walk both structures together and judge every leaf.

    Floats may differ as the first pattern of the contract's `compare` says that fits their path; without that list, by
    `meta["tolerance"]`, absolute: a number, or a mapping. In a mapping, an entry other than
    "default" rules every path with its name in one of the keys ("temperature" rules `nll_after_temperature`). Integers,
    booleans, strings and null must be equal; NaN equals NaN, and an infinity the same infinity. A key or entry on one
    side only fails. Names of classes are reported but never fail where the case gives no way to compute them.

    Args:
        got: what was computed, as `json.loads` would return it.
        want: the content of expected.json.
        meta: the content of meta.json.

    Raises:
        DataError: meta.json has no usable tolerance.
    """
    return list(_walk(got, want, (), _Rules(meta)))


class _Rules:
    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.patterns = meta.get("contract", {}).get("compare")
        given = 0.0 if self.patterns else meta.get("tolerance")
        entries = given if isinstance(given, Mapping) else {"default": given}
        self.named = {name: _number(value) for name, value in entries.items() if name != "default"}
        self.default = _number(entries.get("default"))
        computes = meta.get("contract", {}).get("computes")
        self.names_unknown = computes == "metrics/classification" and "class_names" not in meta

    def tolerance(self, path: tuple[str | int, ...], want: float) -> float:
        for pattern, rule in self.patterns or ():
            if fnmatch.fnmatchcase(_spell(path), pattern):
                return float(rule.get("atol", 0.0) + rule.get("rtol", 0.0) * abs(want))
        keys = [part for part in path if isinstance(part, str)]
        for name, value in self.named.items():
            if any(name in key for key in keys):
                return value
        return self.default

    def is_class_name(self, path: tuple[str | int, ...]) -> bool:
        return self.names_unknown and (
            path[:1] == ("class_names",) or (path[:1], path[2:]) == (("per_class",), ("name",))
        )


def _number(value: Any) -> float:
    # Some cases write a remark behind the number: "1e-9 (float64)".
    match = re.match(r"\s*[-+.\deE]+", value) if isinstance(value, str) else None
    try:
        tolerance = float(match.group() if match else value)
    except (TypeError, ValueError):
        tolerance = math.nan
    if not tolerance >= 0:
        raise DataError(f"meta.json: expected a tolerance such as 1e-9 (or one under 'default'), got {value!r}.")
    return tolerance


def _walk(got: Any, want: Any, path: tuple[str | int, ...], rules: _Rules) -> Iterator[JsonCheck]:
    if isinstance(want, Mapping) and isinstance(got, Mapping):
        for key in [*want, *(key for key in got if key not in want)]:
            yield from _walk(got.get(key, ABSENT), want.get(key, ABSENT), (*path, str(key)), rules)
    elif isinstance(want, list | tuple) and isinstance(got, list | tuple):
        for index in range(max(len(got), len(want))):
            at = got[index] if index < len(got) else ABSENT
            yield from _walk(at, want[index] if index < len(want) else ABSENT, (*path, index), rules)
    else:
        ok, rule = _judge(got, want, path, rules)
        yield JsonCheck(_spell(path), got, want, ok, rule)


def _judge(got: Any, want: Any, path: tuple[str | int, ...], rules: _Rules) -> tuple[bool, str]:
    if got is ABSENT:
        return False, "missing"
    if want is ABSENT:
        return False, "unexpected"
    if isinstance(want, str) and isinstance(got, str) and rules.is_class_name(path):
        return True, "equal" if got == want else "class name, not computable from the inputs"
    if isinstance(want, float) and _is_number(got):
        allowed = rules.tolerance(path, want)
        if math.isfinite(want):
            return abs(got - want) <= allowed, f"atol {allowed:g}"
        return got == want or (math.isnan(got) and math.isnan(want)), "equal"
    if _is_number(want) and _is_number(got):
        return bool(got == want), "equal"
    return type(got) is type(want) and bool(got == want), "equal"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spell(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "(whole)"
