"""The golden cases of the metric families, and the comparison that judges them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.errors import DataError
from auricle.interop.parity_json import ABSENT, compare_json
from auricle.interop.parity_metrics import FAMILIES

GOLDEN = Path(os.environ.get("AURICLE_GOLDEN") or Path(__file__).parents[2].parent / "shared" / "golden")
CASES = sorted(
    meta.parent
    for meta in GOLDEN.glob("*/*/meta.json")
    if json.loads(meta.read_text())["contract"]["computes"] in FAMILIES
)
needs_goldens = pytest.mark.skipif(not CASES, reason="no golden cases found; set AURICLE_GOLDEN to their folder")


def run(case: Path, io: dict[str, Tensor], meta: dict[str, Any]) -> tuple[dict[str, Tensor], Any]:
    inputs = {name: io[name] for name in meta["contract"]["inputs"]}
    tensors, expected = FAMILIES[meta["contract"]["computes"]](case, inputs, meta)
    return tensors, json.loads(json.dumps(expected))


@needs_goldens
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_case_is_reproduced(case: Path) -> None:
    meta, io = json.loads((case / "meta.json").read_text()), load_file(case / "io.safetensors")
    tensors, table = run(case, io, meta)
    assert set(tensors) == set(io) - set(meta["contract"]["inputs"])
    for name, got in tensors.items():
        assert got.dtype == io[name].dtype
        torch.testing.assert_close(got, io[name], atol=1e-9, rtol=0)
    if (case / "expected.json").exists():
        checks = compare_json(table, json.loads((case / "expected.json").read_text()), meta)
        assert checks
        assert [check for check in checks if not check.ok] == []
    else:
        assert table is None


@needs_goldens
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_blanked_expectations_change_nothing(case: Path, tmp_path: Path) -> None:
    meta, io = json.loads((case / "meta.json").read_text()), load_file(case / "io.safetensors")
    tensors, table = run(case, io, meta)
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    if (case / "expected.json").exists():
        (tmp_path / "expected.json").write_text(json.dumps(blank(json.loads((case / "expected.json").read_text()))))
    given = meta["contract"]["inputs"]
    blanked = {name: value if name in given else torch.zeros_like(value) for name, value in io.items()}
    blind_tensors, blind_table = run(tmp_path, blanked, meta)
    assert blind_table == table
    assert {name: value.tolist() for name, value in blind_tensors.items()} == {
        name: value.tolist() for name, value in tensors.items()
    }


def blank(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: blank(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [blank(entry) for entry in value]
    return type(value)() if value is not None else None


def test_families_work_without_golden_files(tmp_path: Path) -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    _, table = FAMILIES["metrics/classification"](tmp_path, {"logits": logits, "labels": labels}, {})
    assert table is not None
    assert table["class_names"] == ["c0", "c1"]
    assert table["accuracy"] == pytest.approx(2 / 3)
    named = FAMILIES["metrics/classification"](
        tmp_path, {"logits": logits, "labels": labels}, {"class_names": ["dog", "cat"]}
    )[1]
    assert named is not None
    assert named["per_class"][1]["name"] == "cat"
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    tensors, _ = FAMILIES["ssast/metrics"](tmp_path, {"output": logits, "target": target}, {})
    assert tensors["AP"][0] == 1
    assert tensors["AP"][1].isnan()
    assert tensors["mAP"].dtype == torch.float64


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_input_is_named(family: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this family needs"):
        FAMILIES[family](tmp_path, {}, {})


META = {"contract": {"computes": "metrics/classification"}, "tolerance": {"default": 1e-9, "temperature": 1e-5}}


def verdicts(got: Any, want: Any, meta: dict[str, Any]) -> dict[str, bool]:
    return {check.path: check.ok for check in compare_json(got, want, meta)}


def test_floats_are_judged_by_the_tolerance_of_their_key() -> None:
    want = {"accuracy": 0.5, "nll_after_temperature": 0.5, "bins": [[0.5]]}
    near = {"accuracy": 0.5 + 1e-7, "nll_after_temperature": 0.5 + 1e-7, "bins": [[0.5 + 1e-10]]}
    assert verdicts(near, want, META) == {"accuracy": False, "nll_after_temperature": True, "bins[0][0]": True}
    assert verdicts({"t": {"x": 1.1}}, {"t": {"x": 1.0}}, {"tolerance": {"default": 0.0, "t": 0.2}}) == {"t.x": True}
    assert verdicts({"x": 1.1}, {"x": 1.0}, {"tolerance": 0.05}) == {"x": False}
    assert compare_json({"x": 1.0}, {"x": 1.0}, {"tolerance": "1e-9 (float64)"})[0].rule == "atol 1e-09"


@pytest.mark.parametrize(
    "got, want, ok",
    [
        (3, 3, True),
        (4, 3, False),
        (3.0, 3, True),
        (3.4, 3, False),
        (1, 1.0, True),
        (True, 1, False),
        (True, True, True),
        (1, True, False),
        (1.0, True, False),
        (True, 1.0, False),
        ("a", "a", True),
        ("a", "b", False),
        (None, None, True),
        (None, 0.0, False),
        (0.0, None, False),
        ("0.5", 0.5, False),
        ([0.5], 0.5, False),
        (0.5, {"x": 0.5}, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 0.0, False),
        (0.0, float("nan"), False),
        (float("inf"), float("inf"), True),
        (float("-inf"), float("inf"), False),
        (float("inf"), 1e300, False),
    ],
)
def test_single_values(got: Any, want: Any, ok: bool) -> None:
    assert verdicts({"x": got}, {"x": want}, {"tolerance": 0.5}) == {"x": ok}


def test_both_sides_must_have_the_same_shape() -> None:
    checks = compare_json({"a": [1, 2], "extra": 1}, {"a": [1], "lacking": {"b": 1}}, {"tolerance": 1})
    assert [(c.path, c.ok, c.rule) for c in checks] == [
        ("a[0]", True, "equal"),
        ("a[1]", False, "unexpected"),
        ("lacking", False, "missing"),
        ("extra", False, "unexpected"),
    ]
    assert checks[2].got is ABSENT


def test_class_names_fail_only_where_they_can_be_known() -> None:
    got, want = ({"class_names": [name], "per_class": [{"name": name}], "note": name} for name in ("c0", "human"))
    unknown = verdicts(got, want, META)
    assert unknown == {"class_names[0]": True, "per_class[0].name": True, "note": False}
    known = verdicts(got, want, {**META, "class_names": ["human"]})
    assert not any(known.values())
    assert not any(verdicts(got, want, {"contract": {"computes": "metrics/other"}, "tolerance": 1}).values())


@pytest.mark.parametrize("tolerance", [None, "small", {"torchmetrics": 1e-6}, -1.0])
def test_a_case_without_a_usable_tolerance_is_refused(tolerance: Any) -> None:
    with pytest.raises(DataError, match="expected a tolerance"):
        compare_json({}, {}, {"tolerance": tolerance})
