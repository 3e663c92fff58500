"""Checkpoints that are either whole or not there.

Symptom: a run is killed while it saves, and the newest file is half written; or the disk flips a bit, and training
goes on from wrong weights. Cause: files written in place, and nothing to check them against. Here a checkpoint is a
directory `step-000123/` that is written under a temporary name in the same file system, every file flushed to disk, and
then renamed; its MANIFEST.json holds the size and SHA-256 of each file, and the latest checkpoint is the highest step
whose manifest verifies. Not covered: a disk that acknowledges a flush and loses the data, and a file system without
atomic rename.

    weights.safetensors      the module's state
    optimizer.safetensors    the optimizer's state, by parameter name (absent once exported)
    carried.safetensors      what else grows with a run: the running mean of its weights, its predictions so far
    state.json               step, position of the data, best score so far
    config.json              kind, method, settings, label names: enough to rebuild the module
    MANIFEST.json            size and SHA-256 of the files above
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from auricle import __version__
from auricle.errors import CheckpointError, did_you_mean, in_words, plural
from auricle.files import sha256
from auricle.methods import preset_names

# How commands that take a preset with random weights are asked for it.
FRESH_OPTION = "--random-weights SEED, from Python random_weights=SEED"
M = TypeVar("M", bound=nn.Module)

SCHEMA = 1
REQUIRED = {"weights.safetensors", "config.json", "state.json"}
# In a run's directory: the mean of the weights of several epochs.
AVERAGED = "averaged"
_STEP = re.compile(r"step-(\d{6,})")


class CheckpointWarning(UserWarning):
    """A checkpoint of a run is damaged, and an older one stands in for it."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint directory."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        config = self._json("config.json")
        needed = {"kind": str, "method": str, "model": dict}
        lacking = [key for key, kind in needed.items() if not isinstance(config.get(key), kind)]
        if lacking:
            raise CheckpointError(f"{self.path / 'config.json'} lacks {', '.join(lacking)}; use another checkpoint.")
        return config

    @cached_property
    def state(self) -> dict[str, Any]:
        return self._json("state.json")

    @property
    def hash(self) -> str:
        """SHA-256 of the weights: the model's identity in results."""
        digest: str = self._json("MANIFEST.json")["files"]["weights.safetensors"]["sha256"]
        return digest

    def weights(self) -> dict[str, Tensor]:
        return _load_tensors(self.path / "weights.safetensors")

    def optimizer(self) -> dict[str, Tensor]:
        return _load_tensors(self.path / "optimizer.safetensors")

    def carried(self) -> dict[str, Tensor]:
        return _load_tensors(self.path / "carried.safetensors")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            values = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path / name} cannot be read: {in_words(error)}.") from None
        if not isinstance(values, dict):
            raise CheckpointError(f"{self.path / name} holds {type(values).__name__}, expected a JSON object.")
        return values


def save_checkpoint(
    run: Path,
    name: str,
    *,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Tensor] | None = None,
    carried: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `run/name` so that it exists whole or not at all; replaces an existing one.

    Raises:
        CheckpointError: the file system refuses; the message names the file, and older checkpoints are untouched.
    """
    temporary = run / f".{name}.tmp-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        kinds = {"weights": weights, "optimizer": optimizer, "carried": carried}
        for kind, values in ((kind, values) for kind, values in kinds.items() if values is not None):
            save_file({n: t.detach().cpu().contiguous() for n, t in values.items()}, temporary / f"{kind}.safetensors")
        header = {"schema": SCHEMA, "auricle": __version__}
        _write_json(temporary / "config.json", header | dict(config))
        _write_json(temporary / "state.json", dict(state or {}))
        files = {p.name: {"size": p.stat().st_size, "sha256": sha256(p)} for p in sorted(temporary.iterdir())}
        _write_json(temporary / "MANIFEST.json", {"schema": SCHEMA, "files": files})
        for path in temporary.iterdir():
            _flush(path)
        _flush(temporary)
        target = run / name
        _remove(target)
        temporary.rename(target)
        _flush(run)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{run / name} could not be saved: {in_words(error)}; the checkpoints before it are intact, "
            "free some space or mend the permissions and run the same command again."
        ) from error
    return target


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def steps_saved(run: Path) -> list[int]:
    """Steps that have a checkpoint directory, ascending; whether they verify is not looked at."""
    if not run.is_dir():
        return []
    return sorted(int(m[1]) for p in run.iterdir() if (m := _STEP.fullmatch(p.name)) and p.is_dir())


def latest(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The highest step that verifies, and a sentence for each higher one that does not."""
    problems: list[str] = []
    for step in reversed(steps_saved(run)):
        try:
            return verify(run / step_name(step)), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems


