"""Sources of sound: each renders `n` samples of one kind of sound, never twice the same.

What makes a kind recognisable is its course in time (how pitch, resonances and onsets move); pitch range, brightness,
tempo and loudness vary widely within every kind and overlap between kinds. Levels are free: the mixer sets them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from auricle.data.synth.dsp import (
    RATE,
    TOP,
    Rng,
    Wave,
    add_at,
    band,
    decay,
    filtered_over_time,
    glide,
    harmonics,
    log_uniform,
    noise,
    onsets,
    peaks,
    phase,
    samples,
    shaped,
    sine,
    swell,
    to_rms,
    wander,
)


@dataclass(frozen=True)
class Source:
    """`render(rng, n)` gives a float32 wave `(n,)`; `seconds` is the range of durations that suit it."""

    name: str
    seconds: tuple[float, float]
    render: Callable[[Rng, int], Wave]


def rolloff(rng: Rng, count: int, steep: tuple[float, float], odd: float = 0.3) -> Wave:
    """Amplitudes of `count` partials that fall as `k ** -steepness`; with the chance `odd`, even ones are weak."""
    k = np.arange(1, count + 1, dtype=np.float32)
    amplitudes = k ** -rng.uniform(*steep) * rng.uniform(0.5, 1.5, count)
    if rng.random() < odd:
        amplitudes[1::2] *= rng.uniform(0, 0.3)
    return amplitudes.astype(np.float32)


# Animals and people ----------------------------------------------------------------------------------------------


def dog_bark(rng: Rng, n: int) -> Wave:
    """A row of barks: short, harsh, pitch up and down again, two or three throat resonances."""
    pitch = log_uniform(rng, 220, 850)
    length = rng.uniform(0.07, 0.22)
    timbre = rolloff(rng, 24, (0.3, 1.2))
    centres = np.array([pitch * rng.uniform(1.5, 2.5), rng.uniform(1200, 2400), rng.uniform(2400, 5000)])
    breath = rng.uniform(0.05, 0.6)
    out = np.zeros(n, np.float32)
    for onset in onsets(rng, n, length + log_uniform(rng, 0.06, 0.6), jitter=0.25):
        m = samples(length * rng.uniform(0.7, 1.3))
        contour = pitch * rng.uniform(0.9, 1.1) * glide(m, [rng.uniform(0.5, 0.8), 1.1, 1.0, rng.uniform(0.4, 0.8)])
        bark = np.tanh(2 * harmonics(contour, m, timbre)) + breath * noise(rng, m)
        widths, heights = rng.uniform(150, 600, 3), rng.uniform(0.3, 1.0, 3)
        bark = shaped(bark, lambda f, w=widths, h=heights: peaks(f, centres, w, h))  # type: ignore[misc]
        add_at(out, onset, bark * swell(m, 0.012, length * rng.uniform(0.4, 0.8)), rng.uniform(0.5, 1))
    return out


def bird(rng: Rng, n: int) -> Wave:
    """A motif of fast sweeps and trills high up, repeated with pauses."""
    register = log_uniform(rng, 1400, 4800)
    motif = []
    for _ in range(int(rng.integers(1, 5))):
        m = samples(log_uniform(rng, 0.03, 0.22))
        bend = np.exp(rng.uniform(-0.5, 0.5, int(rng.integers(2, 5))))
        contour = register * rng.uniform(0.75, 1.3) * glide(m, bend)
        if rng.random() < 0.4:
            depth, speed = rng.uniform(0.03, 0.2), rng.uniform(20, 60)
            contour = contour * (1 + depth * sine(speed, m))
        note = harmonics(np.minimum(contour, TOP), m, [1, rng.uniform(0, 0.3), rng.uniform(0, 0.1)])
        motif.append((note * swell(m, 0.01, 0.03), samples(rng.uniform(0.01, 0.12))))
    length = sum(len(note) + gap for note, gap in motif)
    out = np.zeros(n, np.float32)
    for onset in onsets(rng, n, length / RATE + log_uniform(rng, 0.03, 0.8), jitter=0.15):
        place = onset
        for note, gap in motif:
            add_at(out, place, note, rng.uniform(0.6, 1))
            place += len(note) + gap
    return out


# First three resonances of vowels of an adult man, as textbooks of phonetics give them (Hz).
VOWELS = np.array(
    [
        [270, 2290, 3010],
        [390, 1990, 2550],
        [530, 1840, 2480],
        [660, 1720, 2410],
        [730, 1090, 2440],
        [570, 840, 2410],
        [440, 1020, 2240],
        [300, 870, 2240],
        [640, 1190, 2390],
        [490, 1350, 1690],
    ],
    np.float32,
)


def speech(rng: Rng, n: int) -> Wave:
    """Syllables: a gliding voice pitch, resonances that move from vowel to vowel, hisses and gaps between."""
    pitch, tract = log_uniform(rng, 75, 380), rng.uniform(0.85, 1.35)
    rate = rng.uniform(2.5, 7)
    count = max(1, round(n / RATE * rate))
    edges = np.sort(np.concatenate([[0, 1], (np.arange(1, count) + rng.uniform(-0.3, 0.3, count - 1)) / count]))
    targets = VOWELS[rng.integers(len(VOWELS), size=count)] * tract
    melody = glide(n, np.exp(rng.uniform(-0.35, 0.35, count + 1))) * glide(n, [1.1, 0.85])
    voice = harmonics(pitch * melody * (1 + 0.01 * wander(rng, n, 12)), n, rolloff(rng, 50, (0.8, 1.4), odd=0))
    voice += rng.uniform(0.01, 0.15) * noise(rng, n)
    loud, hiss = np.zeros(n, np.float32), np.zeros(n, np.float32)
    bounds = np.round(edges * n).astype(int)
    for start, end in pairwise(bounds):
        onset = int((end - start) * rng.uniform(0, 0.4))
        m = max(1, end - start - onset)
        add_at(loud, start + onset, swell(m, 0.03, rng.uniform(0.03, 0.1)), rng.uniform(0.4, 1) * (rng.random() < 0.92))
        if rng.random() < 0.55 and onset > 80:
            low = rng.uniform(800, 4500)
            add_at(hiss, start, band(noise(rng, onset), low, 7500) * swell(onset, 0.01, 0.02), rng.uniform(0.05, 0.4))
    middles = (edges[:-1] + edges[1:]) / 2
    widths = np.array([80, 110, 160], np.float32) * rng.uniform(0.8, 1.8)

    def tracks(times: Wave, f: Wave) -> Wave:
        moving = np.stack([np.interp(times, middles, targets[:, k]) for k in range(3)], axis=1)
        return peaks(f, moving, np.broadcast_to(widths, moving.shape), np.broadcast_to([1, 0.5, 0.25], moving.shape))

    return to_rms(filtered_over_time(voice * loud, tracks), 0.1) + hiss * np.float32(0.3)


# Signals and music -----------------------------------------------------------------------------------------------


def siren(rng: Rng, n: int) -> Wave:
    """One tone that sweeps or alternates between two pitches without a pause."""
    low = log_uniform(rng, 280, 1300)
    span = rng.uniform(0.35, 1.1)
    style = rng.integers(4)
    turns = phase(1 / (log_uniform(rng, 0.9, 5) if style == 0 else log_uniform(rng, 0.12, 0.7)), n, rng.uniform(0, 6.3))
    if style < 2:
        place = 0.5 + 0.5 * np.sin(turns)
    elif style == 2:
        place = (np.sin(turns / 2) > 0).astype(np.float64)
        span *= 0.5
    else:
        place = (turns / (2 * np.pi)) % 1
    tone = harmonics(low * np.exp(span * place) * glide(n, rng.uniform(0.96, 1.04, 2)), n, rolloff(rng, 20, (0.6, 2.2)))
    horn = rng.uniform(500, 3000)
    tone = shaped(tone, lambda f: 0.3 + peaks(f, [horn], [rng.uniform(200, 1500)], [1.0]))
    return tone * (1 + 0.3 * wander(rng, n, 2)) * swell(n, 0.05, 0.1)


def alarm(rng: Rng, n: int) -> Wave:
    """Equal beeps of fixed pitch in a strict rhythm, alone or in groups."""
    pitch = log_uniform(rng, 450, 3800)
    tones = [pitch, pitch * rng.choice([1.0, 1.0, 1.25, 1.5, 0.8])]
    beep, gap = log_uniform(rng, 0.04, 0.4), log_uniform(rng, 0.04, 0.35)
    group, pause = int(rng.integers(1, 5)), rng.uniform(0, 0.6)
    timbre = rolloff(rng, 12, (0.8, 3), odd=0.6)
    m = samples(beep)
    beeps = [harmonics(tone, m, timbre) * swell(m, 0.004, rng.uniform(0.004, 0.05)) for tone in tones]
    out = np.zeros(n, np.float32)
    at, count = 0.0, 0
    while samples(at) < n:
        add_at(out, samples(at), beeps[count % 2])
        count += 1
        at += beep + gap + (pause if count % group == 0 else 0)
    return out


def bell(rng: Rng, n: int) -> Wave:
    """Struck metal: partials out of tune with each other that ring down, the high ones first."""
    pitch = log_uniform(rng, 400, 2800)
    church = np.array([0.5, 1, 1.2, 1.5, 2, 2.5, 2.67, 3, 4, 5.3])
    bar = np.array([1, 2.76, 5.4, 8.93])
    plate = np.sort(rng.uniform(0.5, 9, 10))
    ratios = (church, bar, plate)[rng.integers(3)] * np.exp(rng.normal(0, 0.015, 1))
    partials = pitch * ratios * (1 + rng.normal(0, 0.01, len(ratios)))
    partials = partials[partials < TOP]
    strength = rng.uniform(0.2, 1, len(partials)) * (partials / pitch) ** -rng.uniform(-0.2, 0.6)
    ring, damping = log_uniform(rng, 0.3, 4), rng.uniform(0.1, 0.7)
    click = rng.uniform(0.05, 0.8)
    strike = np.zeros(n, np.float32)
    for frequency, amplitude in zip(partials, strength, strict=True):
        strike += np.float32(amplitude) * sine(frequency, n) * decay(n, ring * (frequency / partials[0]) ** -damping)
    m = min(n, samples(0.03))
    add_at(strike, 0, band(noise(rng, m), 800, 6000) * decay(m, 0.02), click)
    out = np.zeros(n, np.float32)
    for onset in onsets(rng, n, log_uniform(rng, 0.2, 1.2), jitter=rng.uniform(0, 0.4)):
        add_at(out, onset, strike, rng.uniform(0.4, 1))
    return out


SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


def music(rng: Rng, n: int) -> Wave:
    """Notes of one instrument on the degrees of a scale, alone or in thirds, plucked, blown or bowed."""
    base = log_uniform(rng, 90, 450)
    scale = SCALES[rng.integers(len(SCALES))]
    length = log_uniform(rng, 0.12, 1.2)
    timbre = rolloff(rng, 30, (0.6, 2.0))
    attack = log_uniform(rng, 0.004, 0.12)
    plucked, vibrato, chord = rng.random() < 0.5, rng.uniform(0, 0.012), rng.random() < 0.3
    breath = rng.uniform(0, 0.04)
    degree = int(rng.integers(0, len(scale) * 2))
    out = np.zeros(n, np.float32)
    for onset in onsets(rng, n, length):
        m = samples(length * rng.choice([0.5, 1, 1, 1.5]) + 0.05)
        for step in (0, 2) if chord else (0,):
            octave, place = divmod(max(0, degree) + step, len(scale))
            pitch = base * 2 ** (octave + scale[place] / 12)
            wobble = 1 + vibrato * sine(rng.uniform(4, 7), m) * glide(m, [0, 1, 1])
            note = harmonics(np.minimum(pitch * wobble, TOP), m, timbre) + breath * noise(rng, m)
            shape = decay(m, rng.uniform(0.6, 1.2) * max(length, 0.3), attack) if plucked else swell(m, attack, 0.08)
            add_at(out, onset, note * shape * swell(m, 0.001, 0.02), rng.uniform(0.6, 1) * (rng.random() < 0.9))
        degree = int(np.clip(degree + rng.integers(-3, 4), 0, len(scale) * 2))
    return out


def note(rng: Rng, n: int) -> Wave:
    """One held note of the tempered scale, from an instrument made up for it: partials, a body's resonances, breath."""
    pitch = 440 * 2 ** ((int(rng.integers(28, 101)) - 69) / 12) * np.exp(rng.normal(0, 0.004))
    depth = rng.uniform(0.003, 0.012) if rng.random() < 0.35 else 0.0
    vibrato = 1 + depth * sine(rng.uniform(4, 7), n, rng.uniform(0, 6.3)) * glide(n, [0, 1, 1])
    tone = harmonics(pitch * vibrato, n, rolloff(rng, 60, (0.2, 2.2)))
    tone = tone + np.float32(log_uniform(rng, 0.001, 0.1)) * noise(rng, n, rng.uniform(0, 1.5))
    centres = [log_uniform(rng, 200, 5000) for _ in range(3)]
    widths, heights = rng.uniform(100, 1500, 3), rng.uniform(0, 2, 3)
    body = shaped(tone, lambda f: 0.2 + peaks(f, centres, widths, heights))
    attack = log_uniform(rng, 0.003, 0.2)
    if rng.random() < 0.4:
        return body * decay(n, log_uniform(rng, 0.4, 5), attack)
    return body * swell(n, attack, rng.uniform(0.02, 0.3)) * (1 + np.float32(0.2) * wander(rng, n, 3))


