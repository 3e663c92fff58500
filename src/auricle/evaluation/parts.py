"""Which clips of labelled data an evaluation scores."""

from __future__ import annotations

from dataclasses import dataclass

from auricle.data.heard import Heard, content_keys
from auricle.data.items import Manifest
from auricle.data.splits import SPLIT_COLUMN, stated_part
from auricle.errors import DataError, plural
from auricle.inference.model import Model

PARTS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Part:
    """Indices into the manifest, in rising order; in words how they were chosen, and what should be known of them."""

    indices: tuple[int, ...]
    how: str
    notes: tuple[str, ...] = ()


def choose_part(
    manifest: Manifest, name: str, model: Model, split_column: str | None = None, group_column: str | None = None
) -> Part:
    """The clips of the part called train, val, test or all.

    A column of train, val and test decides, where there is one and neither the caller nor the run names groups instead;
    else what the run did with the clips. "test" never holds a clip that the run learned from, and "val" none that it
    was trained on.

    Raises:
        DataError: no such part, or it is empty.
    """
    if name not in PARTS:
        raise DataError(f"--split must be one of {', '.join(PARTS)}, got '{name}'.")
    heard = Heard.load(model.config.get("heard", {}))
    keys = content_keys(manifest.hearing(model.encoder.channel))
    train = {i for i, key in enumerate(keys) if key in heard.train}
    val = {i for i, key in enumerate(keys) if key in heard.val} - train
    wanted, how = _wanted(manifest, name, model, train, val, split_column, group_column)
    barred = {"test": train | val, "val": train}.get(name, set())
    indices = tuple(i for i in wanted if i not in barred)
    left_out = len(wanted) - len(indices)
    notes = []
    if not indices and (left_out or (name == "test" and barred)):
        raise DataError(
            f"{model.source} learned from every clip of the part '{name}' of {manifest.source}; "
            "give other data, or score them as training clips with --split train or all."
        )
    if not indices:
        raise DataError(f"the part '{name}' of {manifest.source} is empty; choose another --split.")
    if left_out:
        are, them = ("is", "it") if left_out == 1 else ("are", "them")
        what = f"{plural(left_out, 'clip')} of the part '{name}'"
        notes.append(f"{what} {are} not tested, as the run learned from {them}")
    if scored := len(train.intersection(indices)):
        notes.append(f"of {plural(len(indices), 'clip')} scored, the run was trained on {scored}")
    if "heard" not in model.config:
        notes.append("the checkpoint does not say what it was trained on, so training clips may be among those scored")
    return Part(indices, how, tuple(notes))


def _wanted(
    manifest: Manifest,
    name: str,
    model: Model,
    train: set[int],
    val: set[int],
    split_column: str | None,
    group_column: str | None,
) -> tuple[tuple[int, ...], str]:
    """The clips that are asked for, training clips or not, and how they were chosen."""
    if name == "all":
        return tuple(range(len(manifest))), "all clips"
    own = model.config.get("split", {})
    if not split_column and not group_column:
        # Other data may well lack the run's columns.
        split_column, group_column = (
            column if column in manifest.columns else None
            for column in (own.get("split_column"), own.get("group_column"))
        )
    if group_column is None:
        stated = stated_part(manifest, name, split_column)
        if stated is not None:
            return stated, f"column '{split_column or SPLIT_COLUMN}'"
    if name != "test":
        return tuple(sorted({"train": train, "val": val}[name])), f"what the run used as '{name}'"
    rest = tuple(i for i in range(len(manifest)) if i not in train | val)
    if "heard" not in model.config:
        return rest, "all clips, as neither the data nor the checkpoint states a test part"
    if not train | val:
        return rest, "all clips, as the run learned from none of them"
    held_out = own.get("held_out", "test")
    return rest, "the clips that the run did not learn from" + (f"; it held out '{held_out}'" * (held_out != "test"))
