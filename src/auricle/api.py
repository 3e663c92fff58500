"""What `import auricle` offers: the commands as functions, with the same names and the same results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from auricle.command import as_command
from auricle.data.check import GROUP_COLUMNS, Findings
from auricle.data.check import check as _check
from auricle.data.formats import Data, read_data
from auricle.errors import AudioError, ConfigError
from auricle.evaluation import pages
from auricle.evaluation.evaluate import evaluate as evaluate
from auricle.evaluation.monitor import Monitor
from auricle.evaluation.probe import probe as probe
from auricle.evaluation.results import Result
from auricle.inference.libraries import Tell, embed_arrays
from auricle.inference.libraries import embed_library as _embed_library
from auricle.inference.model import Detections, Model, Prediction
from auricle.inference.model import load as load
from auricle.inference.search import search as search
from auricle.inference.table import Library
from auricle.inference.table import check_place as check_place
from auricle.inference.table import open_library as open_library
from auricle.methods import get_method, get_preset, method_names, preset_names
from auricle.metrics import Detection
from auricle.tasks.pooling import Layers
from auricle.training import finetune as _finetune
from auricle.training import pretrain as _pretrain
from auricle.training.distributed import processes
from auricle.training.folds import finetune_folds

Paths = str | Path | Sequence[str | Path]


def list_models() -> list[str]:
    """Names of all presets, e.g. "ssast-tiny-patch"."""
    return preset_names()


@as_command("pretrain")
def pretrain(
    method: str,
    data: Data,
    out: str | Path,
    *,
    preset: str = "",
    settings: Mapping[str, Any] | None = None,
    init: str | Path | None = None,
    steps: int = 0,
    max_minutes: float = 0.0,
    checkpoint_every: int = 0,
    workers: int = 0,
    seed: int = 0,
    track: str = "",
    quiet: bool = False,
    monitor: Paths = (),
) -> Path:
    """Pretrain on unlabelled audio, or resume the run in `out`; returns the run directory.

    Under torchrun, its processes share each batch; the first one writes.

    Args:
        method: such as "ssast", or a preset's full name; `list_models()` has all.
        data: folders, corpora, lists of files, several of these, or a `Manifest` of `auricle.data.formats.read_data`.
        preset: configuration of the method.
        settings: overrides of single settings, as `--set` on the command line.
        init: checkpoint to continue from.
        steps: how many, instead of the preset's.
        max_minutes: as many steps as fit in this time, instead.
        track: "tensorboard", "wandb" or "mlflow" keeps the curves too.
        monitor: labelled data on which nearest neighbours are tried at each validation; see `evaluation.monitor`.
    """
    _one_budget(steps, settings, max_minutes)
    started = time.monotonic()
    group = processes()
    plan = group.together(
        lambda: _pretrain.plan(method, data, preset=preset, settings=settings, init=init, steps=steps, seed=seed)
    )
    run = _pretrain.pretrain(
        plan,
        out,
        max_minutes=max_minutes,
        checkpoint_every=checkpoint_every,
        workers=workers,
        track=track,
        quiet=quiet,
        started=started,
        monitor=group.together(lambda: Monitor(_list(monitor))) if monitor else None,
    )
    if group.first:
        pages.pretraining_page(run, plan.train_items, plan.val_items)
    return run


@as_command("finetune")
def finetune(
    model: str | Path,
    data: Data,
    out: str | Path,
    *,
    label: str = "label",
    task: str = "",
    recipe: str = "",
    settings: Mapping[str, Any] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    held_out: str = "",
    random_weights: int | None = None,
    teacher: str | Path = "",
    steps: int = 0,
    max_minutes: float = 0.0,
    checkpoint_every: int = 0,
    workers: int = 0,
    seed: int = 0,
    track: str = "",
    quiet: bool = False,
) -> Path:
    """Fine-tune a checkpoint on labelled audio, or resume the run in `out`; returns the run directory.

    `recipe` is a published fine-tuning, such as "esc50"; the command `auricle list` shows them. `task` is
    "classification" or "tagging"; if empty, cells with several labels make it tagging. The test part of the data is
    never trained on; of folds or groups, `held_out` is left out (the last, if empty).
    `random_weights` trains the same network from scratch, from that seed. `teacher` is a fine-tuned run whose word
    counts in the loss by the setting `distil`.
    """
    _one_budget(steps, settings, max_minutes)
    started = time.monotonic()
    group = processes()
    plan = group.together(
        lambda: _finetune.plan(
            model,
            data,
            label=label,
            task=task,
            recipe=recipe,
            settings=settings,
            split_column=split_column,
            group_column=group_column,
            held_out=held_out,
            random_weights=random_weights,
            teacher=teacher,
            steps=steps,
            seed=seed,
        )
    )
    run = _finetune.finetune(
        plan,
        out,
        max_minutes=max_minutes,
        checkpoint_every=checkpoint_every,
        workers=workers,
        track=track,
        quiet=quiet,
        started=started,
    )
    if group.first:
        pages.finetuning_page(run, plan)
    return run


@as_command("finetune --held-out all")
def cross_validate(
    model: str | Path,
    data: Data,
    out: str | Path,
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
    checkpoint_every: int = 0,
    workers: int = 0,
    seed: int = 0,
    track: str = "",
    quiet: bool = False,
) -> Result:
    """Fine-tune once for every fold or group of the data, or go on in `out`; returns the score over all of them.

    Every clip is tested by the network that left it out. Arguments as in `finetune`. Writes `result.json` and
    `report.html`.
    """
    group = processes()
    plans = group.together(
        lambda: _finetune.plan_folds(
            model,
            data,
            label=label,
            task=task,
            recipe=recipe,
            settings=settings,
            split_column=split_column,
            group_column=group_column,
            random_weights=random_weights,
            teacher=teacher,
            steps=steps,
            seed=seed,
        )
    )
    runs = finetune_folds(
        plans, Path(out), checkpoint_every=checkpoint_every, workers=workers, track=track, quiet=quiet
    )

    def report() -> Result:
        for run, plan in zip(runs, plans, strict=True):
            pages.finetuning_page(run, plan)
        result = evaluate(out, data)
        result.write(Path(out) / "result.json")
        pages.result_page(result, Path(out) / "report.html")
        # Every process gets the result; the clips were for the page.
        return replace(result, exhibits=None)

    return group.on_first(report)


def check(
    data: Data,
    *,
    label: str = "label",
    split_column: str = "split",
    group_columns: Sequence[str] = (),
    processes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Decode all of a data set and look for what spoils training or its evaluation.

    Args:
        group_columns: besides speaker, source and the like, columns whose values must not lie in two splits.
        processes: how many files to decode at once (0: one for each core).
        progress: called with the files done and their number.
    """
    manifest = read_data(data, keep_going=True)
    return _check(
        manifest,
        label=label,
        split_column=split_column,
        group_columns=(*GROUP_COLUMNS, *group_columns),
        processes=processes,
        progress=lambda done: progress(done, len(manifest)),
    )


