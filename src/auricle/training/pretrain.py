"""Pretraining as users call it: data and a method in, a run directory out."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from auricle.audio.frontends import Frontend
from auricle.config import TrainConfig, from_dict, load_yaml, override, refuse_unused, to_dict
from auricle.data.batch import Batch
from auricle.data.formats import Data, read_data
from auricle.data.items import Item, Manifest
from auricle.data.loader import Key, Loader, read_item
from auricle.data.randomness import generator, torch_seed
from auricle.errors import AudioError, CheckpointError, ConfigError, DataError, plural, with_article
from auricle.files import write_text
from auricle.methods import find_preset, get_method, get_preset, method_names
from auricle.methods.base import AudioEncoder, Method, MethodConfig, Objective, Trainable
from auricle.training import checkpoint as ckpt
from auricle.training.distributed import Group, processes
from auricle.training.job import Job, Progress
from auricle.training.log import Console
from auricle.training.loop import train
from auricle.training.memory import enough_memory
from auricle.training.precision import autocast, resolve_precision
from auricle.training.run import claimed, read_metrics
from auricle.training.tracking import trackers

STATISTICS = {"norm_mean", "norm_std"}
# Clips from which input statistics are measured, and which the collapse monitor embeds.
STATISTICS_CLIPS = 400
MONITOR_CLIPS = 64
# Corpora of which thousands of files are missing are common.
SHOWN_SKIPPED = 20
# An effective rank below this says that one direction holds nearly everything; of a few clips it says nothing.
COLLAPSED_RANK = 2.0
ENOUGH_FOR_RANK = 8
# The same statistics measured on another processor differ by less than this.
SAME_STATISTICS = 1e-3
# Settings that pretraining has no use for: SSAST's authors pretrain without augmentation, and there are no labels.
FOR_FINETUNING = (
    *("mixup", "mask_freq", "mask_time", "noise", "label_smoothing", "head_lr_factor"),
    *("loss", "head", "freeze", "tuned_layers", "balanced", "average_epochs", "window_seconds"),
    *("collar", "frame_norm", "frame_pooling", "frame_seconds", "consistency", "ramp", "teacher_momentum"),
)
MONITOR_FILE = "monitor.json"
# What the names of an encoder's weights begin with in every checkpoint.
ENCODER = "encoder."
# The share of the training that is done, for a validation: all validations are of one objective, the last one.
AT_THE_END = math.nextafter(1.0, 0.0)


class Monitor(Protocol):
    """Looks at an encoder in evaluation mode and says in numbers what it is worth; see `auricle.evaluation.monitor`."""

    facts: dict[str, Any]

    def __call__(self, encoder: AudioEncoder) -> dict[str, float]: ...


@dataclass(frozen=True)
class PretrainPlan:
    """Everything resolved, nothing begun: what `--dry-run` prints and `pretrain` runs.

    `measured`: the input statistics of `model` were measured, not asked for.
    """

    method: str
    preset: str
    model: MethodConfig
    train: TrainConfig
    manifest: Manifest
    train_items: tuple[Item, ...]
    val_items: tuple[Item, ...]
    seed: int
    init: ckpt.Checkpoint | None
    measured: bool = False

    def config(self) -> dict[str, Any]:
        """What `config.yaml` records and a resumed run must repeat."""
        return {
            "command": "pretrain",
            "method": self.method,
            "preset": self.preset,
            # Before what is measured anew with another seed, so that a refusal to resume names the cause first.
            "seed": self.seed,
            "model": to_dict(self.model),
            "train": to_dict(self.train),
            "init": self.init.hash if self.init else None,
            "data": self.manifest.hash,
        }


def plan(
    method: str,
    data: Data,
    *,
    preset: str = "",
    settings: Mapping[str, Any] | None = None,
    init: str | Path | None = None,
    steps: int = 0,
    seed: int = 0,
) -> PretrainPlan:
    """Resolve a pretraining: preset, overrides, data, input statistics.

    `method` may also be the full name of a preset, as `auricle list` prints it.

    With `init`, network, pretext task and input statistics are the checkpoint's, and the recipe is that of the preset
    it was made with, or of another one with the same network. With another `pretext` than the checkpoint's, its encoder
    goes on. Otherwise the statistics are measured on the data, unless
    `norm_mean` or `norm_std` is set.

    Raises:
        ConfigError, DataError, CheckpointError: as their messages say.
    """
    method, preset = _named(method, preset)
    module = get_method(method)
    if "pretrain" not in module.CAPABILITIES:
        raise ConfigError(f"{method} cannot be pretrained.")
    settings = dict(settings or {})
    if "pretext" in settings and not hasattr(module.CONFIG, "pretext"):
        raise ConfigError(f"{method} has no pretext task but that of its paper; leave out pretext.")
    if steps:
        settings["steps"] = steps
    elif "epochs" in settings:
        # A preset's number of steps would hide the epochs that were asked for.
        settings.setdefault("steps", 0)
    start = ckpt.resolve(Path(init)) if init else None
    asked = preset.removeprefix(f"{method}-")
    if start is not None and (start.config["kind"] != "pretraining" or start.config["method"] != method):
        raise CheckpointError(
            f"--init {init} is {with_article(start.config['kind'])} of {start.config['method']}; "
            f"it takes a pretraining checkpoint of {method}."
        )
    preset = asked or (start.config.get("preset", "") if start else "") or module.DEFAULT_PRESET
    chosen = get_preset(method, preset)
    base = chosen.model
    if start is not None:
        base = from_dict(module.CONFIG, start.config["model"], str(start.path))
    model, train_config = override((base, chosen.pretrain), settings)
    refuse_unused(train_config, settings, FOR_FINETUNING, "pretraining")
    refuse_idle(model, settings)
    if train_config.accumulate > 1 and objective_without_weights(module, model).whole_batch:
        raise ConfigError(
            f"{method} normalises over the whole batch, so it cannot be added up from {train_config.accumulate} parts; "
            "leave out accumulate, and lower batch_size or start several processes where memory is short."
        )
    if start is not None:
        check_rate(f"--init {init}", base.sample_rate, model.sample_rate)
        named = override((chosen.model, chosen.pretrain), settings)[0]
        if asked:
            check_same_network(model, named, f"--init {init}", f"--preset {asked}")
        window = window_seconds(module, model)
        if "crop_seconds" not in settings and window != window_seconds(module, named):
            # The checkpoint was made with another window than its preset has: the recipe's crop would not fit it.
            train_config = dataclasses.replace(train_config, crop_seconds=window)
    manifest = read_data(data).hearing(model.channel)
    train_items, val_items = hold_out(manifest.items, train_config.val_fraction, seed)
    frontend = module.build_frontend(model)
    measured = start is None and frontend is not None and not STATISTICS & set(settings)
    if measured and frontend is not None:
        mean, std = measure_statistics(frontend, model, train_items, seed)
        model = dataclasses.replace(model, norm_mean=mean, norm_std=std)
    return PretrainPlan(method, preset, model, train_config, manifest, train_items, val_items, seed, start, measured)


def refuse_idle(model: MethodConfig, settings: Mapping[str, Any]) -> None:
    """Refuse settings of a pretext task that was not chosen.

    Raises:
        ConfigError: a setting changes nothing.
    """
    if idle := sorted(getattr(model, "idle", frozenset()) & settings.keys()):
        chosen = to_dict(model)["pretext"]
        raise ConfigError(f"{idle[0]} has no effect under pretext={chosen}; leave it out, or choose another pretext.")


def check_same_network(model: MethodConfig, preset: MethodConfig, checkpoint: str, wanted: str) -> None:
    """Refuse to mix a checkpoint's network with the recipe of another one; input statistics may differ, and so may
    settings of a pretext task that neither has.

    Raises:
        ConfigError: they differ; the message lists in what.
    """
    unread = STATISTICS | (getattr(model, "idle", frozenset()) & getattr(preset, "idle", frozenset()))
    have, want = (
        {name: value for name, value in to_dict(config).items() if name not in unread} for config in (model, preset)
    )
    differing = [f"{name} {have[name]}, not {want[name]}" for name in have if have[name] != want[name]]
    if differing:
        raise ConfigError(
            f"{checkpoint} is another network than {wanted} ({', '.join(differing)}); leave --preset out to go on with "
            "the checkpoint's own settings."
        )


def check_rate(source: str, trained: int, asked: int) -> None:
    """Refuse to hear sound at another rate than the weights were trained at.

    Raises:
        ConfigError: the rates differ.
    """
    if asked != trained:
        raise ConfigError(
            f"{source} was trained at {trained} Hz, not {asked}; leave out --set sample_rate: sounds of any rate are "
            "resampled."
        )


def _named(method: str, preset: str) -> tuple[str, str]:
    """Method and preset where the full name of a preset stands for the method ("ssamba-test")."""
    if method in method_names():
        return method, preset
    owner, short = find_preset(method)
    if short not in (get_method(owner).PRESETS if owner else ()):
        return method, preset
    if preset not in ("", short, f"{owner}-{short}"):
        raise ConfigError(f"{method} is a preset, and --preset {preset} names another; give one of them.")
    return owner, short


def window_seconds(method: Method, config: MethodConfig) -> float:
    """Length of the encoder's window, found without allocating it."""
    with torch.device("meta"):
        encoder = method.build_encoder(config)
    return float(encoder.window_samples / encoder.sample_rate)


