"""Event-, segment- and intersection-based scores: what counts as found, and what follows from the counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from auricle.errors import ConfigError, DataError
from auricle.metrics import (
    Collars,
    Detection,
    FrameScores,
    best_collar_f1,
    collar_counts,
    detect_events,
    intersection_counts,
    median_filter,
    segment_counts,
)
from auricle.metrics.event_matching import maximum_matching

CLASSES = ("bell", "dog")
COUNTERS = (collar_counts, segment_counts, intersection_counts)


def event(onset: float, offset: float, label: str = "dog") -> Detection:
    return Detection(onset, offset, label, 1.0)


def f1(counter: object, truth: list[Detection], detected: list[Detection]) -> float:
    return float(counter([truth], [detected], CLASSES).micro_f1())  # type: ignore[operator]


@pytest.mark.parametrize("counter", COUNTERS)
def test_the_truth_finds_itself(counter: object) -> None:
    events = [event(0.0, 0.4), event(0.3, 1.7), event(2.0, 5.0, "bell"), event(9.0, 10.0)]
    assert f1(counter, events, events) == 1
    assert f1(counter, events, list(reversed(events))) == 1


@pytest.mark.parametrize("counter", COUNTERS)
def test_nothing_there_and_nothing_found_is_undefined_and_left_out(counter: object) -> None:
    empty = counter([[]], [[]], CLASSES)  # type: ignore[operator]
    assert math.isnan(empty.micro_f1())
    assert math.isnan(empty.macro_f1())
    assert math.isnan(empty.error_rate())
    one = counter([[event(1, 2)]], [[event(1, 2)]], CLASSES)  # type: ignore[operator]
    assert one.macro_f1() == 1
    assert np.isnan([one.class_f1()[0], one.class_precision()[0], one.class_recall()[0]]).all()
    assert [one.class_f1(empty=0.5)[0], one.class_precision(empty=0.5)[0], one.class_recall(empty=0.5)[0]] == [0.5] * 3


@pytest.mark.parametrize("counter", COUNTERS)
def test_missing_all_and_making_up_all_score_zero(counter: object) -> None:
    assert f1(counter, [event(1, 2)], []) == 0
    assert f1(counter, [], [event(1, 2)]) == 0
    only_predicted = counter([[event(1, 2)]], [[event(1, 2), event(4, 5, "bell")]], CLASSES)  # type: ignore[operator]
    assert only_predicted.class_f1().tolist() == [0, 1]
    assert only_predicted.macro_f1() == 0.5
    assert only_predicted.macro_f1(only_found=True) == 1


@pytest.mark.parametrize(
    "found, right",
    [
        (event(1.2, 2.0), True),
        (event(0.8, 2.2), True),
        (event(1.21, 2.0), False),
        (event(1.0, 2.21), False),
        (event(1.0, 2.0, "bell"), False),
    ],
)
def test_collars_are_200_ms_on_both_sides(found: Detection, right: bool) -> None:
    assert f1(collar_counts, [event(1.0, 2.0)], [found]) == right


def test_the_offset_of_a_long_event_may_be_off_by_a_fifth_of_its_length() -> None:
    assert f1(collar_counts, [event(1.0, 6.0)], [event(1.0, 5.0)]) == 1
    assert f1(collar_counts, [event(1.0, 6.0)], [event(1.0, 4.9)]) == 0
    # Of the detection's length it would be allowed.
    assert f1(collar_counts, [event(0.0, 4.0)], [event(0.0, 5.0)]) == 0
    tight = Collars(0.01, 0.01, 0.0)
    assert collar_counts([[event(1, 2)]], [[event(1.02, 2)]], CLASSES, collars=tight).micro_f1() == 0


def test_one_event_is_found_once() -> None:
    counts = collar_counts([[event(1, 2)]], [[event(1, 2), event(1.1, 2.1)]], CLASSES)
    assert (counts.hits.sum(), counts.false_alarms.sum()) == (1, 1)


def test_events_and_detections_are_paired_as_well_as_possible() -> None:
    # The first detection is near both events, the second near the first event only.
    truth, found = [event(1.0, 2.0), event(1.3, 2.2)], [event(1.15, 2.1), event(0.85, 1.9)]
    assert f1(collar_counts, truth, found) == 1
    assert maximum_matching(np.array([[True, True], [True, False]])).tolist() == [1, 0]
    assert maximum_matching(np.zeros((2, 0), dtype=bool)).tolist() == [-1, -1]


def test_no_pairing_is_larger() -> None:
    def largest(allowed: np.ndarray) -> int:
        if not len(allowed):
            return 0
        rest = allowed[1:].copy()
        sizes = [largest(rest)]
        for column in np.flatnonzero(allowed[0]):
            others = rest.copy()
            others[:, column] = False
            sizes.append(1 + largest(others))
        return max(sizes)

    rng = np.random.default_rng(0)
    for _ in range(50):
        allowed = rng.random((5, 4)) < rng.random()
        partner = maximum_matching(allowed)
        pairs = [(row, column) for row, column in enumerate(partner.tolist()) if column >= 0]
        assert all(allowed[pair] for pair in pairs)
        assert len({column for _, column in pairs}) == len(pairs) == largest(allowed)


def test_thousands_of_dense_events_in_a_file_are_paired() -> None:
    # A trill, heard 50 ms early: each event is near its neighbours' detections too, so that all of them depend on all.
    truth = [event(1 + 0.15 * n, 1.05 + 0.15 * n) for n in range(2000)]
    early = [event(e.onset - 0.05, e.offset - 0.05) for e in truth]
    counts = collar_counts([truth], [early], CLASSES)
    assert (counts.hits.sum(), counts.false_alarms.sum()) == (2000, 0)


def test_a_threshold_is_found_for_thousands_of_dense_events() -> None:
    truth = [event(1 + 0.16 * n, 1.08 + 0.16 * n) for n in range(1500)]
    edges = np.arange(round(250 / 0.02) + 1) * 0.02
    values = np.full((len(edges) - 1, 1), 0.1)
    for e in truth:
        first = round((e.onset - 0.06) / 0.02)
        values[first : first + 4] = 0.9
    counts, limits = best_collar_f1([truth], [FrameScores(values, edges)], ("dog",), thresholds=[0.05, 0.3, 0.5, 0.95])
    assert counts.hits.sum() == 1500
    assert 0.1 < limits[0] < 0.9


def test_a_wrong_name_is_one_error_not_two() -> None:
    counts = collar_counts([[event(1, 2), event(5, 6)]], [[event(1.1, 2, "bell")]], CLASSES)
    assert counts.substitutions is not None
    assert counts.substitutions.tolist() == [1]
    assert counts.error_rate() == 1.0  # one substitution and one miss of two events
    segments = segment_counts([[event(1, 2), event(5, 6)]], [[event(1.1, 2, "bell")]], CLASSES)
    assert segments.error_rate() == 1.0
    many = collar_counts([[event(1, 2)]], [[event(x, x + 1) for x in (3, 5, 7)]], CLASSES)
    assert many.error_rate() == 4.0


def test_a_segment_is_active_if_an_event_touches_it() -> None:
    counts = segment_counts([[event(0.5, 1.5), event(1.2, 1.4)]], [[event(1.0, 2.0)]], CLASSES)
    assert (counts.truth.sum(), counts.hits.sum(), counts.false_alarms.sum()) == (2, 1, 0)
    # 0.1 + 0.2 is a little above 0.3, which is not enough to touch the next segment.
    assert segment_counts([[event(0.0, 0.1 + 0.2)]], [[]], CLASSES, seconds=0.1).truth.sum() == 3


def test_intersections_add_up_over_detections_and_over_events() -> None:
    # Two halves cover an event; a detection over two events passes if they fill half of it together.
    assert f1(intersection_counts, [event(0, 4)], [event(0, 1), event(2, 3)]) == 1
    assert f1(intersection_counts, [event(0, 4)], [event(0, 1.9)]) == 0
    assert f1(intersection_counts, [event(0, 1), event(3, 4)], [event(0, 4)]) == 1
    assert f1(intersection_counts, [event(0, 1), event(3.1, 4)], [event(0, 4)]) == 0


@pytest.mark.parametrize("counter", COUNTERS)
def test_bad_events_are_named(counter: object) -> None:
    with pytest.raises(DataError, match=r"detections: 'cat' in file 0"):
        f1(counter, [], [event(1, 2, "cat")])
    with pytest.raises(DataError, match="must end after its onset"):
        f1(counter, [event(2, 2)], [])
    with pytest.raises(DataError, match="as many files"):
        counter([[]], [[], []], CLASSES)  # type: ignore[operator]


def test_impossible_criteria_are_refused() -> None:
    with pytest.raises(ConfigError, match="collar"):
        collar_counts([[]], [[event(1, 2)]], CLASSES, collars=Collars(-0.1))
    with pytest.raises(ConfigError, match="segments"):
        segment_counts([[]], [[]], CLASSES, seconds=0)
    with pytest.raises(ConfigError, match="dtc"):
        intersection_counts([[]], [[]], CLASSES, dtc=1.5)


@pytest.mark.parametrize("counter", COUNTERS)
def test_intervals_are_over_files_and_hold_the_scores(counter: object) -> None:
    rng = np.random.default_rng(3)
    truth = [[event(t, t + 0.9, CLASSES[rng.integers(2)]) for t in (1.0, 4.0, 7.0)] for _ in range(12)]
    found = [[e for e in events if rng.random() < 0.7] for events in truth]
    counts = counter(truth, found, CLASSES)  # type: ignore[operator]
    intervals = counts.intervals(n=300)
    assert intervals["micro_f1"].value == counts.micro_f1()
    assert all(low < value < high for value, low, high in intervals.values())
    assert ("error_rate" in intervals) == (counter is not intersection_counts)
    draws = np.array([2.0, 0, 1] + [0.0] * 9)
    repeated = counter([truth[i] for i in (0, 0, 2)], [found[i] for i in (0, 0, 2)], CLASSES)  # type: ignore[operator]
    assert counts.macro_f1(draws) == pytest.approx(repeated.macro_f1())


def test_scores_become_events_above_their_thresholds() -> None:
    values = np.array([[0.9, 0.1], [0.9, 0.6], [0.5, 0.7], [0.9, 0.2]])
    found = detect_events(FrameScores(values, np.arange(5) / 10), CLASSES, (0.5, 0.4))
    assert [(e.label, e.onset, e.offset) for e in found] == [
        ("bell", 0.0, 0.2),
        ("bell", pytest.approx(0.3), 0.4),
        ("dog", 0.1, pytest.approx(0.3)),
    ]
    assert found[2].score == pytest.approx(0.65)
    assert detect_events(FrameScores(values, np.arange(5.0)), CLASSES, 1.0) == []
    with pytest.raises(DataError, match="2 columns"):
        detect_events(FrameScores(values, np.arange(5.0)), CLASSES, (0.5, 0.5, 0.5))
    with pytest.raises(DataError, match="rising times"):
        FrameScores(values, np.arange(4.0))


@pytest.mark.parametrize("length", [1, 2, 5, 8, 41])
def test_median_filter_is_the_middle_of_a_mirrored_window(length: int) -> None:
    values = np.random.default_rng(0).random((17, 2))
    ends = np.concatenate([values[::-1], values] * 3)
    start = 3 * 17 - length // 2
    naive = [np.sort(ends[start + t : start + t + length], axis=0)[length // 2] for t in range(17)]
    assert median_filter(values, length).tolist() == np.array(naive).tolist()
    above = median_filter((values > 0.5).astype(float), length)
    assert (above == (median_filter(values, length) > 0.5)).all()


def test_median_filter_takes_a_length_for_each_class() -> None:
    values = np.random.default_rng(0).random((17, 2))
    both = median_filter(values, [1, 7])
    assert both[:, 0].tolist() == values[:, 0].tolist()
    assert both[:, 1].tolist() == median_filter(values, 7)[:, 1].tolist()
    with pytest.raises(ConfigError, match="2 lengths"):
        median_filter(values, [1, 2, 3])
    with pytest.raises(ConfigError, match="1 frame or more"):
        median_filter(values, 0)


def test_the_best_threshold_is_that_of_a_search_over_all_of_them() -> None:
    rng = np.random.default_rng(4)
    values = [np.round(np.convolve(rng.random(60), np.ones(9) / 9, "same")[:, None], 2) for _ in range(4)]
    scores = [FrameScores(v, np.arange(61) / 5) for v in values]
    truth = [[event(t, t + 2, "dog") for t in rng.uniform(0, 10, 2)] for _ in range(4)]
    for value, events in zip(values, truth, strict=True):
        for e in events:
            value[int(e.onset * 5) : int(e.offset * 5)] += 0.15
    best, thresholds = best_collar_f1(truth, scores, ("dog",), Collars(0.6, 0.6))
    grid = np.arange(0.005, 1, 0.01)
    each = [
        collar_counts(truth, [detect_events(s, ("dog",), t) for s in scores], ("dog",), collars=Collars(0.6, 0.6))
        for t in grid
    ]
    reached = np.array([counts.micro_f1() for counts in each])
    assert best.class_f1()[0] == reached.max() > 0.2
    highest = grid[np.flatnonzero(reached == reached.max())[-1]]
    between = (grid > thresholds[0]) & (grid <= highest)
    assert (reached[between] == reached.max()).all()
    found = [detect_events(s, ("dog",), thresholds[0]) for s in scores]
    assert collar_counts(truth, found, ("dog",), collars=Collars(0.6, 0.6)).micro_f1() == reached.max()


def test_a_class_that_nothing_finds_gets_no_threshold() -> None:
    scores = [FrameScores(np.full((10, 1), 0.3), np.arange(11.0))]
    best, thresholds = best_collar_f1([[event(3.0, 4.0)]], scores, ("dog",))
    assert thresholds.tolist() == [math.inf]
    assert best.class_f1().tolist() == [0]
