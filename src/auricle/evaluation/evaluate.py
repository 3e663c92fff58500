"""Evaluate a fine-tuned classifier or tagger, or several of them together, on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.command import as_command, current_command
from auricle.data.formats import Data, read_data
from auricle.data.items import Manifest
from auricle.data.labels import Labels, read_labels
from auricle.errors import CheckpointError, ConfigError, DataError
from auricle.evaluation.classify import RESAMPLES, Predictions, class_scores, mean_calibration
from auricle.evaluation.detection import evaluate_detection, evaluate_detector
from auricle.evaluation.folds import fold_scores
from auricle.evaluation.parts import choose_part
from auricle.evaluation.probe import describe
from auricle.evaluation.results import Exhibits, Result
from auricle.evaluation.tagging import TagPredictions
from auricle.inference.model import Model, load
from auricle.training.folds import fold_runs


@dataclass(frozen=True)
class Tested:
    """What a run says about a part of labelled data: probabilities [N, C] of its `classes` for the items `indices`.

    `embeddings` [N, D] are those of the run's network; None where several networks shared the items.

    `chosen_by` says in words how the items were chosen, and `notes` what a reader of the scores should know. Of a
    cross-validation, `model` is the first network, and `folds` is what each says about its own fold.
    """

    model: Model
    classes: tuple[str, ...]
    indices: tuple[int, ...]
    probability: NDArray[np.float64]
    embeddings: NDArray[np.float64] | None
    chosen_by: str
    notes: tuple[str, ...] = ()
    folds: tuple[Tested, ...] = ()


@as_command("evaluate")
def evaluate(
    run: str | Path,
    data: Data,
    *,
    ensemble: Sequence[str | Path] = (),
    split: str = "test",
    label: str = "",
    split_column: str | None = None,
    group_column: str | None = None,
    collar: float | None = None,
) -> Result:
    """Classify or tag one part of labelled data and compare with its labels.

    The part is what the data's split column says. Where the data has folds, groups or no split, "test" is every clip
    that the run did not learn from, be it the fold that it left out or other data altogether: its checkpoint knows the
    clips by their content (`data.heard`). A clip that it learned from is scored for `split` "train" and "all" only, and
    a note says so. The task is the run's. Of a cross-validation, each network tests the fold that it left out, and all
    items are scored together.

    A detector's events are scored within `collar` seconds (None: what it was trained for); see `evaluation.detection`.

    `ensemble` names more runs of the same classes: the probabilities of all are averaged, in equal parts.

    Raises:
        CheckpointError: the model has no classifier.
        ConfigError: the ensemble's members have other classes, left out another part of the data, or are one run.
        DataError: the part is empty, or shares no label with the model.
    """
    members = [Path(name).resolve() for name in (run, *ensemble)]
    if twice := next((name for name in members if members.count(name) > 1), None):
        raise ConfigError(f"the ensemble names {twice} twice; name each run once.")
    manifest = read_data(data)
    manifest.require_all("an evaluation")
    folded = fold_runs(Path(run))
    first = load_classifier(folded[0] if folded else run)
    if first.detector is not None:
        if ensemble:
            raise ConfigError("detectors cannot be evaluated together yet; leave out --ensemble.")
        columns = {"split_column": split_column, "group_column": group_column}
        runs = folded or [Path(run)]
        return evaluate_detection(runs, str(run), manifest, split=split, label=label, **columns, collar=collar)
    if collar is not None:
        raise ConfigError(f"{run} classifies clips, and a collar is for events in time; leave it out.")
    labels = read_labels(manifest, label or first.config.get("label", "label"), first.task)
    tested = [predict_part(name, manifest, labels, split, split_column, group_column) for name in (run, *ensemble)]
    for name, member in zip(ensemble, tested[1:], strict=True):
        if (member.classes, member.model.task) != (tested[0].classes, first.task):
            raise ConfigError(f"{name} has other classes than {run}; an ensemble needs members with the same ones.")
        if member.indices != tested[0].indices:
            raise ConfigError(
                f"{name} left out other clips than {run} ({member.chosen_by}; {tested[0].chosen_by}), so it may have "
                "learned from clips that are tested; give members that left out the same part."
            )
    together = replace(tested[0], probability=np.mean([member.probability for member in tested], axis=0))
    protocol: dict[str, Any] = {"split": split, "notes": list(dict.fromkeys(n for m in tested for n in m.notes))}
    if ensemble:
        protocol |= {"ensemble": len(tested), "members": [describe(member.model) for member in tested]}
    if folded and not ensemble:
        of_folds = fold_scores(folded, together.folds, labels)
        protocol |= of_folds | {"notes": protocol["notes"] + of_folds.get("notes", [])}
    result = score(together, manifest, labels, protocol=protocol)
    # A cross-validation is more than the first of its networks.
    return replace(result, model={**result.model, "source": str(run)}) if folded else result


def evaluate_validation(run: str | Path, manifest: Manifest, labels: Labels, indices: Sequence[int]) -> Result:
    """What a run's best weights say about the items that chose them; for its own page, not a result to report.

    Raises:
        AudioError: an item cannot be read any more.
        DataError: the network knows none of their labels.
    """
    model = load_classifier(run)
    how = "the training, to choose its weights by"
    protocol: dict[str, Any] = {"split": "val", "notes": []}
    if model.detector is not None:
        return evaluate_detector(model, manifest, labels, indices, {**protocol, "chosen_by": how})
    outputs = model.classify_and_embed_items([manifest[i] for i in indices])
    tested = Tested(model, model.classes, tuple(indices), *outputs, how)
    return score(tested, manifest, labels, protocol=protocol)


def load_classifier(run: str | Path) -> Model:
    """A run's model.

    Raises:
        CheckpointError: it has no classifier.
    """
    model = load(run)
    if not model.classes:
        raise CheckpointError(f"{run} has no classifier; fine-tune it first: auricle finetune {run} DATA --out RUN")
    return model


def predict_part(
    run: str | Path,
    manifest: Manifest,
    labels: Labels,
    part: str,
    split_column: str | None = None,
    group_column: str | None = None,
) -> Tested:
    """What a run, or each network of a cross-validation about its own fold, says about a part of the data.

    Raises:
        ConfigError: another part of a cross-validation than the folds it left out.
    """
    folded = fold_runs(Path(run))
    if folded and part != "test":
        raise ConfigError(f"{run} is a cross-validation and tests the folds that were left out, not --split {part}.")
    results = []
    for name in folded or [Path(run)]:
        model = load_classifier(name)
        chosen = choose_part(manifest, part, model, split_column, group_column)
        outputs = model.classify_and_embed_items([manifest[i] for i in chosen.indices])
        results.append(Tested(model, model.classes, chosen.indices, *outputs, chosen.how, chosen.notes))
    if not folded:
        return results[0]
    classes = tuple(sorted({name for result in results for name in result.classes}))
    order = np.argsort([i for result in results for i in result.indices])
    indices = tuple(int(i) for i in np.concatenate([result.indices for result in results])[order])
    if len(set(indices)) < len(indices):
        raise ConfigError(f"{run} was made with other folds than this data has; give the data it was made with.")
    probability = np.concatenate([_in_classes(result, classes) for result in results])[order]
    used = f"each of {len(results)} folds, by the run that left it out"
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    return Tested(results[0].model, classes, indices, probability, None, used, notes, tuple(results))


def _in_classes(tested: Tested, classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Probabilities [N, C] of `classes`; 0 for those that a run never met."""
    wide = np.zeros((len(tested.indices), len(classes)))
    wide[:, [classes.index(name) for name in tested.classes]] = tested.probability
    return wide


