"""Evaluate a fine-tuned classifier or tagger, or several of them together, on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.data.labels import Labels, read_labels
from auricle.data.splits import SPLIT_COLUMN, stated_part
from auricle.errors import CheckpointError, ConfigError, DataError
from auricle.evaluation.classify import RESAMPLES, Predictions
from auricle.evaluation.probe import describe
from auricle.evaluation.results import Result
from auricle.evaluation.tagging import TagPredictions
from auricle.inference.model import Model, load
from auricle.training.finetune import Split, choose_fold

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """Items of a data set that are tested on, and in words how they were chosen."""

    manifest: Manifest
    labels: Labels
    indices: tuple[int, ...]
    chosen_by: str

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.manifest[i].id for i in self.indices)


def evaluate(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    ensemble: Sequence[str | Path] = (),
    split: str = "test",
    label: str = "",
    split_column: str | None = None,
    group_column: str | None = None,
    command: str = "",
) -> Result:
    """Classify or tag one part of labelled data and compare with its labels.

    The part is what the data's split column says. Where the data has folds, groups or no split, it is the one that the
    run used: its checkpoint keeps columns, seed and the fold it left out. `split="all"` takes everything. The task is
    the run's.

    `ensemble` names more runs of the same classes: the probabilities of all are averaged, in equal parts.

    Raises:
        CheckpointError: the model has no classifier.
        ConfigError: the ensemble's members have other classes, or left out another part of the data.
        DataError: the part is empty, or shares no label with the model.
    """
    models = [load_classifier(name) for name in (run, *ensemble)]
    model = models[0]
    manifest = read_data(data)
    manifest.require_all("an evaluation")
    column = label or model.config.get("label", "label")
    labels = read_labels(manifest, column, model.task)
    parts = [choose_part(manifest, labels, split, _split_of(m, split_column, group_column)) for m in models]
    for name, member, part in zip(ensemble, models[1:], parts[1:], strict=True):
        if (member.classes, member.task) != (model.classes, model.task):
            raise ConfigError(f"{name} has other classes than {run}; an ensemble needs members with the same ones.")
        if part.indices != parts[0].indices:
            raise ConfigError(
                f"{name} left out other clips than {run} ({part.chosen_by}; {parts[0].chosen_by}), so it may have "
                "learned from clips that are tested; give members that left out the same part."
            )
    probability = np.mean([predict_part(m, parts[0]) for m in models], axis=0)
    return score(
        model,
        parts[0],
        probability,
        command=command,
        protocol={"split": split, **({"ensemble": len(models)} if ensemble else {})},
        members=[describe(m) for m in models] if ensemble else [],
    )


def load_classifier(run: str | Path) -> Model:
    """A run's model.

    Raises:
        CheckpointError: it has no classifier.
    """
    model = load(run)
    if not model.classes:
        raise CheckpointError(f"{run} has no classifier; fine-tune it first: auricle finetune {run} DATA --out RUN")
    return model


def choose_part(manifest: Manifest, labels: Labels, name: str, split: Split) -> Part:
    """The part called train, val, test or all.

    Raises:
        DataError: no such part, or it is empty.
    """
    indices: Sequence[int] = range(len(manifest))
    used = "everything"
    if name in SPLITS:
        indices, used = _part(manifest, labels.strata, name, split)
    elif name != "all":
        raise DataError(f"--split must be one of {', '.join((*SPLITS, 'all'))}, got '{name}'.")
    if not indices:
        raise DataError(f"the part '{name}' of {manifest.source} is empty; choose another --split.")
    return Part(manifest, labels, tuple(indices), used)


def predict_part(model: Model, part: Part) -> NDArray[np.float64]:
    """Probabilities [N, C] of a part's items."""
    return model.classify_items([part.manifest[i] for i in part.indices])


def score(
    model: Model,
    part: Part,
    probability: NDArray[np.float64],
    *,
    command: str,
    protocol: dict[str, Any],
    members: Sequence[dict[str, Any]] = (),
) -> Result:
    """The result of probabilities [N, C] over a model's classes for a part's items.

    Raises:
        DataError: none of the labels is known to the model.
    """
    present = part.labels.classes(part.indices)
    unknown = sorted(set(present) - set(model.classes))
    if len(unknown) == len(present):
        raise DataError(
            f"none of the labels ({', '.join(unknown[:5])}) is known to the model, which tells apart "
            f"{', '.join(model.classes[:5])} ...; is this the right --label?"
        )
    outcome: dict[str, Any]
    if model.task == "tagging":
        truth = part.labels.targets(part.indices, model.classes).astype(bool)
        tags = TagPredictions(part.ids, model.classes, truth, probability)
        metrics, resamples = tags.metrics()
        outcome = {"metrics": metrics, "per_class": tags.per_class(), "items": tags.items()}
    else:
        predictions = classified(model, part, probability)
        outcome = {
            "metrics": predictions.metrics(),
            "confusion": predictions.confusion(),
            "items": predictions.items(),
        }
        resamples = RESAMPLES
    return Result(
        task=model.task,
        command=command,
        model=describe(model) | ({"members": list(members)} if members else {}),
        data={"hash": part.manifest.hash, "source": part.manifest.source, "items": len(part.manifest)},
        seed=model.config.get("split", {}).get("seed", 0),
        protocol={
            **protocol,
            "label": part.labels.column,
            "chosen_by": part.chosen_by,
            "tested": len(part.indices),
            "classes": len(model.classes),
            "unknown_labels": unknown,
            "interval": f"95 % percentile bootstrap over test items, {resamples} resamples",
        },
        **outcome,
    )


def classified(model: Model, part: Part, probability: NDArray[np.float64]) -> Predictions:
    """The likeliest class of each item beside its label."""
    best = probability.argmax(1)
    return Predictions(
        ids=part.ids,
        truth=tuple(part.labels.sets[i][0] for i in part.indices),
        predicted=tuple(model.classes[i] for i in best),
        scores=tuple(float(row[i]) for row, i in zip(probability, best, strict=True)),
    )


def _split_of(model: Model, split_column: str | None, group_column: str | None) -> Split:
    """The run's own split; other columns may be asked for where data names them differently."""
    own = Split(**model.config.get("split", {}))
    if split_column or group_column:
        own = replace(own, split_column=split_column, group_column=group_column)
    # A run that had train and test parts left out no fold that other data could have.
    return replace(own, held_out="") if own.held_out == "test" else own


def _part(manifest: Manifest, labels: Sequence[str], part: str, split: Split) -> tuple[Sequence[int], str]:
    """The items of a part, and in words how they were chosen."""
    if split.group_column is None:
        stated = stated_part(manifest, part, split.split_column)
        if stated is not None:
            return stated, f"column '{split.split_column or SPLIT_COLUMN}'"
    fold = choose_fold(manifest, labels, split)
    column = split.group_column or split.split_column or (SPLIT_COLUMN if SPLIT_COLUMN in manifest.columns else "")
    how = f"column '{column}'" if column else f"stratified folds, seed {split.seed}"
    indices: Sequence[int] = getattr(fold, part)
    return indices, f"{how}, '{fold.name}' held out"