def drums(rng: Rng, n: int) -> Wave:
    """A looped pattern on a kit of kick, snare, closed hat and tom."""
    step = 60 / rng.uniform(70, 170) / 4
    m = samples(0.4)
    low = rng.uniform(42, 75)
    kick = sine(low * (1 + rng.uniform(1, 4) * decay(m, 0.08)), m) * decay(m, rng.uniform(0.12, 0.4))
    body = sine(rng.uniform(150, 280), m) * decay(m, 0.12) * rng.uniform(0.2, 1)
    snare = body + band(noise(rng, m), rng.uniform(800, 2000), 7000) * decay(m, rng.uniform(0.1, 0.3)) * 0.5
    hat = band(noise(rng, m), rng.uniform(4000, 6000), 7900, order=3) * decay(m, rng.uniform(0.04, 0.25)) * 0.4
    pitch = rng.uniform(80, 220)
    tom = sine(pitch * (1 + 0.6 * decay(m, 0.1)), m) * decay(m, rng.uniform(0.2, 0.4))
    kit = (kick, snare, hat, tom)
    # Chances per sixteenth: on the beat, on the eighth between, elsewhere.
    chances = np.array([[0.7, 0.2, 0.1], [0.35, 0.15, 0.08], [0.8, 0.6, 0.2], [0.08, 0.08, 0.06]])
    place = np.array([0, 2, 1, 2] * 4)
    pattern = rng.random((4, 16)) < chances[:, place]
    pattern[int(rng.integers(4)), 0] = True
    gains = rng.uniform(0.3, 1, 4)
    out = np.zeros(n, np.float32)
    first = int(rng.integers(16))
    for tick, onset in enumerate(onsets(rng, n, step, jitter=rng.uniform(0, 0.15))):
        for part in range(4):
            if pattern[part, (tick + first) % 16] or (tick == 0 and part == 0):
                add_at(out, onset, kit[part], gains[part] * rng.uniform(0.7, 1))
    return out