def score(tested: Tested, manifest: Manifest, labels: Labels, *, protocol: dict[str, Any]) -> Result:
    """The result of what was tested.

    Raises:
        DataError: none of the labels is known to the model.
    """
    present = labels.classes(tested.indices)
    unknown = sorted(set(present) - set(tested.classes))
    if len(unknown) == len(present):
        raise DataError(
            f"none of the labels ({', '.join(unknown[:5])}) is known to the model, which tells apart "
            f"{', '.join(tested.classes[:5])} ...; is this the right --label?"
        )
    outcome: dict[str, Any]
    ids = tuple(manifest[i].id for i in tested.indices)
    if labels.task == "tagging":
        truth = labels.targets(tested.indices, tested.classes).astype(bool)
        tags = TagPredictions(ids, tested.classes, truth, tested.probability)
        metrics, resamples = tags.metrics()
        outcome = {
            "metrics": metrics,
            "per_class": tags.per_class(),
            "items": tags.items(),
            "calibration": tags.calibration(),
        }
        protocol = {**protocol, "notes": [*protocol["notes"], *tags.notes()]}
    else:
        best = tested.probability.argmax(1)
        predictions = Predictions(
            ids=ids,
            truth=tuple(labels.sets[i][0] for i in tested.indices),
            predicted=tuple(tested.classes[i] for i in best),
            scores=tuple(float(row[i]) for row, i in zip(tested.probability, best, strict=True)),
        )
        confusion, resamples = predictions.confusion(), RESAMPLES
        outcome = {
            "metrics": predictions.metrics(),
            "confusion": confusion,
            "per_class": class_scores([predictions]),
            "items": predictions.items(),
            "calibration": mean_calibration([predictions]),
        }
    return Result(
        task=labels.task,
        command=current_command(),
        model=describe(tested.model),
        data={"hash": manifest.hash, "source": manifest.source, "items": len(manifest)},
        seed=tested.model.config.get("split", {}).get("seed", 0),
        protocol={
            **protocol,
            "label": labels.column,
            "chosen_by": tested.chosen_by,
            "tested": len(tested.indices),
            "classes": len(tested.classes),
            "unknown_labels": unknown,
            "score": "probability",
            "interval": f"95 % percentile bootstrap over test items, {resamples} resamples",
        },
        exhibits=Exhibits([manifest[i] for i in tested.indices], tested.embeddings),
        **outcome,
    )
