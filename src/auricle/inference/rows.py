"""From parts to the rows of a table: a window each, or the mean of a file's windows."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from auricle.inference.parts import Part, Parts
from auricle.inference.table import Rows


def usable(parts: Parts, bad: Collection[int]) -> Iterator[Part]:
    """The parts without the windows of files that turned out to be bad."""
    for part in parts:
        keep = ~np.isin(part.file, list(bad))
        if keep.all():
            yield part
            continue
        of_frames = np.repeat(keep, part.steps) if len(part.times) else np.zeros(0, bool)
        yield replace(
            part,
            **{name: getattr(part, name)[keep] for name in ("file", "start", "samples", "steps", "vectors", "seam")},
            **{name: getattr(part, name)[of_frames] for name in ("frames", "times")},
        )


def window_rows(files: Sequence[str], rate: int, parts: Iterable[Part]) -> Iterator[Rows]:
    for part in parts:
        yield Rows(
            [files[index] for index in part.file],
            part.start / rate,
            (part.start + part.samples) / rate,
            part.vectors,
            part.steps,
            part.frames,
            part.times,
        )


@dataclass
class _Clip:
    """The sum of a file's windows, weighted by their steps, as far as they have passed."""

    file: int
    total: NDArray[np.float64]
    steps: int = 0
    end: int = 0

    def add(self, part: Part, mine: slice) -> None:
        steps = part.steps[mine]
        self.total = self.total + (part.vectors[mine].astype(np.float64) * steps[:, None]).sum(0)
        self.steps += int(steps.sum())
        self.end = int((part.start[mine] + part.samples[mine]).max())


def clip_rows(files: Sequence[str], rate: int, parts: Iterable[Part]) -> Iterator[Rows]:
    """Clips, each with the part in which the next one begins; frames pass as they come, which is the order of clips."""
    clip: _Clip | None = None
    for part in parts:
        finished: list[_Clip] = []
        edges = [0, *(np.flatnonzero(np.diff(part.file)) + 1).tolist(), len(part.file)]
        for first, last in itertools.pairwise(edges):
            if first == last:
                continue
            if clip is None or clip.file != part.file[first]:
                finished += [clip] if clip else []
                clip = _Clip(int(part.file[first]), np.zeros(part.vectors.shape[1]))
            clip.add(part, slice(first, last))
        yield _rows_of(finished, files, rate, part.frames, part.times)
    if clip:
        yield _rows_of([clip], files, rate, part.frames[:0], part.times[:0])


def _rows_of(
    clips: Sequence[_Clip], files: Sequence[str], rate: int, frames: NDArray[np.float32], times: NDArray[np.float64]
) -> Rows:
    return Rows(
        [files[clip.file] for clip in clips],
        np.zeros(len(clips)),
        np.array([clip.end / rate for clip in clips]),
        np.array([clip.total / clip.steps for clip in clips], np.float32),
        np.array([clip.steps for clip in clips], np.int64),
        frames,
        times,
    )
