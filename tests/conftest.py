"""What all tests share: a small labelled data set, trained runs on it, the command line, and the optional folders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# One thread per process, here and in the commands that tests start: they run side by side. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a GPU, Triton's kernels run by its interpreter: read when triton is imported, which torch does.
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest
import soundfile

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = ("buzz", "chirp", "hiss")
RATES = (16000, 8000, 22050, 44100)
SPLITS = ("train", "train", "train", "train", "val", "val", "test", "test")
CLIPS = len(CLASSES) * len(SPLITS)


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings are kept here, in commands of their own too, and never where the user keeps his."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["AURICLE_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of three classes, 0.3 to 2 s, WAV and FLAC, four rates, the first one stereo, with manifest.csv.

    Columns: path, label, split (train, val, test) and group (g0 ... g3).
    """
    return write_tones(tmp_path_factory.mktemp("data") / "tones")


def write_tones(folder: Path) -> Path:
    """Write the clips of `tones`: the same bytes every time."""
    (folder / "audio").mkdir(parents=True)
    rows = ["path,label,split,group"]
    for number in range(CLIPS):
        kind, place = CLASSES[number % len(CLASSES)], number // len(CLASSES)
        rate = RATES[number % len(RATES)]
        wave = sound(kind, 0.3 + 1.7 * number / (CLIPS - 1), rate, number)
        name = f"audio/{kind}{place}.{'wav' if number % 2 == 0 else 'flac'}"
        soundfile.write(folder / name, np.stack([wave, 0.5 * wave], 1) if number == 0 else wave, rate)
        rows.append(f"{name},{kind},{SPLITS[place]},g{number % 4}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def sound(kind: str, seconds: float, rate: int, seed: int) -> np.ndarray:
    """A clip (samples,) of one of the three classes; no two seeds give the same."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(150, 300)
    if kind == "buzz":
        wave = np.sign(np.sin(2 * np.pi * pitch * t))
    elif kind == "chirp":
        wave = np.sin(2 * np.pi * (pitch * t + 600 * t**2))
    else:
        wave = rng.uniform(-1, 1, len(t))
    return 0.2 * wave + 0.01 * rng.standard_normal(len(t))


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., Outcome]:
    """Run `auricle ARGS...` in a process of its own."""

    def run(*args: object, timeout: float = 120.0, cwd: Path | None = None) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "auricle", *map(str, args)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `auricle ARGS...` in this process: the same, without the seconds that importing takes."""
    from auricle.cli import main

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def pretrained(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: twelve steps of preset `test`."""
    from auricle.training import pretrain

    plan = pretrain.plan("ssast", [tones], preset="test", steps=12)
    return pretrain.pretrain(plan, tmp_path_factory.mktemp("runs") / "pretrained", quiet=True)


@pytest.fixture(scope="session")
def finetuned(tones: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: sixty steps of a classifier of the three classes."""
    from auricle.training import finetune

    plan = finetune.plan(pretrained, [tones], steps=60)
    return finetune.finetune(plan, tmp_path_factory.mktemp("runs") / "finetuned", quiet=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of development recordings: AURICLE_DATA, or beside the repository."""
    return _folder("AURICLE_DATA", REPOSITORY.parent / "shared" / "data" / "public", "of recordings")


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of golden cases: AURICLE_GOLDEN, or beside the repository."""
    return _folder("AURICLE_GOLDEN", REPOSITORY.parent / "shared" / "golden", "of golden cases")


def _folder(variable: str, usual: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable) or usual)
    if not folder.is_dir():
        pytest.skip(f"no folder {what} at {folder}; set {variable}")
    return folder