def input_statistics(model: str, data: Data, seed: int = 0) -> dict[str, float]:
    """`norm_mean` and `norm_std` for the front end of a method or preset, over up to 400 of some data's clips.

    Raises:
        ConfigError: no such method or preset.
        DataError: the clips cannot be read, or are silent.
    """
    method = model if model in method_names() else next((m for m in method_names() if model.startswith(f"{m}-")), model)
    module = get_method(method)
    config = get_preset(method, module.DEFAULT_PRESET if model == method else model).model
    frontend = module.build_frontend(config)
    if frontend is None:
        raise ConfigError(f"{method} measures nothing of its input; name another method.")
    manifest = read_data(data, keep_going=True)
    if not manifest.items:
        manifest.require_all("statistics")
    mean, std = _pretrain.measure_statistics(frontend, config, manifest.items, seed)
    return {"norm_mean": mean, "norm_std": std}


def embed(
    model: str | Path | Model,
    sounds: Paths,
    *,
    frames: bool = False,
    rows: str = "clips",
    layers: Layers = None,
    context: float = 0.0,
) -> tuple[dict[str, NDArray[Any]], list[AudioError]]:
    """Embed files and folders of audio, into memory; `layers` and `context` as in `embed_library`.

    Returns:
        Arrays by name, as `auricle embed --out FILE.npz` writes them, and what could not be read: `paths`, `starts` and
        `ends` [N], `embeddings` [N, D], `model` and `metadata`; with `frames`, also `frames` [sum t, D'], `times`
        [sum t] in seconds and `offsets` [N + 1], where those of each row begin. Frames lie in a temporary file.

    Raises:
        AudioError, DataError: nothing could be embedded.
    """
    loaded = model if isinstance(model, Model) else load(model)
    return embed_arrays(loaded, expand(_list(sounds)), rows=rows, frames=frames, layers=layers, context=context)


