"""What a page shows of the clips themselves: a map to point at and hear, and the surest errors as spectrograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from auricle.audio.frontends import KaldiFbank
from auricle.data.items import Item
from auricle.data.loader import read_item
from auricle.errors import AudioError
from auricle.evaluation import maps, snippets, spectrograms
from auricle.evaluation.report import Report, Spot
from auricle.evaluation.results import Result

MAP_CLIPS, MAP_SECONDS = 300, 1.5
# A sound takes about 8 kB of the page, and a while to read and encode.
MAP_SOUNDS = 120
ERRORS_LISTED, ERRORS_SHOWN, ERROR_SECONDS = 10, 5, 4.0
MELS = 64


def add_map(
    report: Report,
    items: Sequence[Item],
    embeddings: NDArray[np.floating],
    labels: Sequence[str],
    texts: Sequence[str],
    what: str,
) -> None:
    """A map of clips, coloured by `labels`; pointed at, a clip shows its text, and pressed, it is heard.

    Args:
        embeddings: [items, D].
        what: a sentence about the embeddings, for the caption.
    """
    if len(items) < 2:
        return
    chosen = spread_over(labels, MAP_CLIPS)
    shown = [labels[i] for i in chosen]
    points = maps.project(embeddings[chosen])
    figure = maps.embedding_map(points, shown)
    sounds = [_snippet(items[i]) if rank < MAP_SOUNDS else None for rank, i in enumerate(chosen)]
    spots = [
        Spot(float(x), float(y), texts[i], sound)
        for (x, y), i, sound in zip(maps.places(figure, points), chosen, sounds, strict=True)
    ]
    part = f"{len(chosen)} of {len(items)} clips. " if len(chosen) < len(items) else ""
    report.heading("Map")
    report.map(
        figure,
        spots,
        f"{what} {part}Neighbours sound alike to the network; distances between far groups mean nothing (t-SNE). Point "
        f"at a clip to see its name, press it to hear its loudest {MAP_SECONDS:g} s.",
        f"Map of the embeddings of {len(chosen)} clips",
    )


def spread_over(labels: Sequence[str], most: int) -> list[int]:
    """At most so many indices, in turn from each label, so that the first few already show all labels."""
    seen: dict[str, int] = {}
    turns = []
    for index, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], index))
    return [index for _, index in sorted(turns)[:most]]


def add_result_map(report: Report, result: Result) -> None:
    """The map of a result's tested clips, coloured by their true label."""
    exhibits = result.exhibits
    if exhibits is None or exhibits.embeddings is None:
        return
    truth = [_truth(row) for row in result.items]
    texts = [
        f"{row['id']}: {label}" + ("" if right(row) else f", taken for {_predicted(row)}")
        for row, label in zip(result.items, truth, strict=True)
    ]
    # Of several labels the first gives the colour.
    colours = [label.partition(", ")[0] for label in truth]
    add_map(report, exhibits.items, exhibits.embeddings, colours, texts, "Embeddings of the tested clips.")


def add_errors(report: Report, result: Result) -> None:
    """The errors that the model was surest of: a table, and the first few to see and hear."""
    errors = surest_errors(result.items)
    if not errors:
        return
    score = str(result.protocol.get("score", "score"))
    report.heading("Surest errors")
    report.table(
        ["clip", "label", "predicted", score],
        [[row["id"], _truth(row), _predicted(row), _score(row)] for row in errors[:ERRORS_LISTED]],
        note="The margin is the ridge's own output, trained towards 1 for the class and -1 for all others."
        if score == "margin"
        else "",
    )
    items = {item.id: item for item in result.exhibits.items} if result.exhibits else {}
    for row in [row for row in errors if row["id"] in items][:ERRORS_SHOWN]:
        title = f"{row['id']}: {_truth(row)}, taken for {_predicted(row)} ({score} {_score(row):.2f})"
        add_sound(report, items[row["id"]], title)


def add_sound(report: Report, item: Item, title: str, seconds: float = ERROR_SECONDS) -> None:
    """The loudest seconds of a clip, to see and hear; nothing where it cannot be read any more."""
    try:
        wave = snippets.excerpt(item, seconds)
    except AudioError:
        return
    with torch.no_grad():
        log_mel = KaldiFbank(snippets.RATE, MELS)(torch.from_numpy(wave - wave.mean())[None])[0].numpy()
    part = f"; the loudest {seconds:g} of {item.duration:.1f} s" if item.duration > seconds else ""
    sound = snippets.encoded(wave, item.id)
    report.figure(spectrograms.spectrogram(log_mel), f"{title}{part}.", f"Log-mel spectrogram of {title}", sound)


def surest_errors(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a result that are wrong, the surest first. Of tags: the likeliest is not among the labels."""
    return sorted((row for row in items if not right(row)), key=lambda row: -_score(row))


def right(row: Mapping[str, Any]) -> bool:
    """Whether the likeliest label of an item is its label, or one of them."""
    return _predicted(row) in row["labels"] if "labels" in row else row["label"] == row["predicted"]


def _truth(row: Mapping[str, Any]) -> str:
    return ", ".join(row["labels"]) or "(none)" if "labels" in row else str(row["label"])


def _predicted(row: Mapping[str, Any]) -> str:
    # The scores of a tagging begin with the likeliest.
    return str(next(iter(row["scores"])) if "scores" in row else row["predicted"])


def _score(row: Mapping[str, Any]) -> float:
    return float(next(iter(row["scores"].values())) if "scores" in row else row["score"])


def readable(item: Item) -> bool:
    """Whether an item can be read to its end."""
    try:
        read_item(item, snippets.RATE)
    except AudioError:
        return False
    return True


def _snippet(item: Item) -> snippets.Snippet | None:
    """What is heard of an item on the map; None where it cannot be read any more."""
    try:
        return snippets.snippet(item, MAP_SECONDS)
    except AudioError:
        return None