def objective_without_weights(method: Method, config: MethodConfig) -> Objective:
    """The pretext task of a network that is not allocated."""
    with torch.device("meta"):
        return method.build_objective(config)


def build(plan: PretrainPlan) -> Objective:
    """The objective with its initial weights, drawn from the seed or taken from the checkpoint.

    Of a checkpoint of another pretext task, only the encoder is taken.
    """
    method = get_method(plan.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(plan.seed, "init"))
        if plan.init is None:
            return method.build_objective(plan.model)
        weights, where = plan.init.weights(), str(plan.init.path)
        begun = from_dict(method.CONFIG, plan.init.config["model"], where)
        if to_dict(begun).get("pretext") == to_dict(plan.model).get("pretext"):
            return ckpt.restore(lambda: method.build_objective(plan.model), weights, where)
        objective = method.build_objective(plan.model)
        own = {name.removeprefix(ENCODER): value for name, value in weights.items() if name.startswith(ENCODER)}
        for encoder in objective.encoders:
            ckpt.load_state(encoder, own, where)
        return objective


def build_loader(plan: PretrainPlan, workers: int = 0, group: Group | None = None) -> Loader:
    """Random crops that cover every training clip once per epoch; of each batch, this process's rows."""
    group = group or Group()
    return Loader(
        plan.train_items,
        rate=plan.model.sample_rate,
        batch_size=plan.train.batch_size,
        crop_seconds=plan.train.crop_seconds,
        seed=plan.seed,
        cover=True,
        partners=objective_without_weights(get_method(plan.method), plan.model).partners,
        workers=workers,
        share=(group.rank, group.size),
    )


