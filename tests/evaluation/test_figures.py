"""Pictures show what they are given, at every size, without a warning (warnings are errors in this suite)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from auricle.errors import DataError
from auricle.evaluation import figures, maps, spectrograms, style
from auricle.metrics import Bin

ODD_LABELS = [
    "plain",
    "$not_math^{",
    "two\nlines",
    "_leading underscore",
    "鳥の声 🐦 \udcff \x00",
    "a label so long that it would push everything else off the page",
    "",
    "100 % & <b>",
]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def panels_of(figure: Figure) -> list[Any]:
    """The axes, untyped: matplotlib's artists are too loosely typed to look into."""
    return list(figure.axes)


def history(steps: int, keys: Sequence[str] = ("loss", "val_loss")) -> list[dict[str, Any]]:
    return [{"step": s, **{key: 2.0 / (1 + s / 50) + 0.1 * i for i, key in enumerate(keys)}} for s in range(steps)]


def random_map(classes: int, points: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(points) % classes
    return rng.normal(size=(classes, 2))[labels] * 8 + rng.normal(size=(points, 2)), [f"class {k}" for k in labels]


def clips(frames: Sequence[int], bands: int = 16) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    original = [rng.normal(-5, 2, (count, bands)) for count in frames]
    return {
        "original": original,
        "masked": [rng.random(x.shape) < 0.3 for x in original],
        "reconstructed": [x + 0.1 for x in original],
        "titles": [f"clip {index}" for index in range(len(frames))],
    }


SAMPLES: dict[str, Callable[[], Figure]] = {
    "loss_curves": lambda: figures.loss_curves(history(200), ["loss", "val_loss"]),
    "confusion": lambda: figures.confusion([[5, 1], [0, 7]], ["no", "yes"]),
    "bars": lambda: figures.bars([("ours", 0.9, 0.85, 0.95, "a"), ("base", 0.7, 0.6, 0.8, "a")]),
    "reconstruction": lambda: spectrograms.reconstruction(**clips([30])),
    "embedding_map": lambda: maps.embedding_map(*random_map(5, 60)),
    "calibration": lambda: figures.calibration([Bin(0, 10, 0.3, 0.2), Bin(1, 30, 0.8, 0.9)]),
}
EDGES: dict[str, Callable[[], Figure]] = {
    "empty history": lambda: figures.loss_curves([], ["loss"]),
    "no keys": lambda: figures.loss_curves(history(3), []),
    "only null": lambda: figures.loss_curves([{"step": 1, "loss": None}, {"step": 2, "loss": float("nan")}], ["loss"]),
    "one row": lambda: figures.loss_curves(history(1), ["loss"]),
    "constant loss": lambda: figures.loss_curves([{"step": s, "loss": 0.0} for s in range(100)], ["loss"]),
    "odd keys": lambda: figures.loss_curves(history(50, ODD_LABELS), ODD_LABELS),
    "no classes": lambda: figures.confusion(np.zeros((0, 0)), []),
    "one class": lambda: figures.confusion([[3]], ["only"]),
    "all zero": lambda: figures.confusion(np.zeros((3, 3)), ["a", "b", "c"]),
    "odd labels": lambda: figures.confusion(np.eye(8) * 5, ODD_LABELS),
    "50 classes": lambda: figures.confusion(np.eye(50) * 1234, [f"{ODD_LABELS[5]} {k}" for k in range(50)]),
    "no bars": lambda: figures.bars([]),
    "one bar": lambda: figures.bars([("ours", 0.5, 0.4, 0.6, "a")]),
    "bars without values": lambda: figures.bars([("ours", None, None, None, "a"), ("b", float("nan"), None, 1, "a")]),
    "bars at zero": lambda: figures.bars([("ours", 0.0, 0.0, 0.0, "a")]),
    "bars below zero": lambda: figures.bars([("ours", -3.0, -4.0, -2.0, "a"), ("b", -30.5, None, None, "a")]),
    "bars with odd names": lambda: figures.bars([(name, 0.5, 0.4, 0.6, name[:2]) for name in ODD_LABELS[:5]]),
    "no clips": lambda: spectrograms.reconstruction([], [], [], []),
    "one frame": lambda: spectrograms.reconstruction(**clips([1])),
    "silence": lambda: spectrograms.reconstruction(
        [np.full((5, 4), -np.inf)], [np.ones((5, 4), bool)], [np.zeros((5, 4))], [ODD_LABELS[4]]
    ),
    "no points": lambda: maps.embedding_map(np.zeros((0, 2)), []),
    "one point": lambda: maps.embedding_map([[1.0, 2.0]], ["only"]),
    "same points": lambda: maps.embedding_map(np.ones((4, 2)), ["a", "a", "b", "b"]),
    "no finite point": lambda: maps.embedding_map([[np.nan, 0.0]], ["only"]),
    "50 clusters": lambda: maps.embedding_map(*random_map(50, 2000)),
    "odd clusters": lambda: maps.embedding_map(np.arange(16.0).reshape(8, 2), ODD_LABELS),
    "no bins": lambda: figures.calibration([]),
    "empty bin": lambda: figures.calibration([Bin(0, 0, float("nan"), float("nan"))]),
    "one bin": lambda: figures.calibration([Bin(0, 1, 1.0, 1.0)]),
}


@pytest.mark.parametrize("name", EDGES)
def test_draws_without_warnings(name: str) -> None:
    content = style.svg(EDGES[name]())
    assert content.startswith(b"<?xml")
    assert content.rstrip().endswith(b"</svg>")


@pytest.mark.parametrize("name", SAMPLES)
def test_equal_input_gives_equal_bytes(name: str) -> None:
    first, second = SAMPLES[name](), SAMPLES[name]()
    vector = style.svg(first)
    assert vector == style.svg(second)
    assert b"dc:date" not in vector


def test_equal_input_gives_equal_pixels() -> None:
    assert style.png(SAMPLES["bars"](), dpi=50) == style.png(SAMPLES["bars"](), dpi=50)


@pytest.mark.parametrize("name", ["loss_curves", "confusion"])
def test_style_ignores_the_users_settings_and_leaves_them_alone(name: str) -> None:
    expected = style.png(SAMPLES[name](), dpi=50)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "xtick.labelsize": 2, "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        assert style.png(SAMPLES[name](), dpi=50) == expected
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["loss_curves", "bars", "embedding_map"])
def test_figures_are_seven_inches_wide_on_white(name: str) -> None:
    figure = SAMPLES[name]()
    assert figure.get_size_inches()[0] == 7
    assert to_hex(figure.get_facecolor()) == "#ffffff"


