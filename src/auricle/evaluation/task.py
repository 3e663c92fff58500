"""A labelled data set as a probe sees it."""

from __future__ import annotations

from dataclasses import dataclass

from auricle.data.formats import Data, read_data
from auricle.data.items import Manifest
from auricle.data.labels import read_labels
from auricle.data.splits import Fold, folds
from auricle.errors import DataError, plural


@dataclass(frozen=True)
class Task:
    """Labelled clips and who is trained and tested on."""

    manifest: Manifest
    label: str
    labels: tuple[str, ...]
    folds: tuple[Fold, ...]
    protocol: str

    @classmethod
    def read(
        cls,
        data: Data,
        *,
        label: str = "label",
        split_column: str | None = None,
        group_column: str | None = None,
        seed: int = 0,
    ) -> Task:
        """Read labelled data with the split it states; see `auricle.data.splits.folds`.

        Raises:
            DataError: no such column, fewer than two classes, or several labels per clip.
        """
        manifest = read_data(data)
        manifest.require_all("a probe")
        labels = manifest.labels_of(label)
        if (task := read_labels(manifest, label).task) != "classification":
            raise DataError(
                f"column '{label}' is for {task}, with several labels per clip, and a probe takes one; "
                "choose another --label, or use auricle finetune, which does that."
            )
        if len(set(labels)) < 2:
            raise DataError(
                f"column '{label}' holds one class ('{labels[0]}'); a probe needs two: choose another --label."
            )
        found = folds(manifest, split_column=split_column, group_column=group_column, labels=labels, seed=seed)
        by = group_column or split_column or ("split" if "split" in manifest.columns else "")
        protocol = (
            f"{plural(len(found), 'fold')} by column '{by}'" if by else f"{len(found)} stratified folds, seed {seed}"
        )
        return cls(manifest, label, tuple(labels), tuple(found), protocol)
