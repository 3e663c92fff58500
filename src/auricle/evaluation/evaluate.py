"""Evaluate a fine-tuned classifier on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.errors import CheckpointError, DataError
from auricle.evaluation.classify import RESAMPLES, Predictions
from auricle.evaluation.probe import describe
from auricle.evaluation.results import Result
from auricle.inference.model import Model, load
from auricle.training.finetune import choose_fold

SPLITS = ("train", "val", "test")


def evaluate(
    run: str | Path,
    data: Sequence[str | Path],
    *,
    split: str = "test",
    label: str = "",
    split_column: str | None = None,
    group_column: str | None = None,
    seed: int = 0,
    command: str = "",
) -> Result:
    """Classify one part of labelled data and compare with its labels.

    Where the data has folds or groups, the part `test` is the one that the run left out of its training. Data without
    any split is evaluated whole with `split="all"`.

    Raises:
        CheckpointError: the model has no classifier.
        DataError: the part is empty, or shares no label with the model.
    """
    model = load(run)
    if not model.classes:
        raise CheckpointError(f"{run} has no classifier; fine-tune it first: auricle finetune {run} DATA --out RUN")
    manifest = read_data([Path(p) for p in data])
    labels = manifest.labels_of(label or model.config.get("label", "label"))
    if split == "all":
        indices: Sequence[int] = range(len(manifest))
    elif split in SPLITS:
        held_out = model.config.get("held_out", "")
        fold = choose_fold(manifest, split_column, group_column, labels, "" if held_out == "test" else held_out, seed)
        indices = getattr(fold, split)
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
        seed=seed,
        protocol={
            "split": split,
            "tested": len(predictions.ids),
            "classes": len(model.classes),
            "unknown_labels": unknown,
            "interval": f"95 % percentile bootstrap over test items, {RESAMPLES} resamples",
        },
        confusion=predictions.confusion(),
        items=predictions.items(),
    )


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
