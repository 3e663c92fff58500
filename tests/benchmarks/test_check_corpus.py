"""The corpus of the check benchmark holds every way of being bad, and the benchmark notices when one is missed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from auricle.data.check import check
from auricle.data.formats import read_data
from auricle.evaluation.check_report import summary

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import check_corpus

    # Every other file is bad, the rest odd.
    monkeypatch.setattr(check_corpus, "BAD_EACH", 2)
    return check_corpus


def test_exactly_the_bad_files_are_reported(corpus: ModuleType, tmp_path: Path) -> None:
    files = 2 * len(corpus.ways())
    bad = corpus.make_corpus(tmp_path, files)
    assert {way.name for way in bad.values()} == {way.name for way in corpus.ways()}
    assert len(bad) >= 12
    found = summary(check(read_data(tmp_path, keep_going=True), processes=1))
    corpus.compare(found, bad, files)
    # What would be a mistake is told: a file that was not reported, a wrong reason, a good one that was.
    first, second, *_ = found["bad_files"]
    reported = [{**second, "reason": "level?"}, *found["bad_files"][2:], {"path": "good.wav", "reason": "damaged"}]
    with pytest.raises(SystemExit) as told:
        corpus.compare({**found, "bad_files": reported}, bad, files)
    lines = str(told.value).splitlines()
    assert lines[0].startswith(f"not reported: {first['path']}")
    assert lines[1] == "reported, though good: good.wav (damaged)"
    assert "reason 'level?'" in lines[2]
    assert lines[-1] == "3 mistakes"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_a_process_and_its_descendants(corpus: ModuleType) -> None:

    assert corpus.family(os.getpid())[0] == os.getpid()
    assert corpus.proportional_mb(os.getpid()) > 20
    assert corpus.proportional_mb(2**22) == 0.0
