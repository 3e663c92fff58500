"""Detected events as files that other programs read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from auricle.metrics import Detection

# The columns of DCASE lists, with how sure the detector was; `auricle finetune` and others read them.
COLUMNS = ("filename", "onset", "offset", "event_label", "score")


def audacity_labels(events: Iterable[Detection]) -> str:
    """A label track for Audacity (File, Import, Labels): onset, offset and label in a line, with tabs between."""
    return "".join(f"{e.onset:.6f}\t{e.offset:.6f}\t{_cell(e.label)}\n" for e in events)


def event_table(files: Sequence[tuple[str, Sequence[Detection]]]) -> str:
    """A TSV table with a line for each event; a file without any has a line with empty cells, as DCASE lists have."""
    lines = ["\t".join(COLUMNS)]
    for name, events in files:
        lines += [f"{_cell(name)}\t{e.onset:.4f}\t{e.offset:.4f}\t{_cell(e.label)}\t{e.score:.4f}" for e in events]
        if not events:
            lines.append(_cell(name) + "\t" * (len(COLUMNS) - 1))
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text without what would end a cell or a line."""
    return " ".join(text.split())
