"""A checkpoint is whole or not there, and a damaged one is never used."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from auricle.errors import CheckpointError
from auricle.training import checkpoint as ckpt

FILES = ("weights.safetensors", "optimizer.safetensors", "config.json", "state.json", "MANIFEST.json")


def tensors(step: int) -> dict[str, Tensor]:
    return {"a": torch.full((50, 7), float(step)), "b": torch.arange(300) + step}


def save(run: Path, step: int, **state: Any) -> Path:
    return ckpt.save_checkpoint(
        run,
        ckpt.step_name(step),
        weights=tensors(step),
        optimizer=tensors(-step),
        config={"kind": "pretraining", "method": "ssast", "model": {}},
        state={"step": step, **state},
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints 10 and 20."""
    for step in (10, 20):
        save(tmp_path / "run", step)
    return tmp_path / "run"


def test_what_was_saved_is_what_is_loaded(run: Path) -> None:
    found, problems = ckpt.latest(run)
    assert found is not None
    assert problems == []
    assert found.path == run / "step-000020"
    for name, value in tensors(20).items():
        assert torch.equal(found.weights()[name], value)
        assert torch.equal(found.optimizer()[name], tensors(-20)[name])
    assert found.state == {"step": 20}
    assert found.config["kind"] == "pretraining"
    assert len(found.hash) == 64


def test_save_load_save_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = ckpt.verify(run / "step-000020")
    header = {"schema", "auricle"}
    second = ckpt.save_checkpoint(
        tmp_path / "again",
        "step-000020",
        weights=first.weights(),
        optimizer=first.optimizer(),
        config={key: value for key, value in first.config.items() if key not in header},
        state=first.state,
    )
    for name in FILES:
        assert (second / name).read_bytes() == (first.path / name).read_bytes(), name


def test_killed_at_any_point_of_a_save_the_run_has_a_whole_checkpoint(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_saves.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True, timeout=100)
    results = json.loads(done.stdout)
    # Each list ends with the save that had no such point, and so was not killed.
    assert len(results["replace"]) > 30
    assert len(results["new"]) > 30
    for name, least in (("replace", 20), ("new", 30)):
        *killed, last = results[name]
        assert all(r["killed"] for r in killed)
        assert not last["killed"]
        assert all(r["whole"] and r["step"] >= least and r["left"] == [] for r in results[name])
        # The kills fall on both sides of the rename that makes the new one exist.
        assert {r["step"] for r in killed} == {least, least + 10}
    for r in results["random"]:
        assert r["killed"]
        assert r["left"] == []
        assert r["from"] == 1 or (r["whole"] and r["step"] >= r["from"] - 1)
    assert results["random"][-1]["step"] > 3