# Machines, weather and steps -------------------------------------------------------------------------------------


def engine(rng: Rng, n: int) -> Wave:
    """Explosions in a row at the speed of the motor, uneven from cylinder to cylinder, through an exhaust pipe."""
    cylinders = int(rng.integers(1, 9))
    revolution = log_uniform(rng, 6, 28) * glide(n, np.exp(rng.uniform(-0.25, 0.25, int(rng.integers(2, 5)))))
    revolution = revolution * (1 + 0.02 * wander(rng, n, 8))
    k = np.arange(1, 61)
    uneven = rng.uniform(0.05, 0.5)
    strength = k ** -rng.uniform(0.2, 1.1) * np.where(k % cylinders == 0, 1.0, uneven) * rng.uniform(0.3, 1, 60)
    beat = harmonics(revolution, n, strength * rng.choice([-1, 1], 60))
    beat = to_rms(beat, 1.0)
    puff = noise(rng, n, rng.uniform(0, 1)) * np.clip(beat, 0, 3)
    mixed = beat + rng.uniform(0.1, 1.2) * puff
    centres, widths = (
        np.sort(rng.uniform([60, 200, 800], [250, 900, 3500])),
        rng.uniform([50, 100, 300], [200, 500, 2000]),
    )
    heights = rng.uniform([0.3, 0.3, 0.1], [1, 1, 0.7])
    return shaped(mixed, lambda f: peaks(f, centres, widths, heights)) * swell(n, 0.1, 0.15)


