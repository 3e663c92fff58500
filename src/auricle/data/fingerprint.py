"""Near-duplicates by acoustic fingerprint: the same recording louder, cut, resampled or compressed again.

The fingerprint of Haitsma and Kalker (ISMIR 2002): 32 bits for each step of 32 ms, the signs of how the differences
between neighbouring frequency bands change in time. A copy keeps most bits; other sounds share half of them.

T steps.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

BANDS = 33
LOWEST_HZ, HIGHEST_HZ = 300.0, 3000.0
# Bands end far below the Nyquist rate of most files: at this one, a frame is a power of two, and its transform costs a
# hundredth of what some lengths of 0.256 s cost at 44.1 kHz.
RATE = 8_000
FRAME, STEP = 2048, 256
STEP_SECONDS = STEP / RATE
# Of long sounds only the beginning has a fingerprint, which bounds time and memory.
MOST_SECONDS = 60.0
# Two sounds are compared where they share a word of 32 bits; words of silence and hum, which many share, say nothing.
COMMON_WORD = 32
# A copy must agree over half of the shorter sound and half a second at least, in four of five bits.
LEAST_STEPS = 16
MOST_BIT_ERRORS = 0.2

Words = NDArray[np.uint32]
Place = tuple[int, int]


@dataclass(frozen=True)
class Match:
    """Sounds `first` and `second` (indices) agree but for a share `bit_errors`; the second begins `offset` s later."""

    first: int
    second: int
    offset: float
    bit_errors: float


_WINDOW = np.hanning(FRAME).astype(np.float32)


@functools.cache
def _edges(top: float) -> NDArray[np.int_]:
    """The first bin of each band up to `top` Hz, and the end of the last one."""
    return np.round(np.geomspace(LOWEST_HZ, top, BANDS + 1) * FRAME / RATE).astype(int)


def fingerprint(wave: NDArray[np.float32], rate: int) -> Words:
    """The words [T] of the beginning of a sound; none for less than 0.29 s, or where it is digitally silent.

    Args:
        wave: samples [n], mono.
        rate: Hz.
    """
    wave = soxr.resample(wave[: round(MOST_SECONDS * rate)], rate, RATE, quality="LQ")
    if len(wave) < FRAME + STEP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::STEP]
    power = np.abs(np.fft.rfft(frames * _WINDOW)) ** 2
    energy = np.add.reduceat(power, _edges(min(HIGHEST_HZ, 0.45 * rate)), axis=1)[:, :BANDS]
    across = energy[:, :-1] - energy[:, 1:]
    bits = (across[1:] - across[:-1]) > 0
    words = np.packbits(bits, axis=1).view(">u4")[:, 0].astype(np.uint32)
    # Where nothing sounds, no bit means anything.
    return words * (energy[1:].sum(1) > 1e-8)


def near_duplicates(words: Sequence[Words]) -> list[Match]:
    """All pairs of sounds that are copies of each other, the best agreement of each pair."""
    found = []
    for (first, second), offsets in _candidates(words).items():
        matches = [_compare(words, first, second, offset) for offset, _ in offsets.most_common(3)]
        best = min((m for m in matches if m is not None), key=lambda m: m.bit_errors, default=None)
        if best is not None:
            found.append(best)
    return sorted(found, key=lambda m: (m.first, m.second))


def _candidates(words: Sequence[Words]) -> dict[tuple[int, int], Counter[int]]:
    """Pairs of sounds that share a word, with how often at which offset in steps."""
    sizes = [len(w) for w in words]
    if not sum(sizes):
        return {}
    everything = np.concatenate(words)
    sound = np.repeat(np.arange(len(words)), sizes)
    position = np.concatenate([np.arange(n) for n in sizes])
    order = np.argsort(everything, kind="stable")
    values = everything[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    pairs: dict[tuple[int, int], Counter[int]] = {}
    for start, stop in zip(starts, np.r_[starts[1:], len(values)], strict=True):
        if not 2 <= stop - start <= COMMON_WORD or not values[start]:
            continue
        group = order[start:stop]
        for a, b in _different(sound[group], position[group]):
            pairs.setdefault((a[0], b[0]), Counter())[b[1] - a[1]] += 1
    return pairs


def _different(
    sound: NDArray[np.int_], position: NDArray[np.int_]
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    entries = sorted(zip(sound.tolist(), position.tolist(), strict=True))
    for index, a in enumerate(entries):
        yield from ((a, b) for b in entries[index + 1 :] if b[0] != a[0])


def _compare(words: Sequence[Words], first: int, second: int, offset: int) -> Match | None:
    """How well two sounds agree where step t of the first meets step t + offset of the second."""
    a, b = words[first], words[second]
    begin, end = max(0, -offset), min(len(a), len(b) - offset)
    overlap = end - begin
    if overlap < max(LEAST_STEPS, min(len(a), len(b)) // 2):
        return None
    here, there = a[begin:end], b[begin + offset : end + offset]
    sounding = (here != 0) & (there != 0)
    if sounding.sum() < LEAST_STEPS:
        return None
    differing = np.unpackbits((here ^ there)[sounding].view(np.uint8)).mean()
    # A positive offset: what the first says at t, the second says later.
    return Match(first, second, offset * STEP_SECONDS, float(differing)) if differing <= MOST_BIT_ERRORS else None
