"""Scenes: sounds of one kind, or of many, somewhere in a background, heard in a room through a channel.

A scene is a pure function of `(seed, index)` and of its length and number of classes: planned first (what, when, how
loud), which costs nothing, then rendered. The label of a clip is in neither its name nor its level nor its background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auricle.data.items import Event
from auricle.data.randomness import generator
from auricle.data.synth.dsp import RATE, Wave, add_at, rms, samples, to_rms
from auricle.data.synth.sources import SOURCES, Source
from auricle.data.synth.surroundings import BACKGROUNDS, reverberated, through_channel

# Part of every clip's `source`; to be raised with any change that is audible.
GENERATOR = 2
# Of three rounds through all classes, one is for test.
ROUNDS, TEST_ROUND = 3, 1
SNR_DB = (-3.0, 15.0)
KINDS = tuple(source.name for source in SOURCES)
LEVEL_DB = (-35.0, -16.0)
REVERB_CHANCE = 0.5
BY_NAME = {source.name: source for source in SOURCES}


@dataclass(frozen=True)
class Sound:
    """A source that sounds for `length` samples from sample `onset` on, `gain` (dB) against the other sounds."""

    name: str
    onset: int
    length: int
    gain: float


@dataclass(frozen=True)
class Scene:
    """The plan of a clip; `label` and `split` are empty in a scene without classes.

    `snr` (dB) is the level of the sounds, while they last and with their reverberation, over that of the background,
    before the channel.
    """

    seed: int
    index: int
    samples: int
    split: str
    label: str
    sounds: tuple[Sound, ...]
    background: str
    snr: float

    @property
    def source(self) -> str:
        """The key that makes this clip again."""
        return f"synth{GENERATOR}-{self.seed}-{self.index}"

    @property
    def events(self) -> tuple[Event, ...]:
        """Onset, offset (seconds, to the millisecond) and name of every sound, in time order."""
        return tuple(
            sorted(
                Event(round(sound.onset / RATE, 3), round((sound.onset + sound.length) / RATE, 3), sound.name)
                for sound in self.sounds
            )
        )


def plan(
    seed: int,
    index: int,
    seconds: float,
    classes: int | None,
    kinds: Sequence[str] = KINDS,
    snr_db: tuple[float, float] = SNR_DB,
) -> Scene:
    """What is heard in clip `index`.

    Args:
        classes: the first so many of SOURCES; the clip holds sounds of one of them, which do not overlap. None: sounds
            of any of `kinds`, which may overlap, and no label.
        kinds: names of SOURCES; one that is named twice is heard twice as often.
        snr_db: the range that `Scene.snr` is drawn from.
    """
    rng = generator(seed, "synth.plan", index)
    n = samples(seconds)
    background = str(rng.choice(list(BACKGROUNDS)))
    snr = round(float(rng.uniform(*snr_db)), 1)
    if classes is None:
        sounds = _anything(rng, n, [BY_NAME[kind] for kind in kinds])
        return Scene(seed, index, n, "", "", sounds, background, snr)
    turn, place = divmod(index, classes)
    order = generator(seed, "synth.labels", turn).permutation(classes)
    source = SOURCES[order[place]]
    split = "test" if turn % ROUNDS == TEST_ROUND else "train"
    return Scene(seed, index, n, split, source.name, _in_turn(rng, n, source), background, snr)


def parts(scene: Scene) -> tuple[Wave, Wave]:
    """The sounds and the background of a clip, float32 `(samples,)` each, as their sum enters the channel."""
    sounds, active = np.zeros(scene.samples, np.float32), np.zeros(scene.samples, bool)
    for count, sound in enumerate(scene.sounds):
        rng = generator(scene.seed, "synth.sound", scene.index, count)
        wave = to_rms(BY_NAME[sound.name].render(rng, sound.length), 1.0)
        add_at(sounds, sound.onset, wave, 10 ** (sound.gain / 20))
        active[sound.onset : sound.onset + sound.length] = True
    rng = generator(scene.seed, "synth.room", scene.index)
    if rng.random() < REVERB_CHANCE:
        sounds = reverberated(rng, sounds)
    sounds *= np.float32(10 ** (scene.snr / 20) / max(rms(sounds[active]), 1e-9))
    rng = generator(scene.seed, "synth.background", scene.index)
    return sounds, to_rms(BACKGROUNDS[scene.background](rng, scene.samples), 1.0)


def render(scene: Scene) -> Wave:
    """The clip as float32 `(samples,)` at 16 kHz, within -1..1."""
    sounds, background = parts(scene)
    heard = through_channel(generator(scene.seed, "synth.channel", scene.index), sounds + background)
    rng = generator(scene.seed, "synth.level", scene.index)
    heard = to_rms(heard, 10 ** (rng.uniform(*LEVEL_DB) / 20))
    return heard / np.float32(max(1.0, float(np.abs(heard).max()) / 0.99))


def _in_turn(rng: np.random.Generator, n: int, source: Source) -> tuple[Sound, ...]:
    """One sound or more of `source`, each within a part of the clip of its own."""
    count = int(rng.integers(1, max(2, 1 + n // (2 * RATE))))
    part = n // count
    sounds = []
    for start in range(0, count * part, part):
        length = min(part, samples(rng.uniform(*source.seconds)))
        onset = start + int(rng.integers(part - length + 1))
        sounds.append(Sound(source.name, onset, length, round(float(rng.uniform(-3, 3)), 1)))
    return tuple(sounds)


def _anything(rng: np.random.Generator, n: int, sources: Sequence[Source]) -> tuple[Sound, ...]:
    count = 1 + int(rng.poisson(n / RATE / 2))
    sounds = []
    for _ in range(count):
        source = sources[int(rng.integers(len(sources)))]
        length = min(n, samples(rng.uniform(*source.seconds)))
        onset = int(rng.integers(n - length + 1))
        sounds.append(Sound(source.name, onset, length, round(float(rng.uniform(-9, 9)), 1)))
    return tuple(sounds)
