"""A folder of generated clips as `auricle.data.formats.read_data` takes it: FLAC files, manifest.csv, events.csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile

from auricle.data.synth.dsp import RATE, samples
from auricle.data.synth.scenes import GENERATOR, KINDS, SNR_DB, Scene, plan, render
from auricle.data.synth.sources import SOURCES
from auricle.errors import ConfigError, DataError
from auricle.files import atomic_path

SETTINGS = "synth.json"
SHORTEST = 0.5


def write_scenes(
    out: Path | str,
    clips: int,
    seconds: float,
    seed: int,
    classes: int | None = 10,
    workers: int = 1,
    *,
    kinds: Sequence[str] = KINDS,
    snr_db: tuple[float, float] = SNR_DB,
) -> Path:
    """Write `clips` scenes below `out`, and return the path of their manifest.

    `audio/000000.flac` and on (16 kHz, one channel, 16 bit); `manifest.csv` with path, duration, split (train, test),
    label, source (the key that makes the clip again) and snr; `events.csv` with path, onset, offset, label. A clip
    depends on seed and number alone (and on `seconds` and `classes`), not on `clips` or `workers`: an interrupted call
    is continued, and a set is enlarged, by calling again; clips that are there are not made again.

    Args:
        seconds: length of every clip, at least 0.5.
        classes: how many kinds of sound, in equal numbers; with fewer clips than two for each, some class lacks a
            train or test clip. None: a set for pretraining, of scenes with any sounds, without label, split or events.
        workers: processes to render in.
        kinds: the sounds of a set for pretraining, names of `SOURCES`; one that is named twice is heard twice as often.
        snr_db: the least and the greatest level of the sounds over the background, in dB.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: `out` holds scenes of other settings, or other data.
    """
    if clips < 1:
        raise ConfigError(f"clips must be at least 1, got {clips}.")
    if not seconds >= SHORTEST:
        raise ConfigError(f"seconds must be at least {SHORTEST}, got {seconds}.")
    if classes is not None and not 2 <= classes <= len(SOURCES):
        raise ConfigError(f"classes must lie between 2 and {len(SOURCES)} (or be None, for no labels), got {classes}.")
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise ConfigError(f"kinds must name sounds ({', '.join(KINDS)}), got {', '.join(unknown) or 'none'}.")
    if classes is not None and tuple(kinds) != KINDS:
        raise ConfigError("kinds are chosen for sets without classes; give classes=None.")
    if not -100 <= snr_db[0] <= snr_db[1] <= 100:
        raise ConfigError(f"snr_db must rise within -100 to 100, got {snr_db[0]} to {snr_db[1]}.")
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}.")
    out = Path(out)
    settings = {"generator": GENERATOR, "seed": seed, "seconds": seconds, "classes": classes}
    _claim(out, {**settings, "kinds": list(kinds), "snr_db": list(snr_db)})
    scenes = [plan(seed, index, seconds, classes, kinds, snr_db) for index in range(clips)]
    todo = [scene for scene in scenes if not (out / _name(scene)).exists()]
    write = partial(_write_clip, out)
    if workers == 1:
        for scene in todo:
            write(scene)
    else:
        # Spawned, as everywhere: a forked child may inherit a lock that nobody will release.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(write, todo, chunksize=max(1, min(32, len(todo) // workers))):
                pass
    if classes is not None:
        events = ((_name(scene), event.onset, event.offset, event.label) for scene in scenes for event in scene.events)
        _write_csv(out / "events.csv", ("path", "onset", "offset", "label"), events)
    # Last, so that a folder with a manifest is complete.
    duration = samples(seconds) / RATE
    if classes is None:
        bare = ((_name(scene), duration, scene.source, scene.snr) for scene in scenes)
        return _write_csv(out / "manifest.csv", ("path", "duration", "source", "snr"), bare)
    rows = ((_name(scene), duration, scene.split, scene.label, scene.source, scene.snr) for scene in scenes)
    return _write_csv(out / "manifest.csv", ("path", "duration", "split", "label", "source", "snr"), rows)


def _name(scene: Scene) -> str:
    return f"audio/{scene.index:06d}.flac"


def _write_clip(out: Path, scene: Scene) -> None:
    clip = np.round(render(scene) * 32767).astype(np.int16)
    with atomic_path(out / _name(scene)) as partial_path:
        soundfile.write(partial_path, clip, RATE, subtype="PCM_16", format="FLAC")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with atomic_path(path) as partial_path, partial_path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Make sure that what is in `out`, if anything, are scenes of the same settings."""
    path = out / SETTINGS
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DataError(f"{path}: damaged; remove the folder {out} and generate the scenes again.")
        differing = [name for name, value in settings.items() if found.get(name) != value]
        if differing:
            name = differing[0]
            raise DataError(
                f"{out}: holds scenes with {name} = {found.get(name)}, not {settings[name]}; choose another folder."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: holds something else than generated scenes; choose a new or an empty folder.")
    else:
        with atomic_path(path) as partial_path:
            partial_path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
