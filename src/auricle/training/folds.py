"""Cross-validation: a fine-tuning for every fold of the data, each in a directory of its own.

RUN/folds.json       the folds in order and where their runs are
RUN/1-<fold>/ ...    runs, complete ones thinned to the checkpoints that count
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from auricle.errors import CheckpointError, ConfigError, in_words
from auricle.files import write_text
from auricle.training import checkpoint as ckpt
from auricle.training.distributed import processes
from auricle.training.finetune import FinetunePlan, finetune
from auricle.training.run import read_json

FOLDS = "folds.json"


def finetune_folds(plans: Sequence[FinetunePlan], out: Path, **options: Any) -> list[Path]:
    """Run the plans of `plan_folds` one after the other in `out`, or go on with what is there; returns their runs.

    `options` are those of `finetune`.

    Raises:
        ConfigError: `out` is something else, or holds other folds.
    """
    group = processes()
    names = [plan.fold.name for plan in plans]
    runs = [out / f"{number}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}" for number, name in enumerate(names, start=1)]
    group.on_first(lambda: _claim(out, [{"name": n, "run": run.name} for n, run in zip(names, runs, strict=True)]))
    for plan, run in zip(plans, runs, strict=True):
        finetune(plan, run, **options)
        group.on_first(partial(ckpt.thin, run))
    return runs


def _claim(out: Path, listed: list[dict[str, str]]) -> None:
    """Write the list of folds, or check that it is the one that is there."""
    if (out / FOLDS).exists():
        if read_json(out / FOLDS) != {"folds": listed}:
            names = ", ".join(entry["name"] for entry in listed)
            raise ConfigError(f"{out} holds other folds than {names}; give another --out.")
    elif out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not a cross-validation; give a new or empty directory.")
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / FOLDS, json.dumps({"folds": listed}, indent=1) + "\n")
        except OSError as error:
            raise ConfigError(f"--out {out} cannot be written: {in_words(error)}.") from None


def fold_runs(path: Path) -> list[Path]:
    """The runs of a cross-validation in order; none, if `path` is something else.

    Raises:
        CheckpointError: its list of folds is damaged.
    """
    if not (path / FOLDS).is_file():
        return []
    try:
        return [path / str(entry["run"]) for entry in read_json(path / FOLDS)["folds"]]
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{path / FOLDS} lists no folds; restore it, or run the cross-validation again."
        ) from None
