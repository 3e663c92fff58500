"""Small labelled data on disk, and small models to hear it with."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from auricle.config import to_dict
from auricle.methods import get_method, get_preset
from auricle.tasks.classification import Classifier
from auricle.training.checkpoint import save_checkpoint

RATE = 16000
PITCHES = {"low": 250.0, "middle": 900.0, "high": 3000.0}
METHOD, PRESET = "ssast", "test"


def tone(hz: float, seconds: float = 0.4, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """A tone of random phase and level in a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    wave = rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * (hz * t + rng.random()))
    return (wave + rng.normal(0, 0.01, len(t))).astype(np.float32)


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """`data.csv` with the columns of the first row; `path` is one of them."""
    path = folder / "data.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_tones(folder: Path, clips: int = 8) -> Path:
    """A table of `clips` tones of each pitch: columns label, split (each fourth is a test), speaker (of four)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, hz in PITCHES.items():
        for number in range(clips):
            name = f"{label}{number}.wav"
            soundfile.write(folder / name, tone(hz, seed=number), RATE)
            split = "test" if number % 4 == 3 else "train"
            rows.append({"path": name, "label": label, "split": split, "speaker": f"s{number % 4}"})
    return write_table(folder, rows)


def save_pretrained(folder: Path, seed: int = 0) -> Path:
    """A checkpoint of the method's small test preset."""
    settings = get_preset(METHOD, PRESET).model
    torch.manual_seed(seed)
    module = get_method(METHOD).build_objective(settings)
    config = {"kind": "pretraining", "method": METHOD, "preset": PRESET, "model": to_dict(settings)}
    return save_checkpoint(folder, "pretrained", weights=module.state_dict(), config=config)


def save_classifier(folder: Path, classes: Sequence[str], held_out: str = "") -> Path:
    """A checkpoint of an untrained classifier."""
    settings = get_preset(METHOD, PRESET).model
    torch.manual_seed(0)
    module = Classifier(get_method(METHOD).build_encoder(settings), classes)
    config = {"kind": "classifier", "method": METHOD, "preset": PRESET, "model": to_dict(settings)}
    config |= {"classes": list(classes), "label": "label", "split": {"held_out": held_out}}
    return save_checkpoint(folder, "classifier", weights=module.state_dict(), config=config)
