"""Kaldi data directories: `wav.scp`, and `segments`, `text`, `utt2spk`, `spk2gender`, `utt2lang`, `reco2dur`."""

from __future__ import annotations

from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, manifest_of, seconds
from auricle.data.tables import text_lines
from auricle.errors import DataError

COLUMNS = {"text": "text", "utt2spk": "speaker", "utt2lang": "language"}


def detect(path: Path) -> Match | None:
    return Match(CERTAIN, "it holds wav.scp") if (path / "wav.scp").is_file() else None


def read(root: Path) -> Manifest:
    """One item per line of `segments`, else of `wav.scp`; columns text, speaker, gender, language by their files.

    Relative paths start at the directory, its parent or its parent's parent: Kaldi's own start where the recipe runs.

    Raises:
        DataError: `wav.scp` holds a command (`... |`), which is not run, or a line is malformed.
    """
    finder = Finder(root, root.parent, root.parent.parent)
    recordings = {}
    for line, key, value in _pairs(root / "wav.scp"):
        if value.endswith("|"):
            raise DataError(
                f"{root / 'wav.scp'}: line {line}: '{key}' is the output of a command, and auricle runs no commands; "
                f"write its output to a sound file and name that."
            )
        recordings[key] = value
    columns = {column: _map(root / name) for name, column in COLUMNS.items()}
    genders = _map(root / "spk2gender")
    stated = root / "reco2dur"
    lengths = {
        key: seconds(stated, line, value)[0] for line, key, value in (_pairs(stated) if stated.is_file() else ())
    }
    segments = root / "segments"
    cut = list(_segments(segments)) if segments.is_file() else [(key, key, 0.0, None) for key in recordings]
    located = {key: finder.find(value) for key, value in recordings.items()}
    entries = []
    for utterance, recording, start, end in cut:
        if recording not in recordings:
            raise DataError(f"{segments}: '{utterance}' is cut from '{recording}', which wav.scp does not have.")
        labels = {column: values.get(utterance, "") for column, values in columns.items()}
        labels["gender"] = genders.get(labels["speaker"], "")
        duration = lengths[recording] - start if end is None and recording in lengths else None
        entries.append(Entry(utterance, recordings[recording], located[recording], labels, (), start, end, duration))
    return manifest_of(root, root, entries)


def _segments(path: Path) -> list[tuple[str, str, float, float | None]]:
    found = []
    for line, text in text_lines(path):
        cells = text.split()
        if len(cells) < 4:
            raise DataError(f"{path}: line {line}: expected UTTERANCE RECORDING START END, got '{text.strip()}'.")
        start, end = seconds(path, line, cells[2], cells[3])
        if start < 0 or not (end == -1 or end > start):
            raise DataError(f"{path}: line {line}: expected 0 <= start < end, got {start:g} and {end:g}.")
        found.append((cells[0], cells[1], start, None if end == -1 else end))
    return found


def _pairs(path: Path) -> list[tuple[int, str, str]]:
    pairs = []
    for line, text in text_lines(path):
        key, _, value = text.strip().replace("\t", " ").partition(" ")
        pairs.append((line, key, value.strip()))
    return pairs


def _map(path: Path) -> dict[str, str]:
    return {key: value for _, key, value in _pairs(path)} if path.is_file() else {}
