"""The golden cases of sound event detection, through `auricle parity`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from auricle.interop.parity import run_case
from auricle.interop.parity_sed import FAMILIES

GOLDEN = Path(os.environ.get("AURICLE_GOLDEN") or Path(__file__).parents[2].parent / "shared" / "golden")
CASES = sorted(
    meta.parent
    for meta in GOLDEN.glob("*/*/meta.json")
    if json.loads(meta.read_text())["contract"]["computes"] in FAMILIES
)
pytestmark = pytest.mark.skipif(not CASES, reason="no golden cases found; set AURICLE_GOLDEN to their folder")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")


def computed(case: Path, out: Path) -> tuple[Any, dict[str, Any]]:
    result = run_case(case, out)
    assert not result.error
    folder = out / case.parent.name / case.name
    tensors = folder / "io.safetensors"
    values = {n: t.tolist() for n, t in load_file(tensors).items()} if tensors.exists() else {}
    return json.loads((folder / "expected.json").read_text()), values


@each_case
def test_case_is_reproduced(case: Path) -> None:
    result = run_case(case)
    assert not result.error
    assert [row for row in result.rows if not row.passed] == []
    assert result.passed


@each_case
def test_blanked_expectations_change_nothing(case: Path, tmp_path: Path) -> None:
    blind = tmp_path / case.parent.name / case.name
    shutil.copytree(case, blind)
    (blind / "expected.json").write_text(json.dumps(blank(json.loads((case / "expected.json").read_text()))))
    if (blind / "io.safetensors").exists():
        given = json.loads((case / "meta.json").read_text())["contract"]["inputs"]
        io = load_file(case / "io.safetensors")
        save_file({n: t if n in given else torch.zeros_like(t) for n, t in io.items()}, blind / "io.safetensors")
    assert computed(blind, tmp_path / "blind") == computed(case, tmp_path / "seen")


def blank(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: blank(entry) for key, entry in value.items()}
    return [] if isinstance(value, list) else None


@pytest.mark.parametrize("case", [c for c in CASES if (c / "input.json").exists()], ids=lambda case: case.name)
def test_other_clips_classes_and_thresholds(case: Path, tmp_path: Path) -> None:
    twin = tmp_path / "metrics" / "twin"
    shutil.copytree(case, twin)
    given = json.loads((case / "input.json").read_text())
    names = dict(zip(given["classes"], ("x", "y", "z", "w"), strict=False))
    kept = list(given["durations"])[3:]
    given["classes"] = list(names.values())
    given["durations"] = dict.fromkeys(kept, 9.0)
    given["ground_truth"] = {
        clip: [[on, off, names[label]] for on, off, label in given["ground_truth"][clip]] for clip in kept
    }
    for clip in kept:  # of one class nothing is ever found
        given["scores"][clip] = [[0.0, *row[1:]] for row in given["scores"][clip]]
    (twin / "input.json").write_text(json.dumps(given))
    (twin / "expected.json").write_text(json.dumps({"collar_f1_th0.25": {}}))
    table, _ = computed(twin, tmp_path / "out")
    assert set(table["psds1_single_class"]) == set(names.values())
    assert {name for name in table if "_th" in name} == {
        f"{kind}_th0.25" for kind in ("collar_f1", "segment_f1", "intersection_f1", "sed_eval")
    }
    collar = table["collar_f1_th0.25"]
    assert (collar["f1"]["x"], collar["precision"]["x"], collar["recall"]["x"]) == (0.0, 1.0, 0.0)
    assert table["psds1"] != computed(case, tmp_path / "original")[0]["psds1"]


@pytest.mark.parametrize("case", [c for c in CASES if (c / "io.safetensors").exists()], ids=lambda case: case.name)
def test_other_filters_and_rates(case: Path, tmp_path: Path) -> None:
    twin = tmp_path / "atst" / "twin"
    shutil.copytree(case, twin)
    meta = json.loads((case / "meta.json").read_text())
    meta["arguments"] |= {"median_filter": 1, "net_pooling": 2, "audio_len": 5}
    (twin / "meta.json").write_text(json.dumps(meta))
    table, tensors = computed(twin, tmp_path / "out")
    probabilities = load_file(case / "io.safetensors")["prob"]
    assert tensors["gpu_median_0.5"] == (probabilities > 0.5).float().tolist()
    assert max(offset for *_, offset in table["events_at_0.5"]) <= 5
    labels = torch.tensor(tensors["labels"])
    assert labels.shape == probabilities.shape
    assert labels.sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_input_is_named(family: str, tmp_path: Path) -> None:
    from auricle.errors import DataError

    with pytest.raises(DataError, match="this family needs"):
        FAMILIES[family](tmp_path, {}, {})
