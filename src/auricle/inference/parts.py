"""What of a library is embedded so far: a folder beside the file that is being made.

x.parquet.parts/
  plan.json                 which files are embedded, by which model
  part-000000.safetensors   consecutive windows; each part appears whole or not at all
  part-000001.safetensors

A part says where the next one begins. What it holds follows from its beginning and the plan, so work that is killed
anywhere and goes on ends with the same parts.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from auricle.errors import ConfigError, in_words, plural
from auricle.files import atomic_path, owned, write_text

SHOWN = 3


class PartWarning(UserWarning):
    """A part of a library is damaged, and embedded again."""


@dataclass(frozen=True)
class Bad:
    """A file of the plan that cannot be embedded: its index, and what `AudioError` holds."""

    file: int
    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Position:
    """The window that comes next: the index of its file, and its number in it."""

    file: int = 0
    window: int = 0


@dataclass(frozen=True)
class Part:
    """n consecutive windows.

    Attributes:
        file: [n] indices into the files of the plan.
        start, samples: [n] where a window lies in its file, at the model's rate.
        steps: [n] its time steps that are used: those that hold sound and, of windows that overlap, lie in no other.
        vectors: [n, D].
        frames, times: [sum of steps, D'] and [sum of steps] in seconds; empty unless they were asked for.
        seam: [n] what the cut between a window and the next of its file costs (`nn.streaming.Piece.seam`); NaN where
            there is none, or windows do not overlap.
        bad: files that turned out to be unusable; windows of their beginnings may lie in this part or earlier ones.
        following: where the next part begins.
    """

    file: NDArray[np.int64]
    start: NDArray[np.int64]
    samples: NDArray[np.int64]
    steps: NDArray[np.int64]
    vectors: NDArray[np.float32]
    frames: NDArray[np.float32]
    times: NDArray[np.float64]
    seam: NDArray[np.float64]
    bad: tuple[Bad, ...] = ()
    following: Position = field(default_factory=Position)


_ARRAYS = ("file", "start", "samples", "steps", "vectors", "frames", "times", "seam")


class Parts:
    """The parts in a folder, which this process owns; see `open_parts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count, self.position = 0, Position()
        while (path := self._path(self.count)).exists():
            try:
                self.position = _notes(path)[1]
            except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
                text = f"{path} is damaged ({in_words(error)}); embedding again from there."
                warnings.warn(text, PartWarning, stacklevel=3)
                break
            self.count += 1

    def add(self, part: Part) -> None:
        """Write the next part."""
        notes = {
            "bad": [astuple(b) for b in part.bad],
            "following": astuple(part.following),
        }
        arrays = {name: np.ascontiguousarray(getattr(part, name)) for name in _ARRAYS}
        with atomic_path(self._path(self.count)) as partial:
            # Written here, not by safetensors, so that a full disk is an OSError.
            partial.write_bytes(save(arrays, {"notes": json.dumps(notes)}))
        self.count, self.position = self.count + 1, part.following

    def __iter__(self) -> Iterator[Part]:
        """All parts in order, one in memory at a time."""
        for number in range(self.count):
            path = self._path(number)
            bad, following = _notes(path)
            with safe_open(path, "numpy") as file:
                yield Part(**{name: file.get_tensor(name) for name in _ARRAYS}, bad=bad, following=following)

    def bad(self) -> list[Bad]:
        """All unusable files, in order."""
        return [b for number in range(self.count) for b in _notes(self._path(number))[0]]

    def lengths(self) -> dict[int, int]:
        """Samples of each file that has windows, by its index."""
        found: dict[int, int] = {}
        for number in range(self.count):
            with safe_open(self._path(number), "numpy") as file:
                # In order: the last window of a file decides.
                found |= dict(zip(file.get_tensor("file").tolist(), _ends(file).tolist(), strict=True))
        return found

    def seams(self, bad: Collection[int]) -> NDArray[np.float64]:
        """What each cut between windows of files that are not `bad` costs."""
        found = [np.zeros(0)]
        for number in range(self.count):
            with safe_open(self._path(number), "numpy") as file:
                seam = file.get_tensor("seam")
                found.append(seam[~np.isnan(seam) & ~np.isin(file.get_tensor("file"), list(bad))])
        return np.concatenate(found)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.safetensors"


@contextmanager
def open_parts(folder: Path, plan: Mapping[str, Any]) -> Iterator[Parts]:
    """The parts in `folder`, which is made for this plan; with the block they are done with, and removed.

    If the block raises, what was embedded stays.

    Raises:
        ConfigError: another process is at work there, it was begun with another plan, or it cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / ".lock").exists() or not any(folder.iterdir()))):
        raise ConfigError(f"{folder} is in the way, and not of auricle; move it, or give another --out.")
    with owned(folder):
        path, parts = folder / "plan.json", Parts(folder)
        try:
            if parts.count:
                check_plan(path, plan)
            else:
                write_text(path, json.dumps(plan) + "\n")
            yield parts
        except BaseException:
            if not parts.count:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def check_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with another plan than the one in `path`.

    Raises:
        ConfigError: another model, other files, or other settings; the sentence says which.
    """
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        old_files = {name: tuple(state) for name, *state in old["files"]}
        old_model, old_hash = old["model"], str(old["model"]["hash"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({in_words(error)}); delete {path.parent} to begin again.") from None
    remedy = f"repeat the command that began it, give another --out, or delete {path.parent} to begin again"
    if old_model != plan["model"]:
        raise ConfigError(
            f"{path.parent} was begun with another model ({old_hash[:12]}, now {plan['model']['hash'][:12]}), and the "
            f"embeddings of two models do not mix; {remedy}."
        )
    files = {name: tuple(state) for name, *state in plan["files"]}
    if old["files"] != plan["files"]:
        raise ConfigError(f"{path.parent} was begun with other files ({_differences(old_files, files)}); {remedy}.")
    changed = [key for key in plan if old.get(key) != plan[key]]
    if changed:
        named = ", ".join(f"{key}: was {old.get(key)!r}, now {plan[key]!r}" for key in changed)
        raise ConfigError(f"{path.parent} was begun with other settings ({named}); {remedy}.")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    kinds = {
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and old[name] != new[name]],
    }
    named = [
        f"{plural(len(names), 'file')} {kind}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for kind, names in kinds.items()
        if names
    ]
    return "; ".join(named) or "in another order"


def _ends(file: Any) -> NDArray[np.int64]:
    ends: NDArray[np.int64] = file.get_tensor("start") + file.get_tensor("samples")
    return ends


def _notes(path: Path) -> tuple[tuple[Bad, ...], Position]:
    with safe_open(path, "numpy") as file:
        notes = json.loads(file.metadata()["notes"])
    return tuple(Bad(*entry) for entry in notes["bad"]), Position(*notes["following"])
