"""Where `auricle predict` puts the events that it detects: the terminal, and the files that it was asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.cli.options import percent
from auricle.errors import AudioError, plural, printable
from auricle.evaluation.results import GrowingFile, json_text
from auricle.inference.events import TABLE_HEAD, audacity_line, table_line
from auricle.inference.model import Detections
from auricle.metrics import Detection

if TYPE_CHECKING:
    from typing_extensions import Self

# The line of an event in a file, from the path of its sound.
Line = Callable[[str, Detection], str]


class EventOutput:
    """Takes the events of one sound after the other; a context manager.

    Each is printed and written when it is over, so that neither a kill nor damage later in the sound loses it. At the
    end of a sound its lines in the files are put in order of their onsets.

    Args:
        paths: all sounds that are to come: those of one name in several folders get different label tracks.
        table: a TSV file to write.
        audacity: a folder for label tracks, a file for each sound that can be read or has an event.
        lines: an open JSON-lines file; a sound's own line is the caller's.

    Raises:
        ConfigError: a file cannot be written, now or later.
    """

    def __init__(
        self, paths: Sequence[str], *, table: str | None, audacity: str | None, lines: GrowingFile | None
    ) -> None:
        self.table = GrowingFile(table, TABLE_HEAD) if table else None
        self.folder, self.track_names = audacity, _track_names(paths)
        self.track: GrowingFile | None = None
        self.lines = lines
        self.found: list[Detection] = []

    def add(self, path: str, event: Detection) -> None:
        """Take an event of the sound at `path`."""
        if not self.found:
            print(f"{printable(path)}:")
            self._open_track(path)
        self.found.append(event)
        show_stretch(*event)
        sys.stdout.flush()
        for file, line in self._files():
            file.add(line(path, event))

    def end(self, path: str, outcome: Detections | AudioError) -> dict[str, Any]:
        """Close a sound; returns its row of the JSON file."""
        found, self.found = sorted(self.found), []
        row: dict[str, Any] = {"path": path, "events": [event._asdict() for event in found]}
        if isinstance(outcome, Detections):
            row["duration"] = outcome.duration
            print(f"{printable(path)}: {plural(len(found), 'event')} in {outcome.duration:.2f} s")
            self._open_track(path)
        else:
            row["error"] = str(outcome)
            if found:
                print(f"{printable(path)}: {plural(len(found), 'event')} before it cannot be read ({outcome.reason})")
        for file, line in self._files():
            file.reorder(line(path, event) for event in found)
        if self.table:
            if not found and isinstance(outcome, Detections):
                self.table.add(table_line(path, None))
            self.table.mark()
        self._close_track()
        return row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close_track()
        if self.table:
            self.table.close()

    def _close_track(self) -> None:
        if self.track:
            self.track.close()
            self.track = None

    def _open_track(self, path: str) -> None:
        if self.folder and self.track is None:
            self.track = GrowingFile(Path(self.folder) / f"{self.track_names[path]}.txt")

    def _files(self) -> list[tuple[GrowingFile, Line]]:
        files: list[tuple[GrowingFile | None, Line]] = [
            (self.table, table_line),
            (self.track, lambda _, event: audacity_line(event)),
            (self.lines, lambda path, event: json_text({"path": path, **event._asdict()})),
        ]
        return [(file, line) for file, line in files if file is not None]


def show_stretch(onset: float, offset: float, label: str, score: float) -> None:
    """Print what sounds from `onset` to `offset`, in seconds."""
    # A sound of a few samples has no hundredths of a second.
    digits = 2 if f"{onset:.2f}" != f"{offset:.2f}" else 6
    print(f"  {onset:9.{digits}f} - {offset:9.{digits}f} s  {label} ({percent(score)})")


def _track_names(paths: Sequence[str]) -> dict[str, str]:
    """Names of label tracks: of sounds with the same name in several folders, the folders are part of it."""
    stems = [Path(path).stem for path in paths]
    return {
        path: stem if stems.count(stem) == 1 else "_".join(Path(path).with_suffix("").parts).strip("/_")
        for path, stem in zip(paths, stems, strict=True)
    }
