"""From what people have (a folder, a corpus, a table, a manifest, or several of them) to a `Manifest`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from auricle.data import readers
from auricle.data.exclude import read_exclude_list
from auricle.data.items import AudioRef, Item, Manifest, absolute
from auricle.data.readers.shared import is_sound
from auricle.errors import DataError

Data = Manifest | Callable[[], Manifest] | Path | str | Sequence[Path | str]


def read_data(data: Data, format: str = "", *, exclude: Path | str | None = None, keep_going: bool = False) -> Manifest:
    """Read one data source, or several that are joined; no sound is decoded.

    A source is a folder (any, or one laid out as a known corpus), or a file that lists sounds: see
    `auricle.data.readers`. The ids of several sources start with the name of their folder. Durations come from the
    list, else from the header of the sound file; a file that is missing from a published corpus, or whose header
    cannot be read, is listed in `Manifest.skipped`.

    Args:
        data: paths; or a manifest, or a function that gives one when it is called for, which is returned as it is.
        format: a name in `readers.READERS`, for all sources; empty: detect it.
        exclude: a list of files to leave out, see `auricle.data.exclude`.
        keep_going: put files into `Manifest.skipped` that a list of one's own names and that are missing, and allow
            that nothing is left.

    Raises:
        DataError: nothing is there, nothing usable is in it, files that a table lists are missing, a list is
            malformed, or its format is ambiguous.
        ConfigError: no such format.
    """
    if isinstance(data, Manifest):
        return data
    if callable(data):
        return data()
    sources = [data] if isinstance(data, (str, Path)) else list(data)
    if not sources:
        raise DataError("no data was given; name a folder of audio, a CSV or TSV file, or a JSONL manifest.")
    left_out = read_exclude_list(exclude) if exclude else frozenset()
    manifests = [_read_source(absolute(source), format, left_out, keep_going) for source in sources]
    return manifests[0] if len(manifests) == 1 else _join(manifests)


def _read_source(path: Path, format: str, exclude: frozenset[str], keep_going: bool) -> Manifest:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path}: neither a file nor a folder; give a folder, a CSV or TSV file, or a manifest.")
    if path.is_file() and is_sound(path.name):
        raise DataError(f"{path}: a sound file is not a data set; give its folder, or a CSV file that lists it.")
    return readers.read(path, format, exclude, keep_going)


def _join(manifests: Sequence[Manifest]) -> Manifest:
    items: list[Item] = []
    for prefix, manifest in zip(_prefixes(manifests), manifests, strict=True):
        items.extend(dataclasses.replace(item, id=f"{prefix}/{item.id}") for item in manifest)
    owner: dict[AudioRef, str] = {}
    for item in items:
        for reference in item.streams.values():
            if reference in owner:
                raise DataError(
                    f"{reference.path}: two of the sources list this file ({owner[reference]} and {item.id}); "
                    f"give sources that do not overlap."
                )
            owner[reference] = item.id
    roots = tuple(sorted({root for manifest in manifests for root in manifest.roots}))
    try:
        root = Path(os.path.commonpath(roots))
    except ValueError:  # on two drives
        root = roots[0]
    skipped = tuple(entry for manifest in manifests for entry in manifest.skipped)
    notes = tuple(note for manifest in manifests for note in manifest.notes)
    return Manifest(tuple(items), root, " + ".join(m.source for m in manifests), skipped, roots, notes)


def _prefixes(manifests: Sequence[Manifest]) -> list[str]:
    """The shortest ends of the sources' paths that differ; two tables in one folder differ by their own names."""
    roots = [manifest.root for manifest in manifests]
    paths = [
        (Path(manifest.source).parent / Path(manifest.source).stem if roots.count(root) > 1 else root).parts
        for root, manifest in zip(roots, manifests, strict=True)
    ]
    for path, manifest in zip(paths, manifests, strict=True):
        if paths.count(path) > 1:
            raise DataError(f"{manifest.source}: this data was given twice; name every source once.")
    depth = 1
    while len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path[-depth:]) for path in paths]