class Failing:
    """Raises at the n-th call of any of the functions it stands in for."""

    def __init__(self, point: int, error: Callable[[], OSError]) -> None:
        self.point, self.error, self.count = point, error, 0

    def wrap(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.point:
                raise self.error()
            return function(*args, **options)

        monkeypatch.setattr(owner, name, wrapped)


def message_of(action: Callable[[], object]) -> str | None:
    try:
        action()
    except CheckpointError as error:
        return str(error)
    return None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_an_error_at_any_point_of_a_save_is_told_and_costs_only_the_new_checkpoint(run: Path, code: int) -> None:
    before = {p.relative_to(run): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
    points = 0
    while True:
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing = Failing(points + 1, lambda: OSError(code, os.strerror(code)))
            failing.wrap(monkeypatch, os, "fsync")
            failing.wrap(monkeypatch, ckpt, "save_file")
            for name in ("mkdir", "rename", "write_text"):
                failing.wrap(monkeypatch, Path, name)
            told = message_of(lambda: save(run, 30))
        if told is None:
            break
        points += 1
        assert str(run / "step-000030") in told
        assert os.strerror(code) in told
        found, _ = ckpt.latest(run)
        assert found is not None
        # The last flush, of the folder, comes after the rename: what is there by then is whole.
        assert found.state["step"] == (30 if (run / "step-000030").exists() else 20)
        shutil.rmtree(run / "step-000030", ignore_errors=True)
        after = {p.relative_to(run): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
        assert after == before
    # Two tensor files, three texts, six flushes and one more, a folder and a rename.
    assert points >= 12


def test_a_full_disk_is_told_and_leaves_the_checkpoints_before(run: Path) -> None:
    # The limit on the size of a file fails in the middle of a write, as a full disk does.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step-000030 could not be saved: .*(File too large|os error 27)"):
            save(run, 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in run.iterdir()) == ["step-000010", "step-000020"]
    found, problems = ckpt.latest(run)
    assert found is not None
    assert found.state["step"] == 20
    assert problems == []


def test_a_refused_rename_is_never_silent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 30)

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CheckpointError, match=r"step-000040 could not be saved: .*Permission denied"):
        save(run, 40)
    with pytest.raises(CheckpointError, match=r"step-000010 could not be removed: .*Permission denied"):
        ckpt.prune(run, 2, ())
    assert ckpt.steps_saved(run) == [10, 20, 30]


def flip(path: Path, offset: int | None = None, bit: int = 3) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset is None else offset] ^= 1 << bit
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a flipped bit": flip,
    "a cut": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"0"),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "a folder in its place": lambda path: (path.unlink(), path.mkdir())[1],  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_the_previous_checkpoint_used(run: Path, name: str, damage: str) -> None:
    DAMAGE[damage](run / "step-000020" / name)
    if name == "MANIFEST.json":
        # A wrong digest in it accuses the file that it belongs to.
        name = "|".join(FILES)
    with pytest.raises(CheckpointError, match=name):
        ckpt.verify(run / "step-000020")
    with pytest.raises(CheckpointError, match=name):
        ckpt.resolve(run / "step-000020")
    found, problems = ckpt.latest(run)
    assert found is not None
    assert found.path == run / "step-000010"
    assert len(problems) == 1
    assert re.search(name, problems[0])
    with pytest.warns(ckpt.CheckpointWarning, match=f"({name}).*step-000010 is used"):
        assert ckpt.resolve(run).path == run / "step-000010"


def test_every_flipped_bit_of_the_manifest_is_noticed(run: Path) -> None:
    path = run / "step-000020"
    manifest = path / "MANIFEST.json"
    whole = manifest.read_bytes()
    for offset in range(len(whole)):
        for bit in (0, 5) if chr(whole[offset]) not in "01" else range(8):
            flip(manifest, offset, bit)
            with pytest.raises(CheckpointError):
                ckpt.verify(path)
            manifest.write_bytes(whole)
    ckpt.verify(path)