def water(rng: Rng, n: int) -> Wave:
    """Rain, a stream or drips: bursts without rhythm, from dense to sparse, over a rustle."""
    per_second = log_uniform(rng, 4, 600)
    count = max(1, int(rng.poisson(per_second * n / RATE)))
    drops = np.zeros(n, np.float32)
    np.add.at(drops, rng.integers(n, size=count), rng.exponential(1, count).astype(np.float32))
    low = log_uniform(rng, 700, 4000)
    out = to_rms(band(drops, low, min(7500, low * rng.uniform(2, 6))), rng.uniform(0.2, 1))
    # A bubble rings at a pitch that rises while it bursts.
    m = samples(0.05)
    size = log_uniform(rng, 400, 1800)
    envelope = swell(m, 0.002, 0.03) * decay(m, rng.uniform(0.03, 0.12))
    for onset in rng.integers(n, size=min(150, int(rng.poisson(per_second * rng.uniform(0.05, 0.4) * n / RATE)) + 1)):
        pitch = size * np.exp(rng.normal(0, 0.4))
        ring = sine(min(pitch, 3500) * glide(m, [1, rng.uniform(1.1, 1.8)]), m)
        add_at(out, int(onset), ring * envelope, rng.exponential(2))
    rustle = noise(rng, n, rng.uniform(-0.3, 0.8)) * (1 + 0.3 * wander(rng, n, 3))
    return out + np.float32(rng.uniform(0, 0.8)) * rustle * swell(n, 0.1, 0.1)


