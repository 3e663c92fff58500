"""Any folder of sound files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import EXTENSIONS, FALLBACK, VIDEO, Entry, Match, files_below, is_sound, manifest_of
from auricle.errors import DataError, plural

# Links that lead nowhere.
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    return Match(FALLBACK, "a folder without the lists of a known corpus") if path.is_dir() else None


def read(root: Path) -> Manifest:
    """Every sound file below `root`; the first directory level is the column `label` when each file lies in one.

    Video files count where there is no other sound.
    """
    files = list(files_below(root))
    playable = [path for path in files if is_sound(path.name)]
    found = [path for path in playable if path.suffix.lower() not in VIDEO] or playable
    if not found:
        what = f"of {plural(len(files), 'file')} none is a sound file" if files else "the folder is empty"
        raise DataError(f"{root}: no audio: {what}; expected files that end in {', '.join(EXTENSIONS)} at any depth.")
    manifest = manifest_of(root, root, (_entry(path, root) for path in found))
    if videos := len(playable) - len(found):
        note = f"{plural(videos, 'video file')} left out beside other sound (a list that names them is read)"
        manifest = dataclasses.replace(manifest, notes=(note,))
    if all(item.labels for item in manifest):
        return manifest
    # A label for some files only would make a class of whatever else lies in folders.
    return dataclasses.replace(manifest, items=tuple(dataclasses.replace(item, labels={}) for item in manifest))


def _entry(path: Path, root: Path) -> Entry:
    levels = path.relative_to(root).parts
    return Entry("/".join(levels), str(path), str(path), {"label": levels[0]} if len(levels) > 1 else {})
