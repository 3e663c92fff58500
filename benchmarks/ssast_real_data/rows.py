"""The seven tasks, and what is known about them from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from auricle.evaluation.probe import Task


@dataclass(frozen=True)
class Row:
    """A task: a data set, the column that holds its classes, and the column that says who is tested."""

    name: str
    folder: str
    what: str
    label: str = "label"
    split_column: str | None = None
    group_column: str | None = None

    def task(self, data: Path) -> Task:
        return Task.read(
            [data / self.folder], label=self.label, split_column=self.split_column, group_column=self.group_column
        )


ROWS = (
    Row("esc10", "esc10", "10 environmental sounds, 5 folds"),
    Row("emodb", "emodb_mini", "7 emotions, leave one speaker out"),
    Row("fsdd", "fsdd_mini", "10 spoken digits, leave one speaker out", group_column="speaker"),
    Row("wakeword5", "wakeword5", "5 wake words"),
    Row("instrument", "philharmonia_mini", "12 instruments, unseen notes"),
    Row("pitch", "philharmonia_mini", "12 pitch classes, unseen instruments", "pitch_class", "pitch_split"),
    Row("drumkit", "drumkit_mini", "12 kinds of hit, 3 folds"),
)
PITCH = "pitch"
FINETUNED = ("esc10", "emodb", "fsdd")

# From the README of the recordings: standardisation and logistic regression, C by grouped inner validation, percent.
# emodb there is unweighted average recall, here accuracy.
QUOTED_SOURCE = "README of the recordings"
QUOTED = {
    "MFCC + LR": (72.8, 53.7, 62.3, 90.0, 69.5, 56.2, 90.1),
    "BYOL-A, AudioSet": (91.2, 70.7, 55.2, 96.2, 95.8, 16.7, 97.1),
    "BYOL-A, random weights": (82.8, 58.0, 63.3, 88.8, 86.3, 50.0, 97.1),
}


def row(name: str) -> Row:
    return next(r for r in ROWS if r.name == name)
