"""VoxCeleb1: `wav/id1xxxx/<video>/<number>.wav` (also `dev/wav` and `test/wav`), `iden_split.txt`, `vox1_meta.csv`."""

from __future__ import annotations

import re
from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import CERTAIN, LIKELY, Entry, Match, files_below, is_sound, manifest_of, stem_of
from auricle.data.tables import read_table, text_lines
from auricle.errors import DataError

SPEAKER = re.compile(r"id1[01]\d{3}")
PARTS = {"1": "train", "2": "val", "3": "test"}
# robots.ox.ac.uk/~vgg/data/voxceleb: 148,642 + 4,874 utterances; the parts as iden_split.txt lists them.
PUBLISHED = {"clips": 153_516, "train": 138_361, "val": 6_904, "test": 8_251}
HOMES = ("", "wav", "dev/wav", "test/wav", "vox1_dev_wav/wav", "vox1_test_wav/wav")
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    homes = [home for home in HOMES if path.is_dir() and _speakers(path / home)]
    if not homes:
        return None
    if (path / "iden_split.txt").is_file():
        return Match(CERTAIN, "it holds iden_split.txt and folders of speakers id1xxxx")
    return Match(LIKELY, f"it holds folders of speakers called like {_speakers(path / homes[0])[0].name}")


def read(root: Path) -> Manifest:
    """Columns: label and speaker (the id), video; split by `iden_split.txt` (identification) where it is; gender,
    nationality and set (dev or test: verification) by `vox1_meta.csv` where it is."""
    sounds: dict[str, Path] = {}
    for home in HOMES:
        for folder in _speakers(root / home):
            for path in files_below(folder):
                if is_sound(path.name):
                    levels = (folder.name, *path.relative_to(folder).parts)
                    sounds["/".join((*levels[:-1], stem_of(levels[-1])))] = path
    people = _people(root / "vox1_meta.csv")
    split = _split(root / "iden_split.txt")
    entries = []
    for key in sorted({*sounds, *split}):
        speaker, _, rest = key.partition("/")
        labels = {"label": speaker, "speaker": speaker, "video": rest.partition("/")[0], "split": split.get(key, "")}
        sound = sounds.get(key)
        identity = f"{key}{sound.suffix}" if sound else key
        file = str(sound) if sound else None
        entries.append(Entry(identity, f"wav/{key}.wav", file, {**labels, **people.get(speaker, {})}))
    return manifest_of(root, root, entries, PUBLISHED if split else {"clips": PUBLISHED["clips"]})


def _speakers(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if SPEAKER.fullmatch(path.name) and path.is_dir())


def _split(path: Path) -> dict[str, str]:
    parts = {}
    for line, text in text_lines(path) if path.is_file() else ():
        number, _, name = text.strip().partition(" ")
        if number not in PARTS or name.count("/") != 2:
            raise DataError(
                f"{path}: line {line}: expected 1, 2 or 3 and SPEAKER/VIDEO/FILE.wav, got '{text.strip()}'."
            )
        parts[name.strip().rpartition(".")[0]] = PARTS[number]
    return parts


def _people(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    table = read_table(path)
    columns = {
        ours: table.column(theirs)
        for ours, theirs in (("gender", "gender"), ("nationality", "nationality"), ("set", "set"))
    }
    key = table.column("voxceleb1 id")
    if key is None:
        raise DataError(f"{path}: expected a column 'VoxCeleb1 ID', got {', '.join(table.columns)}.")
    return {row.cells[key]: {ours: row.cells[name] for ours, name in columns.items() if name} for row in table.rows}
