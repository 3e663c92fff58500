"""`check` reports exactly what is wrong with a data set."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from auricle.data import check as module
from auricle.data.check import check, inspect
from auricle.data.exclude import read_exclude_list, write_exclude_list
from auricle.data.formats import read_data
from auricle.data.items import AudioRef, Item
from auricle.errors import ConfigError, DataError

RATE = 16_000


def noise(seed: int, seconds: float = 1.5, level: float = 0.1) -> NDArray[np.float64]:
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def write(path: Path, wave: NDArray[np.float64], rate: int = RATE, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype=subtype)


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Twelve good files, and one for each way of being bad."""
    for seed in range(12):
        write(tmp_path / f"good{seed}.wav", noise(seed))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not sound\n" * 10)
    whole = (tmp_path / "good0.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "header.wav").write_bytes(whole[:44])
    nan = noise(50)
    nan[700] = np.nan
    write(tmp_path / "nan.wav", nan, subtype="FLOAT")
    write(tmp_path / "loud.wav", noise(51, level=1e4), subtype="FLOAT")
    write(tmp_path / "damaged.flac", noise(52))
    damaged = bytearray((tmp_path / "damaged.flac").read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 200] = bytes(200)
    (tmp_path / "damaged.flac").write_bytes(damaged)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    return tmp_path


BAD = {"empty.wav", "text.wav", "cut.wav", "header.wav", "nan.wav", "loud.wav", "damaged.flac", "gone.wav"}


@pytest.mark.parametrize("processes", [1, 2])
def test_exactly_the_bad_files_are_reported(messy: Path, processes: int) -> None:
    findings = check(read_data(messy, keep_going=True), processes=processes)
    assert {Path(b.path).name for b in findings.bad} == BAD
    assert len(findings.sounds) == 12
    reasons = {Path(b.path).name: b.reason for b in findings.bad}
    assert reasons["cut.wav"] == "truncated"
    assert reasons["nan.wav"] == "non-finite"
    assert reasons["loud.wav"] == "level"
    assert reasons["damaged.flac"] == "damaged"


def test_the_exclude_list_leaves_out_exactly_these(messy: Path, tmp_path: Path) -> None:
    findings = check(read_data(messy, keep_going=True))
    write_exclude_list(messy / "exclude.txt", [(b.path, b.reason) for b in findings.bad])
    kept = read_data(messy, exclude=messy / "exclude.txt")
    assert kept.ids == tuple(sorted(s.id for s in findings.sounds))
    assert not kept.skipped


def test_an_exclude_list_moves_with_its_data(messy: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_exclude_list(messy / "exclude.txt", [(str(messy / "good1.wav"), "dull")])
    moved = tmp_path_factory.mktemp("moved") / "data"
    shutil.copytree(messy, moved, symlinks=True)
    assert read_exclude_list(moved / "exclude.txt") == {str(moved / "good1.wav")}


ODD = ("new\nline.wav", "\udcff byte.wav", " blanks .wav", "# hash.wav", '"quoted".wav', "line\u2028end.wav", "ünï.wav")


def test_files_of_any_name_are_found_again_by_the_list(tmp_path: Path) -> None:
    write(tmp_path / "good.wav", noise(0))
    for name in ODD:
        (tmp_path / name).write_bytes((tmp_path / "good.wav").read_bytes()[:1000])
    findings = check(read_data(tmp_path), processes=1)
    assert {Path(b.path).name for b in findings.bad} == set(ODD)
    for place in (tmp_path / "exclude.txt", tmp_path / "elsewhere" / "exclude.txt"):
        write_exclude_list(place, [(b.path, b.reason) for b in findings.bad])
        assert read_exclude_list(place) == {str(tmp_path / name) for name in ODD}
        assert read_data(tmp_path, exclude=place).ids == ("good.wav",)
    assert findings.usable.ids == ("good.wav",)


def test_a_list_made_by_hand_may_name_a_quoted_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text('"a" and b.wav\n\n# c.wav\r\n  d.wav \r\n')
    assert read_exclude_list(tmp_path / "mine.txt") == {str(tmp_path / '"a" and b.wav'), str(tmp_path / "d.wav")}


def test_files_that_cannot_even_be_opened_are_explained(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(0))
    (tmp_path / "slow.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    with (tmp_path / "slow.wav").open("r+b") as file:
        file.seek(24)
        file.write((7).to_bytes(4, "little"))
    (bad,) = check(read_data(tmp_path), processes=1).bad
    assert (bad.reason, bad.detail) == ("rate", "expected 1,000 to 768,000 Hz, got 7 Hz; correct the header")


def test_an_exclude_list_that_is_not_there(messy: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_data(messy, exclude=messy / "no.txt")


def test_a_list_made_by_hand_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a.wav\n")
    with pytest.raises(ConfigError, match="not written by auricle check"):
        write_exclude_list(tmp_path / "mine.txt", [])
    assert (tmp_path / "mine.txt").read_text() == "a.wav\n"
    write_exclude_list(tmp_path / "new.txt", [("/b.wav", "truncated")])
    write_exclude_list(tmp_path / "new.txt", [("/c.wav", "truncated")])
    assert read_exclude_list(tmp_path / "new.txt") == {"/c.wav"}


def test_missing_rows_are_bad_files_with_keep_going_and_refused_without(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(0))
    table(tmp_path, [{"path": "a.wav", "label": "x"}, {"path": "b.wav", "label": "y"}])
    with pytest.raises(DataError, match="missing"):
        read_data(tmp_path)
    (bad,) = check(read_data(tmp_path, keep_going=True), processes=1).bad
    assert (Path(bad.path).name, bad.reason) == ("b.wav", "missing")
    write_exclude_list(tmp_path / "exclude.txt", [(bad.path, bad.reason)])
    assert read_data(tmp_path, exclude=tmp_path / "exclude.txt").ids == ("a.wav",)


def test_copies_and_leaks_across_splits(tmp_path: Path) -> None:
    for seed in range(4):
        write(tmp_path / f"{seed}.wav", noise(seed))
    samples, _ = soundfile.read(tmp_path / "0.wav", dtype="int16")
    soundfile.write(tmp_path / "same.flac", samples, RATE)
    write(tmp_path / "quieter.wav", 0.3 * noise(1), subtype="FLOAT")
    rows = [
        {"path": "0.wav", "split": "train", "label": "x", "speaker": "ann"},
        {"path": "1.wav", "split": "train", "label": "x", "speaker": "ann"},
        {"path": "2.wav", "split": "train", "label": "y", "speaker": "bob"},
        {"path": "3.wav", "split": "test", "label": "y", "speaker": "bob"},
        {"path": "same.flac", "split": "test", "label": "x", "speaker": "eve"},
        {"path": "quieter.wav", "split": "train", "label": "y", "speaker": "eve"},
    ]
    findings = check(read_data(table(tmp_path, rows)), processes=1)
    (equal,) = findings.duplicates
    assert {equal.first, equal.second} == {"0.wav", "same.flac"}
    assert equal.across_splits
    (near,) = findings.near_duplicates
    assert {near.first, near.second} == {"1.wav", "quieter.wav"}
    assert not near.across_splits
    assert set(near.labels) == {"x", "y"}
    (leak,) = findings.leaks
    assert leak.column == "speaker"
    assert leak.values == {"bob": ("test", "train"), "eve": ("test", "train")}


def test_levels(tmp_path: Path) -> None:
    half = np.full(RATE, 0.5)
    half[RATE // 2 :] = 0.0
    write(tmp_path / "half.wav", half, subtype="FLOAT")
    write(tmp_path / "clipped.wav", np.clip(noise(0, level=1.0), -1, 1), subtype="FLOAT")
    write(tmp_path / "silent.wav", np.zeros(RATE))
    stereo = np.stack([np.full(RATE, 0.5), np.full(RATE, -0.5)], axis=1)
    write(tmp_path / "stereo.wav", stereo, subtype="FLOAT")
    findings = check(read_data(tmp_path), processes=1)
    by_name = {s.id: s for s in findings.sounds}
    assert by_name["half.wav"].silent == pytest.approx(0.5)
    assert by_name["half.wav"].peak == pytest.approx(-6.02, abs=0.01)
    assert by_name["half.wav"].rms == pytest.approx(-9.03, abs=0.01)
    assert by_name["half.wav"].offset == pytest.approx(0.25)
    assert by_name["stereo.wav"].channels == 2
    assert by_name["stereo.wav"].peak == pytest.approx(-6.02, abs=0.01)
    assert [s.id for s in findings.silent] == ["silent.wav"]
    assert [s.id for s in findings.clipped] == ["clipped.wav"]
    assert [s.id for s in findings.shifted] == ["half.wav"]


def test_a_stated_duration_that_is_wrong(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(0))
    write(tmp_path / "b.wav", noise(1))
    table(tmp_path, [{"path": "a.wav", "duration": "1.5"}, {"path": "b.wav", "duration": "2.5"}])
    ((sound, stated),) = check(read_data(tmp_path), processes=1).misstated
    assert (sound.id, stated) == ("b.wav", 2.5)


def _die_on_five(item: Item) -> module.Sound | module.BadFile:
    if item.id == "5.wav":
        os.kill(os.getpid(), 9)
    return inspect(item)


def test_a_decoder_that_kills_its_process_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(8):
        write(tmp_path / f"{seed}.wav", noise(seed, 0.1))
    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "inspect", _die_on_five)
    monkeypatch.setattr(module, "_inspect_batch", _batch_that_dies_on_five)
    findings = check(read_data(tmp_path), processes=1)
    assert [(Path(b.path).name, b.reason) for b in findings.bad] == [("5.wav", "crash")]
    assert len(findings.sounds) == 7


def _batch_that_dies_on_five(items: list[Item]) -> list[module.Sound | module.BadFile]:
    return [_die_on_five(item) for item in items]


def test_a_stretch_of_a_file_is_checked_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(0, 2.0))
    ref = AudioRef(str(tmp_path / "a.wav"), start=0.5, end=1.25)
    sound = inspect(Item("a", {"audio": ref}, {}, (), 0.75))
    assert isinstance(sound, module.Sound)
    assert sound.seconds == pytest.approx(0.75)