def test_names_stand_beside_the_only_points_of_their_classes() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    figure = maps.embedding_map(points, [f"class {k}" for k in range(20)])
    axes = figure.axes[0]
    names = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(names) > 15
    for place in axes.transData.transform(points):
        assert not any(box.contains(*place) for box in names)


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys\nfrom auricle.evaluation import figures, style\n"
        "style.svg(figures.confusion([[1]], ['a']))\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_characters_without_a_glyph_become_a_box() -> None:
    assert style.label_text("a\U0010fffdb\tc") == "a□b c"


def test_long_labels_keep_both_ends() -> None:
    short = style.label_text("footsteps on gravel, recorded indoors 07", limit=20)
    assert len(short) == 20
    assert short.startswith("footsteps ")
    assert short.endswith("doors 07")


class TestLossCurves:
    def test_a_given_least_leaves_room_for_the_highest_marker(self) -> None:
        rows = [{"step": s, "rank": rank} for s, rank in enumerate([11.0, 10.9, 10.95])]
        (axes,) = panels_of(figures.loss_curves(rows, ["rank"], least=1.0))
        low, high = axes.get_ylim()
        assert low == 1
        # Of an axis of some 70 mm, a marker is 1 mm.
        assert (high - 11) / (high - low) > 0.03

    def test_long_series_are_smoothed_over_their_raw_values(self) -> None:
        rng = np.random.default_rng(0)
        rows = [{"step": s, "loss": 1 + 0.2 * float(rng.normal())} for s in range(1000)]
        raw, smooth = panels_of(figures.loss_curves(rows, ["loss"]))[0].lines
        assert raw.get_alpha() < 0.5
        assert np.ptp(smooth.get_ydata()[100:]) < 0.3 * np.ptp(raw.get_ydata())
        assert np.abs(np.mean(smooth.get_ydata()) - np.mean(raw.get_ydata())) < 0.02

    def test_smoothing_keeps_a_straight_line_up_to_the_last_half_window(self) -> None:
        rows = [{"step": s, "loss": 1.0 + s} for s in range(400)]
        smooth = panels_of(figures.loss_curves(rows, ["loss"]))[0].lines[1].get_ydata()
        np.testing.assert_allclose(smooth[:380], np.arange(1.0, 381.0))

    def test_rare_validation_is_drawn_as_points_beside_training(self) -> None:
        rows: list[dict[str, Any]] = [{"step": s, "loss": 1.0, "lr": 0.1} for s in range(100)]
        rows[50]["val_loss"], rows[99]["val_loss"] = 1.5, 1.25
        figure = figures.loss_curves(rows, ["loss", "val_loss"])
        validation = panels_of(figure)[0].lines[-1]
        assert validation.get_xydata().tolist() == [[50, 1.5], [99, 1.25]]
        assert validation.get_marker() == "o"
        assert {"loss  1", "val_loss  1.25"} <= set(texts(figure))

    def test_null_values_are_left_out_and_steps_are_sorted(self) -> None:
        rows: list[dict[str, Any]] = [
            {"epoch": 2, "loss": 3.0},
            {"epoch": 1, "loss": None},
            {"loss": 9.0},
            {"epoch": 0, "loss": 4.0},
        ]
        line = panels_of(figures.loss_curves(rows, ["loss"], x="epoch"))[0].lines[0]
        assert line.get_xydata().tolist() == [[0, 4.0], [2, 3.0]]

    @pytest.mark.parametrize("lowest, scale", [(0.5, "linear"), (0.001, "log"), (-0.001, "linear")])
    def test_axis_is_logarithmic_from_two_decades(self, lowest: float, scale: str) -> None:
        rows = [{"step": 0, "loss": 1.0}, {"step": 1, "loss": lowest}]
        figure = figures.loss_curves(rows, ["loss"])
        assert panels_of(figure)[0].get_yscale() == scale
        assert not any("mathdefault" in text for text in texts(figure))

    def test_names_of_curves_that_end_together_do_not_overlap(self) -> None:
        keys = [f"loss_{k}" for k in range(6)]
        figure = figures.loss_curves([{"step": s, **dict.fromkeys(keys, 1.0)} for s in range(2)], keys)
        boxes = sorted((t.get_window_extent() for t in panels_of(figure)[0].texts), key=lambda box: box.y0)
        assert len(boxes) == 6
        assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))

    def test_message_names_the_missing_values(self) -> None:
        assert texts(figures.loss_curves([{"step": 1}], ["loss", "val_loss"])) == [
            "No values of loss, val_loss were recorded."
        ]


