"""How short teacher-student pretrainings begin, and that they do not collapse.

The loss of a network that has collapsed is low and says nothing; benchmarks/teacher_student measures what is learned.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import auricle
from auricle.methods import get_preset

METHODS = ("asit", "atst-clip", "atst-frame")


@pytest.mark.parametrize("method", METHODS)
def test_demo_networks_begin_as_short_trainings_need_it(method: str) -> None:
    """Positions that differ, and weights wide enough for attention to choose: SSAST's demo needs the same."""
    model = get_preset(method, "demo").model
    assert (model.position_init, model.init_std) == ("sincos", 0.06)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS)
def test_outputs_stay_apart_in_a_short_training(method: str, tones: Path, tmp_path: Path) -> None:
    run = auricle.pretrain(method, tones, tmp_path / "run", preset="test", steps=60, quiet=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    watched = [line for line in lines if "effective_rank" in line]
    assert watched[-1]["effective_rank"] > 2
    assert watched[-1]["feature_spread"] > 0.2 * watched[0]["feature_spread"]
