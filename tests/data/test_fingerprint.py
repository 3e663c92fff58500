"""Near-duplicates are found whatever was done to a copy, and only they."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from auricle.data.fingerprint import fingerprint, near_duplicates

RATE = 16_000


def scene(seed: int, seconds: float = 4.0) -> NDArray[np.float32]:
    """Filtered noise whose colour and level change all the time."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    wave = np.fft.irfft(spectrum / (1 + np.arange(len(spectrum)) / 4000), n)
    envelope = np.interp(np.arange(n), np.linspace(0, n, 30), rng.random(30))
    return (0.3 * wave / np.abs(wave).max() * envelope).astype(np.float32)


COPIES = {
    "quieter": lambda x: 0.2 * x,
    "cut": lambda x: x[round(0.7 * RATE) :],
    "resampled": lambda x: soxr.resample(soxr.resample(x, RATE, 11_025), 11_025, RATE),
    "eight bits": lambda x: np.round(x * 127) / 127,
    "noisy": lambda x: x + 0.002 * np.random.default_rng(9).standard_normal(len(x)),
    "padded": lambda x: np.concatenate([np.zeros(RATE // 2), x, np.zeros(RATE // 3)]),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_changed_copy_is_found(change: str) -> None:
    sounds = [scene(0), scene(1), COPIES[change](scene(0)).astype(np.float32), scene(2)]
    found = near_duplicates([fingerprint(sound, RATE) for sound in sounds])
    assert [(m.first, m.second) for m in found] == [(0, 2)]


def test_the_offset_is_in_seconds() -> None:
    late = np.concatenate([scene(5, 1.0), scene(0)])
    (found,) = near_duplicates([fingerprint(scene(0), RATE), fingerprint(late, RATE)])
    assert found.offset == pytest.approx(1.0, abs=0.04)


def test_different_sounds_are_not_copies() -> None:
    assert near_duplicates([fingerprint(scene(seed), RATE) for seed in range(40)]) == []


def test_silence_and_very_short_sounds_match_nothing() -> None:
    silence = np.zeros(3 * RATE, np.float32)
    assert not fingerprint(silence, RATE).any()
    assert not len(fingerprint(scene(0, 0.2), RATE))
    assert near_duplicates([fingerprint(silence, RATE)] * 3 + [fingerprint(scene(0, 0.2), RATE)] * 2) == []
    assert near_duplicates([]) == []