def embed_library(
    model: str | Path | Model,
    sounds: Paths,
    out: str | Path,
    *,
    rows: str = "",
    frames: bool = False,
    layers: Layers = None,
    context: float = 0.0,
    format: str = "",
    tell: Tell | None = None,
) -> Library:
    """Embed files and folders of audio into a .parquet or .npz file, or go on where the same call was killed.

    Args:
        rows: "windows" or "clips"; if empty, windows in .parquet and clips in .npz.
        frames: also one vector per time step; only in .npz.
        layers: blocks that stand side by side in each vector, such as "all" or [10, 11, 12], instead of the last one as
            the method's paper pools it.
        context: seconds of sound that each time step of a long file has on either side: windows overlap, and
            `Library.metadata["seams"]` says what the cuts between them cost.
        format: layout of folders, instead of detecting it.
        tell: called with an `inference.libraries.Progress` as the work goes on.

    Returns:
        The table, open for reading; `bad_files` are what could not be read.

    Raises:
        ConfigError: `out` cannot be written, or what lies or was begun there is of another model.
        AudioError, DataError: nothing could be embedded.
    """
    check_place(Path(out), frames)
    loaded = model if isinstance(model, Model) else load(model)
    files = expand(_list(sounds), format)
    return _embed_library(loaded, files, out, rows=rows, frames=frames, layers=layers, context=context, tell=tell)


def predict(
    run: str | Path | Model, sounds: Paths, *, threshold: float | None = None
) -> list[tuple[str, Prediction | Detections | AudioError]]:
    """Classify or tag files and folders of audio, or detect events in them: (path, outcome or what was wrong with it).

    `threshold` is the probability from which a tag counts as present (0.5), or an event of any class as going on (what
    was chosen for each class in training).
    """
    return list(predict_each(run, expand(_list(sounds)), threshold))


def predict_each(
    run: str | Path | Model,
    files: Sequence[str | Path],
    threshold: float | None = None,
    tell: Callable[[str, Detection], None] | None = None,
) -> Iterator[tuple[str, Prediction | Detections | AudioError]]:
    """As `predict`, one file after the other.

    `tell` is called with the path and each detected event as soon as it is over, in order of their ends; also with
    those before the place from which a file cannot be read.
    """
    loaded = run if isinstance(run, Model) else load(run)
    for path in files:
        try:
            if loaded.detector:
                yield str(path), loaded.detect(path, threshold=threshold, tell=tell and partial(tell, str(path)))
            else:
                yield str(path), loaded.classify(path, threshold=0.5 if threshold is None else threshold)
        except AudioError as error:
            yield str(path), error


def expand(
    paths: Sequence[str | Path], format: str = "", tell: Callable[[str], None] = lambda note: None
) -> list[Path]:
    """Files as they are, folders as the audio files below them; those that cannot be read too, so they are named.

    A folder that is a corpus or holds a list gives the files that it lists, each once and whole. `format` names its
    reader; `tell` gets the reader's note.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            manifest = read_data(path, format)
            for note in manifest.notes:
                tell(note)
            found = {
                *(item.streams["audio"].path for item in manifest),
                *(skipped.path for skipped in manifest.skipped),
            }
            files += sorted(map(Path, found))
        else:
            files.append(path)
    return files


def _one_budget(steps: int, settings: Mapping[str, Any] | None, max_minutes: float) -> None:
    given = {"steps": steps, **(settings or {})}
    for name in ("steps", "epochs"):
        if given.get(name) and max_minutes:
            raise ConfigError(f"{name} ({given[name]}) and max_minutes ({max_minutes:g}) are two budgets; give one.")


def _list(paths: Paths) -> list[str | Path]:
    return [paths] if isinstance(paths, str | Path) else list(paths)