def verify(path: Path) -> Checkpoint:
    """Check every file of a checkpoint against its manifest.

    Raises:
        CheckpointError: not a checkpoint, or a file is missing, surplus, cut or altered.
    """
    manifest_path = path / "MANIFEST.json"
    if not manifest_path.is_file():
        raise CheckpointError(f"{path} is not a checkpoint: it holds no MANIFEST.json.")
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        files, schema = dict(manifest["files"]), manifest["schema"]
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
        if not isinstance(schema, int) or schema < 1:
            raise ValueError(f"schema {schema}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{manifest_path} is damaged: {error!r}; use another checkpoint.") from None
    if schema > SCHEMA:
        raise CheckpointError(
            f"{path} has schema {schema}, this auricle reads up to {SCHEMA}; install a newer auricle."
        )
    if not files.keys() >= REQUIRED or any(Path(name).name != name for name in files):
        raise CheckpointError(f"{manifest_path} does not list what a checkpoint holds; use another checkpoint.")
    present = {p.name for p in path.iterdir()} - {"MANIFEST.json"}
    for surplus in sorted(present - set(files)):
        raise CheckpointError(f"{path / surplus} is not in the manifest; remove it, or use another checkpoint.")
    for name, (size, digest) in expected.items():
        file = path / name
        try:
            if not file.is_file():
                raise CheckpointError(f"{file} is missing; use another checkpoint.")
            if (have := file.stat().st_size) != size:
                raise CheckpointError(f"{file} has {have} bytes, expected {size}; use another checkpoint.")
            if sha256(file) != digest:
                raise CheckpointError(
                    f"{file} is damaged: its SHA-256 differs from the manifest; use another checkpoint."
                )
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {in_words(error)}; use another checkpoint.") from None
    return Checkpoint(path)


def resolve(path: Path) -> Checkpoint:
    """A checkpoint directory as it is; of a run directory the averaged weights, else the best, else the latest.

    Raises:
        CheckpointError: nothing there that can be used.

    Warns:
        CheckpointWarning: a checkpoint of the run is damaged, so another one is used.
    """
    require(path)
    if (path / "MANIFEST.json").exists() or _STEP.fullmatch(path.name):
        return verify(path)
    if path.is_file():
        raise CheckpointError(f"{path} is a file; convert a published checkpoint with: auricle import {path} --out DIR")
    if (path / AVERAGED / "MANIFEST.json").exists():
        return verify(path / AVERAGED)
    newest, problems = latest(path)
    if newest is None:
        detail = f" ({problems[0].rstrip('.')})" if problems else ""
        raise CheckpointError(f"{path} holds no usable checkpoint{detail}; give a run or checkpoint directory.")
    best, chosen = newest.state.get("best"), newest
    if best and best["step"] != newest.state["step"]:
        try:
            chosen = verify(path / step_name(best["step"]))
        except CheckpointError as error:
            problems.append(str(error))
    for problem in problems:
        warnings.warn(f"{problem} Instead, {chosen.path} is used.", CheckpointWarning, stacklevel=2)
    return chosen


def require(model: str | Path, fresh: str = "") -> None:
    """Make sure that there is something at a path; `fresh` as in `no_such_model`.

    Raises:
        CheckpointError: there is not.
    """
    if not Path(model).exists():
        raise CheckpointError(no_such_model(str(model), fresh))