def pretrain(
    plan: PretrainPlan,
    out: str | Path,
    *,
    max_minutes: float = 0.0,
    checkpoint_every: int = 0,
    workers: int = 0,
    track: str = "",
    quiet: bool = False,
    started: float | None = None,
    monitor: Monitor | None = None,
) -> Path:
    """Run a plan in `out`, or resume the run that is there; returns the run directory.

    Under torchrun, every process calls it with the same plan.
    At each validation, and once before the first step, `monitor` looks at the encoder.

    Raises:
        ConfigError: `out` holds something else, or a run with other settings.
        NonFiniteLoss, DataError, Interrupted: see `auricle.training.loop.train`.
    """
    group = processes()
    run, console = Path(out), Console(quiet, silent=not group.first)
    device = pick_device()
    plan = keep_statistics(plan, run)
    with (
        enough_memory(plan.train),
        claimed(run, group, plan.manifest, plan.config() | {"workers": workers, "max_minutes": max_minutes}),
    ):
        report_skipped(plan.manifest, console)
        loader = build_loader(plan, workers, group)
        # Measured on clips that are trained on, where none is held out; the names say which.
        part = "val" if plan.val_items else "train"
        heard = [*plan.val_items, *plan.train_items][:MONITOR_CLIPS]
        batches = fixed_batch(plan.val_items or heard, loader), fixed_batch(heard, loader)
        module = build(plan)
        precision = resolve_precision(plan.train.precision, device)

        def look(trained: Trainable) -> dict[str, float]:
            assert isinstance(trained, Objective)
            with autocast(precision, device):
                found = validate(trained, *batches, part, device, console)
            return found | (monitor(trained.encoder) if monitor else {})

        job = Job(
            module=module,
            loader=loader,
            config=plan.train,
            run=run,
            seed=plan.seed,
            checkpoint_config={
                "kind": "pretraining",
                "method": plan.method,
                "preset": plan.preset,
                "model": to_dict(plan.model),
            },
            validate=look,
            score_metric=f"{part}_score",
            max_minutes=max_minutes,
            checkpoint_every=checkpoint_every,
            trackers=trackers(track, run, group, console),
            tracked_config=plan.config(),
            group=group,
            device=device,
            started=time.monotonic() if started is None else started,
        )
        if monitor:
            group.on_first(lambda: _look_first(run, module.to(device), monitor))
        progress = train(job, console)
        report_bad_files(progress, console)
    return run