class TestConfusion:
    def test_cells_hold_counts_and_colours_are_shares_of_the_row(self) -> None:
        axes = panels_of(figures.confusion([[30, 10, 0], [0, 0, 0], [1, 0, 99]], ["a", "b", "c"]))[0]
        assert {t.get_position(): t.get_text() for t in axes.texts} == {
            (0, 0): "30",
            (1, 0): "10",
            (0, 2): "1",
            (2, 2): "99",
        }
        np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0.0], [0.0, 0.0, 0.0], [0.01, 0.0, 0.99]])

    @pytest.mark.parametrize("size", [1, 2, 12, 60])
    def test_everything_fits_at_every_size(self, size: int) -> None:
        figure = figures.confusion(np.eye(size) * 12, [f"class number {k}" for k in range(size)])
        axes = panels_of(figure)[0]
        whole = figure.bbox
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label):
            box = text.get_window_extent()
            assert whole.x0 <= box.x0
            assert whole.y0 <= box.y0
            assert box.x1 <= whole.x1
            assert box.y1 <= whole.y1
        cell = axes.bbox.width / size
        assert axes.bbox.width == pytest.approx(axes.bbox.height)
        assert len(axes.texts) == size
        assert all(t.get_window_extent().width < cell for t in axes.texts[:3])
        names = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(lower.y1 <= upper.y0 + 0.5 for upper, lower in pairwise(names))
        assert figure.get_size_inches()[0] < 10

    def test_large_counts_are_shortened_where_cells_are_small(self) -> None:
        axes = panels_of(figures.confusion(np.diag([123456, 1500, *range(1, 29)]), [str(k) for k in range(30)]))[0]
        assert [t.get_text() for t in axes.texts][:3] == ["123k", "1.5k", "1"]

    def test_wrong_shape_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"shape \[3, 3\] for 3 labels, got \(2, 2\)"):
            figures.confusion(np.eye(2), ["a", "b", "c"])


