"""The picture of a detection over time."""

from __future__ import annotations

import numpy as np

from auricle.evaluation.style import png
from auricle.evaluation.timeline import MOST_CLASSES, log_mel, timeline

EDGES = np.arange(51) / 10
EVENTS, FOUND = [[0.5, 1.5, "bell"]], [[0.6, 1.4, "bell", 0.8], [3.0, 4.0, "dog", 0.6]]


def lanes(figure: object) -> list[str]:
    axes = figure.axes[-1]  # type: ignore[attr-defined]
    return [label.get_text() for label in axes.get_yticklabels()]


def test_classes_that_sound_or_are_found_or_likely_have_a_lane() -> None:
    values = np.zeros((50, 4))
    values[10:20, 3] = 0.4
    figure = timeline(None, EVENTS, FOUND, EDGES, values, ("bell", "cat", "dog", "rain"))
    assert lanes(figure) == ["bell", "dog", "rain"]
    assert len(figure.axes) == 2
    assert len(figure.axes[0].patches) == 3
    assert png(figure) == png(timeline(None, EVENTS, FOUND, EDGES, values, ("bell", "cat", "dog", "rain")))


def test_the_spectrogram_stands_above_on_the_same_seconds() -> None:
    wave = np.random.default_rng(0).standard_normal(16000 * 5).astype(np.float32)
    figure = timeline(log_mel(wave), EVENTS, FOUND, EDGES, np.zeros((50, 2)), ("bell", "dog"))
    assert len(figure.axes) == 3
    assert figure.axes[0].get_images()[0].get_extent()[:2] == [0.0, 5.0]
    assert figure.axes[-1].get_xlim() == (0.0, 5.0)


def test_many_classes_are_cut_to_those_that_matter() -> None:
    names = tuple(f"class {n}" for n in range(60))
    values = np.full((50, 60), 0.5)
    events = [[1.0, 2.0, "class 59"]]
    shown = lanes(timeline(None, events, [], EDGES, values, names))
    assert len(shown) == MOST_CLASSES
    assert "class 59" in shown


def test_what_sounds_has_a_lane_however_much_is_found() -> None:
    names = [f"class {number:02}" for number in range(60)]
    probabilities = np.full((2, 60), 0.9)
    probabilities[:, 57] = 0.1
    found = [(0.0, 1.0, name, 0.9) for name in names if name != "class 57"]
    shown = lanes(timeline(None, [(0.0, 1.0, "class 57")], found, [0.0, 1.0, 2.0], probabilities, names))
    assert len(shown) == MOST_CLASSES
    assert "class 57" in shown


def test_a_clip_in_which_nothing_sounds_is_said_to_be_so() -> None:
    assert len(timeline(None, [], [], EDGES, np.zeros((50, 2)), ("bell", "dog")).axes) == 0
    assert len(timeline(None, [], [], [0.0], np.zeros((0, 2)), ("bell", "dog")).axes) == 0
