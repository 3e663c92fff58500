"""Thousands of damaged files: each gives samples or an `AudioError`, soon, and within bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Literal

import audio_files
import numpy as np
import pytest

from auricle.audio.read import MAX_LEVEL, REASONS, blocks, probe, read
from auricle.errors import AudioError

SEEDS = (
    "16.wav",
    "float.wav",
    "ima.wav",
    "extensible24.wav",
    "16.rf64",
    "16.w64",
    "16.aiff",
    "16.au",
    "16.caf",
    "16.sph",
    "16.flac",
    "vorbis.ogg",
    "opus.opus",
    "lame.mp3",
)


def seeds() -> list[bytes]:
    sounds = [audio_files.encode(audio_files.tone(0.3, channels=1 + i % 2), name) for i, name in enumerate(SEEDS)]
    mono = audio_files.tone(0.3)
    sounds.append(audio_files.flac_declaring(audio_files.encode(mono, "16.flac"), 0))
    sounds.append(audio_files.mp3_without_count(audio_files.encode(mono, "lame.mp3")))
    return sounds


def mutate(rng: np.random.Generator, sounds: list[bytes]) -> bytes:
    """One to three of: flipped bits, a cut, a splice of two files, random or extreme header fields."""
    data = bytearray(sounds[rng.integers(len(sounds))])
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(6)
        if not data:
            break
        at = int(rng.integers(len(data)))
        if kind == 0:
            for _ in range(rng.integers(1, 20)):
                data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            other = sounds[rng.integers(len(sounds))]
            data = data[:at] + bytearray(other[rng.integers(len(other)) :])
        elif kind == 3:
            start = int(rng.integers(min(len(data), 120)))
            data[start : start + 4] = rng.bytes(4)
        elif kind == 4:
            start = int(rng.integers(min(len(data), 120)))
            extreme = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)[rng.integers(6)]
            data[start : start + 4] = extreme.to_bytes(4, "little" if rng.integers(2) else "big")
        else:
            del data[at : at + int(rng.integers(1, 200))]
    return bytes(data)


def use(path: Path, rng: np.random.Generator) -> str:
    """Read in a random way; the name of what came out: "samples" or the reason of the error."""
    way = int(rng.integers(5))
    truncated: Literal["warn", "reject"] = "warn" if rng.integers(2) else "reject"
    nonfinite: Literal["zero", "reject"] = "zero" if rng.integers(2) else "reject"
    try:
        if way == 0:
            assert probe(path).rate > 0
            return "samples"
        if way == 1:
            pieces = list(blocks(path, rate=8_000, seconds=0.1, max_samples=10**7, truncated=truncated))
            waves = np.concatenate(pieces)
        elif way == 2:
            start = float(rng.uniform(0, 0.3))
            waves, _ = read(path, start=start, end=start + 0.05, truncated=truncated, nonfinite=nonfinite)
        else:
            rate = 16_000 if way == 3 else None
            waves, _ = read(path, rate=rate, max_samples=10**7, truncated=truncated, nonfinite=nonfinite)
    except AudioError as error:
        return error.reason if error.detail else "no detail"
    assert waves.dtype == np.float32
    assert waves.ndim == 1
    assert len(waves) > 0
    # Resampling may overshoot a little.
    assert np.abs(waves).max() <= 2 * MAX_LEVEL
    return "samples"


@pytest.mark.filterwarnings("ignore::auricle.audio.source.AudioWarning")
def test_damaged_files_give_samples_or_an_audio_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(20_240)
    sounds = seeds()
    path = tmp_path / "damaged"
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(300):
        path.write_bytes(mutate(rng, sounds))
        begin = time.perf_counter()
        outcomes[use(path, rng)] += 1
        slowest = max(slowest, time.perf_counter() - begin)
    assert outcomes.keys() <= {"samples", *REASONS}
    # The mutations are of a useful strength: some files survive, most do not, in several ways.
    assert 20 < outcomes["samples"] < 200
    assert len(outcomes) >= 5
    assert slowest < 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_ten_thousand_damaged_files_in_a_child_with_one_gigabyte(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path), "10000"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    progress = (tmp_path / "progress").read_text()
    # Killed by a signal: a crash, or SIGALRM for a file that took five seconds.
    assert child.returncode == 0, f"at file {progress}: {child.returncode}\n{child.stderr[-2000:]}"
    assert progress == "10000"


def main(folder: Path, count: int) -> None:
    import resource
    import signal

    # A gigabyte on top of what Python and its libraries have mapped.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**30, mapped + 2**30))
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(count)
    sounds = seeds()
    outcomes: Counter[str] = Counter()
    for index in range(count):
        path = folder / "damaged"
        path.write_bytes(mutate(rng, sounds))
        (folder / "progress").write_text(str(index))
        signal.alarm(5)
        outcomes[use(path, rng)] += 1
        signal.alarm(0)
    assert outcomes.keys() <= {"samples", *REASONS}
    (folder / "progress").write_text(str(count))
    print(dict(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
