"""Embed a library of audio: files of any number and length, in constant memory, resumable after kill -9.

Windows are encoded in parts of `PART_SECONDS` of sound (`parts.py`), then the parts are put together in one file
(`table.py`). D width, t time steps.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import auricle
from auricle import audio
from auricle.data.windows import cut_windows
from auricle.errors import AudioError, ConfigError, DataError
from auricle.inference.model import Model
from auricle.inference.parts import Bad, Part, Parts, Position, open_parts
from auricle.inference.rows import clip_rows, usable, window_rows
from auricle.inference.table import (
    FORMAT,
    VERSION,
    Library,
    Rows,
    bad_files,
    check_place,
    collect,
    open_library,
    write_table,
)
from auricle.methods.base import AudioEncoder
from auricle.tasks.pooling import Layers, frames_of, layer_indices, layers_read, vector_width, vectors_of
from auricle.tasks.windows import Overlap, encode_pool, join_overlapping, overlap_for
from auricle.training.signals import caught_signals, interruption

# A part is what a kill can cost, and the most sound that is in memory at once; frames take more room than samples.
PART_SECONDS = 600.0
PART_SECONDS_WITH_FRAMES = 120.0


@dataclass(frozen=True)
class Progress:
    """Files and seconds of sound that are done, of how many; lengths are those that headers state."""

    files: int
    all_files: int
    seconds: float
    all_seconds: float


Tell = Callable[[Progress], None]


def embed_library(
    model: Model,
    files: Sequence[str | Path],
    out: str | Path,
    *,
    rows: str = "",
    frames: bool = False,
    layers: Layers = None,
    context: float = 0.0,
    tell: Tell | None = None,
) -> Library:
    """Embed files into a table, or go on with it where the same call was killed; see `table.py` for its schema.

    What is finished lies in `OUT.parts/` until the table is complete. A complete table of files that did not change
    since is left as it is. Files that cannot be read are left out, and listed in `Library.bad_files`.

    Args:
        out: a file that ends in .parquet or .npz.
        rows: "windows" of the encoder's length, or "clips", a mean over a file's windows weighted by their time steps;
            if empty, windows in .parquet and clips in .npz.
        frames: also one vector per time step; only in .npz.
        layers: blocks that stand side by side in each vector, instead of the last one as the paper pools it; see
            `tasks.pooling.Layers`.
        context: seconds of sound that each time step of a long file has on either side, as in `Model.embed`: windows
            overlap, each counts by the time steps that are used of it, and the metadata's `seams` say what the cuts
            between them cost.
        tell: called after each window that is read, and at the end.

    Raises:
        ConfigError: `out` cannot be written; no such layer; or what was begun there, or lies there, is of another
            model.
        AudioError, DataError: not one file can be embedded.
        Interrupted: a signal came; finished parts are saved.
    """
    out = Path(out)
    check_place(out, frames)
    rows = rows or ("clips" if out.suffix == ".npz" else "windows")
    plan = _plan(model, files, rows, frames, layers, context)
    if (finished := _finished(out, plan)) is not None:
        return finished
    folder = out.with_name(f"{out.name}.parts")
    with _embedded(model, plan, folder, tell) as (made, metadata):
        write_table(out, made, metadata, folder, frames)
    return open_library(out)


def embed_arrays(
    model: Model,
    files: Sequence[str | Path],
    *,
    rows: str = "clips",
    frames: bool = False,
    layers: Layers = None,
    context: float = 0.0,
) -> tuple[dict[str, NDArray[Any]], list[AudioError]]:
    """What `embed_library` would write to an .npz file, as arrays by name, and what could not be read.

    Raises:
        AudioError, DataError: not one file can be embedded.
    """
    plan = _plan(model, files, rows, frames, layers, context)
    with TemporaryDirectory() as place, _embedded(model, plan, Path(place) / "parts", None) as (made, metadata):
        arrays = collect(made, metadata, frames)
        # Small enough for memory, and then they may be changed.
        return arrays | {"embeddings": np.array(arrays["embeddings"])}, bad_files(metadata)


@contextmanager
def _embedded(
    model: Model, plan: dict[str, Any], folder: Path, tell: Tell | None
) -> Iterator[tuple[Iterator[Rows], dict[str, Any]]]:
    """The rows of a plan and their metadata, made from the parts in `folder`, which is gone after the block."""
    names = [name for name, *_ in plan["files"]]
    with open_parts(folder, {key: value for key, value in plan.items() if key != "rows"}) as parts:
        overlap = overlap_for(model.encoder, plan["context"])
        _embed(model, names, _Asked(plan["frames"], plan["layers"] and tuple(plan["layers"]), overlap), parts, tell)
        bad = {b.file: AudioError(b.path, b.reason, b.detail) for b in parts.bad()}
        if len(bad) == len(names):
            shutil.rmtree(folder)
            raise _nothing(list(bad.values()))
        put_together = clip_rows if plan["rows"] == "clips" else window_rows
        made = put_together(names, model.encoder.sample_rate, usable(parts, bad))
        yield made, _metadata(model, plan, bad, parts)


def identity(model: Model) -> dict[str, Any]:
    """What makes the embeddings of two models comparable: weights, and what is done with them; as JSON holds it."""
    whole = {"hash": model.hash, "method": model.config["method"], "settings": model.config["model"]}
    return dict(json.loads(json.dumps(whole)))


def _plan(
    model: Model, files: Sequence[str | Path], rows: str, frames: bool, layers: Layers, context: float
) -> dict[str, Any]:
    """Everything that decides what a table holds."""
    if rows not in ("windows", "clips"):
        raise ConfigError(f"rows must be 'windows' or 'clips', got '{rows}'.")
    chosen = layer_indices(layers, model.encoder.num_layers)
    overlap_for(model.encoder, context)
    if not files:
        raise DataError("no sound was given; name files, or folders of them.")
    return {
        "auricle": auricle.__version__,
        "model": identity(model),
        "precision": model.precision,
        "rows": rows,
        "frames": frames,
        # As JSON gives it back.
        "layers": chosen and list(chosen),
        "context": float(context),
        "files": [[file, *_state(file)] for file in map(str, files)],
    }


def _digest(plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()


def _state(file: str) -> tuple[int, int]:
    """Size and time of change; a file that is not there turns out to be bad when its turn comes."""
    try:
        stat = Path(file).stat()
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _finished(out: Path, plan: dict[str, Any]) -> Library | None:
    """The table at `out`, where it is what is asked for.

    Raises:
        ConfigError: another model's embeddings in a .parquet file. An .npz file is replaced, as scripts expect.
    """
    try:
        there = open_library(out)
    except DataError:
        return None
    if there.metadata["plan"] == _digest(plan):
        return there
    old, new = there.metadata["model"], plan["model"]
    if out.suffix == ".parquet" and any(old[key] != new[key] for key in new):
        raise ConfigError(
            f"{out} holds embeddings of another model ({old['hash'][:12]}, now {new['hash'][:12]}), and the embeddings "
            "of two models do not mix; give another --out, or delete the file."
        )
    return None


def _nothing(errors: Sequence[AudioError]) -> AudioError | DataError:
    first = errors[0]
    if len(errors) == 1:
        return first
    return DataError(f"none of {len(errors)} files can be read, such as {first.path} ({first.reason}).")


def _metadata(model: Model, plan: dict[str, Any], bad: dict[int, AudioError], parts: Parts) -> dict[str, Any]:
    encoder, files = model.encoder, plan["files"]
    seams = parts.seams(bad)
    cost = {"count": len(seams)} | ({"mean": seams.mean(), "largest": seams.max()} if len(seams) else {})
    samples = sum(length for file, length in parts.lengths().items() if file not in bad)
    place = str(Path(model.source).absolute()) if Path(model.source).exists() else model.source
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name, *_ in files])  # noqa: PTH120, PTH100
    contents = [[os.path.relpath(name, folder), size] for name, size, _ in files]
    return {
        "format": FORMAT,
        "version": VERSION,
        "auricle": auricle.__version__,
        "model": {**plan["model"], "kind": model.config["kind"], "path": place},
        # Counted from 1, as users count.
        "layer": [index + 1 for index in plan["layers"]] if plan["layers"] else "last",
        "pooling": "summary" if plan["layers"] else "own",
        "precision": model.precision,
        "rate": encoder.sample_rate,
        "channel": encoder.channel,
        "dim": vector_width(encoder, plan["layers"]),
        "window": encoder.window_samples / encoder.sample_rate,
        "hop": overlap_for(encoder, plan["context"]).hop / encoder.sample_rate,
        "context": plan["context"],
        "seams": cost if plan["context"] else None,
        "data": {
            "hash": hashlib.sha256(json.dumps(contents).encode()).hexdigest(),
            "files": len(files),
            "seconds": samples / encoder.sample_rate,
        },
        "bad_files": [{"path": e.path, "reason": e.reason, "detail": e.detail} for e in bad.values()],
        "rows": plan["rows"],
        "plan": _digest(plan),
    }


# Files to parts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """What to keep of each window beside its vector, of which layers, and how windows overlap."""

    frames: bool
    layers: tuple[int, ...] | None
    overlap: Overlap

    @property
    def reads_frames(self) -> bool:
        """Whether frames are looked at: windows that overlap are compared by them."""
        return self.frames or self.overlap.steps > 0


@dataclass(frozen=True)
class _Window:
    file: int
    number: int
    start: int
    wave: NDArray[np.float32]

    @property
    def end(self) -> int:
        return self.start + len(self.wave)


def _embed(model: Model, files: Sequence[str], asked: _Asked, parts: Parts, tell: Tell | None) -> None:
    """Add the parts that are missing.

    Of a file in whose middle the next part begins, the beginning is decoded again: the resampler has a memory, and so
    its windows are the same as if nothing had happened.
    """
    encoder = model.encoder
    most = round((PART_SECONDS_WITH_FRAMES if asked.reads_frames else PART_SECONDS) * encoder.sample_rate)
    lengths = [_seconds(file) for file in files] if tell else []
    begin, done, all_seconds = parts.position, sum(lengths[: parts.position.file]), sum(lengths)
    held: list[_Window] = []
    bad: list[Bad] = []
    waiting = 0
    with caught_signals() as caught:

        def check() -> None:
            if caught:
                raise interruption(caught, "what is embedded so far")

        def finish(following: Position, ahead: _Window | None = None) -> None:
            nonlocal waiting
            parts.add(_part(model, held, ahead, bad, following, asked, check))
            held.clear()
            bad.clear()
            waiting = 0

        for number in range(begin.file, len(files)):
            embedded = begin.window if number == begin.file else 0
            try:
                blocks = model.blocks(files[number])
                cut = cut_windows(blocks, encoder.window_samples, asked.overlap.hop, encoder.min_samples)
                windows = (_Window(number, index, start, wave) for index, (start, wave) in enumerate(cut))
                for window, ahead in _with_next(windows):
                    check()
                    if tell:
                        tell(Progress(number, len(files), done + window.start / encoder.sample_rate, all_seconds))
                    if window.number < embedded:
                        continue
                    held.append(window)
                    waiting += len(window.wave)
                    if waiting >= most:
                        finish(Position(number, window.number + 1), ahead)
            except AudioError as error:
                bad.append(Bad(number, error.path, error.reason, error.detail))
            done += lengths[number] if tell else 0.0
        if parts.position != Position(len(files)):
            finish(Position(len(files)))
    if tell:
        tell(Progress(len(files), len(files), all_seconds, all_seconds))


def _with_next(windows: Iterable[_Window]) -> Iterator[tuple[_Window, _Window | None]]:
    """Each window with the one after it."""
    held: _Window | None = None
    for window in windows:
        if held is not None:
            yield held, window
        held = window
    if held is not None:
        yield held, None


def _seconds(file: str) -> float:
    try:
        return audio.probe(file).duration
    except AudioError:
        return 0.0


def _part(
    model: Model,
    held: Sequence[_Window],
    ahead: _Window | None,
    bad: Sequence[Bad],
    following: Position,
    asked: _Asked,
    check: Callable[[], None],
) -> Part:
    """Encode windows; `check` is called before each batch.

    The window `ahead`, which belongs to the next part, is encoded too where windows overlap: it says where the last
    one's part ends, and what the cut between them costs.
    """
    rate, kept = model.encoder.sample_rate, len(held)
    held = [*held, ahead] if ahead and asked.overlap.steps else held
    seam = np.full(len(held), np.nan)
    vectors = np.zeros((len(held), vector_width(model.encoder, asked.layers)), np.float32)
    steps = np.zeros(len(held), np.int64)
    insides = [np.zeros((0, 0), np.float32)] * len(held)
    times = [np.zeros(0)] * len(held)
    with model.autocast():
        read = layers_read(asked.layers, frames=asked.reads_frames)
        for indices, encoded in encode_pool(model.encoder, [window.wave for window in held], model.device, read):
            check()
            vectors[indices] = vectors_of(encoded, asked.layers).float().cpu().numpy()
            steps[indices] = encoded.valid.sum(1).cpu().numpy()
            if not asked.reads_frames:
                continue
            inside = frames_of(encoded, asked.layers).float().cpu().numpy()
            centres = encoded.times.double().cpu().numpy()
            for row, index in enumerate(indices):
                count, window = steps[index], held[index]
                # A copy: a view would keep the whole batch alive.
                insides[index] = inside[row, :count].copy()
                # The last patch of a short sound reaches into padding.
                times[index] = np.minimum(window.start / rate + centres[:count], window.end / rate)
    for index, used, cost in _used(model.encoder, held, insides, asked.overlap) if asked.overlap.steps else ():
        insides[index], times[index] = insides[index][used], times[index][used]
        steps[index] = len(times[index])
        if cost is not None:
            seam[index - 1] = cost
    own = slice(0, kept)
    with_frames = kept and asked.frames
    return Part(
        np.array([window.file for window in held[own]], np.int64),
        np.array([window.start for window in held[own]], np.int64),
        np.array([len(window.wave) for window in held[own]], np.int64),
        steps[own],
        vectors[own],
        np.concatenate(insides[own]) if with_frames else np.zeros((0, 0), np.float32),
        np.concatenate(times[own]) if with_frames else np.zeros(0),
        seam[own],
        tuple(bad),
        following,
    )


def _used(
    encoder: AudioEncoder, held: Sequence[_Window], insides: Sequence[NDArray[np.float32]], overlap: Overlap
) -> Iterator[tuple[int, slice, float | None]]:
    """Of windows with their frames [t, D]: which time steps are used, and what the cut before the window costs."""
    for _, run in itertools.groupby(range(len(held)), lambda index: held[index].file):
        indices = list(run)
        frames = ((held[i].start, len(held[i].wave), torch.from_numpy(insides[i])[None]) for i in indices)
        for index, piece in zip(indices, join_overlapping(encoder, overlap, frames), strict=True):
            # What lies before the first window of a part was used by the part before.
            first = overlap.steps if held[index].number else 0
            yield index, slice(first, piece.first + piece.out.shape[1]), piece.seam