class TestBars:
    ROWS = (
        ("ours", 0.9, 0.85, 0.95, "birds"),
        ("base", 0.7, 0.6, 0.8, "birds"),
        ("ours", 0.5, None, None, "noise"),
    )

    def test_one_panel_for_each_data_set_on_one_scale(self) -> None:
        birds, noise = panels_of(figures.bars(self.ROWS))
        assert [birds.get_title(loc="left"), noise.get_title(loc="left")] == ["birds", "noise"]
        assert [bar.get_width() for bar in birds.patches] == [0.9, 0.7]
        assert birds.get_xlim()[0] == noise.get_xlim()[0] == 0
        assert birds.get_xlim()[1] == pytest.approx(noise.get_xlim()[1], abs=0.05)

    def test_whiskers_span_the_interval_and_need_both_bounds(self) -> None:
        birds, noise = panels_of(figures.bars(self.ROWS))
        spans = [segment[:, 0].tolist() for lines in birds.collections for segment in lines.get_segments()]
        assert spans == [[0.85, 0.95], [0.6, 0.8]]
        assert len(noise.collections) == 0

    @pytest.mark.parametrize("ours, colours", [(None, ["ours", "other"]), ("base", ["other", "ours"])])
    def test_ours_stands_out(self, ours: str | None, colours: list[str]) -> None:
        birds = panels_of(figures.bars(self.ROWS, ours=ours))[0]
        names = {style.OURS: "ours", style.OTHERS: "other"}
        assert [names[to_hex(bar.get_facecolor())] for bar in birds.patches] == colours

    def test_every_bar_is_labelled_with_its_value(self) -> None:
        assert {"0.900", "0.700", "0.500"} <= set(texts(figures.bars(self.ROWS)))

    def test_labels_stay_inside_the_panel(self) -> None:
        rows = [("ours", -12.3, -14.0, -10.0, "dB"), ("base", 8.25, 7.0, 9.0, "dB"), ("x", 1.0, 1.0, 1.0, "one")]
        for axes in panels_of(figures.bars(rows)):
            for text in axes.texts:
                box = text.get_window_extent()
                assert axes.bbox.x0 <= box.x0
                assert box.x1 <= axes.bbox.x1

    def test_missing_values_say_so(self) -> None:
        assert "no value" in texts(figures.bars([("ours", None, None, None, "a"), ("base", 0.4, None, None, "a")]))

    def test_names_that_shorten_alike_stay_apart(self) -> None:
        middle = "x" * 40
        rows = [(f"front {middle}{k}{middle} back", 0.5, None, None, "a") for k in range(3)]
        assert len(panels_of(figures.bars(rows))[0].patches) == 3


