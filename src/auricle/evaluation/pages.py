"""Which pictures belong on the page of a pretraining, a fine-tuning, and a result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from auricle.config import TrainConfig, from_dict, load_yaml, used_settings
from auricle.data.items import Item
from auricle.data.loader import Loader
from auricle.errors import AudioError, DataError, plural, sentence
from auricle.evaluation import exhibits, figures, spectrograms
from auricle.evaluation.evaluate import evaluate_validation
from auricle.evaluation.report import Report
from auricle.evaluation.results import Result, system_name, verdict
from auricle.evaluation.timeline import add_detection, add_detection_curves
from auricle.inference.model import Model, load
from auricle.training.finetune import FinetunePlan
from auricle.training.pretrain import FOR_FINETUNING, MONITOR_FILE, fixed_batch
from auricle.training.run import read_json, read_metrics

RECONSTRUCTED_CLIPS = 3
MAPPED_CLIPS = 100
CLASSES_SHOWN = 20
LOSS_CAPTION = "Training and validation loss. Validation uses the same crops and masks each time."


def pretraining_page(run: Path, train: Sequence[Item], val: Sequence[Item] = ()) -> Path:
    """`report.html` of a pretraining: settings, loss curves, signs of collapse, some clips reconstructed and mapped.

    Clips that were held out come first.
    """
    model, rows, config = load(run), read_metrics(run), load_yaml(run / "config.yaml")
    data = json.loads((run / "data.json").read_text(encoding="utf-8"))
    last = rows[-1] if rows else {}
    report = Report(f"Pretraining {config['method']}", str(run))
    report.facts(
        {
            "preset": config["preset"],
            "parameters of the encoder": f"{sum(p.numel() for p in model.encoder.parameters()):,}",
            "steps": last.get("step", 0),
            "clips": data["items"],
            "hours of audio": data["hours"],
            "final loss": last.get("loss"),
        }
    )
    report.heading("Learning")
    report.figure(
        figures.loss_curves(rows, ["loss", "val_loss"]),
        " ".join(filter(None, (LOSS_CAPTION, model.objective.loss_note if model.objective else ""))),
        "Curves of training and validation loss over steps",
    )
    report.figure(
        figures.loss_curves(rows, ["effective_rank"], least=1.0),
        "Effective rank of the embeddings: how many directions tell clips apart. A fall to 1 is collapse.",
        "Curve of the effective rank over steps",
    )
    if (run / MONITOR_FILE).exists():
        monitor = read_json(run / MONITOR_FILE)
        report.figure(
            figures.loss_curves(rows, ["knn_accuracy"], level=("chance", monitor["chance"])),
            f"Accuracy of nearest neighbours on {monitor['clips']} clips of {monitor['data']} "
            f"({monitor['classes']} classes; {monitor['split']}). Step 0 is the network before pretraining.",
            "Curve of the accuracy of nearest neighbours over steps, above the line of chance",
        )
    add_reconstructions(report, model, val or train, config["seed"])
    add_pretraining_map(report, model, [*val, *train])
    add_settings(report, config, FOR_FINETUNING)
    return report.write(run / "report.html")


def add_settings(report: Report, config: Mapping[str, Any], unused: Sequence[str] = ()) -> None:
    """The settings of a run that have an effect; config.yaml beside the page has all."""
    if config.get("max_minutes"):
        # They decided how many steps there were.
        unused = (*unused, "steps", "epochs")
    train = used_settings(from_dict(TrainConfig, config["train"], "config.yaml"), unused)
    report.heading("Settings")
    text = yaml.safe_dump({**config, "train": train}, sort_keys=False, allow_unicode=True, default_flow_style=None)
    report.code(text)


def add_pretraining_map(report: Report, model: Model, items: Sequence[Item]) -> None:
    """A map of the beginnings of some clips, as much as the network hears at once."""
    labels = [item.labels.get("label", "") for item in items]
    seconds = model.encoder.window_samples / model.encoder.sample_rate
    heard = [items[i].beginning(seconds) for i in exhibits.spread_over(labels, MAPPED_CLIPS)]
    heard = [item for item in heard if exhibits.readable(item)]
    if len(heard) > 1:
        colours = [item.labels.get("label", "") for item in heard]
        texts = [item.id + (f": {label}" if label else "") for item, label in zip(heard, colours, strict=True)]
        what = "Embeddings of the beginnings of clips" + (
            " (colours: their labels, never learned)." if any(colours) else "."
        )
        exhibits.add_map(report, heard, model.embed_items(heard), colours, texts, what)


def add_reconstructions(report: Report, model: Model, items: Sequence[Item], seed: int) -> None:
    """Masked input, reconstruction and original of the longest few of some clips."""
    if model.objective is None or not items:
        return
    chosen = sorted(items[:50], key=lambda item: -item.duration)[:RECONSTRUCTED_CLIPS]
    encoder = model.encoder
    loader = Loader(
        chosen,
        rate=encoder.sample_rate,
        batch_size=len(chosen),
        crop_seconds=encoder.window_samples / encoder.sample_rate,
        seed=seed,
    )
    batch = fixed_batch(chosen, loader).to(model.device)
    shown = model.objective.reconstruct(batch)
    if shown is None:
        return
    columns = [
        [x[row, :frames].float().cpu().numpy() for row, frames in enumerate(shown.frames.tolist())]
        for x in (shown.original, shown.hidden, shown.rebuilt)
    ]
    report.heading("Reconstruction")
    report.figure(
        spectrograms.reconstruction(columns[0], columns[1], columns[2], [Path(name).stem for name in batch.ids]),
        "Log-mel spectrograms: original, what the network saw (grey is masked), and the masked part filled in by it.",
        "Original, masked and reconstructed spectrograms side by side",
    )


def finetuning_page(run: Path, plan: FinetunePlan) -> Path:
    """`report.html` of a fine-tuning: learning curves, what its best weights say of its validation clips, settings."""
    rows, config = read_metrics(run), load_yaml(run / "config.yaml")
    model = load(run)
    report = Report("Fine-tuning", str(run))
    report.facts(
        {
            "method": config["method"],
            "classes": len(model.classes),
            "steps": rows[-1]["step"] if rows else 0,
            "held out": config["split"]["held_out"],
            "averaged epochs": "-".join(map(str, model.config.get("averaged_epochs", ()))) or "none",
            "final loss": rows[-1].get("loss") if rows else None,
        }
    )
    report.heading("Learning")
    validated = any("val_loss" in row for row in rows)
    report.figure(
        figures.loss_curves(rows, ["loss", "val_loss"]),
        "Training and validation loss." if validated else "Training loss; no clips were held out to validate on.",
        "Loss curves over steps",
    )
    if model.task == "detection":
        add_detection_curves(report, rows)
    elif model.task == "tagging":
        report.figure(
            figures.loss_curves(rows, ["val_mAP", "val_ensemble", "test_mAP"]),
            "Mean average precision on validation clips, and that of the mean of all predictions so far; in a "
            "cross-validation, on the fold that is left out, which chooses nothing.",
            "Curves of mean average precision over steps",
        )
    else:
        report.figure(
            figures.loss_curves(rows, ["accuracy", "val_accuracy", "test_accuracy"]),
            "Training (augmented batches) and validation accuracy; in a cross-validation, on the fold that is left "
            "out, which chooses nothing."
            if validated or any("test_accuracy" in row for row in rows)
            else "Training accuracy, on augmented batches.",
            "Accuracy curves over steps",
        )
    add_validation(report, run, plan)
    add_settings(report, config)
    return report.write(run / "report.html")


def add_validation(report: Report, run: Path, plan: FinetunePlan) -> None:
    """What the best weights of a run say of its validation clips, if it has any."""
    if not plan.fold.val:
        return
    report.heading("Validation clips")
    try:
        result = evaluate_validation(run, plan.manifest, plan.labels, plan.fold.val)
    except (AudioError, DataError) as error:
        # The training is done and saved; its page is to say what it can.
        report.text(f"Nothing can be shown of them: {error}")
        return
    report.text(
        f"What the best weights say of the {plural(len(result.items), 'clip')} by which they were chosen: a look at "
        "what was learned. Chosen by these clips, the scores flatter; auricle evaluate scores others."
    )
    add_result(report, result)


def result_page(result: Result, path: Path) -> Path:
    """The page of a probe or an evaluation: scores, comparison with baselines, confusion, the surest errors."""
    titles = {
        "probe": "Probe",
        "classification": "Evaluation",
        "tagging": "Evaluation of tags",
        "detection": "Evaluation of events",
    }
    report = Report(titles.get(result.task, result.task), result.model["source"])
    facts = {k.replace("_", " "): v for k, v in result.protocol.items() if isinstance(v, str | int | float)}
    # The interval stands below the scores, the name of the score above its column.
    # Events are labelled by their own list, not by the column of clips.
    shown_elsewhere = {"interval", "score", *(("label",) if result.task == "detection" else ())}
    facts = {name: value for name, value in facts.items() if name not in shown_elsewhere}
    if "collar" in facts:
        facts["collar"] = f"{facts['collar']:g} s"
    report.facts(facts)
    add_result(report, result)
    report.heading("Reproduce")
    report.code(result.command or "(called from Python)")
    return report.write(path)


def add_result(report: Report, result: Result) -> None:
    """Scores, comparison with baselines, confusion, classes, calibration, a map, the surest errors: what there is."""
    report.heading("Scores")
    report.table(
        ["metric", "value", "low", "high"],
        [[name.replace("_", " "), q["value"], q["low"], q["high"]] for name, q in result.metrics.items()],
        note=str(result.protocol["interval"]),
    )
    if notes := result.protocol.get("notes"):
        report.text(sentence("; ".join(notes) + "."))
    if result.baselines:
        report.figure(
            figures.bars(comparison_rows(result), ours="model"),
            "Accuracy with 95 % intervals.",
            "Bars of accuracy for the model and its baselines",
        )
        report.table(
            ["model minus", "the model is", "difference", "low", "high"],
            [
                [system_name(c["b"], result.baselines[c["b"]]), verdict(c), c["value"], c["low"], c["high"]]
                for c in result.comparisons
            ],
            note="Paired bootstrap over the same items; 95 % interval.",
        )
    if result.layers:
        add_layers(report, result)
    if "folds" in result.protocol:
        add_folds(report, result.protocol)
    if result.confusion:
        report.heading("Confusion")
        report.figure(
            figures.confusion(np.asarray(result.confusion["rows"]), result.confusion["labels"]),
            "Rows are true classes, columns what was predicted.",
            "Confusion matrix",
        )
    if result.task == "detection":
        add_detection(report, result)
    elif result.per_class:
        add_classes(report, result.per_class)
    if result.calibration:
        report.heading("Calibration")
        report.figure(
            figures.calibration(result.calibration),
            f"How often the model is right when its {result.protocol['score']} is as high: on the dashed line, as "
            "often as it says." + (" All pairs of a clip and a tag." if result.task == "tagging" else ""),
            "Reliability diagram: accuracy over confidence",
        )
    if result.task != "detection":
        exhibits.add_result_map(report, result)
        exhibits.add_errors(report, result)


def add_folds(report: Report, protocol: Mapping[str, Any]) -> None:
    """The score of each fold, and how their mean went along the training."""
    report.heading("Folds")
    columns = list(protocol["folds"][0])
    report.table(columns, [[fold[name] for name in columns] for fold in protocol["folds"]])
    if "curve" in protocol:
        score = columns[-1]
        rows = [{"number": row["number"], f"mean {score}": row["mean"]} for row in protocol["curve"]]
        report.figure(
            figures.loss_curves(rows, [f"mean {score}"], x="number"),
            f"Mean {score} of the folds that are left out, each time that they were scored in training.",
            f"Curve of mean {score} over the folds",
        )


def add_classes(report: Report, classes: Sequence[Mapping[str, Any]]) -> None:
    """Average precision of tags, or recall of classes, best first, as bars and as a table."""
    key, what = ("AP", "average precision") if "AP" in classes[0] else ("recall", "recall")
    ordered = sorted(classes, key=lambda c: (c[key] is None, -(c[key] or 0.0), c["label"]))
    report.heading("Classes")
    shown = ordered if len(ordered) <= 2 * CLASSES_SHOWN else ordered[:CLASSES_SHOWN] + ordered[-CLASSES_SHOWN:]
    which = "" if len(shown) == len(ordered) else f" The best and worst {CLASSES_SHOWN} of {len(ordered)} classes."
    report.figure(
        figures.bars([(c["label"], c[key], None, None, what) for c in shown], ours=""),
        f"{what.capitalize()} of each class.{which}",
        f"Bars of {what}, a bar per class",
    )
    columns = ("label", "items", *(name for name in classes[0] if name not in ("label", "items")))
    report.table(columns, [[c[name] for name in columns] for c in ordered], note="Items: clips that have the label.")


def add_layers(report: Report, result: Result) -> None:
    """What each layer is worth, or weighs in the mix."""
    report.heading("Layers")
    if "weight" in result.layers[0]:
        weights = [(f"layer {row['layer']}", row["weight"]) for row in result.layers]
        report.figure(
            figures.bars([(name, w["value"], w["low"], w["high"], "weight") for name, w in weights], ours=""),
            "Weight of each layer in the learned mix: the mean, and the lowest and highest over folds and seeds. Each "
            "dimension of each layer is standardised first, so that weights can be compared.",
            "Bars of the weight of each layer",
        )
        return
    report.figure(
        figures.layer_curves(result.layers),
        "Accuracy of a probe of each layer: on test items with 95 % intervals, and on the inner validation items, from "
        "which alone the layer is chosen. Chosen layers are filled.",
        "Curves of test and validation accuracy over layers",
    )
    report.table(
        ["layer", "validation accuracy", "test accuracy", "chosen in folds"],
        [[row["layer"], row["validation"], row["accuracy"], row["chosen"]] for row in result.layers],
        note="The best test accuracy of this table is not a result: whoever picks it has seen the test items.",
    )


def comparison_rows(
    result: Result, group: str = "accuracy"
) -> list[tuple[str, float | None, float | None, float | None, str]]:
    """The model's and its baselines' accuracy as rows of a bar chart."""
    systems: dict[str, Mapping[str, Any]] = {
        "model": result.metrics,
        **{system_name(n, b): b["metrics"] for n, b in result.baselines.items()},
    }
    return [
        (name, m["accuracy"]["value"], m["accuracy"]["low"], m["accuracy"]["high"], group)
        for name, m in systems.items()
    ]