def _look_first(run: Path, module: Objective, monitor: Monitor) -> None:
    """Log what the monitor says of the initial weights, unless it was."""
    rows, path = read_metrics(run), run / MONITOR_FILE
    if path.exists() and any(row["step"] == 0 for row in rows):
        return
    first = {"step": 0, **monitor(module.encoder)}
    write_text(path, json.dumps(monitor.facts, indent=1) + "\n")
    kept = [row for row in rows if row["step"] != 0]
    write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in [first, *kept]))


def validate(
    module: Objective, batch: Batch, heard: Batch, part: str, device: torch.device, console: Console
) -> dict[str, float]:
    """The loss of `batch` under fixed masks, and whether embeddings still tell the clips of `heard` apart.

    `part` is what the clips of `batch` are: the losses are called `val_loss` or `train_loss` by it.
    """
    batch, heard = batch.to(device), heard.to(device)
    losses = {name: float(value) for name, value in module(batch, AT_THE_END).items() if name != "weight"}
    result = {f"{part}_{name}": value for name, value in losses.items()}
    if not math.isfinite(losses["loss"]):
        # The loop stops at that; embeddings that are not finite have no rank.
        return result
    result[f"{part}_score"] = module.score(losses)
    signs = module.monitor(heard)
    if len(heard) >= ENOUGH_FOR_RANK and signs["effective_rank"] < COLLAPSED_RANK:
        console.warn(
            f"embeddings have collapsed (effective rank {signs['effective_rank']:.1f} over "
            f"{len(heard)} clips); lower lr, or look whether the clips differ."
        )
    return result | signs


def fixed_batch(items: Sequence[Item], loader: Loader) -> Batch:
    """The same crops of the same clips at each validation; clips that cannot be read are left out."""
    probe = Loader(
        items,
        rate=loader.rate,
        batch_size=min(len(items), MONITOR_CLIPS),
        crop_seconds=loader.dataset.crop / loader.rate,
        seed=loader.seed,
        partners=loader.dataset.partners,
    )
    keys = [Key(-1, slot, slot) for slot in range(probe.batch_size)]
    return probe.collate([probe.dataset[key] for key in keys])


