"""Probes: what a frozen model knows, read out by a simple head, beside what needs no learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auricle.command import as_command, current_command
from auricle.data.formats import Data
from auricle.errors import ConfigError
from auricle.evaluation import heads
from auricle.evaluation.baselines import baseline
from auricle.evaluation.cache import Cache
from auricle.evaluation.classify import (
    RESAMPLES,
    class_scores,
    compare,
    mean_calibration,
    mean_confusion,
    mean_items,
    mean_metrics,
)
from auricle.evaluation.layers import Reading, reading
from auricle.evaluation.readout import Array, Readout, read_out, readable
from auricle.evaluation.readout import embed_task as embed_task
from auricle.evaluation.readout import probe_features as probe_features
from auricle.evaluation.results import Comparison, Exhibits, Result
from auricle.evaluation.task import Task as Task
from auricle.inference.model import Model, load, random_model
from auricle.training.checkpoint import FRESH_OPTION, require

SEEDS = 3
RANDOM_SEEDS = tuple(range(SEEDS))


@as_command("probe")
def probe(
    model: str | Path,
    data: Data,
    *,
    head: str = "ridge",
    layers: str | int = "last",
    pooling: str = "",
    label: str = "label",
    split_column: str | None = None,
    group_column: str | None = None,
    random_weights: int | None = None,
    baselines: Sequence[str] = (),
    against: str | Path | None = None,
    seeds: int = SEEDS,
    seed: int = 0,
    cache: bool = True,
) -> Result:
    """Probe a model on labelled data.

    Args:
        head: "ridge", "linear", "mlp" or "knn"; see `evaluation.heads`.
        layers: "last", a block from 1 on (-1 is the last), "all" (the best one, chosen on training items) or "mix" (a
            weighted sum that is learned with the head); see `evaluation.layers`.
        pooling: "own" (as the method's paper pools, the last layer only), "mean", "rows" or "cls"; see `tasks.pooling`.
            Without it: own for the last layer, else mean.
        label: the column of the classes.
        split_column: the column of parts or folds; see `auricle.data.splits.folds`.
        group_column: leaves one of its groups out at a time; see there.
        random_weights: gives the network fresh weights from that seed in place of its own.
        baselines: "mfcc", "logmel" (both read out by logistic regression, whatever `head` is), "random" (the same
            network from `seeds` seeds, read as the model is); each is compared with the model on the same items.
        against: another model, read in the same way and compared with this one on the same items.
        seeds: number of runs of what is drawn (the mlp head, random weights), whose scores are averaged.
        seed: of the folds, where the data states none.
        cache: keep embeddings, and use those that were kept; see `evaluation.cache`.

    Raises:
        CheckpointError, ConfigError, DataError, AudioError: as their messages say.
    """
    if seeds < 1:
        raise ConfigError(f"seeds must be 1 or more, got {seeds}.")
    heads.check(head, mixed=layers == "mix")
    task = Task.read(data, label=label, split_column=split_column, group_column=group_column, seed=seed)
    kept = Cache() if cache else None
    head_seeds = range(seeds) if head in heads.DRAWN else range(1)

    def features_of(network: Model) -> tuple[Array, Reading]:
        of_network = reading(layers, pooling, network.encoder.num_layers)
        return embed_task(network, task, of_network, kept), of_network

    def read(network: Model, seeds: Sequence[int] = head_seeds) -> Readout:
        features, of_network = features_of(network)
        return read_out(task, features, head, of_network, seeds)

    if random_weights is None:
        require(model, FRESH_OPTION)
    loaded = load(model) if random_weights is None else random_model(model, random_weights)
    features, asked = features_of(loaded)
    ours = read_out(task, features, head, asked, head_seeds)
    results: dict[str, Any] = {}
    comparisons: list[Comparison] = []

    def compare_with(name: str, used: str, readouts: Sequence[Readout], **more: Any) -> None:
        runs = [run for readout in readouts for run in readout.runs]
        results[name] = {
            "head": used,
            "metrics": mean_metrics(runs),
            "runs": [float(run.correct.mean()) for run in runs],
            **more,
        }
        if readouts[0].layers:
            results[name]["layers"] = [readout.layers for readout in readouts]
        comparisons.append(compare("model", ours.runs, name, runs))

    if against is not None:
        require(against)
        other = load(against)
        compare_with(str(against), head, [read(other)], model=describe(other))
    for name in baselines:
        if name == "random":
            # The head's seed goes with the network's: as many runs as networks.
            compare_with(name, head, [read(random_model(model, s), [s]) for s in range(seeds)])
        else:
            # What the field means by MFCC statistics: ridge without standardising would make them look worse.
            simple = readable(baseline(name), task)
            compare_with(name, "linear", [Readout((probe_features(task, simple, "linear"),))])
    index = {name: i for i, name in enumerate(task.manifest.ids)}
    tested = [index[name] for name in ours.runs[0].ids]
    return Result(
        task="probe",
        metrics=mean_metrics(ours.runs),
        command=current_command(),
        model=describe(loaded),
        data={
            "hash": task.manifest.hash,
            "audio_hash": task.manifest.audio_hash,
            "source": task.manifest.source,
            "items": len(task.manifest),
            "label": label,
        },
        seed=seed,
        protocol={
            "head": head,
            "layers": asked.describe(),
            "pooling": asked.pooling,
            "seeds": len(ours.runs),
            "split": "test",
            "chosen_by": task.protocol,
            "notes": [fold.note for fold in task.folds if fold.note],
            "tested": len(ours.runs[0].ids),
            "classes": len(set(task.labels)),
            "score": heads.SCORES[head],
            "interval": f"95 % percentile bootstrap over test items, {RESAMPLES} resamples",
        },
        baselines=results,
        comparisons=comparisons,
        layers=ours.layers,
        confusion=mean_confusion(ours.runs),
        per_class=class_scores(ours.runs),
        calibration=[] if heads.SCORES[head] == "margin" else mean_calibration(ours.runs),
        items=mean_items(ours.runs),
        # Of several layers, the last: the one that a reader expects.
        exhibits=Exhibits([task.manifest[i] for i in tested], features[tested, -1]),
    )


def describe(model: Model) -> dict[str, Any]:
    """What a result says about its model."""
    return {
        "source": model.source,
        "hash": model.hash,
        "kind": model.config["kind"],
        "method": model.config["method"],
        "encoder_parameters": sum(p.numel() for p in model.encoder.parameters()),
        "precision": model.precision,
    }
