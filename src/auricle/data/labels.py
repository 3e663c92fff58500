"""The labels of a data set: one per item (classification), several (tagging), or events in time (detection).

A cell with several labels separates them by semicolons ("dog;rain"), or by commas without a blank behind them, as
AudioSet and FSD50K do ("dog,rain" in a quoted cell). A comma followed by a blank belongs to a name ("Child speech, kid
speaking"), and so do all commas of a column that has semicolons.

For detection an item is strongly labelled (its events are known, be there none), weakly (its cell names what sounds in
it), or not at all. A column `annotation` with the values strong, weak and none says which, as the reader of DCASE's
lists writes it: a weakly labelled item's events then tell what sounds in it, not when. Without it, an item that has
events, or neither events nor a label, is strongly labelled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from auricle.data.events import ANNOTATION, stated_annotation, usable_events
from auricle.data.items import Event, Manifest
from auricle.data.targets import multi_hot
from auricle.errors import ConfigError, DataError, plural

Task = Literal["classification", "tagging", "detection"]
TASKS: tuple[Task, ...] = ("classification", "tagging", "detection")
# Keeps the weight of a label that never occurs finite (SSAST, gen_weight_file.py).
_SMOOTHING = 0.01


class LabelWarning(UserWarning):
    """Labels are used as asked, but they look as if something else were meant."""


@dataclass(frozen=True)
class Labels:
    """The label column of a manifest: `sets[i]` are item i's labels, without repetition, in the order of its cell.

    For detection, `events[i]` are its events, or None where they are not known; `sets[i]` are then what sounds in it,
    if that is known. For other tasks `events` is empty. `notes` say what was left out of the events.
    `unused` events are there though no task was asked for, and another one was chosen.
    """

    column: str
    task: Task
    sets: tuple[tuple[str, ...], ...]
    events: tuple[tuple[Event, ...] | None, ...] = ()
    notes: tuple[str, ...] = ()
    unused: int = 0

    def classes(self, indices: Sequence[int]) -> tuple[str, ...]:
        """All labels of some items, sorted."""
        return tuple(sorted({name for i in indices for name in self.sets[i]}))

    def targets(self, indices: Sequence[int], classes: Sequence[str]) -> NDArray[np.float32]:
        """[len(indices), C] with 1 for each label of an item; labels that are not in `classes` are left out.

        For detection, the row of an item of which nothing is known is NaN.
        """
        targets = multi_hot([self.sets[i] for i in indices], classes)
        if self.events:
            unknown = set(self.unlabelled(indices))
            targets[[i in unknown for i in indices]] = np.nan
        return targets

    def strong(self, indices: Sequence[int]) -> tuple[int, ...]:
        """Those of some items whose events are known: only they can be scored."""
        return tuple(i for i in indices if self.events[i] is not None)

    def unlabelled(self, indices: Sequence[int]) -> tuple[int, ...]:
        """Those of some items of which nothing is known, for detection."""
        return tuple(i for i in indices if self.events and self.events[i] is None and not self.sets[i])

    @property
    def compound(self) -> str:
        """What to say of single labels that look like several, such as "dog;rain"; else an empty string."""
        if self.task != "classification":
            return ""
        cells = [name for names in self.sets for name in names]
        several = [cell for cell, labels in zip(cells, split_cells(cells), strict=True) if len(labels) > 1]
        if not several:
            return ""
        return (
            f"column '{self.column}' seems to name several labels in {len(several)} of {plural(len(cells), 'cell')} "
            f"(first: '{several[0]}'); classification takes each cell as one label, which makes "
            f"{plural(len(set(cells)), 'class')}; for any number of labels per clip, give --task tagging (from Python, "
            'task="tagging").'
        )

    @cached_property
    def strata(self) -> tuple[str, ...]:
        """One label of each item, by which parts of the data are kept alike: the rarest, where there are several."""
        counts = Counter(name for names in self.sets for name in names)
        return tuple(min(names, key=lambda name: (counts[name], name), default="") for names in self.sets)

    def __str__(self) -> str:
        if self.task == "detection":
            return self._detection()
        each = sum(map(len, self.sets)) / len(self.sets)
        several = f", {each:.1f} labels per clip" if self.task == "tagging" else ""
        classes = plural(len(self.classes(range(len(self.sets)))), "class")
        unused = f"; {plural(self.unused, 'event')} with times not used (see --task detection)" if self.unused else ""
        return f"{self.task}: {classes} in column '{self.column}'{several}{unused}"

    def _detection(self) -> str:
        known = [events for events in self.events if events is not None]
        weak = sum(events is None and bool(names) for events, names in zip(self.events, self.sets, strict=True))
        parts = [
            f"detection: {plural(len(self.classes(range(len(self.sets)))), 'class')}",
            f"{plural(sum(map(len, known)), 'event')} in {plural(len(known), 'clip')}",
        ]
        rest = len(self.sets) - len(known) - weak
        parts += [f"{plural(n, 'clip')} {kind}" for n, kind in ((weak, "with labels only"), (rest, "unlabelled")) if n]
        return ", ".join(parts)


def read_labels(manifest: Manifest, column: str, task: str = "") -> Labels:
    """The labels in a column.

    Args:
        task: "classification" (a cell is one label, whatever it holds), "tagging", "detection", or empty: detection if
            there are events and no such column, or a column `annotation` beside it; else tagging if any cell holds
            several labels.

    Raises:
        ConfigError: no such task.
        DataError: no such column, or an item has no label; for detection, there is no event, or most do not fit their
            clips, or the column `annotation` says something unknown.
    """
    if task and task not in TASKS:
        raise ConfigError(f"the task must be one of {', '.join(TASKS)}, got '{task}'.")
    timed = any(item.events for item in manifest)
    if task == "detection" or (
        not task and timed and (column not in manifest.columns or ANNOTATION in manifest.columns)
    ):
        if not timed:
            raise DataError(
                f"{manifest.source}: detection needs events with an onset and an offset, and there is none; list them "
                "in an events.csv (path,onset,offset,label) beside manifest.csv, or give a list of DCASE or AudioSet."
            )
        return _detection_labels(manifest, column)
    cells = manifest.labels_of(column)
    unused = 0 if task else sum(len(item.events) for item in manifest)
    if task != "classification":
        sets = split_cells(cells)
        empty = [name for name, labels in zip(manifest.ids, sets, strict=True) if not labels]
        if empty:
            raise DataError(
                f"{manifest.source}: column '{column}' holds only delimiters for {len(empty)} items (first: "
                f"{empty[0]}); name their labels or remove these rows."
            )
        if task == "tagging" or any(len(labels) > 1 for labels in sets):
            return Labels(column, "tagging", sets, unused=unused)
    return Labels(column, "classification", tuple((cell,) for cell in cells), unused=unused)


def _detection_labels(manifest: Manifest, column: str) -> Labels:
    cells = split_cells([item.labels.get(column, "") for item in manifest])
    listed, notes = usable_events(manifest)
    events: list[tuple[Event, ...] | None] = []
    sets: list[tuple[str, ...]] = []
    for item, cell, found in zip(manifest, cells, listed, strict=True):
        stated = stated_annotation(item) or ("strong" if item.events or not cell else "weak")
        heard = tuple(dict.fromkeys(event.label for event in found))
        events.append(found if stated == "strong" else None)
        sets.append({"strong": heard, "weak": cell or heard, "none": ()}[stated])
    return Labels(column, "detection", tuple(sets), tuple(events), notes)


def split_cells(cells: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The labels in each cell of a column; see the module for delimiters."""
    delimiter = ";" if any(";" in cell for cell in cells) else r",(?!\s)"
    parts = ([part.strip() for part in re.split(delimiter, cell)] for cell in cells)
    return tuple(tuple(dict.fromkeys(part for part in labels if part)) for labels in parts)


def balancing_weights(targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """How often each item [N] is drawn, relative to the others, so that rare labels are heard more often.

    SSAST's weights: the sum of 1000 / (count + 0.01) over an item's labels, `count` being how many items have a label.

    Args:
        targets: [N, C], 1 for each label of an item.
    """
    per_class = 1000.0 / (targets.sum(0, dtype=np.float64) + _SMOOTHING)
    return targets.astype(np.float64) @ per_class