def hold_out(items: Sequence[Item], fraction: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Split off a fraction of the clips for validation, by a hash of their ids.

    At least one clip (if the fraction is above 0), at most MONITOR_CLIPS and half of them; none of fewer than four.
    """
    count = min(MONITOR_CLIPS, math.ceil(fraction * len(items)), len(items) // 2) if len(items) >= 4 else 0
    order = sorted(items, key=lambda item: torch_seed(seed, "hold-out", item.id))
    held = {item.id for item in order[:count]}
    return tuple(i for i in items if i.id not in held), tuple(i for i in items if i.id in held)


def measure_statistics(
    frontend: Frontend, config: MethodConfig, items: Sequence[Item], seed: int
) -> tuple[float, float]:
    """Mean and standard deviation of what a front end makes of up to STATISTICS_CLIPS clips.

    Raises:
        DataError: none of the clips can be read, or they are silent.
    """
    rng = generator(seed, "statistics")
    chosen = rng.permutation(len(items))[:STATISTICS_CLIPS]
    count, total, squares = 0, 0.0, 0.0
    failure: AudioError | None = None
    for index in np.sort(chosen):
        try:
            # A minute of each is enough, and bounds the memory.
            wave = torch.from_numpy(read_item(items[index].beginning(60.0), config.sample_rate))
        except AudioError as error:
            failure = error
            continue
        values = frontend((wave - wave.mean())[None]).double()
        count, total, squares = (
            count + values.numel(),
            total + float(values.sum()),
            squares + float(values.square().sum()),
        )
    if not count:
        example = f", such as {failure.path} ({failure.reason})" if failure else ""
        raise DataError(f"of {plural(len(chosen), 'clip')} none can be read{example}; repair or replace them.")
    mean = total / count
    std = math.sqrt(max(0.0, squares / count - mean**2))
    if std < 1e-3:
        raise DataError(
            f"the audio is silent or constant: the log-mel values of {plural(len(chosen), 'clip')} do not vary."
        )
    return round(mean, 6), round(std, 6)


def keep_statistics(plan: PretrainPlan, run: Path) -> PretrainPlan:
    """A plan with the input statistics that the run began with, if those measured now are the same but for rounding.

    Another processor adds up in another order; a run must be resumable there.
    """
    if not plan.measured or not (run / "config.yaml").exists():
        return plan
    begun = load_yaml(run / "config.yaml")
    model, same_draw = begun.get("model"), begun.get("seed") == plan.seed
    names = ("norm_mean", "norm_std")
    kept = {name: model.get(name) for name in names} if isinstance(model, dict) else {}
    for name, value in kept.items():
        # Another seed measures other clips, and is refused anyway.
        if not isinstance(value, float) or (same_draw and abs(value - getattr(plan.model, name)) > SAME_STATISTICS):
            return plan
    return dataclasses.replace(plan, model=dataclasses.replace(plan.model, **kept))


def pick_device() -> torch.device:
    """This process's GPU if there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def report_skipped(manifest: Manifest, console: Console) -> None:
    """Name files that are left out from the start because they are missing or cannot be read."""
    for skipped in manifest.skipped[:SHOWN_SKIPPED]:
        console.warn(f"{skipped}; it is left out")
    if len(manifest.skipped) > SHOWN_SKIPPED:
        console.warn(
            f"{len(manifest.skipped) - SHOWN_SKIPPED} more files are left out; data.json of the run lists them all"
        )


def report_bad_files(progress: Progress, console: Console) -> None:
    """Say how many files could not be read; each was named when it was met."""
    if count := len(progress.bad_files):
        console.say(f"{plural(count, 'file')} could not be read.")