def footsteps(rng: Rng, n: int) -> Wave:
    """Steps or knocks: short dull blows in a walker's rhythm, left and right not quite alike."""
    interval = log_uniform(rng, 0.16, 0.75)
    low, bright = log_uniform(rng, 60, 350), log_uniform(rng, 600, 5000)
    resonance, width = log_uniform(rng, 100, 900), rng.uniform(60, 400)
    length, scuff, second = rng.uniform(0.04, 0.25), rng.uniform(0.05, 0.9), rng.uniform(0, 0.8)
    lag = samples(rng.uniform(0.04, 0.12))
    m = samples(0.3)
    out = np.zeros(n, np.float32)
    for count, onset in enumerate(onsets(rng, n, interval, jitter=0.12)):
        side = 1 + 0.15 * (count % 2)
        heel = noise(rng, m) * decay(m, length)
        heel = shaped(heel, lambda f, s=side: peaks(f, [low * s, resonance * s], [low, width], [1, 0.5]))  # type: ignore[misc]
        grain = band(noise(rng, m), bright * 0.5, bright * 2) * decay(m, length * 1.5, attack=0.01)
        step = to_rms(heel, 1.0) + scuff * to_rms(grain, 1.0)
        strength = rng.uniform(0.6, 1)
        add_at(out, onset, step, strength)
        add_at(out, onset + lag, step, strength * second * 0.5)
    return out


def wind(rng: Rng, n: int) -> Wave:
    """Gusts: noise whose loudness and resonances drift slowly, at times a whistle."""
    centre = log_uniform(rng, 150, 1500)
    drift = wander(rng, n, rng.uniform(0.5, 2.5))
    howl = rng.uniform(0, 1)
    sharp = log_uniform(rng, 30, 500)
    times = np.linspace(0, 1, n, dtype=np.float32)

    def moving(at: Wave, f: Wave) -> Wave:
        pitch = centre * np.exp(0.5 * np.interp(at, times, drift))[:, None]
        return peaks(f, pitch, np.full_like(pitch, sharp), np.ones_like(pitch)) * np.float32(howl) + np.float32(0.1)

    gust = np.exp(1.2 * drift + 0.5 * wander(rng, n, 4))
    blown = filtered_over_time(noise(rng, n, rng.uniform(0.5, 2)), moving)
    return (blown * swell(n, 0.2, 0.2) * gust).astype(np.float32)


SOURCES = (
    Source("dog_bark", (0.5, 2.5), dog_bark),
    Source("siren", (0.8, 3.0), siren),
    Source("drums", (1.0, 3.0), drums),
    Source("bell", (0.8, 2.5), bell),
    Source("bird", (0.6, 2.5), bird),
    Source("engine", (1.0, 3.0), engine),
    Source("speech", (0.8, 3.0), speech),
    Source("water", (1.0, 3.0), water),
    Source("music", (0.8, 3.0), music),
    Source("footsteps", (1.0, 3.0), footsteps),
    Source("alarm", (0.6, 2.5), alarm),
    Source("wind", (1.2, 3.0), wind),
    Source("note", (0.4, 3.0), note),
)
