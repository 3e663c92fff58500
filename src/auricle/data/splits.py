"""Which items are for training, validation and test."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from auricle.data.items import Manifest
from auricle.data.randomness import key
from auricle.errors import ConfigError, DataError

SPLIT_COLUMN = "split"
LABEL_COLUMN = "label"
ROLES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "eval": "test",
    "evaluation": "test",
}
FOLDS = 5
SHOWN = 6


@dataclass(frozen=True)
class Fold:
    """Indices into the manifest, in rising order; `val` is empty where the data names no validation items.

    `note` is a sentence on what a reader of the results should know, or empty.
    """

    name: str
    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    note: str = ""


def folds(
    manifest: Manifest,
    *,
    split_column: str | None = None,
    group_column: str | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Fold]:
    """The train/test folds that the data states, or, where it states none, five stratified ones.

    1. `group_column`: one fold per value, whose items are the test set (leave one group out).
    2. `split_column`, else a column called `split`: with the values train and test (also val, dev, eval ...; upper or
       lower case) one fold called "test"; items with any other value belong to no part, and `Fold.note` counts them.
       Without such values (fold1 ..., spk03 ...) one fold per value, as for a group column.
    3. Neither, or a column called `split` that names nothing but training items: five folds by `stratified_folds` over
       `labels` (else the column `label`, else all alike). File names are never read for a split.

    Raises:
        DataError: the column is missing, empty in places, holds train without test or the reverse, mixes train or test
            with foldN, or has a single value; or there are fewer items than folds.
        ConfigError: both columns are given.
    """
    if split_column is not None and group_column is not None:
        raise ConfigError(
            f"split_column ('{split_column}') and group_column ('{group_column}') exclude each other; give one of them."
        )
    if group_column is not None:
        return _leave_one_out(manifest, group_column, manifest.labels_of(group_column))
    if split_column is None and _states_parts(manifest):
        split_column = SPLIT_COLUMN
    if split_column is not None:
        values = manifest.labels_of(split_column)
        if any(role_of(value) for value in values):
            return [_stated_fold(manifest, split_column, values)]
        return _leave_one_out(manifest, split_column, values)
    if labels is None:
        labels = manifest.labels_of(LABEL_COLUMN) if LABEL_COLUMN in manifest.columns else [""] * len(manifest)
    return stratified_folds(manifest.ids, labels, seed=seed)


def stated_part(manifest: Manifest, part: str, split_column: str | None = None) -> tuple[int, ...] | None:
    """Items that the split column (`split`, if None) assigns to `part` (train, val or test), in rising order.

    None where there is no such column, or it does not speak of train, val and test, or the column `split` of train
    alone: see `folds`.
    """
    column = split_column or SPLIT_COLUMN
    if split_column is None and not _states_parts(manifest):
        return None
    values = manifest.labels_of(column)
    if not any(role_of(value) for value in values):
        return None
    return tuple(index for index, value in enumerate(values) if role_of(value) == part)


def stratified_folds(ids: Sequence[str], labels: Sequence[str], *, count: int = FOLDS, seed: int = 0) -> list[Fold]:
    """`count` folds, each item in the test set of one; the shares of the labels, and the sizes, differ by one at most.

    Args:
        ids, labels: one per item. The folds depend on nothing but these pairs, `count` and `seed`.

    Raises:
        DataError: fewer items than folds.
    """
    if len(ids) < count:
        raise DataError(
            f"{len(ids)} items cannot be divided into {count} folds; add data, or a column 'split' with train and test."
        )
    # Dealt out like cards, label after label: going on where the last label stopped keeps the folds equally large.
    dealt = {index: place % count for place, index in enumerate(_shuffled(range(len(ids)), ids, labels, seed))}
    return [
        Fold(
            name=f"fold{fold + 1}",
            train=tuple(index for index in range(len(ids)) if dealt[index] != fold),
            val=(),
            test=tuple(index for index in range(len(ids)) if dealt[index] == fold),
        )
        for fold in range(count)
    ]


def holdout(
    indices: Sequence[int], labels: Sequence[str], fraction: float, seed: int, ids: Sequence[str]
) -> tuple[int, ...]:
    """The part of `indices` to keep for validation: about `fraction` of every label, in rising order.

    Every label keeps at least one item for training, so a label that occurs once is never chosen. At least one item
    is chosen where that allows it.

    Args:
        indices: the items to choose from, e.g. `fold.train`.
        labels, ids: of all items of the manifest; the choice depends on the ids, not on the order of `indices`.
        fraction: of the number of `indices`, between 0 and 1.

    Raises:
        ConfigError: `fraction` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction to hold out for validation must lie between 0 and 1, got {fraction}.")
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index in _shuffled(indices, ids, labels, seed):
        members[labels[index]].append(index)
    # As a decimal fraction, so that 0.1 of 20 is 2 in every label, whatever 0.1 is in binary.
    exact = {label: len(group) * Fraction(str(fraction)) for label, group in members.items()}
    quota = {label: min(int(share), len(members[label]) - 1) for label, share in exact.items()}
    total = max(1, round(sum(exact.values())))
    by_remainder = sorted(exact, key=lambda label: (quota[label] - exact[label], key(seed, "holdout", label)))
    for label in by_remainder:
        if sum(quota.values()) < total and quota[label] < len(members[label]) - 1:
            quota[label] += 1
    return tuple(sorted(index for label, group in members.items() for index in group[: quota[label]]))


