"""Whether timed events fit the clips that they are listed for: both lists are often written by different programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from auricle.data.items import Event, Item, Manifest
from auricle.errors import DataError, plural, printable

ANNOTATION = "annotation"
Annotation = Literal["strong", "weak", "none"]
ANNOTATIONS: tuple[Annotation, ...] = get_args(Annotation)
# Above this share of events that begin after their clip's end, their times are taken for a mistake.
MOST = 0.5
SHOWN = 3


def usable_events(manifest: Manifest) -> tuple[tuple[tuple[Event, ...], ...], tuple[str, ...]]:
    """The events of each item, without those that begin after its end, and each once; and what was left out or looks
    like a mistake, a sentence for each reason.

    Raises:
        DataError: most events begin after the end of their clips.
    """
    kept: list[tuple[Event, ...]] = []
    late: list[tuple[Item, Event]] = []
    repeated: list[Item] = []
    for item in manifest:
        within = [event for event in item.events if event.onset < item.duration]
        late += [(item, event) for event in item.events if event.onset >= item.duration]
        kept.append(tuple(dict.fromkeys(within)))
        repeated += [item] * (len(within) - len(kept[-1]))
    total = plural(sum(len(item.events) for item in manifest), "event")
    notes = []
    if late:
        item, event = late[0]
        first = f"first: {printable(item.id)}, at {event.onset:g} s of {item.duration:.4g} s"
        what = f"of {total}, {len(late)} {_verb('begin', late)} after the end of the clip ({first})"
        if len(late) > MOST * sum(len(item.events) for item in manifest):
            raise DataError(f"{manifest.source}: {what}{_advice(late)}.")
        notes.append(f"{what}; such events are left out.")
    if repeated:
        first = f"first: {printable(repeated[0].id)}"
        what = f"of {total}, {len(repeated)} {_verb('repeat', repeated)} another one's times and label ({first})"
        notes.append(f"{what}; each counts once.")
    several = [event.label for events in kept for event in events if ";" in event.label]
    if several:
        what = f"of {total}, {len(several)} {_verb('name', several)} several labels (first: '{printable(several[0])}')"
        notes.append(f"{what}, taken as one label with a semicolon; list the event once for each label.")
    return tuple(kept), tuple(notes)


def _verb(verb: str, of: Sequence[object]) -> str:
    return verb if len(of) > 1 else f"{verb}s"


def _advice(late: Sequence[tuple[Item, Event]]) -> str:
    if all(10 < event.onset < 1000 * item.duration for item, event in late):
        return ": are these milliseconds? Give seconds"
    return ": are these times of longer recordings? Give seconds from the start of each clip"


def stated_annotation(item: Item) -> str:
    """What the column `annotation` says of an item; empty if nothing.

    Raises:
        DataError: something other than strong, weak and none.
    """
    stated = item.labels.get(ANNOTATION, "").strip().lower()
    if stated and stated not in ANNOTATIONS:
        raise DataError(
            f"{printable(item.id)}: column '{ANNOTATION}' must say how well a clip's events are known: "
            f"{', '.join(ANNOTATIONS[:-1])} or {ANNOTATIONS[-1]}, got '{item.labels[ANNOTATION]}'."
        )
    return stated


def untaught(tested: Iterable[str], trained: Iterable[str]) -> str:
    """A sentence on labels that are tested and that no training clip has; empty if there is none."""
    names = sorted(set(tested) - set(trained))
    if not names:
        return ""
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"no training clip has an event of {plural(len(names), 'class')} of the test part ({shown}): all are missed."
