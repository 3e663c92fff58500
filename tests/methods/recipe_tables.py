"""The tables of recipes in the docs, row by row against the recipes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auricle.methods.base import MethodConfig, Recipe


def check_table(page: str, recipes: Mapping[str, Recipe], config: MethodConfig, frames: Mapping[str, int]) -> None:
    """The table of `docs/<page>` has all recipes in their order and says of each what it is for a network of `config`.

    `frames` are those that the network of each recipe hears.
    """
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    table = {row[0]: row for row in rows if row[0] in recipes}
    assert list(table) == list(recipes)
    for name, row in table.items():
        model: Any
        model, t = recipes[name].fit(config)
        task = recipes[name].task
        word = {"tagging": "tagging", "classification": "classes", "detection": "events"}[task]
        assert row[1].lower() == f"{word}, {'bce' if task == 'detection' else t.loss}", name
        assert row[2] == f"{model.norm_mean:.3f}, {model.norm_std:.3f}", name
        assert int(row[3]) == frames[name], name
        assert row[4] == (f"{t.mask_freq}/{t.mask_time}" if t.mask_freq else "-"), name
        assert row[5:8] == [f"{t.mixup:g}" if t.mixup else "-", "yes" if t.noise else "no", str(t.batch_size)], name
        assert row[8] == (f"{t.steps:,} steps" if t.steps else f"{t.epochs:g} epochs"), name
        assert float(row[9].split(",")[0]) == t.lr, name
