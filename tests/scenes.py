"""Generated scenes with events: tones and noises of half a second, and where they are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
SECONDS = 2.0
CLASSES = ("hiss", "tone")


def write_desed(folder: Path) -> Path:
    """The scenes of `write_scenes` as DESED is published: strong, weak and unlabelled lists for training, and strong
    ones of synthetic and of recorded clips for validation."""
    lists = ("train/synthetic/soundscapes", "train/weak", "train/unlabel_in_domain")
    lists = (*lists, "validation/synthetic/soundscapes", "validation/validation")
    clips = write_scenes(folder / "scenes", [name for name in lists for _ in range(6)], "list")
    events: dict[str, list[list[str]]] = {}
    for line in (clips / "events.csv").read_text().splitlines()[1:]:
        name, *event = line.split(",")
        events.setdefault(name, []).append(event)
    rows: dict[str, list[str]] = {name: [] for name in lists}
    for line in (clips / "manifest.csv").read_text().splitlines()[1:]:
        name, place = line.split(",")
        if "weak" in place:
            # A weak list has no clips in which nothing sounds.
            labels = dict.fromkeys(label for *_, label in events.get(name, ()))
            rows[place] += [f"{name}\t{','.join(labels)}"] if labels else []
        elif "unlabel" in place:
            rows[place].append(name)
        else:
            rows[place] += ["\t".join((name, *event)) for event in events.get(name, [["", "", ""]])]
        sound = folder / "audio" / (place if place.startswith("train") else place.rsplit("/", 1)[0]) / name
        sound.parent.mkdir(parents=True, exist_ok=True)
        (clips / name).rename(sound)
    for place, lines in rows.items():
        columns = {"weak": "filename\tevent_labels", "unlabel_in_domain": "filename"}
        header = columns.get(place.rsplit("/", 1)[-1], "filename\tonset\toffset\tevent_label")
        path = folder / "metadata" / f"{place}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join((header, *lines)) + "\n")
    shutil.rmtree(clips)
    return folder


def write_scenes(folder: Path, splits: Sequence[str], column: str = "split", classes: Sequence[str] = CLASSES) -> Path:
    """As many scenes of two seconds as there are `splits`, with manifest.csv and events.csv: the same bytes each time.

    A clip has one or two events that do not overlap; every seventh has none.
    """
    folder.mkdir(parents=True)
    rows, events = [f"path,{column}"], ["path,onset,offset,label"]
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        time = np.arange(int(SECONDS * RATE)) / RATE
        wave = 0.01 * rng.standard_normal(len(time))
        for start in () if number % 7 == 6 else (0.1, 1.1)[: 1 + number % 2]:
            kind = int(rng.integers(2))
            onset, offset = np.round(start + rng.uniform(0, 0.3) + np.array([0.0, 0.4]), 3)
            heard = (time >= onset) & (time < offset)
            wave[heard] += 0.2 * (np.sin(2 * np.pi * 900 * time) if kind else rng.standard_normal(len(time)))[heard]
            events.append(f"{number:02}.wav,{onset},{offset},{classes[kind]}")
        soundfile.write(folder / f"{number:02}.wav", np.clip(wave, -1, 1), RATE)
        rows.append(f"{number:02}.wav,{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    return folder
