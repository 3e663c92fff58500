"""Building blocks of generated sound, in NumPy alone.

Waves are float32 `(n,)` at RATE; frequencies in Hz; times in seconds. Filters work on spectra, so they have no delay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RATE = 16_000
NYQUIST = RATE / 2
# The highest partial: above it a later filter or a falling pitch cannot be told from silence, and it never folds back.
TOP = 7_600.0

Rng = np.random.Generator
Wave = NDArray[np.float32]


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """As likely to lie in one octave between `low` and `high` as in another."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def samples(seconds: float) -> int:
    return round(seconds * RATE)


def rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0


def to_rms(wave: Wave, level: float) -> Wave:
    """`wave` with the root mean square `level`; silence stays silence."""
    return wave * np.float32(level / max(rms(wave), 1e-9))


# Curves ----------------------------------------------------------------------------------------------------------


def glide(n: int, points: ArrayLike, times: ArrayLike | None = None) -> Wave:
    """Straight lines through `points`, at `times` in 0..1 (None: equally spaced), sampled `n` times."""
    heights = np.atleast_1d(np.asarray(points, np.float64))
    places = np.linspace(0, 1, len(heights)) if times is None else np.asarray(times, np.float64)
    return np.interp(np.linspace(0, 1, n), places, heights).astype(np.float32)


def wander(rng: Rng, n: int, per_second: float) -> Wave:
    """A random curve in -1..1 that takes `per_second` turns a second."""
    return glide(n, rng.uniform(-1, 1, max(2, round(n / RATE * per_second) + 1)))


def decay(n: int, seconds: float, attack: float = 0.001) -> Wave:
    """Up within `attack`, then down by 60 dB within `seconds`."""
    t = np.arange(n, dtype=np.float32) / RATE
    return np.minimum(t / max(attack, 1e-4), 1) * np.exp(np.float32(-6.9 / seconds) * t)


def swell(n: int, attack: float, release: float) -> Wave:
    """1 in the middle, with half-cosine edges of `attack` and `release` seconds, shortened where they do not fit."""
    envelope = np.ones(n, np.float32)
    for edge, part in ((samples(attack), slice(None)), (samples(release), slice(None, None, -1))):
        edge = min(edge, n // 2)
        envelope[part][:edge] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(edge, dtype=np.float32) / max(edge, 1))
    return envelope


# Oscillators -----------------------------------------------------------------------------------------------------


def phase(frequency: ArrayLike, n: int, start: float = 0.0) -> NDArray[np.float64]:
    """Radians after each sample of a `frequency` that is one number or a curve of `n`."""
    return start + np.cumsum(np.broadcast_to(np.asarray(frequency, np.float64), (n,))) * (2 * np.pi / RATE)


def sine(frequency: ArrayLike, n: int, start: float = 0.0) -> Wave:
    return np.sin(phase(frequency, n, start)).astype(np.float32)


def harmonics(frequency: ArrayLike, n: int, amplitudes: Sequence[float] | NDArray[np.floating]) -> Wave:
    """Sum of `amplitudes[k - 1] * sin(k * phase)`, without those partials that would pass TOP."""
    highest = float(np.max(frequency))
    kept = [float(a) for a in amplitudes[: max(1, int(TOP / highest))]]
    turns = phase(frequency, n)
    # Clenshaw's recurrence: two operations per partial instead of a sine each.
    double_cosine = 2 * np.cos(turns)
    last, before = np.zeros(n), np.zeros(n)
    for amplitude in reversed(kept):
        before, last = last, amplitude + double_cosine * last - before
    return (last * np.sin(turns)).astype(np.float32)


def noise(rng: Rng, n: int, slope: float = 0.0) -> Wave:
    """Noise of unit RMS whose power falls by `slope` times 3 dB per octave: 0 white, 1 pink, 2 brown."""
    white = rng.standard_normal(n, dtype=np.float32)
    if slope == 0:
        return white
    return to_rms(shaped(white, lambda f: np.maximum(f, 30.0) ** (-slope / 2)), 1.0)


