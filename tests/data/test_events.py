"""Events that do not fit the clips they are listed for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle import api
from auricle.data.formats import read_data
from auricle.data.items import Event
from auricle.data.labels import Labels, read_labels
from auricle.errors import DataError
from conftest import Outcome

RATE = 8000
CLIPS = 8
EVENTS = tuple(f"{number}.wav,0.5,1,dog" for number in range(CLIPS))


def data(folder: Path, *events: str, columns: str = "split", cells: tuple[str, ...] = ("train",) * CLIPS) -> Path:
    """Eight clips of two seconds, of which all is stated that is in `cells`, with `events`."""
    folder.mkdir()
    for number in range(CLIPS):
        soundfile.write(folder / f"{number}.wav", 0.01 * np.random.default_rng(number).normal(size=2 * RATE), RATE)
    rows = [f"{number}.wav,{cell}" for number, cell in enumerate(cells)]
    (folder / "manifest.csv").write_text("\n".join((f"path,{columns}", *rows)) + "\n")
    (folder / "events.csv").write_text("\n".join(("path,onset,offset,label", *events)) + "\n")
    return folder


def labels_of(path: Path) -> Labels:
    return read_labels(read_data(path), "label", "detection")


@pytest.mark.parametrize(
    "event, advice",
    [("500,1000,dog", "are these milliseconds"), ("61,62,dog", "are these milliseconds"), ("5e4,6e4,dog", "longer")],
)
def test_events_that_mostly_begin_after_their_clips_are_refused(tmp_path: Path, event: str, advice: str) -> None:
    path = data(tmp_path / "d", *(f"{number}.wav,{event}" for number in range(5)), *EVENTS[:4])
    with pytest.raises(DataError, match=rf"of 9 events, 5 begin after the end of the clip \(first: 0\.wav.*{advice}"):
        labels_of(path)


def test_a_few_of_them_are_left_out_and_told(tmp_path: Path) -> None:
    labels = labels_of(data(tmp_path / "d", *EVENTS, "3.wav,2.5,3,cat"))
    assert labels.events[3] == (Event(0.5, 1.0, "dog"),)
    assert labels.classes(range(CLIPS)) == ("dog",)
    assert labels.notes == (
        "of 9 events, 1 begins after the end of the clip (first: 3.wav, at 2.5 s of 2 s); such events are left out.",
    )


def test_an_event_of_several_labels_is_told(tmp_path: Path) -> None:
    labels = labels_of(data(tmp_path / "d", *EVENTS, "3.wav,1,2,dog;cat"))
    assert labels.classes(range(CLIPS)) == ("dog", "dog;cat")
    assert labels.notes == (
        "of 9 events, 1 names several labels (first: 'dog;cat'), taken as one label with a semicolon; list the event "
        "once for each label.",
    )


def test_an_event_that_is_listed_again_counts_once(tmp_path: Path) -> None:
    labels = labels_of(data(tmp_path / "d", *EVENTS, EVENTS[2], "2.wav,0.5,1,cat"))
    assert labels.events[2] == (Event(0.5, 1.0, "cat"), Event(0.5, 1.0, "dog"))
    assert labels.notes == ("of 10 events, 1 repeats another one's times and label (first: 2.wav); each counts once.",)


def test_events_of_no_clip_are_told_and_refused_where_they_are_many(tmp_path: Path) -> None:
    path = data(tmp_path / "d", *EVENTS[1:], "O.wav,0.5,1,dog")
    assert "warning: of events.csv, 1 of 8 events are of no file of manifest.csv (O.wav)" in read_data(path).notes[0]
    for number in (1, 2):
        (path / "events.csv").write_text(
            (path / "events.csv").read_text().replace(f"\n{number}.wav", f"\nx{number}.wav")
        )
    with pytest.raises(DataError, match=r"events\.csv: 3 of 8 events are of no file of manifest\.csv \(x1\.wav, x2"):
        read_data(path)
    # A list of some of the clips is no mistake; paths of no file at all are.
    (path / "part.csv").write_text("path,split\n3.wav,train\n")
    assert "3 of 8 events are of no file of part.csv" in read_data(path / "part.csv").notes[0]


def test_what_is_stated_of_a_clip_is_obeyed(tmp_path: Path) -> None:
    cells = ("strong", "weak", "none", "Strong", "", "weak", "", "")
    labels = labels_of(data(tmp_path / "d", *EVENTS[:3], "5.wav,0,1,cat", columns="annotation", cells=cells))
    dog = (Event(0.5, 1.0, "dog"),)
    assert labels.events == (dog, None, None, (), (), None, (), ())
    assert labels.sets == (("dog",), ("dog",), (), (), (), ("cat",), (), ())


def test_what_cannot_be_stated_is_refused(tmp_path: Path) -> None:
    path = data(tmp_path / "d", *EVENTS, columns="annotation", cells=("strong", "bogus", *[""] * 6))
    with pytest.raises(DataError, match=r"1\.wav: column 'annotation' must .*: strong, weak or none, got 'bogus'"):
        labels_of(path)


def test_training_evaluation_and_check_tell_what_they_left_out(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    cells = ("train",) * 6 + ("test",) * 2
    path = data(tmp_path / "d", *EVENTS, EVENTS[0], "6.wav,0.5,1,owl", "7.wav,2.5,3,dog", cells=cells)
    options = ("--random-weights", 0, "--steps", 1, "--set", "crop_seconds=2", "--out", tmp_path / "run")
    for command in (
        ("finetune", "ssast-test", path, *options),
        ("evaluate", tmp_path / "run", path),
        ("check", path, "--processes", 1),
    ):
        done = cli(*command)
        assert done.code == 0, done.err
        said = done.out + done.err
        assert "of 11 events, 1 begins after the end of the clip (first: 7.wav" in said
        assert "of 11 events, 1 repeats another one's times and label" in said
        if command[0] != "evaluate":
            assert "no training clip has an event of 1 class of the test part (owl)" in said
    (path / "events.csv").write_text("path,onset,offset,label\n0.wav,500,1000,dog\n")
    done = cli("check", path, "--processes", 1)
    assert done.code == 2
    assert "error: " in done.err
    assert "are these milliseconds?" in done.err
    assert api.check(path, processes=1).event_errors
