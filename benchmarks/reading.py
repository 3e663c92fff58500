"""Files to read, and how fast auricle and a plain loop read them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import soundfile
import soxr
import torch
from ssast_contestants import RATE, audio

from auricle.data.formats import read_data
from auricle.data.items import Item
from auricle.data.loader import Loader

SECONDS = 10
BATCH = 8
FILES = (("wav", 16000), ("flac", 16000), ("flac", 44100))


def write_clips(folder: Path, kind: str, rate: int, clips: int) -> tuple[Item, ...]:
    """Clips of SECONDS of noise as 16-bit files below `folder`."""
    below = folder / f"{kind}-{rate}"
    below.mkdir()
    for number, wave in enumerate(audio(clips, 998)):
        wave = wave if rate == RATE else soxr.resample(wave, RATE, rate)
        soundfile.write(below / f"{number:03d}.{kind}", wave, rate, subtype="PCM_16")
    return read_data([below]).items


def read_by_loader(items: Sequence[Item]) -> None:
    """All clips through our loader, in this process, with nothing kept from one pass to the next."""
    batches = iter(Loader(items, rate=RATE, batch_size=BATCH, crop_seconds=SECONDS, seed=0, cache_mb=0))
    for _ in range(len(items) // BATCH):
        next(batches)


def read_plainly(items: Sequence[Item]) -> None:
    """The same with soundfile and soxr, at the same quality of resampling and with no questions asked."""
    for first in range(0, len(items) // BATCH * BATCH, BATCH):
        waves = []
        for item in items[first : first + BATCH]:
            wave, rate = soundfile.read(item.streams["audio"].path, dtype="float32")
            wave = wave if rate == RATE else soxr.resample(wave, rate, RATE, quality="VHQ")
            waves.append(torch.from_numpy(wave[: SECONDS * RATE]))
        torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)


def heard(items: Sequence[Item]) -> float:
    """Seconds of audio that either of them reads."""
    return len(items) // BATCH * BATCH * float(SECONDS)


def reading_rate(items: Sequence[Item], repeats: int = 3) -> float:
    """Seconds of audio that our loader reads per second."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        read_by_loader(items)
        times.append(time.perf_counter() - begin)
    return heard(items) / statistics.median(times)