# Filters ---------------------------------------------------------------------------------------------------------


def fast_length(n: int) -> int:
    """The next length with a quick Fourier transform: at most 1/8 longer, with eight powers of two to an octave."""
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step


def shaped(wave: Wave, gain: Callable[[Wave], NDArray[np.floating]]) -> Wave:
    """`wave` with its spectrum multiplied by `gain(frequencies)`."""
    size = fast_length(len(wave))
    frequencies = np.fft.rfftfreq(size, 1 / RATE).astype(np.float32)
    spectrum = np.fft.rfft(wave, size) * gain(frequencies)
    return np.fft.irfft(spectrum, size)[: len(wave)].astype(np.float32)


def band(wave: Wave, low: float, high: float, order: int = 2) -> Wave:
    """Butterworth magnitude: flat between `low` and `high`, falling by 6 dB per octave and order outside."""

    def gain(f: Wave) -> NDArray[np.floating]:
        below = (low / np.maximum(f, 1.0)) ** (2 * order) if low > 0 else 0.0
        return 1 / np.sqrt((1 + below) * (1 + (f / high) ** (2 * order)))

    return shaped(wave, gain)


def peaks(f: NDArray[np.floating], centres: ArrayLike, widths: ArrayLike, gains: ArrayLike) -> NDArray[np.float32]:
    """Sum of resonance curves over the frequencies `f` [F]: the other arguments are [..., P], the result [..., F]."""
    centre, width, height = (np.asarray(x, np.float32)[..., None] for x in (centres, widths, gains))
    curves: NDArray[np.float32] = np.sum(height / np.sqrt(1 + ((f - centre) / (width / 2)) ** 2), axis=-2)
    return curves


def filtered_over_time(wave: Wave, gain: Callable[[Wave, Wave], NDArray[np.floating]]) -> Wave:
    """`wave` through a filter that changes: `gain(times [M] in 0..1, frequencies [F]) -> [M, F]` for M frames."""
    size, hop = 512, 128
    frames = len(wave) // hop + size // hop
    padded = np.zeros(frames * hop + size, np.float32)
    padded[size - hop : size - hop + len(wave)] = wave
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    index = np.arange(frames)[:, None] * hop + np.arange(size)
    frequencies = np.fft.rfftfreq(size, 1 / RATE).astype(np.float32)
    times = np.linspace(0, 1, frames, dtype=np.float32)
    blocks = np.fft.irfft(np.fft.rfft(padded[index] * window) * gain(times, frequencies), size) * (hop / size * 2)
    out = np.zeros(len(padded), np.float32)
    # Windows of one residue do not overlap, so each of the four sums is one addition.
    for first in range(size // hop):
        rows = blocks[first :: size // hop].astype(np.float32)
        out[first * hop : first * hop + rows.size] += rows.ravel()
    return out[size - hop : size - hop + len(wave)]


def convolved(wave: Wave, response: Wave) -> Wave:
    """Linear convolution, cut to the length of `wave`."""
    size = fast_length(len(wave) + len(response) - 1)
    product = np.fft.rfft(wave, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(wave)].astype(np.float32)


# Placing ---------------------------------------------------------------------------------------------------------


def add_at(target: Wave, onset: int, wave: Wave, gain: float = 1.0) -> None:
    """Add `wave` into `target` from sample `onset` on; what would stick out at the end is dropped."""
    end = min(len(target), onset + len(wave))
    if end > onset:
        target[onset:end] += np.float32(gain) * wave[: end - onset]


def onsets(rng: Rng, n: int, interval: float, jitter: float = 0.0, first: float = 0.0) -> list[int]:
    """Sample positions about every `interval` seconds, each shifted by up to `jitter` intervals."""
    places = []
    at = first
    while samples(at) < n:
        places.append(max(0, samples(at + interval * jitter * rng.uniform(-0.5, 0.5))))
        at += interval
    return [place for place in places if place < n]
