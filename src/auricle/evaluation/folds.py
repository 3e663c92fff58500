"""Scores of a cross-validation: of each fold, of the last weights, and of the best epoch over all folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auricle.data.labels import Labels, Task
from auricle.training.run import read_metrics
from auricle.training.validation import score, score_name

if TYPE_CHECKING:
    from auricle.evaluation.evaluate import Tested


def fold_scores(runs: Sequence[Path], tested: Sequence[Tested], labels: Labels) -> dict[str, Any]:
    """What a result's protocol says about the folds.

    `folds` are the scores of the networks that are kept, `mean_over_folds` their mean. `curve` is the mean over the
    folds each time that they were scored in training, `best_epoch_over_folds` its highest row and `last_epoch` its
    last. The best is what SSAST's code reports for ESC-50: one epoch for all folds, chosen by the tested clips.
    """
    name = score_name(labels.task)
    folds = [
        {
            "fold": fold.model.config["split"]["held_out"],
            "tested": len(fold.indices),
            name: score(labels.task, fold.probability, labels.targets(fold.indices, fold.classes)),
        }
        for fold in tested
    ]
    mean = float(np.mean([fold[name] for fold in folds]))
    rows = curve(runs, labels.task)
    found: dict[str, Any] = {"folds": folds, "mean_over_folds": mean}
    if rows:
        best, last = max(rows, key=lambda row: row["mean"]), rows[-1]
        note = (
            f"mean {name} over the folds: {100 * mean:.1f} %, after the last epoch {100 * last['mean']:.1f} %, and at "
            f"the best of {len(rows)} ({best['number']}) {100 * best['mean']:.1f} %, which is too high for new clips: "
            "these clips chose it"
        )
        found |= {"curve": rows, "best_epoch_over_folds": best, "last_epoch": last, "notes": [note]}
    return found


def curve(runs: Sequence[Path], task: Task) -> list[dict[str, float]]:
    """The score on the fold that is left out, averaged over the runs, at each time that all of them were scored.

    Rows have `number` from 1 (an epoch, where the schedule counts epochs), `step` of the first run, and `mean`.
    """
    name = f"test_{score_name(task)}"
    logged = [[row for row in read_metrics(run) if name in row] for run in runs]
    return [
        {"number": number, "step": rows[0]["step"], "mean": float(np.mean([row[name] for row in rows]))}
        for number, rows in enumerate(zip(*logged, strict=False), start=1)
    ]