def test_a_surplus_file_is_named(run: Path) -> None:
    (run / "step-000020" / "note.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"note\.txt is not in the manifest"):
        ckpt.verify(run / "step-000020")


def test_with_every_checkpoint_damaged_there_is_none(run: Path) -> None:
    for step in (10, 20):
        flip(run / ckpt.step_name(step) / "weights.safetensors")
    found, problems = ckpt.latest(run)
    assert found is None
    assert len(problems) == 2
    with pytest.raises(CheckpointError, match=r"no usable checkpoint .*damaged"):
        ckpt.resolve(run)


def test_a_newer_schema_is_refused_and_a_senseless_one_too(run: Path) -> None:
    manifest = run / "step-000020" / "MANIFEST.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"schema": 2, "files": {}}))
    with pytest.raises(CheckpointError, match=r"schema 2, this auricle reads up to 1; install a newer"):
        ckpt.verify(run / "step-000020")
    for senseless in (0, -1, "1", None, 1.5, [1]):
        manifest.write_text(json.dumps(content | {"schema": senseless}))
        with pytest.raises(CheckpointError, match=r"MANIFEST\.json is damaged"):
            ckpt.verify(run / "step-000020")
    for files in ({}, {**content["files"], "../step-000010/state.json": content["files"]["state.json"]}):
        manifest.write_text(json.dumps(content | {"files": files}))
        with pytest.raises(CheckpointError, match=r"MANIFEST\.json does not list"):
            ckpt.verify(run / "step-000020")
    for damaged in ("[]", "null", "{}", '{"files": 5, "schema": 1}', '{"files": {"a": 1}, "schema": 1}', "\udcff"):
        manifest.write_bytes(damaged.encode("utf-8", "surrogateescape"))
        with pytest.raises(CheckpointError, match=r"MANIFEST\.json is damaged"):
            ckpt.verify(run / "step-000020")


def test_a_disk_that_cannot_read_a_file_is_a_damaged_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = ckpt.sha256

    def unreadable(path: Path) -> str:
        if path.parent.name == "step-000020" and path.name == "optimizer.safetensors":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return digest(path)

    monkeypatch.setattr(ckpt, "sha256", unreadable)
    found, problems = ckpt.latest(run)
    assert found is not None
    assert found.path == run / "step-000010"
    assert "optimizer.safetensors" in problems[0]
    assert "Input/output error" in problems[0]


def test_config_that_says_nothing_is_refused(run: Path) -> None:
    for config in ({}, {"kind": "classifier", "method": "ssast"}):
        path = ckpt.save_checkpoint(run, "step-000030", weights=tensors(1), config=config)
        with pytest.raises(CheckpointError, match=r"config\.json lacks .*model"):
            _ = ckpt.verify(path).config


def test_best_is_resolved_and_replaced_where_it_is_damaged(run: Path) -> None:
    best = {"step": 20, "metric": "val_accuracy", "value": 0.5}
    save(run, 30, best=best)
    assert ckpt.resolve(run).path == run / "step-000020"
    flip(run / "step-000020" / "weights.safetensors")
    with pytest.warns(ckpt.CheckpointWarning, match="step-000020.*step-000030 is used"):
        assert ckpt.resolve(run).path == run / "step-000030"
    shutil.rmtree(run / "step-000020")
    with pytest.warns(ckpt.CheckpointWarning, match="step-000030 is used"):
        assert ckpt.resolve(run).path == run / "step-000030"


def test_two_checkpoints_and_the_best_are_kept(run: Path) -> None:
    for step in (30, 40, 50):
        save(run, step)
        ckpt.prune(run, 1, {20})
    assert ckpt.steps_saved(run) == [20, 40, 50]
    assert sorted(p.name for p in run.iterdir()) == ["step-000020", "step-000040", "step-000050"]
    ckpt.prune(run, 3, ())
    assert ckpt.steps_saved(run) == [20, 40, 50]


def test_a_reader_of_a_removed_checkpoint_is_unaffected(run: Path) -> None:
    weights = ckpt.verify(run / "step-000010").weights()
    save(run, 30)
    ckpt.prune(run, 2, ())
    assert not (run / "step-000010").exists()
    assert all(torch.equal(weights[name], value) for name, value in tensors(10).items())


def test_the_next_start_removes_what_killed_writers_left(run: Path) -> None:
    half = run / ".step-000030.tmp-99"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    (run / ".metrics.tmp-99.jsonl").write_text("half")
    ckpt.remove_stale(run)
    assert sorted(p.name for p in run.iterdir()) == ["step-000010", "step-000020"]


def test_steps_beyond_six_digits_are_found_in_order(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 9):
        save(tmp_path, step)
    (tmp_path / "step-12").mkdir()
    (tmp_path / "step-0000123").write_text("a file")
    assert ckpt.steps_saved(tmp_path) == [9, 999_999, 1_000_000]
    found, _ = ckpt.latest(tmp_path)
    assert found is not None
    assert found.state["step"] == 1_000_000


def test_tensors_that_do_not_fit_are_counted_and_named() -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    before = {name: value.clone() for name, value in state.items()}
    wrong = {name: value for name, value in state.items() if not name.endswith("weight")}
    wrong["0.bias"] = torch.zeros(3)
    wrong |= {f"extra{i:02}": torch.zeros(1) for i in range(11)}
    with pytest.raises(CheckpointError) as caught:
        ckpt.load_state(module, wrong, "here")
    message = str(caught.value)
    assert message.startswith("here does not fit the network: 12 missing tensors (")
    assert "11 unknown tensors (extra00, " in message
    assert "extra09" in message
    assert "extra10" not in message
    assert "1 tensor of another shape (0.bias: [3], expected [2])" in message
    assert message.count(".weight") == 10
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_what_is_no_checkpoint_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing: no such checkpoint or run directory"):
        ckpt.resolve(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"names a configuration, .*published file\)\.$"):
        ckpt.resolve(Path("ssast-test"))
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"is a file; convert .*auricle import"):
        ckpt.resolve(tmp_path / "model.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no usable checkpoint; give"):
        ckpt.resolve(tmp_path / "empty")
    (tmp_path / "step-000001").mkdir()
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it holds no MANIFEST\.json"):
        ckpt.resolve(tmp_path / "step-000001")
