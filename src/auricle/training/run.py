"""A run directory: who owns it, what it was started with, what it has logged.

config.yaml         the fully resolved settings; the same command must resolve to the same
environment.json    versions, machine, command
data.json           hash and size of the data, and a fingerprint of every item
metrics.jsonl       one JSON object per logged step
monitor.json        of a monitored pretraining: on which clips, and the accuracy of guessing
step-000123/        checkpoints
report.html         pictures
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from auricle.config import DataclassInstance, TrainConfig, load_yaml
from auricle.data.items import Manifest
from auricle.environment import environment
from auricle.errors import CheckpointError, ConfigError, in_words
from auricle.files import owned, write_text
from auricle.methods import get_method
from auricle.training.distributed import Group

# Settings that change how fast a run gets there, not where it goes (how a batch is divided, but for rounding).
FREE = frozenset({"workers", "processes", "checkpoint_every", "train.accumulate"})
SHOWN = 5


@contextmanager
def claimed(run: Path, group: Group, manifest: Manifest, config: Mapping[str, Any]) -> Iterator[None]:
    """Own a run directory and check that it is new or was started with these data and settings.

    The first process of the group does it, for all of them.

    Raises:
        ConfigError, CheckpointError: see `locked`, `check_data` and `start_or_check`; or the processes disagree.
    """
    config = {**config, "processes": group.size}
    for rank, other in enumerate(group.gather(config)):
        if differences := [f"{key}: {a!r} and {b!r}" for key, a, b in _differences(config, other)]:
            raise ConfigError(
                f"processes {group.rank} and {rank} resolve to other settings ({'; '.join(differences[:8])}); "
                "give all of them the same command and the same data."
            )
    with ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(locked(run))
            check_data(run, manifest)
            start_or_check(run, config)

        group.on_first(claim)
        yield


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Own a run directory; the lock goes with the process, however it ends.

    Raises:
        ConfigError: `run` is a file, holds something that is not a run, or another process is training in it.
    """
    if run.exists() and not run.is_dir():
        raise ConfigError(f"--out {run} is a file; give a directory.")
    if run.is_dir() and any(run.iterdir()) and not (run / "config.yaml").exists() and not (run / ".lock").exists():
        raise ConfigError(f"--out {run} exists and is not a run of auricle; give a new or empty directory.")
    with ExitStack() as stack:
        try:
            stack.enter_context(owned(run))
        except OSError as error:
            raise ConfigError(f"--out {run} cannot be written: {in_words(error)}.") from None
        yield


def start_or_check(run: Path, config: Mapping[str, Any]) -> None:
    """Write `config.yaml` of a new run, or refuse to go on with other settings than an existing one was started with.

    Settings in `FREE` may change, and so may a given `max_minutes`: the steps planned from the first one are kept.
    `train.steps` may be raised: the schedule is then computed for the new total. A setting that the run does not record
    was unknown to the version that began it, and counts as today's default. `environment.json` is written anew,
    for the process that goes on.

    Raises:
        ConfigError: the settings differ; the message lists the differences.
    """
    path = run / "config.yaml"
    plain = json.loads(json.dumps(config))
    if path.exists():
        old = _as_today(load_yaml(path))
        was, now = old.get("command"), plain.get("command")
        if was and was != now:
            raise ConfigError(f"{run} is a run of auricle {was}, not of auricle {now}; give another --out.")
        differences = [
            f"{key}: was {old_value!r}, now {new_value!r}"
            for key, old_value, new_value in _differences(old, plain)
            if not _may_change(key, old_value, new_value)
        ]
        if differences:
            raise ConfigError(
                f"{run} was started with other settings ({'; '.join(differences[:8])}); "
                "repeat the settings it was started with to resume it, or give another --out."
            )
    write_text(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    write_text(run / "environment.json", json.dumps(environment(), indent=1) + "\n")


def check_data(run: Path, manifest: Manifest) -> None:
    """Write `data.json` of a new run, or refuse to go on with other data than an existing one was started with.

    Raises:
        ConfigError: items came, went or changed; the message lists them.
    """
    path, fingerprints = run / "data.json", manifest.fingerprints()
    if path.exists() and (run / "config.yaml").exists():
        old = read_json(path)
        if old.get("hash") != manifest.hash:
            raise ConfigError(
                f"{run} was started with other data ({_changed_items(old.get('fingerprints', {}), fingerprints)}); "
                "restore the data to resume it, or give another --out."
            )
        return
    facts = {
        "hash": manifest.hash,
        "source": manifest.source,
        "items": len(manifest),
        "hours": round(manifest.hours, 4),
        "skipped": [list(entry) for entry in manifest.skipped],
        "fingerprints": fingerprints,
    }
    write_text(path, json.dumps(facts, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """One of a run's own JSON files.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {in_words(error)}; restore it, or give another --out.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object; restore it, or give another --out.")
    return values


def _changed_items(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    kinds = {
        "added": new.keys() - old.keys(),
        "removed": old.keys() - new.keys(),
        "altered": {name for name in new.keys() & old.keys() if new[name] != old[name]},
    }
    return "; ".join(
        f"{len(names)} {kind}: {', '.join(sorted(names)[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for kind, names in kinds.items()
        if names
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl`; a last line cut by a kill is left out."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def rewind_metrics(run: Path, step: int) -> None:
    """Forget what was logged after `step`, which a resumed run will log again."""
    rows = [row for row in read_metrics(run) if row["step"] <= step]
    write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _as_today(old: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings, with today's defaults for those that the version which wrote them did not have."""
    known: dict[str, type[DataclassInstance]] = {"train": TrainConfig}
    if old.get("method"):
        known["model"] = get_method(str(old["method"])).CONFIG
    complete = dict(old)
    for section, kind in known.items():
        recorded = old.get(section)
        if isinstance(recorded, dict):
            defaults = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
            complete[section] = json.loads(json.dumps(defaults)) | recorded
    return complete


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield prefix, old, new


def _may_change(key: str, old: Any, new: Any) -> bool:
    if key == "max_minutes":
        # With or without it, the number of steps comes from elsewhere.
        return bool(old and new)
    return key in FREE or (key == "train.steps" and isinstance(old, int) and isinstance(new, int) and new > old > 0)
