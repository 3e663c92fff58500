"""PSDS against a direct computation from its definition, and its behaviour at the edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from auricle.errors import ConfigError, DataError
from auricle.metrics import PSDS, PSDS1, PSDS2, Criteria, Detection, FrameScores, Scenario, detect_events
from auricle.metrics import operating_points as points

CLASSES = ("bell", "dog", "rain")
EDGES = np.arange(101) / 10
Files = list[list[Detection]]


def event(onset: float, offset: float, label: str) -> Detection:
    return Detection(onset, offset, label, 1.0)


def made(files: int, seed: int) -> tuple[Files, list[FrameScores]]:
    """Events, and scores that know a little of them; class "rain" never sounds if the seed is odd."""
    rng = np.random.default_rng(seed)
    truth, scores = [], []
    for _ in range(files):
        names = CLASSES[: 2 if seed % 2 else 3]
        events = [event(t, t + rng.uniform(0.5, 3), names[rng.integers(len(names))]) for t in rng.uniform(0, 7, 3)]
        noise = np.stack([np.convolve(x, np.ones(8) / 8, "same") for x in rng.random((3, 100))], axis=1)
        for e in events:
            noise[int(e.onset * 10) : int(e.offset * 10) + 2, CLASSES.index(e.label)] += 0.2
        truth.append(events)
        scores.append(FrameScores(np.round(noise, 2), EDGES))
    return truth, scores


def overlap(a: Detection, b: Detection) -> float:
    return max(0.0, min(a.offset, b.offset) - max(a.onset, b.onset))


def written_out(truth: Files, scores: list[FrameScores], scenario: Scenario) -> float:
    """PSDS by the words of its paper, threshold by threshold; coverage is rounded as the reference does."""
    dtc, gtc, cttc = scenario.criteria
    hours = len(truth) * 10 / 3600
    sounding = {c: sum(e.offset - e.onset for f in truth for e in f if e.label == c) / 3600 for c in CLASSES}
    stairs = []
    for c in [name for name in CLASSES if sounding[name]]:
        stair = [(0.0, 0.0)]
        for level in np.arange(-0.005, 2, 0.01):
            hits = false_alarms = 0
            crossed = dict.fromkeys(CLASSES, 0)
            for events, clip in zip(truth, scores, strict=True):
                found = [d for d in detect_events(clip, CLASSES, level) if d.label == c]
                own = [e for e in events if e.label == c]
                good = [d for d in found if round(sum(overlap(d, e) for e in own), 6) >= dtc * (d.offset - d.onset)]
                hits += sum(round(sum(overlap(d, e) for d in good), 6) >= gtc * (e.offset - e.onset) for e in own)
                false_alarms += len(found) - len(good)
                for d, other in itertools.product(found, CLASSES):
                    if d not in good and other != c and cttc:
                        share = round(sum(overlap(d, e) for e in events if e.label == other), 6)
                        crossed[other] += share >= cttc * (d.offset - d.onset)
            others = [crossed[o] / sounding[o] for o in CLASSES if o != c and sounding[o]]
            rate = false_alarms / hours + scenario.cross_weight * (float(np.mean(others)) if others else 0.0)
            stair.append((rate, hits / sum(e.label == c for f in truth for e in f)))
        stairs.append(stair)
    area, rates = 0.0, sorted({rate for stair in stairs for rate, _ in stair if rate < scenario.max_rate})
    for rate, following in itertools.pairwise([*rates, scenario.max_rate]):
        shares = [max(found for at, found in stair if at <= rate) for stair in stairs]
        area += max(0.0, float(np.mean(shares) - scenario.spread_weight * np.std(shares))) * (following - rate)
    return area / scenario.max_rate


LOOSE = Scenario(Criteria(0.3, 0.3, 0.2), cross_weight=0.7, spread_weight=0.5, max_rate=2000)


@pytest.mark.parametrize("scenario", [PSDS1, PSDS2, LOOSE], ids=["psds1", "psds2", "loose"])
@pytest.mark.parametrize("seed", [0, 1])
def test_psds_is_what_its_definition_says(scenario: Scenario, seed: int) -> None:
    truth, scores = made(3, seed)
    assert PSDS(truth, scores, [10] * 3, CLASSES, scenario).score().value == pytest.approx(
        written_out(truth, scores, scenario), abs=1e-9
    )


@pytest.mark.parametrize("scenario", [PSDS1, PSDS2], ids=["psds1", "psds2"])
def test_knowing_all_is_one_and_knowing_nothing_is_zero(scenario: Scenario) -> None:
    truth = [[event(1, 3, "bell"), event(0, 2, "dog")], [event(5, 10, "rain"), event(8, 9, "dog")]]
    exact = np.zeros((2, 100, 3))
    for n, events in enumerate(truth):
        for e in events:
            exact[n, int(e.onset * 10) : int(e.offset * 10), CLASSES.index(e.label)] = 0.8
    perfect = PSDS(truth, [FrameScores(x, EDGES) for x in exact], [10, 10], CLASSES, scenario).score()
    assert perfect.value == 1
    assert perfect.per_class.tolist() == [1, 1, 1]
    silent = PSDS(truth, [FrameScores(0 * x, EDGES) for x in exact], [10, 10], CLASSES, scenario, [0.5]).score()
    assert silent.value == 0


def test_half_of_the_classes_alike_and_the_rest_never_found_is_exactly_zero() -> None:
    # The mean share over classes is then its spread, 0.4, but for rounding.
    classes = tuple("abcdef")
    truth = [[event(2 * i, 2 * i + 1, name) for i in range(5) for name in classes]]
    values = np.zeros((100, 6))
    for i in range(4):
        values[20 * i : 20 * i + 10, :3] = 1.0
    found = PSDS(truth, [FrameScores(values, EDGES)], [10], classes, thresholds=[0.5]).score()
    assert found.per_class.tolist() == [0.8] * 3 + [0.0] * 3
    assert found.value == 0.0


def test_without_any_event_the_score_is_undefined() -> None:
    found = PSDS([[]], [FrameScores(np.random.default_rng(0).random((100, 3)), EDGES)], [10], CLASSES).score()
    assert math.isnan(found.value)
    assert np.isnan(found.per_class).all()


@pytest.mark.parametrize("scenario", [PSDS1, LOOSE], ids=["psds1", "loose"])
def test_a_draw_of_files_scores_as_those_files(scenario: Scenario) -> None:
    truth, scores = made(4, 2)
    whole = PSDS(truth, scores, [10, 10, 12, 10], CLASSES, scenario)
    drawn = [0, 0, 2]
    again = PSDS([truth[i] for i in drawn], [scores[i] for i in drawn], [10, 10, 12], CLASSES, scenario).score()
    assert whole.score(np.array([2.0, 0, 1, 0])).value == pytest.approx(again.value)


def test_the_interval_holds_the_score_and_repeats() -> None:
    truth, scores = made(8, 0)
    psds = PSDS(truth, scores, [10] * 8, CLASSES, LOOSE)
    interval, resamples = psds.interval(n=200)
    assert resamples == 200
    assert interval.low < psds.score().value == interval.value < interval.high
    assert psds.interval(n=200)[0] == interval


def test_given_thresholds_are_the_only_operating_points() -> None:
    truth, scores = made(3, 0)
    every = PSDS(truth, scores, [10] * 3, CLASSES, LOOSE)
    grid = PSDS(truth, scores, [10] * 3, CLASSES, LOOSE, np.arange(-0.005, 2, 0.01))
    few = PSDS(truth, scores, [10] * 3, CLASSES, LOOSE, [0.4, 0.6])
    assert grid.score().value == pytest.approx(every.score().value)
    assert few.score().value < every.score().value


def test_curves_of_long_files_keep_few_of_many_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, scores = made(3, 0)
    every = PSDS(truth, scores, [10] * 3, CLASSES, LOOSE).score().value
    monkeypatch.setattr(points, "_CELLS", 500)
    assert PSDS(truth, scores, [10] * 3, CLASSES, LOOSE).score().value == every
    monkeypatch.setattr(points, "MOST_PER_FILE", 20)
    thinned = PSDS(truth, scores, [10] * 3, CLASSES, LOOSE)
    assert max(len(curve.thresholds) for curve in thinned.curves) <= 60
    assert every - 0.1 < thinned.score().value < every


def test_bad_input_is_named() -> None:
    truth, scores = made(2, 0)
    with pytest.raises(DataError, match="duration of every file"):
        PSDS(truth, scores, [10], CLASSES)
    with pytest.raises(DataError, match="2 classes, but frame scores with 3"):
        PSDS(truth, scores, [10, 10], CLASSES[:2])
    with pytest.raises(DataError, match="'dog' in file"):
        PSDS([[event(1, 2, "dog")]] * 2, scores, [10, 10], ("a", "b", "c"))
    with pytest.raises(ConfigError, match="cttc"):
        Scenario(Criteria(0.5, 0.5), cross_weight=0.5)
