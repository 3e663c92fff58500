"""The result file is complete, standard JSON, and never half written."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auricle.errors import ConfigError, DataError
from auricle.evaluation.results import GrowingFile, Result, quantity, write_json, write_text


def written(path: Path, payload: Any) -> Any:
    """What a strict JSON reader finds after `write_json`."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not standard JSON")

    write_json(path, payload)
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def make_result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "task": "classification",
        "metrics": {"accuracy": quantity(0.9, 0.85, 0.94)},
        "command": "auricle evaluate model data",
        "model": {"source": "runs/a", "method": "ssast"},
        "data": {"hash": "abc", "items": 2},
        "seed": 3,
        "protocol": {"split": "test"},
        "environment": {"python": "3.11"},
    }
    return Result(**{**values, **changes})


def test_result_file_has_every_part_of_the_schema(tmp_path: Path) -> None:
    result = make_result(
        baselines={"majority": {"metrics": {"accuracy": quantity(0.5, 0.4, 0.6)}}},
        comparisons=[{"a": "ours", "b": "majority", "value": 0.4, "low": 0.3, "high": 0.5}],
        confusion={"labels": ["no", "yes"], "rows": [[1, 0], [0, 1]]},
        items=[{"id": "a.wav", "label": "no", "predicted": "no", "score": np.float32(0.5)}],
    )
    read = json.loads(result.write(tmp_path / "deep" / "result.json").read_text())
    assert list(read)[:2] == ["schema", "task"]
    assert read == {
        "schema": 1,
        "task": "classification",
        "metrics": {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.94}},
        "command": "auricle evaluate model data",
        "model": {"source": "runs/a", "method": "ssast"},
        "data": {"hash": "abc", "items": 2},
        "seed": 3,
        "protocol": {"split": "test"},
        "baselines": {"majority": {"metrics": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}}},
        "comparisons": [{"a": "ours", "b": "majority", "value": 0.4, "low": 0.3, "high": 0.5}],
        "confusion": {"labels": ["no", "yes"], "rows": [[1, 0], [0, 1]]},
        "items": [{"id": "a.wav", "label": "no", "predicted": "no", "score": 0.5}],
        "layers": [],
        "per_class": [],
        "calibration": [],
        "environment": {"python": "3.11"},
    }


def test_confusion_that_does_not_fit_its_labels_is_refused() -> None:
    with pytest.raises(DataError, match="expected 2 rows of 2 counts"):
        make_result(confusion={"labels": ["a", "b"], "rows": [[1, 0], [1]]})


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf"), None])
def test_quantity_turns_what_is_not_finite_into_none(odd: float | None) -> None:
    assert quantity(odd, odd, 1) == {"value": None, "low": None, "high": 1.0}


def test_quantity_refuses_swapped_bounds() -> None:
    with pytest.raises(DataError, match=r"low 0\.9 and high 0\.1"):
        quantity(0.5, 0.9, 0.1)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    y: np.ndarray


@pytest.mark.parametrize(
    "value, expected",
    [
        (math.nan, None),
        ([1.5, -math.inf], [1.5, None]),
        (np.float32(0.25), 0.25),
        (np.float64("nan"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (np.array(3), 3),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor(math.inf), None),
        (Path("a") / "b", "a/b"),
        (Colour.RED, "red"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        ({"b", "a"}, ["a", "b"]),
        (Point(1.0, np.arange(2)), {"x": 1.0, "y": [0, 1]}),
        ({1: "int", np.int64(2): "numpy", Path("p"): "path"}, {"1": "int", "2": "numpy", "p": "path"}),
        ("鳥の声", "鳥の声"),
        ("not utf-8: \udcff", "not utf-8: \udcff"),
    ],
)
def test_values_become_plain_json(tmp_path: Path, value: Any, expected: Any) -> None:
    assert written(tmp_path / "x.json", {"value": value}) == {"value": expected}


def test_readable_letters_are_not_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"label": "鳥"})
    assert "鳥" in (tmp_path / "x.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "payload, message",
    [
        ({"a": {"b": [0, object()]}}, r"a\.b\[1\]: JSON cannot hold a object"),
        (object(), "payload: JSON cannot hold"),
        ({"a": {(1, 2): 3}}, "a: a key must be text or an integer, got tuple"),
        ({1: "a", "1": "b"}, "two keys are the same"),
    ],
)
def test_what_json_cannot_hold_is_named_and_nothing_is_written(tmp_path: Path, payload: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_json(tmp_path / "x.json", payload)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file_and_leaves_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"result\.json: cannot be written: No space left"):
        write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        assert self.parent == target.parent, "a rename across file systems is a copy, which is not atomic"
        order.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_text(tmp_path / "a" / "page.html", "text")
    assert order == ["file", "rename", "folder"]


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file to write, got a folder"):
        write_json(tmp_path, {})


def test_file_in_place_of_a_parent_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_json(tmp_path / "file" / "result.json", {})


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code = (
        "import os, sys\n"
        "from auricle.errors import ConfigError\n"
        "from auricle.evaluation.results import write_json\n"
        # The superuser may write everywhere, so become somebody else; an open descriptor avoids the private parents.
        "os.chdir(sys.argv[1])\n"
        "os.geteuid() or os.seteuid(65534)\n"
        "try:\n    write_json('result.json', {})\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(locked)], capture_output=True, text=True, check=True)
    assert "result.json: cannot be written: Permission denied" in run.stdout
    assert list(locked.iterdir()) == []


def test_file_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o640


def test_symbolic_link_stays_and_its_target_changes(tmp_path: Path) -> None:
    write_json(tmp_path / "real.json", 1)
    (tmp_path / "link.json").symlink_to("real.json")
    write_json(tmp_path / "link.json", 2)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "2\n"


def test_lines_of_a_pipe_stay_as_they_came(tmp_path: Path) -> None:
    """It cannot be written again, unlike a file."""
    ends = os.pipe()
    with GrowingFile(f"/dev/fd/{ends[1]}", "head\n") as pipe, GrowingFile(tmp_path / "f", "head\n") as file:
        for growing in (pipe, file):
            for line in ("b\n", "a\n"):
                growing.add(line)
            growing.reorder(["a\n", "b\n"])
            growing.mark()
    os.close(ends[1])
    with os.fdopen(ends[0]) as reader:
        assert reader.read() == "head\nb\na\n"
    assert (tmp_path / "f").read_text() == "head\na\nb\n"
