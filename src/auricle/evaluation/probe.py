"""Probes: what a frozen model knows, read out by a simple head, beside what needs no learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.data.splits import Fold, folds
from auricle.errors import AudioError, DataError
from auricle.evaluation import heads
from auricle.evaluation.baselines import baseline
from auricle.evaluation.classify import RESAMPLES, Predictions, compare, mean_metrics
from auricle.evaluation.results import Comparison, Result
from auricle.inference.model import Model, load, random_model

RANDOM_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Task:
    """Labelled clips and who is trained and tested on."""

    manifest: Manifest
    label: str
    labels: tuple[str, ...]
    folds: tuple[Fold, ...]
    protocol: str

    @classmethod
    def read(
        cls,
        data: Sequence[str | Path],
        *,
        label: str = "label",
        split_column: str | None = None,
        group_column: str | None = None,
        seed: int = 0,
    ) -> Task:
        """Read labelled data with the split it states; see `auricle.data.splits.folds`.

        Raises:
            DataError: no such column, or fewer than two classes.
        """
        manifest = read_data([Path(p) for p in data])
        manifest.require_all("a probe")
        labels = manifest.labels_of(label)
        if len(set(labels)) < 2:
            raise DataError(
                f"column '{label}' holds one class ('{labels[0]}'); a probe needs two: choose another --label."
            )
        found = folds(manifest, split_column=split_column, group_column=group_column, labels=labels, seed=seed)
        by = group_column or split_column or ("split" if "split" in manifest.columns else "")
        protocol = f"{len(found)} fold(s) by column '{by}'" if by else f"{len(found)} stratified folds, seed {seed}"
        return cls(manifest, label, tuple(labels), tuple(found), protocol)


def probe_features(task: Task, features: NDArray[np.float32], head: str) -> Predictions:
    """Train the head on each fold's training items, predict its test items: every test item once.

    Raises:
        DataError: the training items of a fold are all of one class.
    """
    ids, truth, predicted, scores = [], [], [], []
    for fold in task.folds:
        train, test = list(fold.train), list(fold.test)
        known = [task.labels[i] for i in train]
        if len(set(known)) < 2:
            raise DataError(
                f"fold '{fold.name}': all {len(train)} training items have the label '{known[0]}', so there is nothing "
                f"to tell apart; choose another --split-column or --group-column."
            )
        fitted = heads.fit(head, features[train], known)
        values = fitted.scores(features[test])
        ids += [task.manifest[i].id for i in test]
        truth += [task.labels[i] for i in test]
        predicted += [fitted.classes[i] for i in values.argmax(1)]
        scores += values.max(1).tolist()
    return Predictions(tuple(ids), tuple(truth), tuple(predicted), tuple(float(s) for s in scores))


def probe(
    model: str | Path,
    data: Sequence[str | Path],
    *,
    head: str = "ridge",
    label: str = "label",
    split_column: str | None = None,
    group_column: str | None = None,
    random_weights: int | None = None,
    baselines: Sequence[str] = (),
    seed: int = 0,
    command: str = "",
) -> Result:
    """Probe a model on labelled data.

    `random_weights` gives the network fresh weights from that seed in place of its own. `baselines` may name "mfcc",
    "logmel" (both read out by logistic regression, whatever `head` is) and "random" (the same network from three seeds,
    by `head`); each is compared with the model on the same items.

    Raises:
        CheckpointError, ConfigError, DataError, AudioError: as their messages say.
    """
    task = Task.read(data, label=label, split_column=split_column, group_column=group_column, seed=seed)
    loaded = load(model) if random_weights is None else random_model(model, random_weights)
    ours = probe_features(task, embed_task(loaded, task), head)
    results: dict[str, Any] = {}
    comparisons: list[Comparison] = []
    for name in baselines:
        if name == "random":
            used, sets = head, [embed_task(random_model(model, s), task) for s in RANDOM_SEEDS]
        else:
            # What the field means by MFCC statistics: ridge without standardising would make them look worse.
            used, sets = "linear", [_readable(baseline(name), task)]
        runs = [probe_features(task, features, used) for features in sets]
        accuracies = [float(run.correct.mean()) for run in runs]
        results[name] = {"head": used, "metrics": mean_metrics(runs), "runs": accuracies}
        comparisons.append(compare("model", ours, name, runs))
    return Result(
        task="probe",
        metrics=ours.metrics(),
        command=command,
        model=describe(loaded),
        data={"hash": task.manifest.hash, "source": task.manifest.source, "items": len(task.manifest), "label": label},
        seed=seed,
        protocol={
            "head": head,
            "split": task.protocol,
            "notes": [fold.note for fold in task.folds if fold.note],
            "tested": len(ours.ids),
            "classes": len(set(task.labels)),
            "interval": f"95 % percentile bootstrap over test items, {RESAMPLES} resamples",
        },
        baselines=results,
        comparisons=comparisons,
        confusion=ours.confusion(),
        items=ours.items(),
    )


def embed_task(model: Model, task: Task) -> NDArray[np.float32]:
    """Clip embeddings of all items."""
    return _readable(model.embed_items, task)


def _readable(embed: Any, task: Task) -> NDArray[np.float32]:
    try:
        features: NDArray[np.float32] = embed(task.manifest.items)
    except AudioError as error:
        # A probe on part of the clips would be another task: its result could not be compared.
        raise AudioError(
            error.path, error.reason, f"{error.detail} (remove the file from the data to probe without it)"
        ) from None
    return features


def describe(model: Model) -> dict[str, Any]:
    """What a result says about its model."""
    return {
        "source": model.source,
        "hash": model.hash,
        "kind": model.config["kind"],
        "method": model.config["method"],
        "parameters": sum(p.numel() for p in model.encoder.parameters()),
        "precision": model.precision,
    }
