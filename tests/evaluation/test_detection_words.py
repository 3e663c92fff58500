"""What is said of a detection beside its scores."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from auricle.cli.events import show_stretch
from auricle.cli.inference import _check_outputs
from auricle.data.items import Event
from auricle.errors import ConfigError
from auricle.evaluation.detection import DetectionOutcome
from auricle.evaluation.report import Report
from auricle.evaluation.results import Result
from auricle.evaluation.timeline import add_detection
from auricle.metrics import Collars, FrameScores


def outcome(clips_with_dog: int) -> DetectionOutcome:
    clip = FrameScores(np.full((10, 2), 0.4), np.arange(11.0) * 0.1)
    truth = tuple((Event(0.1, 0.5, "dog"),) if n < clips_with_dog else () for n in range(8))
    return DetectionOutcome(tuple("abcdefgh"), ("cat", "dog"), truth, ((),) * 8, (clip,) * 8, Collars())


def test_intervals_of_psds_are_said_to_lean_where_a_class_has_few_clips() -> None:
    assert outcome(5).notes() == []
    assert outcome(4).notes() == [
        "the intervals of PSDS lean upwards, with events in fewer than 5 clips in 1 of 2 classes"
    ]


@pytest.mark.parametrize(("duration", "said"), [(1.00004, "1 event, 0 found."), (2.0, "Its first 1.0 of 2.0 s.")])
def test_a_caption_says_what_is_cut_only_where_something_is(duration: float, said: str, tmp_path: Path) -> None:
    tested = outcome(5)
    items = [{**tested.items()[0], "duration": duration}]
    result = Result(
        task="detection", metrics={}, command="", model={"source": "x"}, data={}, seed=0, protocol={"collar": 0.2},
        per_class=tested.per_class((), ()), items=items,
    )  # fmt: skip
    report = Report("Events", "x")
    add_detection(report, result)
    page = report.write(tmp_path / "page.html").read_text()
    assert said in page
    assert ("Its first" in page) == (duration == 2.0)


def test_an_event_of_a_few_samples_has_a_length(capsys: pytest.CaptureFixture[str]) -> None:
    show_stretch(0.0, 1 / 16000, "dog", 0.5)
    show_stretch(0.5, 1.25, "dog", 0.5)
    assert [line.split("  dog")[0].strip() for line in capsys.readouterr().out.splitlines()] == [
        "0.000000 -  0.000063 s",
        "0.50 -      1.25 s",
    ]


def test_a_table_is_not_written_into_folders_that_nobody_made(tmp_path: Path) -> None:
    args = Namespace(model="run", top=0, tsv=str(tmp_path / "made" / "x.tsv"), audacity=None)
    _check_outputs(args, detects=True)
    args.tsv = str(tmp_path / "not" / "there" / "x.tsv")
    with pytest.raises(ConfigError, match=r"there is no folder .*not; make it first"):
        _check_outputs(args, detects=True)