def no_such_model(name: str, fresh: str = "") -> str:
    """The sentence for a path that does not exist; a preset's name is the likeliest mistake.

    `fresh` is how the caller is asked for a preset with random weights, where it can be.
    """
    presets = preset_names()
    near = [p for p in presets if p == name or p.startswith(f"{name}-")]
    if near:
        which = "" if near == [name] else f" ({', '.join(near)})"
        return (
            f"'{name}' names a configuration{which}, not weights: give a checkpoint or run directory "
            f"(auricle import FILE --out DIR makes one of a published file)"
            f"{f', or ask for random weights ({fresh})' if fresh else ''}."
        )
    return f"{name}: no such checkpoint or run directory{did_you_mean(name, presets)}."


def prune(run: Path, keep: int, protected: Collection[int]) -> None:
    """Remove all but the newest `keep` (at least two) checkpoints and the protected steps.

    Raises:
        CheckpointError: the file system refuses.
    """
    _remove_steps(run, [step for step in steps_saved(run)[: -max(2, keep)] if step not in protected])


def _remove_steps(run: Path, steps: Collection[int]) -> None:
    for step in steps:
        try:
            _remove(run / step_name(step))
        except OSError as error:
            raise CheckpointError(
                f"{run / step_name(step)} could not be removed: {in_words(error)}; "
                "mend the permissions and run the same command again."
            ) from error


def thin(run: Path) -> None:
    """Of a run that is complete, keep only the newest checkpoint and the best.

    Raises:
        CheckpointError: the file system refuses.
    """
    newest, _ = latest(run)
    if newest is None:
        return
    best = newest.state.get("best") or {}
    _remove_steps(run, [s for s in steps_saved(run) if s not in (newest.state["step"], best.get("step"))])


def remove_stale(run: Path) -> None:
    """Remove what killed writers left behind; call it only while holding the run's lock."""
    for path in run.glob(".*.tmp-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove(checkpoint: Path) -> None:
    # Renamed first, so that a kill in the middle leaves no directory that looks like a checkpoint.
    if checkpoint.exists():
        doomed = checkpoint.with_name(f".{checkpoint.name}.tmp-old")
        shutil.rmtree(doomed, ignore_errors=True)
        checkpoint.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def restore(
    build: Callable[[], M], weights: Mapping[str, Tensor], where: str, sources: Mapping[str, str] | None = None
) -> M:
    """The module that `build` makes, with these weights; if they do not fit it, it is never allocated.

    `sources` are the names that a foreign file gives to weights.

    Raises:
        CheckpointError: as `load_state`.
    """
    with torch.device("meta"):
        check_fit(build(), weights, where, sources)
    module = build()
    load_state(module, weights, where)
    return module


def load_state(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights strictly.

    Raises:
        CheckpointError: unknown, missing or mis-shaped tensors; up to ten of each are named.
    """
    check_fit(module, weights, where)
    module.load_state_dict(dict(weights))


def check_fit(
    module: nn.Module, weights: Mapping[str, Tensor], where: str, sources: Mapping[str, str] | None = None
) -> None:
    """Compare names and shapes; `sources` as in `restore`.

    Raises:
        CheckpointError: as `load_state`.
    """
    have = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    got = {name: tuple(t.shape) for name, t in weights.items()}
    named = {name: name for name in have | got} | {ours: f"{name} as {ours}" for ours, name in (sources or {}).items()}
    complaints = []
    for title, names in (("missing", have.keys() - got.keys()), ("unknown", got.keys() - have.keys())):
        if names:
            first = ", ".join(named[name] for name in sorted(names)[:10])
            complaints.append(f"{plural(len(names), f'{title} tensor')} ({first})")
    if others := sorted(name for name in have.keys() & got.keys() if have[name] != got[name]):
        shapes = (f"{named[name]}: {list(got[name])}, expected {list(have[name])}" for name in others[:10])
        complaints.append(f"{plural(len(others), 'tensor')} of another shape ({'; '.join(shapes)})")
    if complaints:
        raise CheckpointError(f"{where} does not fit the network: {', '.join(complaints)}.")


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        loaded: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {in_words(error)}.") from None
    return loaded


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
