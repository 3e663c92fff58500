"""A clip over time: what was heard, what was true, what was found, and how sure the detector was.

T frames, F mel bins, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from auricle.audio.frontends import KaldiFbank
from auricle.data.loader import read_item
from auricle.errors import AudioError, plural
from auricle.evaluation import figures, snippets
from auricle.evaluation.report import Report
from auricle.evaluation.results import Result
from auricle.evaluation.style import (
    INK,
    MUTED,
    OTHERS,
    OURS,
    PAPER,
    TINT,
    WIDTH,
    label_text,
    new_figure,
    nothing,
    styled,
)

MELS = 64
MOST_CLASSES = 16
SHOWN_COLUMNS = ("label", "events", "event_f1", "precision", "recall", "segment_f1", "psds1", "psds2")

Span = Sequence[Any]


@styled
def timeline(
    spectrogram: npt.NDArray[np.float32] | None,
    events: Sequence[Span],
    detections: Sequence[Span],
    edges: Sequence[float],
    probabilities: npt.ArrayLike,
    classes: Sequence[str],
) -> Figure:
    """Spectrogram, events and probabilities of one clip, one below the other on the same seconds.

    Args:
        spectrogram: [T, F] log-mel over the time of `edges`, or None.
        events, detections: each begins with onset, offset and label.
        edges: [T + 1] seconds; probabilities: [T, C].
        classes: [C] their names; those that neither sound nor are found nor are ever likely are left out. Of more than
            have room, those that sound come first, then those that are found, then the likeliest.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if not values.size:
        return nothing("No frames.")
    true, named = {span[2] for span in events}, {span[2] for span in (*events, *detections)}

    def matters(c: int) -> tuple[bool, bool, float]:
        return classes[c] not in true, classes[c] not in named, -values[:, c].max()

    likely = sorted(range(len(classes)), key=matters)
    shown = sorted(c for c in likely[:MOST_CLASSES] if classes[c] in named or values[:, c].max() > 0.3)
    if not shown:
        return nothing("Nothing sounds here, and nothing was found.")
    lane = 0.2 * len(shown) + 0.15
    heights = [*([1.1] if spectrogram is not None else []), lane, lane]
    figure = new_figure(WIDTH, sum(heights) + 0.9)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    begin, end = float(edges[0]), float(edges[-1])
    if spectrogram is not None:
        low, high = np.percentile(spectrogram, [2, 99.7])
        axes[0].imshow(
            spectrogram.T, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=max(high, low + 1e-6),
            extent=(begin, end, 0, spectrogram.shape[1]), interpolation="nearest",
        )  # fmt: skip
        axes[0].set_yticks([])
        axes[0].set_ylabel("mel")
    _lanes(axes[-2], events, detections, [classes[c] for c in shown])
    grid = np.linspace(begin, end, 1200)
    place = np.clip(np.searchsorted(edges, grid, side="right") - 1, 0, len(values) - 1)
    axes[-1].imshow(
        values[place][:, shown].T, aspect="auto", cmap=TINT, vmin=0, vmax=1, interpolation="nearest",
        extent=(begin, end, len(shown) - 0.5, -0.5),
    )  # fmt: skip
    _name_lanes(axes[-1], [classes[c] for c in shown])
    axes[-1].set_title("probability of each class, from 0 (blank) to 1")
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(begin, end)
    return figure


def _lanes(axes: Axes, events: Sequence[Span], detections: Sequence[Span], names: Sequence[str]) -> None:
    """The truth above, what was found below, in a lane for each class."""
    place = {name: lane for lane, name in enumerate(names)}
    for spans, offset, colour in ((events, -0.2, INK), (detections, 0.2, OURS)):
        for onset, end, label, *_ in spans:
            if label in place:
                face = to_rgba(colour, 0.9)
                axes.barh(
                    place[label] + offset,
                    end - onset,
                    left=onset,
                    height=0.34,
                    color=face,
                    edgecolor=PAPER,
                    linewidth=0.5,
                )
    axes.set_ylim(len(names) - 0.5, -0.5)
    for lane in range(1, len(names)):
        axes.axhline(lane - 0.5, color=OTHERS, linewidth=0.5)
    _name_lanes(axes, names)
    axes.set_title("events: true (above) and found (below, blue)")


def _name_lanes(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [label_text(name) for name in names], color=MUTED)
    axes.tick_params(axis="y", length=0)


def log_mel(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[T, F] of samples [n] at `snippets.RATE`."""
    with torch.no_grad():
        return KaldiFbank(snippets.RATE, MELS)(torch.from_numpy(wave - wave.mean())[None])[0].numpy()


def add_detection(report: Report, result: Result) -> None:
    """What a page says of a detector: a table of classes, and the clips of which the result holds probabilities."""
    report.heading("Classes")
    # Of classes with equal scores, those that occur stand above those that were only found.
    rows = sorted(
        result.per_class,
        key=lambda c: (c["event_f1"] is None, -(c["event_f1"] or 0.0), -c["events"], c["label"]),
    )
    own = [name for name in ("threshold", "filter") if any(name in row for row in rows)]
    columns = (*SHOWN_COLUMNS, *own)
    report.table(
        [name.replace("_", " ") for name in columns],
        [[row.get(name) for name in columns] for row in rows],
        note=f"Events of the truth; F1, precision and recall of events within {1000 * result.protocol['collar']:g} ms; "
        "filter: length of the median filter in seconds.",
    )
    pictured = [item for item in result.items if "probabilities" in item]
    if pictured:
        report.heading("Timelines")
    classes = [row["label"] for row in result.per_class]
    heard = {item.id: item for item in result.exhibits.items} if result.exhibits else {}
    for item in pictured:
        end = item["edges"][-1]
        spans = {key: [span for span in item[key] if span[0] < end] for key in ("events", "detections")}
        wave = None
        with suppress(AudioError, KeyError):
            wave = read_item(heard[item["id"]].beginning(end), snippets.RATE)
        # Edges are rounded: a whole clip may seem to end a little later.
        cut = item["duration"] - end > 0.05
        whole = f" Its first {end:.1f} of {item['duration']:.1f} s." if cut else ""
        report.figure(
            timeline(
                None if wave is None else log_mel(wave),
                **spans,
                edges=item["edges"],
                probabilities=item["probabilities"],
                classes=classes,
            ),
            f"{item['id']}: {plural(len(item['events']), 'event')}, {len(item['detections'])} found.{whole}",
            f"Spectrogram, true and found events, and probabilities of {item['id']} over time",
            None if wave is None else snippets.encoded(wave, item["id"]),
        )


def add_detection_curves(report: Report, rows: Sequence[Mapping[str, Any]]) -> None:
    """The scores on validation clips along a training."""
    report.figure(
        figures.loss_curves(rows, ["val_event_f1", "val_segment_f1", "val_psds1", "test_event_f1"]),
        "Event-based F1, segment-based F1 and PSDS 1 on validation clips. Thresholds and median filters are chosen on "
        "these clips each time, for the event-based F1.",
        "Curves of the scores of detection over steps",
    )
