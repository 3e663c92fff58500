"""A manifest in the formats that other tools read: our own, CSV, the JSON lists of AST and SSAST, and lhotse's."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from auricle.audio.read import probe
from auricle.data.items import AudioRef, Item, Manifest, absolute
from auricle.data.labels import read_labels, split_cells
from auricle.errors import ConfigError, DataError, did_you_mean, printable
from auricle.files import atomic_path, write_text

SUFFIXES = {".jsonl": "jsonl", ".csv": "csv", ".json": "ssast", "": "lhotse"}


def write_data(manifest: Manifest, out: Path | str, to: str = "", label: str = "label") -> list[Path]:
    """Write the lists of a data set, not its sound; returns the files that were made.

    Args:
        to: "jsonl" (our manifest: everything), "csv" (with `events.csv` beside it), "ssast" (one list per value of the
            column `split`, and a label file) or "lhotse" (a folder of recordings, supervisions and events); empty: by
            the ending of `out`.
        label: the column that an SSAST list holds.

    Raises:
        ConfigError: no such format, or a file is there already.
        DataError: the format cannot hold what the data has.
    """
    out = absolute(out)
    name = to or SUFFIXES.get(out.suffix.lower(), "")
    if name not in WRITERS:
        near = did_you_mean(name, WRITERS) if name else ""
        raise ConfigError(f"--to must be one of {', '.join(WRITERS)}, got '{name}'{near}, for --out {out}.")
    files = WRITERS[name](manifest, out, label)
    if there := [path for path in files if path.exists()]:
        raise ConfigError(f"{there[0]} exists; give another --out, or remove it.")
    for path, write in files.items():
        write(path)
    return list(files)


# What to make, and how: nothing is written before all of it is known to be possible.
Files = dict[Path, Callable[[Path], None]]


def _jsonl(manifest: Manifest, out: Path, label: str) -> Files:
    # A list of what is there, as the other formats are: who uses it has chosen to go without the rest.
    return {out: dataclasses.replace(manifest, skipped=()).save}


def _csv(manifest: Manifest, out: Path, label: str) -> Files:
    _require_plain_files(manifest, "a CSV file")
    if clash := {"path", "duration"} & set(manifest.columns):
        raise DataError(f"{manifest.source}: a column is called '{min(clash)}', which has a meaning of its own in CSV.")
    rows = [["path", "duration", *manifest.columns]]
    events = [["path", "onset", "offset", "label"]]
    for item in manifest:
        path = _portable(item.streams["audio"].path, out.parent)
        rows.append([path, repr(item.duration), *(item.labels.get(column, "") for column in manifest.columns)])
        events += [[path, repr(event.onset), repr(event.offset), event.label] for event in item.events]
    files: Files = {out: lambda path: write_text(path, _table(rows))}
    if len(events) > 1:
        files[out.with_name("events.csv")] = lambda path: write_text(path, _table(events))
    return files


def _ssast(manifest: Manifest, out: Path, label: str) -> Files:
    _require_plain_files(manifest, "an SSAST list")
    if label not in manifest.columns:
        # Not the labels of events instead: it is the column that was asked for. This raises.
        manifest.labels_of(label)
    names = _label_sets(manifest, label)
    if all(item.labels.get("mids") for item in manifest):
        mids = _label_sets(manifest, "mids")
    else:
        mids = tuple(tuple(name.replace(",", "_") for name in several) for several in names)
    pairs = {pair for m, n in zip(mids, names, strict=True) for pair in zip(m, n, strict=False)}
    classes = sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    alike = all(len(m) == len(n) for m, n in zip(mids, names, strict=True))
    if not alike or len({mid for mid, _ in classes}) < len(classes):
        raise DataError(f"{manifest.source}: columns 'mids' and '{label}' do not name the same classes.")
    lists: dict[str, list[dict[str, str]]] = {}
    for item, several in zip(manifest, mids, strict=True):
        split = item.labels.get("split", "")
        name = f"{out.stem}_{split}{out.suffix}" if split else out.name
        lists.setdefault(name, []).append({"wav": item.streams["audio"].path, "labels": ",".join(several)})
    rows = [["index", "mid", "display_name"], *([str(i), *pair] for i, pair in enumerate(classes))]
    files: Files = {
        out.with_name(name): lambda path, entries=entries: write_text(path, json.dumps({"data": entries}, indent=1))  # type: ignore[misc]
        for name, entries in lists.items()
    }
    files[out.with_name(f"{out.stem}_class_labels_indices.csv")] = lambda path: write_text(path, _table(rows))
    return files


def _label_sets(manifest: Manifest, column: str) -> tuple[tuple[str, ...], ...]:
    """The labels of each cell in its own order, which events in time do not keep."""
    labels = read_labels(manifest, column)
    return split_cells([item.labels.get(column, "") for item in manifest]) if labels.events else labels.sets


def _lhotse(manifest: Manifest, out: Path, label: str) -> Files:
    recordings: dict[str, dict[str, Any]] = {}
    supervisions: list[dict[str, Any]] = []
    # A set of their own: beside the clips they lie in, lhotse warns of supervisions that overlap.
    events: list[dict[str, Any]] = []
    for item in manifest:
        reference = item.streams["audio"]
        if reference.path not in recordings:
            recordings[reference.path] = _recording(reference.path, manifest.root)
        whole, *timed = _supervisions(item, reference, recordings[reference.path])
        supervisions.append(whole)
        events += timed
    files: Files = {
        out / "recordings.jsonl.gz": lambda path: _write_lines(path, recordings.values()),
        out / "supervisions.jsonl.gz": lambda path: _write_lines(path, supervisions),
    }
    if events:
        files[out / "events.jsonl.gz"] = lambda path: _write_lines(path, events)
    return files


WRITERS: Mapping[str, Callable[[Manifest, Path, str], Files]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "ssast": _ssast,
    "lhotse": _lhotse,
}


def _recording(path: str, root: Path) -> dict[str, Any]:
    info = probe(path)
    channels = list(range(info.channels))
    return {
        "id": _portable(path, root),
        "sources": [{"type": "file", "channels": channels, "source": path}],
        "sampling_rate": info.rate,
        "num_samples": info.frames,
        "duration": info.duration,
        "channel_ids": channels,
    }


def _supervisions(item: Item, reference: AudioRef, recording: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One of the whole item, and one of each of its events."""
    labels = dict(item.labels)
    end = recording["duration"] if reference.end is None else min(reference.end, recording["duration"])
    channels = recording["channel_ids"] if reference.channel is None else [reference.channel]
    base = {"recording_id": recording["id"], "channel": channels[0] if len(channels) == 1 else channels}
    spoken = labels.pop("text", None) or labels.pop("transcript", None)
    fields = {"text": spoken, **{name: labels.pop(name, None) for name in ("language", "speaker", "gender")}}
    whole = {**base, "id": item.id, "start": reference.start, "duration": round(end - reference.start, 8)}
    yield {**whole, **{name: value for name, value in fields.items() if value}, "custom": labels}
    for number, event in enumerate(item.events):
        start, stop = reference.start + event.onset, min(reference.start + event.offset, end)
        if stop > start:
            times = {"start": round(start, 8), "duration": round(stop - start, 8)}
            yield {**base, "id": f"{item.id}#{number}", **times, "custom": {"event": event.label}}


def _write_lines(path: Path, entries: Any) -> None:
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    with atomic_path(path) as partial:
        # Without a time in it, the same data gives the same bytes.
        partial.write_bytes(gzip.compress(text.encode(), mtime=0))


def _require_plain_files(manifest: Manifest, what: str) -> None:
    for item in manifest:
        reference = item.streams["audio"]
        if (reference.start, reference.end, reference.channel) != (0.0, None, None):
            raise DataError(
                f"{manifest.source}: item '{item.id}' is a stretch or channel of a file, which {what} cannot say; "
                f"write jsonl or lhotse."
            )
        try:
            reference.path.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(
                f"{printable(reference.path)}: its name is not UTF-8, which {what} has to be; rename it, or write "
                "jsonl or lhotse."
            ) from None


def _portable(path: str, folder: Path) -> str:
    file = Path(path)
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def _table(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