def _shuffled(indices: Iterable[int], ids: Sequence[str], labels: Sequence[str], seed: int) -> list[int]:
    """Ordered by label and, within a label, by a hash of the id."""
    return sorted(indices, key=lambda index: (labels[index], key(seed, "split", ids[index]), ids[index]))


def _states_parts(manifest: Manifest) -> bool:
    """Whether the column `split` divides the items: the training lists of a corpus, given alone, are all of them."""
    return SPLIT_COLUMN in manifest.columns and any(
        role_of(item.labels.get(SPLIT_COLUMN, "")) != "train" for item in manifest
    )


def role_of(value: str) -> str | None:
    """train, val or test, by any of their names; None for anything else."""
    return ROLES.get(value.strip().lower())


def _stated_fold(manifest: Manifest, column: str, values: Sequence[str]) -> Fold:
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    ignored: Counter[str] = Counter()
    for index, value in enumerate(values):
        role = role_of(value)
        if role is None:
            ignored[value] += 1
        else:
            parts[role].append(index)
    where = f"{manifest.source}: column '{column}'"
    numbered = sorted((value for value in ignored if re.fullmatch(r"fold[ _-]?\d+", value.lower())), key=_natural)
    if numbered:
        stated = ", ".join(name for name, members in parts.items() if members)
        raise DataError(
            f"{where} mixes {stated} with {numbered[0]}, so it is open what to test on; "
            f"keep one of the two kinds, or name another column."
        )
    for role in ("train", "test"):
        if not parts[role]:
            raise DataError(
                f"{where} names no {role} items: it holds {_counts(Counter(values))}; mark some as {role}, "
                f"name another column, or remove this one to cross-validate."
            )
    note = ""
    if ignored:
        kinds = _counts(ignored)
        note = f"{sum(ignored.values())} of {len(values)} items are not used: column '{column}' holds {kinds}."
    return Fold("test", tuple(parts["train"]), tuple(parts["val"]), tuple(parts["test"]), note)


def _counts(counter: Counter[str]) -> str:
    shown = [f"{value} ({count})" for value, count in counter.most_common(SHOWN)]
    return ", ".join(shown) + (f" and {len(counter) - SHOWN} other values" if len(counter) > SHOWN else "")


def _leave_one_out(manifest: Manifest, column: str, values: Sequence[str]) -> list[Fold]:
    groups = sorted(set(values), key=_natural)
    if len(groups) < 2:
        raise DataError(
            f"{manifest.source}: column '{column}' holds only '{groups[0]}', so nothing is left to train on; "
            f"name a column with at least two values."
        )
    return [
        Fold(
            name=group,
            train=tuple(index for index, value in enumerate(values) if value != group),
            val=(),
            test=tuple(index for index, value in enumerate(values) if value == group),
        )
        for group in groups
    ]


def _natural(value: str) -> tuple[tuple[int, int, str], ...]:
    """Order with fold2 before fold10."""
    parts = re.findall(r"\d+|\D+", value)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)
