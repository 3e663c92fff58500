"""Detected events as lines of files that other programs read."""

from __future__ import annotations

from auricle.metrics import Detection

# The columns of DCASE lists, with how sure the detector was; `auricle finetune` and others read them.
COLUMNS = ("filename", "onset", "offset", "event_label", "score")
TABLE_HEAD = "\t".join(COLUMNS) + "\n"


def audacity_line(event: Detection) -> str:
    """A line of a label track for Audacity (File, Import, Labels): onset, offset and label, with tabs between."""
    return f"{event.onset:.6f}\t{event.offset:.6f}\t{_cell(event.label)}\n"


def table_line(name: str, event: Detection | None) -> str:
    """A line of a TSV table: an event of a sound, or that it has none, with empty cells, as in DCASE's lists."""
    if event is None:
        return _cell(name) + "\t" * (len(COLUMNS) - 1) + "\n"
    times = f"{event.onset:.4f}\t{event.offset:.4f}"
    return f"{_cell(name)}\t{times}\t{_cell(event.label)}\t{event.score:.4f}\n"


def _cell(text: str) -> str:
    """Text without what would end a cell or a line."""
    return " ".join(text.split())
