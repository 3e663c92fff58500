"""Fine-tuning as users call it: a checkpoint and labelled data in, a run directory with a classifier out."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auricle.config import TrainConfig, from_dict, override, refuse_unused, to_dict
from auricle.data.formats import Data, read_data
from auricle.data.heard import Heard
from auricle.data.items import Manifest
from auricle.data.labels import Labels, LabelWarning, balancing_weights, read_labels
from auricle.data.loader import Loader
from auricle.data.randomness import torch_seed
from auricle.data.splits import Fold, folds, holdout
from auricle.errors import CheckpointError, ConfigError, DataError, did_you_mean, plural
from auricle.methods import find_preset, get_method, get_preset, get_recipe
from auricle.methods.base import MethodConfig
from auricle.tasks.classification import Classifier
from auricle.tasks.detection import Detector, frame_width
from auricle.tasks.distillation import DistilledClassifier, DistilledDetector
from auricle.tasks.mixing import SpectrogramMixing
from auricle.training import checkpoint as ckpt
from auricle.training.averaging import WeightAverage
from auricle.training.detection import (
    FOR_DETECTION,
    NOT_FOR_DETECTION,
    DetectionValidation,
    annotation_weights,
    for_detection,
    label_notes,
    without_unlabelled,
)
from auricle.training.distributed import Group, processes
from auricle.training.job import Job
from auricle.training.log import Console
from auricle.training.loop import train
from auricle.training.memory import enough_memory
from auricle.training.precision import resolve_precision
from auricle.training.pretrain import check_rate, pick_device, report_bad_files, report_skipped
from auricle.training.run import claimed
from auricle.training.teaching import check_teacher, resolve_teacher, teach
from auricle.training.tracking import trackers
from auricle.training.validation import Validation, score_name

# Kinds of checkpoints whose encoder has been fitted to clips of a task already.
FINETUNED = ("classifier", "detector")


@dataclass(frozen=True)
class Split:
    """How the parts of the data were chosen; a checkpoint keeps it, for an evaluation to name and follow."""

    split_column: str | None = None
    group_column: str | None = None
    held_out: str = ""
    seed: int = 0


@dataclass(frozen=True)
class FinetunePlan:
    """Everything resolved, nothing begun."""

    checkpoint: ckpt.Checkpoint | None
    method: str
    preset: str
    recipe: str
    model: MethodConfig
    train: TrainConfig
    manifest: Manifest
    labels: Labels
    classes: tuple[str, ...]
    split: Split
    fold: Fold
    seed: int
    weights_seed: int | None
    watch_test: bool = False
    teacher: ckpt.Checkpoint | None = None

    def config(self) -> dict[str, Any]:
        """What `config.yaml` records and a resumed run must repeat."""
        return {
            "command": "finetune",
            "method": self.method,
            "preset": self.preset,
            "recipe": self.recipe,
            # Before what may be measured anew with another seed, so that a refusal to resume names the cause first.
            "seed": self.seed,
            "model": to_dict(self.model),
            "train": to_dict(self.train),
            "init": self.checkpoint.hash
            if self.checkpoint and self.weights_seed is None
            else f"random-{self.weights_seed}",
            "data": self.manifest.hash,
            "label": self.labels.column,
            "task": self.labels.task,
            "split": asdict(self.split),
            "watch_test": self.watch_test,
            **({"teacher": self.teacher.hash} if self.teacher else {}),
        }


def plan(model: str | Path, data: Data, *, held_out: str = "", **options: Any) -> FinetunePlan:
    """Resolve a fine-tuning that leaves out one part of the data; `options` as in `draft`.

    The test part of the data's own split is never trained on. Where the data has folds or groups instead of a split,
    `held_out` names the one to leave out (the last, if empty). Without validation items, the last weights are kept,
    unless `val_fraction` takes a part of the training items for choosing the best.

    Raises:
        ConfigError, DataError, CheckpointError: as their messages say.
    """
    common, available = draft(model, data, **options)
    fold = pick_fold(available, held_out)
    plan = _check_validation(_for_fold(common, fold), fold, options.get("settings") or {})
    check_teacher(plan.teacher, [plan.manifest[i] for i in plan.fold.test])
    return plan


def plan_folds(model: str | Path, data: Data, **options: Any) -> list[FinetunePlan]:
    """Resolve as many fine-tunings as the data has folds or groups, each leaving out another one.

    The part left out is scored along the way, but nothing is chosen by it. Options and errors as in `plan`.
    """
    common, available = draft(model, data, **options)
    if len(available) == 1:
        raise ConfigError(
            "--held-out all is for folds or groups, but this data states one train and one test part; leave it out, or "
            "name a column of folds or groups with --split-column or --group-column."
        )
    plans = [dataclasses.replace(_for_fold(common, fold), watch_test=True) for fold in available]
    for each in plans:
        check_teacher(each.teacher, [each.manifest[i] for i in each.fold.test])
    return [
        _check_validation(plan, fold, options.get("settings") or {})
        for plan, fold in zip(plans, available, strict=True)
    ]


def draft(
    model: str | Path,
    data: Data,
    *,
    label: str = "label",
    task: str = "",
    recipe: str = "",
    settings: Mapping[str, Any] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    random_weights: int | None = None,
    teacher: str | Path = "",
    steps: int = 0,
    seed: int = 0,
) -> tuple[FinetunePlan, list[Fold]]:
    """Resolve all of a fine-tuning but the fold it leaves out, and the folds that there are.

    `recipe` names a published fine-tuning of the method: its task, input statistics and training are laid over the
    checkpoint's network, and `settings` over them. Without one, the checkpoint's preset says how to train.
    `task` is as in `auricle.data.labels.read_labels`; if empty, the recipe or the labels decide. `random_weights` is
    the seed of a network from scratch. `teacher` is a fine-tuned run that counts in the loss by the setting `distil`.

    Raises:
        ConfigError, DataError, CheckpointError: as their messages say.

    Warns:
        LabelWarning: single labels look like several.
    """
    if random_weights is None:
        ckpt.require(model, ckpt.FRESH_OPTION)
    checkpoint = ckpt.resolve(Path(model)) if Path(model).exists() else None
    if checkpoint is None:
        method_name, preset = find_preset(str(model))
        if not method_name:
            raise CheckpointError(ckpt.no_such_model(str(model)))
        chosen = get_preset(method_name, str(model))
        base = chosen.model
    else:
        method_name, preset = checkpoint.config["method"], checkpoint.config.get("preset") or ""
        chosen = get_preset(method_name, preset or get_method(method_name).DEFAULT_PRESET)
        base = from_dict(get_method(method_name).CONFIG, checkpoint.config["model"], str(checkpoint.path))
    settings = dict(settings or {})
    if steps:
        settings["steps"] = steps
    elif "epochs" in settings:
        # A preset's number of steps would hide the epochs that were asked for.
        settings.setdefault("steps", 0)
    training = chosen.finetune
    if recipe:
        published = get_recipe(method_name, recipe)
        base, training = published.fit(base)
        task = task or published.task
    if idle := sorted(getattr(type(base), "PRETEXT", frozenset()) & settings.keys()):
        raise ConfigError(
            f"fine-tuning does not use {', '.join(idle)}, {'a setting' if len(idle) == 1 else 'settings'} of the "
            f"pretext task; leave out --set {idle[0]}."
        )
    network, train_config = override((base, training), settings)
    if random_weights is None:
        check_rate(str(model), base.sample_rate, network.sample_rate)
    refuse_unused(train_config, settings, (), "fine-tuning")
    if train_config.head == "batchnorm" and train_config.accumulate > 1:
        raise ConfigError("head=batchnorm normalises over the whole batch, which accumulate cuts up; leave it out.")
    manifest = read_data(data).hearing(network.channel)
    labels = read_labels(manifest, label, task)
    if labels.compound and processes().first:
        warnings.warn(labels.compound, LabelWarning, stacklevel=2)
    detects = labels.task == "detection"
    refuse_unused(train_config, settings, NOT_FOR_DETECTION if detects else FOR_DETECTION, labels.task)
    if detects:
        train_config = for_detection(train_config)
    if labels.task == "tagging" and train_config.loss == "ce":
        raise ConfigError("loss=ce is for labels that exclude each other; tagging needs --set loss=bce.")
    columns = {"split_column": split_column, "group_column": group_column}
    available = folds(manifest, **columns, labels=labels.strata, seed=seed)
    common = FinetunePlan(
        checkpoint=checkpoint,
        method=method_name,
        preset=preset,
        recipe=recipe,
        model=network,
        train=train_config,
        manifest=manifest,
        labels=labels,
        classes=(),
        split=Split(split_column, group_column, "", seed),
        fold=available[-1],
        seed=seed,
        weights_seed=random_weights,
        teacher=resolve_teacher(teacher, train_config, labels.task),
    )
    return common, available


def _for_fold(common: FinetunePlan, fold: Fold) -> FinetunePlan:
    """The plan that leaves out one fold.

    Raises:
        DataError: fewer than two classes are left to tell apart.
    """
    labels, seed = common.labels, common.seed
    if labels.task == "detection":
        fold = dataclasses.replace(fold, val=labels.strong(fold.val), test=labels.strong(fold.test))
        fold = fold if common.train.consistency else without_unlabelled(fold, labels)
    if common.train.val_fraction and not fold.val:
        judged = labels.strong(fold.train) if labels.task == "detection" else fold.train
        val = holdout(judged, labels.strata, common.train.val_fraction, seed, common.manifest.ids)
        chosen = set(val)
        fold = dataclasses.replace(fold, train=tuple(i for i in fold.train if i not in chosen), val=tuple(val))
    classes = labels.classes(fold.train)
    if not classes:
        raise DataError(f"{common.manifest.source}: the training part holds no event; choose another split.")
    if len(classes) < 2 and labels.task == "classification":
        raise DataError(
            f"column '{labels.column}' has {len(classes)} class in the training part ({', '.join(classes) or 'none'}); "
            "a classifier needs at least two: choose another --label."
        )
    split = dataclasses.replace(common.split, held_out=fold.name)
    return dataclasses.replace(common, classes=classes, split=split, fold=fold)


def _check_validation(plan: FinetunePlan, fold: Fold, asked: Mapping[str, Any]) -> FinetunePlan:
    """The plan, if no setting that was asked for has nothing to work on; `fold` is the data's own.

    Raises:
        ConfigError: it has.
    """
    if fold.val and plan.train.val_fraction and "val_fraction" in asked:
        raise ConfigError("the data has a validation part of its own; leave out --set val_fraction.")
    plateau = plan.train.schedule == "plateau"
    if not plan.fold.val and (plateau or ("validate_every" in asked and not plan.watch_test)):
        what = "schedule=plateau" if plateau else "validate_every"
        raise ConfigError(f"{what} needs clips to validate on; take some with --set val_fraction=0.1, or leave it out.")
    return plan


def pick_fold(available: Sequence[Fold], wanted: str) -> Fold:
    """The fold of that name; the last, if empty.

    Raises:
        ConfigError: no fold of that name.
    """
    names = [fold.name for fold in available]
    if wanted and wanted not in names:
        raise ConfigError(f"no fold '{wanted}'{did_you_mean(wanted, names)}; the data has {', '.join(names)}.")
    return available[names.index(wanted) if wanted else -1]


def heard(plan: FinetunePlan) -> Heard:
    """The clips that the network learns from, here and in the fine-tunings that it begins with.

    Raises:
        DataError: a file is gone.
    """
    parts = ([plan.manifest[i] for i in indices] for indices in (plan.fold.train, plan.fold.val))
    now = Heard.of(*parts)
    if plan.checkpoint is None or plan.weights_seed is not None:
        return now
    return now | Heard.load(plan.checkpoint.config.get("heard", {}))


def build(plan: FinetunePlan) -> Classifier | Detector:
    """The classifier or detector with its initial weights."""
    method = get_method(plan.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(plan.seed if plan.weights_seed is None else plan.weights_seed, "init"))
        if plan.checkpoint is None or plan.weights_seed is not None:
            encoder = method.build_encoder(plan.model)
        else:
            weights = {
                name.removeprefix("encoder."): value
                for name, value in plan.checkpoint.weights().items()
                if name.startswith("encoder.")
            }
            encoder = ckpt.restore(lambda: method.build_encoder(plan.model), weights, str(plan.checkpoint.path))
        if plan.checkpoint is None or plan.checkpoint.config["kind"] not in FINETUNED:
            encoder = method.for_finetuning(encoder, plan.train.window_seconds or plan.train.crop_seconds)
        t = plan.train
        common: dict[str, Any] = {
            name: getattr(t, name) for name in ("freeze", "tuned_layers", "mask_freq", "mask_time")
        }
        network: Classifier | Detector
        if plan.labels.task == "detection":
            network = (DistilledDetector if plan.teacher else Detector)(
                encoder,
                plan.classes,
                frame_width(encoder, t.frame_seconds),
                frame_seconds=t.frame_seconds,
                pooling=t.frame_pooling,
                normalise=t.frame_norm,
                consistency=t.consistency,
                ramp=t.ramp,
                momentum=t.teacher_momentum,
                collar=t.collar,
                **common,
            )
        else:
            network = (DistilledClassifier if plan.teacher else Classifier)(
                encoder,
                plan.classes,
                task=plan.labels.task,
                loss=None if t.loss == "auto" else t.loss,
                head=t.head,
                head_layers=t.head_layers,
                noise=t.noise,
                label_smoothing=t.label_smoothing,
                mixing=SpectrogramMixing(t.mixup if t.mix_spectrograms else 0.0, t.mixup_alpha, t.resize_crop),
                **common,
            )
        if plan.teacher and isinstance(network, DistilledClassifier | DistilledDetector):
            teach(network, plan.teacher, t)
        return network


def build_loader(plan: FinetunePlan, workers: int = 0, group: Group | None = None) -> Loader:
    """A crop of every training clip once per epoch, or of clips drawn by their labels, with its target.

    Of each batch, the rows of this process of `group`.
    """
    group = group or Group()
    items = [plan.manifest[i] for i in plan.fold.train]
    labels, detects = plan.labels, plan.labels.task == "detection"
    targets = labels.targets(plan.fold.train, plan.classes)
    weights = balancing_weights(np.nan_to_num(targets)) if plan.train.balanced else None
    if detects:
        weights = annotation_weights(labels, plan.fold.train, weights)
    return Loader(
        items,
        rate=plan.model.sample_rate,
        batch_size=min(plan.train.batch_size, len(items)),
        crop_seconds=plan.train.crop_seconds,
        seed=plan.seed,
        targets=targets,
        events=[labels.events[i] for i in plan.fold.train] if detects else None,
        mixup=0.0 if plan.train.mix_spectrograms else plan.train.mixup,
        mixup_alpha=plan.train.mixup_alpha,
        partners=int(plan.train.mix_spectrograms and plan.train.mixup > 0),
        central=plan.train.crop == "central",
        weights=weights,
        workers=workers,
        share=(group.rank, group.size),
    )


def finetune(
    plan: FinetunePlan,
    out: str | Path,
    *,
    max_minutes: float = 0.0,
    checkpoint_every: int = 0,
    workers: int = 0,
    track: str = "",
    quiet: bool = False,
    started: float | None = None,
) -> Path:
    """Run a plan in `out`, or resume the run that is there; returns the run directory.

    Under torchrun, every process calls it with the same plan.
    """
    group = processes()
    run, console = Path(out), Console(quiet, silent=not group.first)
    device = pick_device()
    with enough_memory(plan.train):
        # Before there is a run directory: a teacher may not fit.
        module = build(plan)
    with (
        enough_memory(plan.train),
        claimed(run, group, plan.manifest, plan.config() | {"workers": workers, "max_minutes": max_minutes}),
    ):
        if plan.fold.note:
            console.say(plan.fold.note)
        console.say(f"{plan.labels}.")
        for note in label_notes(plan.labels, plan.classes, plan.fold.test):
            console.warn(note)
        report_skipped(plan.manifest, console)
        if plan.split.held_out != "test":
            console.say(f"'{plan.split.held_out}' is held out of the training; choose another with --held-out.")
        loader = build_loader(plan, workers, group)
        watch = validation(plan, device)
        average = None
        if plan.train.average_epochs != (0, 0):
            average = WeightAverage(module, plan.train.average_epochs, loader.steps_per_epoch)
        job = Job(
            module=module,
            loader=loader,
            config=plan.train,
            run=run,
            seed=plan.seed,
            checkpoint_config={
                **module.settings(),
                "method": plan.method,
                "preset": plan.preset,
                "model": to_dict(module.encoder.config),
                "classes": list(plan.classes),
                "label": plan.labels.column,
                "split": asdict(plan.split),
                "heard": heard(plan).dump(),
            },
            validate=watch,
            best_metric=f"val_{score_name(plan.labels.task)}",
            score_metric=f"val_{score_name(plan.labels.task)}",
            carried=[part for part in (watch, average) if isinstance(part, Validation | WeightAverage)],
            after_step=average.after_step if average else None,
            max_minutes=max_minutes,
            checkpoint_every=checkpoint_every,
            trackers=trackers(track, run, group, console),
            tracked_config=plan.config(),
            group=group,
            device=device,
            started=time.monotonic() if started is None else started,
        )
        progress = train(job, console)
        report_bad_files(progress, console)
        if average and progress.step >= progress.total:
            group.on_first(partial(save_average, plan, job, average, console))
    return run


def save_average(plan: FinetunePlan, job: Job, average: WeightAverage, console: Console) -> None:
    """Evaluate the mean of the weights once, and save it in the run's `averaged/`, unless it is there."""
    first, last = average.epochs
    if not average.count:
        console.warn(f"nothing is averaged: the run ended before epoch {first} did.")
        return
    if (job.run / ckpt.AVERAGED).exists():
        return
    mean = average.mean()
    job.module.load_state_dict(mean)
    job.module.eval()
    watch = validation(plan, job.device)
    metrics = watch(job.module) if watch else {}
    ckpt.save_checkpoint(
        job.run,
        ckpt.AVERAGED,
        weights=mean,
        config={**job.checkpoint_config, "averaged_epochs": [first, last]},
        state={"metrics": metrics, "count": average.count},
    )
    shown = "".join(f", {name} {value:.4f}" for name, value in metrics.items() if name == job.best_metric)
    console.say(f"{job.run / ckpt.AVERAGED}: the mean of the weights after {plural(average.count, 'epoch')}{shown}.")


def validation(plan: FinetunePlan, device: torch.device) -> Validation | DetectionValidation | None:
    """What is measured on the way, if there are items for it."""
    parts = {"val": plan.fold.val} | ({"test": plan.fold.test} if plan.watch_test else {})
    parts = {name: indices for name, indices in parts.items() if indices}
    if not parts:
        return None
    precision = resolve_precision(plan.train.precision, device)
    if plan.labels.task == "detection":
        return DetectionValidation(plan.manifest, plan.labels, parts, precision, device)
    return Validation(plan.manifest, plan.labels, plan.classes, parts, precision, device)