class TestReconstruction:
    def test_each_clip_is_a_row_of_three_on_a_common_scale(self) -> None:
        given = clips([40, 25, 10])
        figure = spectrograms.reconstruction(**given, frame_seconds=0.02)
        panels = [axes for axes in panels_of(figure) if axes.images]
        assert len(panels) == 9
        assert len({image.get_clim() for axes in panels for image in axes.images}) == 1
        assert panels[3].images[0].get_extent() == [0, 0.5, 0, 16]
        np.testing.assert_allclose(panels[5].images[0].get_array(), given["reconstructed"][1].T)
        assert {"clip 0", "seconds", "mel band", "log-mel energy"} <= set(texts(figure))

    def test_masked_cells_have_a_flat_colour_of_their_own(self) -> None:
        given = clips([40])
        middle = panels_of(spectrograms.reconstruction(**given))[1].images[0]
        np.testing.assert_array_equal(np.ma.getmaskarray(middle.get_array()), given["masked"][0].T)
        assert to_hex(middle.cmap.get_bad()) == style.MASKED
        assert style.MASKED not in {to_hex(colour) for colour in middle.cmap(np.linspace(0, 1, 256))}

    @pytest.mark.parametrize(
        "as_given", [lambda x, m: m.astype(np.float32), lambda x, m: m.astype(int), lambda x, m: np.where(m, np.nan, x)]
    )
    def test_masks_may_be_numbers_or_nan(self, as_given: Callable[..., np.ndarray]) -> None:
        given = clips([40])
        masked = [as_given(given["original"][0], given["masked"][0])]
        middle = panels_of(spectrograms.reconstruction(**{**given, "masked": masked}))[1].images[0]
        np.testing.assert_array_equal(np.ma.getmaskarray(middle.get_array()), given["masked"][0].T)

    def test_silence_is_dark_and_not_masked(self) -> None:
        given = clips([40])
        given["original"][0][3] = -np.inf
        left = panels_of(spectrograms.reconstruction(**given))[0].images[0]
        assert not np.ma.getmaskarray(left.get_array()).any()
        assert (left.get_array()[:, 3] == left.get_clim()[0]).all()

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"titles": []}, "must be as many, got 1, 1, 1 and 0"),
            ({"reconstructed": [np.zeros((40, 15))]}, "clip 0: expected three arrays of one shape"),
            ({"masked": [np.full((40, 16), -4.0)]}, "must be a mask of 0 and 1, or hold NaN"),
        ],
    )
    def test_arrays_that_do_not_belong_together_are_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            spectrograms.reconstruction(**{**clips([40]), **change})


class TestEmbeddingMap:
    def test_each_class_is_named_once_at_its_median(self) -> None:
        points = np.array([[0.0, 0], [0, 1], [0, 2], [9, 9], [9, 8], [9, 10]])
        axes = panels_of(maps.embedding_map(points, ["low"] * 3 + ["high"] * 3))[0]
        assert {t.get_text(): t.xy for t in axes.texts} == {"low": (0, 1), "high": (9, 9)}
        assert sum(len(dots.get_offsets()) for dots in axes.collections) == 6

    def test_fifty_names_never_overlap_and_the_rest_is_counted(self) -> None:
        axes = panels_of(maps.embedding_map(*random_map(50, 2000)))[0]
        boxes = [t.get_window_extent() for t in axes.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert 20 < len(boxes) < 50
        assert axes.get_xlabel() == f"{50 - len(boxes)} of 50 classes not named for lack of space"

    def test_fifty_classes_differ_in_colour_or_marker(self) -> None:
        dots = panels_of(maps.embedding_map(*random_map(50, 200)))[0].collections
        looks = {(to_hex(d.get_facecolor()[0]), d.get_paths()[0].vertices.tobytes()) for d in dots}
        assert len(looks) == 50

    def test_points_that_are_not_finite_are_left_out_and_counted(self) -> None:
        axes = panels_of(
            maps.embedding_map(np.array([[0, 0], [1, 1], [np.nan, 1], [np.inf, 0]]), ["a", "b", "a", "b"])
        )[0]
        assert sum(len(dots.get_offsets()) for dots in axes.collections) == 2
        assert axes.get_xlabel() == "2 points without finite coordinates left out"

    def test_wrong_shape_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"shape \[2, 2\], got \(2, 3\)"):
            maps.embedding_map(np.zeros((2, 3)), ["a", "b"])


class TestCalibration:
    def test_title_is_the_expected_calibration_error(self) -> None:
        figure = figures.calibration([Bin(0, 30, 0.5, 0.4), Bin(1, 10, 0.9, 0.7), Bin(2, 0, 0.1, 0.9)])
        assert panels_of(figure)[0].get_title(loc="left") == "expected calibration error 0.125"

    def test_points_and_counts_are_the_bins(self) -> None:
        upper, lower = panels_of(figures.calibration([Bin(1, 10, 0.9, 0.7), Bin(0, 30, 0.5, 0.4)]))
        assert upper.lines[-1].get_xydata().tolist() == [[0.5, 0.4], [0.9, 0.7]]
        assert [bar.get_height() for bar in lower.patches] == [30, 10]
