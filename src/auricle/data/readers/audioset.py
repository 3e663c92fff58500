"""AudioSet segments: weak (`*_segments.csv`) and strong (`audioset_*_strong.tsv`) labels over clips by YouTube id."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from auricle.audio.read import probe
from auricle.data.items import Event, Item, Manifest
from auricle.data.readers.shared import (
    CERTAIN,
    Entry,
    Match,
    compare,
    event_of,
    files_below,
    is_clutter,
    is_sound,
    join_labels,
    manifest_of,
    relative_id,
    seconds,
    stem_of,
)
from auricle.data.tables import first_line, read_table, text_lines
from auricle.errors import AudioError, DataError

STRONG = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
# The official file names say which part of the corpus a file is.
SPLITS = {
    "balanced_train_segments.csv": "train",
    "unbalanced_train_segments.csv": "train",
    "eval_segments.csv": "test",
    "audioset_train_strong.tsv": "train",
    "audioset_eval_strong.tsv": "test",
}
# The segments files state their own count; of strong labels: research.google.com/audioset/download_strong.html.
STRONG_CLIPS = {"audioset_train_strong.tsv": 103_463, "audioset_eval_strong.tsv": 16_996}
LIST = re.compile(r".*_segments\.csv|audioset_.*_strong\.tsv", re.IGNORECASE)
CLIP_SECONDS = 10.0
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    if path.is_dir():
        found = _lists(path)
        return Match(CERTAIN, f"it holds {', '.join(file.name for file in found)}") if found else None
    kind = _kind(path)
    return Match(CERTAIN, f"it is a list of AudioSet segments with {kind} labels") if kind else None


def read(path: Path) -> Manifest:
    """Columns: label (display names where class_labels_indices.csv or mid_to_display_name.tsv is near), mids, split; of
    lists with strong labels alone, annotation (strong), which makes them a task of detection.

    The sound of segment (id, start, end) is a file below the folder that is called by the id, with or without `Y`
    before it and start, or start and end, behind it in seconds or milliseconds. A file called by the id alone that is
    over a second longer than its segment is taken for the whole video, and the segment for a stretch of it.
    """
    lists = _lists(path) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    sounds = {stem_of(file.name): str(file) for file in files_below(root) if is_sound(file.name)}
    names = _display_names(root)
    all_strong = all(_kind(file) == "strong" for file in lists)
    entries: dict[str, Entry] = {}
    # By kind of list, as a clip may be in both: the published number, and the clips of lists that have one.
    published: dict[str, int] = {}
    known: dict[str, set[str]] = {}
    for file in lists:
        split, kind = SPLITS.get(file.name.lower(), ""), _kind(file)
        strong = kind == "strong"
        count = STRONG_CLIPS.get(file.name.lower(), 0) if strong else _stated_count(file)
        published[kind] = published.get(kind, 0) + count
        for ytid, start, end, mids, events in _strong(file) if strong else _weak(file):
            entry = _entry(ytid, start, end, sounds, root)
            labels = {
                "mids": join_labels(mids),
                "label": join_labels(names.get(mid, mid) for mid in mids),
                "split": split,
            }
            named = tuple(dataclasses.replace(event, label=names.get(event.label, event.label)) for event in events)
            if all_strong:
                labels["annotation"] = "strong"
            if entry.id in entries:  # in the weak list too, whose labels stand
                labels, named = dict(entries[entry.id].labels), (*entries[entry.id].events, *named)
            entries[entry.id] = dataclasses.replace(entry, labels=labels, events=named)
            if count:
                known.setdefault(kind, set()).add(entry.id)
    manifest = manifest_of(path, root, entries.values())
    return dataclasses.replace(manifest, notes=_completeness(manifest, published, known))


def _completeness(manifest: Iterable[Item], published: dict[str, int], known: dict[str, set[str]]) -> tuple[str, ...]:
    names = {kind: "clips" if len(published) == 1 else f"clips with {kind} labels" for kind in published}
    ids = {item.id for item in manifest}
    have = {names[kind]: len(ids & listed) for kind, listed in known.items()}
    counts = {names[kind]: count for kind, count in published.items() if count}
    return (compare(have, counts),) if counts else ()


def _lists(folder: Path) -> list[Path]:
    """The lists of a folder, those with weak labels first, official names before others."""
    # A glance at names: such a folder may hold a million sounds.
    names = [name for name in os.listdir(folder) if LIST.fullmatch(name) and not is_clutter(name)]  # noqa: PTH208
    kinds = {name: kind for name in names if (kind := _kind(folder / name))}
    order = list(SPLITS)

    def rank(name: str) -> tuple[bool, int, str]:
        official = name.lower()
        return kinds[name] == "strong", order.index(official) if official in order else len(order), name

    return [folder / name for name in sorted(kinds, key=rank)]


def _kind(path: Path) -> str:
    if not path.is_file():
        return ""
    first = first_line(path)
    if tuple(first.strip().split("\t")) == STRONG:
        return "strong"
    return "weak" if re.match(r"# ?(Segments csv|num_ytids|YTID)", first) else ""


def _stated_count(path: Path) -> int:
    for _, line in text_lines(path):
        if not line.startswith("#"):
            break
        if found := re.search(r"num_segs=(\d+)", line):
            return int(found[1])
    return 0


Segment = tuple[str, float, float, list[str], list[Event]]


def _weak(path: Path) -> Iterator[Segment]:
    for line, text in text_lines(path):
        if text.startswith("#"):
            continue
        cells = next(csv.reader([text], skipinitialspace=True))
        if len(cells) != 4:
            raise DataError(f'{path}: line {line}: expected YTID, start, end, "labels", got {text.strip()}.')
        start, end = seconds(path, line, cells[1], cells[2])
        yield cells[0], start, end, cells[3].split(","), []


def _strong(path: Path) -> Iterator[Segment]:
    events: dict[str, list[Event]] = {}
    for row in read_table(path).rows:
        segment, onset, offset, mid = (row.cells[name] for name in STRONG)
        events.setdefault(segment, []).append(event_of(f"{path}: line {row.line}", onset, offset, mid))
    for segment, found in events.items():
        ytid, _, start = segment.rpartition("_")
        if not ytid or not start.isdecimal():
            raise DataError(f"{path}: segment_id '{segment}' is not of the form YTID_MILLISECONDS.")
        yield ytid, int(start) / 1000, int(start) / 1000 + CLIP_SECONDS, [event.label for event in found], found


def _entry(ytid: str, start: float, end: float, sounds: dict[str, str], root: Path) -> Entry:
    spans = [f"{start:g}", f"{start * 1000:.0f}"]
    spans += [f"{start:.3f}_{end:.3f}", f"{start:g}_{end:g}", f"{start * 1000:.0f}_{end * 1000:.0f}"]
    named = (prefix + f"{ytid}_{span}" for prefix in ("", "Y") for span in spans)
    if file := next((sounds[stem] for stem in named if stem in sounds), None):
        return Entry(relative_id(file, root), ytid, file, {})
    file = sounds.get(ytid) or sounds.get("Y" + ytid)
    identity = f"{ytid}_{start:g}"
    if file is None:
        return Entry(identity, f"{identity}.wav", None, {})
    try:
        length = probe(file).duration
    except AudioError:  # counted as unreadable when the manifest is made
        return Entry(identity, ytid, file, {})
    if length <= end - start + 1:
        return Entry(relative_id(file, root), ytid, file, {}, duration=length)
    return Entry(f"{relative_id(file, root)}@{start:g}", ytid, file, {}, start=start, end=min(end, length))


def _display_names(root: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for folder in (root.parent, root, root / "metadata"):
        strong, weak = folder / "mid_to_display_name.tsv", folder / "class_labels_indices.csv"
        if strong.is_file():
            names.update(line.split("\t", 1) for _, line in text_lines(strong) if "\t" in line)  # type: ignore[misc]
        if weak.is_file():
            names.update((row.cells["mid"], row.cells["display_name"]) for row in read_table(weak).rows)
    return names
