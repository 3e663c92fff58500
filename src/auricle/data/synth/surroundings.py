"""Where a sound is heard: what else sounds there, the room it rings in, the channel it comes through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from auricle.data.synth.dsp import (
    NYQUIST,
    Rng,
    Wave,
    convolved,
    decay,
    harmonics,
    log_uniform,
    noise,
    peaks,
    samples,
    shaped,
    to_rms,
    wander,
)
from auricle.data.synth.sources import speech


def coloured(rng: Rng, n: int) -> Wave:
    """Steady noise between blue and brown, with broad humps in its spectrum."""
    centres, widths = [log_uniform(rng, 100, 6000) for _ in range(3)], rng.uniform(200, 3000, 3)
    heights = rng.uniform(0, 1.5, 3)
    return shaped(noise(rng, n, rng.uniform(0.5, 2)), lambda f: 1.0 + peaks(f, centres, widths, heights))


def gusty(rng: Rng, n: int) -> Wave:
    """Noise that comes and goes, as of traffic or leaves."""
    loudness: Wave = np.exp(wander(rng, n, log_uniform(rng, 0.3, 4)) * np.float32(rng.uniform(0.4, 1.2)))
    return coloured(rng, n) * loudness


def hum(rng: Rng, n: int) -> Wave:
    """Mains or a fan: low partials that stand still, over a little noise."""
    base = rng.choice([50.0, 60.0, 100.0, 120.0, log_uniform(rng, 40, 300)])
    partials = rng.uniform(0, 1, 25) * np.arange(1, 26) ** -rng.uniform(0, 1.5)
    return to_rms(harmonics(base, n, partials), 1.0) + rng.uniform(0.1, 1) * noise(rng, n, rng.uniform(0.5, 2))


def babble(rng: Rng, n: int) -> Wave:
    """Many voices at once that cannot be followed."""
    voices = [to_rms(speech(rng, n), 1.0) for _ in range(2)]
    out = np.zeros(n, np.float32)
    for _ in range(int(rng.integers(4, 9))):
        # Backwards and shifted, two voices do for a crowd.
        voice = voices[int(rng.integers(2))][:: int(rng.choice([-1, 1]))]
        out += np.roll(voice, int(rng.integers(n))) * np.float32(rng.uniform(0.4, 1))
    return to_rms(out, 1.0) + rng.uniform(0.05, 0.5) * noise(rng, n, 1)


BACKGROUNDS: dict[str, Callable[[Rng, int], Wave]] = {
    "coloured": coloured,
    "gusty": gusty,
    "hum": hum,
    "babble": babble,
}


def reverberated(rng: Rng, wave: Wave) -> Wave:
    """`wave` in a room of 0.1 to 0.9 s reverberation time, between close to the microphone and far from it."""
    seconds = log_uniform(rng, 0.1, 0.9)
    m = samples(seconds)
    tail = noise(rng, m, rng.uniform(0, 1)) * decay(m, seconds)
    tail[: samples(rng.uniform(0.001, 0.02))] = 0
    response = to_rms(tail, rng.uniform(0.1, 0.8) / np.sqrt(m))
    response[0] += 1
    return convolved(wave, response)


def through_channel(rng: Rng, wave: Wave) -> Wave:
    """`wave` through a microphone and line: a tilt, a ripple, and an upper or a lower limit now and then."""
    tilt, ripple = rng.uniform(-1.5, 1.5), rng.uniform(-3, 3, 12)
    low = log_uniform(rng, 30, 400) if rng.random() < 0.3 else 0.0
    high = log_uniform(rng, 3000, NYQUIST) if rng.random() < 0.3 else NYQUIST

    def gain(f: Wave) -> Wave:
        octave = np.log2(np.maximum(f, 30.0) / 1000)
        decibels = tilt * octave + np.interp(octave, np.linspace(-5, 3, 12), ripple)
        limits = 1 / np.sqrt((1 + (low / np.maximum(f, 1.0)) ** 4) * (1 + (f / high) ** 12))
        return np.asarray(10 ** (decibels / 20) * limits, np.float32)

    return shaped(wave, gain)
