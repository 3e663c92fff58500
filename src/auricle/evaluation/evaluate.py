"""Evaluate a fine-tuned classifier on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.data.splits import SPLIT_COLUMN, stated_part
from auricle.errors import CheckpointError, DataError
from auricle.evaluation.classify import RESAMPLES, Predictions
from auricle.evaluation.probe import describe
from auricle.evaluation.results import Result
from auricle.inference.model import Model, load
from auricle.training.finetune import Split, choose_fold

SPLITS = ("train", "val", "test")


def evaluate(
    run: str | Path,
    data: Sequence[str | Path],
    *,
    split: str = "test",
    label: str = "",
    split_column: str | None = None,
    group_column: str | None = None,
    command: str = "",
) -> Result:
    """Classify one part of labelled data and compare with its labels.

    The part is what the data's split column says. Where the data has folds, groups or no split, it is the one that the
    run used: its checkpoint keeps columns, seed and the fold it left out. `split="all"` takes everything.

    Raises:
        CheckpointError: the model has no classifier.
        DataError: the part is empty, or shares no label with the model.
    """
    model = load(run)
    if not model.classes:
        raise CheckpointError(f"{run} has no classifier; fine-tune it first: auricle finetune {run} DATA --out RUN")
    manifest = read_data([Path(p) for p in data])
    manifest.require_all("an evaluation")
    labels = manifest.labels_of(label or model.config.get("label", "label"))
    used = "everything"
    if split == "all":
        indices: Sequence[int] = range(len(manifest))
    elif split in SPLITS:
        indices, used = _part(manifest, labels, split, _split_of(model, split_column, group_column))
    else:
        raise DataError(f"--split must be one of {', '.join((*SPLITS, 'all'))}, got '{split}'.")
    if not indices:
        raise DataError(f"the part '{split}' of {manifest.source} is empty; choose another --split.")
    predictions = predict_items(model, manifest, labels, indices)
    unknown = sorted(set(predictions.truth) - set(model.classes))
    if len(unknown) == len(set(predictions.truth)):
        raise DataError(
            f"none of the labels ({', '.join(unknown[:5])}) is known to the model, which tells apart "
            f"{', '.join(model.classes[:5])} ...; is this the right --label?"
        )
    return Result(
        task="classification",
        metrics=predictions.metrics(),
        command=command,
        model=describe(model),
        data={"hash": manifest.hash, "source": manifest.source, "items": len(manifest)},
        seed=model.config.get("split", {}).get("seed", 0),
        protocol={
            "split": split,
            "label": label or model.config.get("label", "label"),
            "chosen_by": used,
            "tested": len(predictions.ids),
            "classes": len(model.classes),
            "unknown_labels": unknown,
            "interval": f"95 % percentile bootstrap over test items, {RESAMPLES} resamples",
        },
        confusion=predictions.confusion(),
        items=predictions.items(),
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


def predict_items(model: Model, manifest: Manifest, labels: Sequence[str], indices: Sequence[int]) -> Predictions:
    """The model's predictions of some items of a manifest."""
    chosen = [manifest[i] for i in indices]
    probability = model.classify_items(chosen)
    best = probability.argmax(1)
    return Predictions(
        ids=tuple(item.id for item in chosen),
        truth=tuple(labels[i] for i in indices),
        predicted=tuple(model.classes[i] for i in best),
        scores=tuple(float(row[i]) for row, i in zip(probability, best, strict=True)),
    )
