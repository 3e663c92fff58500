"""`auricle check` from the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle import api
from auricle.errors import DataError
from conftest import Outcome


def test_a_sound_data_set(cli: Callable[..., Outcome], tones: Path, tmp_path: Path) -> None:
    done = cli("check", tones, "--json", tmp_path / "check.json", "--stats", "ssast", "--processes", 1)
    assert done.code == 0
    assert "24 usable files" in done.out
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["bad_files"] == []
    assert found["labels"]["label"] == {"buzz": 8, "chirp": 8, "hiss": 8}
    assert -15 < found["statistics"]["norm_mean"] < 0
    assert found["skipped"] == []
    for values in (found["seconds"], *found["levels"].values()):
        assert sum(values["counts"]) == 24
        assert (values["edges"][0], values["edges"][-1]) == (values["least"], values["most"])
        assert values["least"] <= values["median"] <= values["most"]
    note = f"{tones}/manifest.csv: read as csv (it holds manifest.csv): 24 items"
    assert found["data"]["notes"] == [note]
    assert note in (tmp_path / "check.html").read_text()
    assert (tmp_path / "check.html").read_text().startswith("<!DOCTYPE html>")


def test_bad_files_give_exit_code_2_a_list_and_reasons(
    cli: Callable[..., Outcome], tones: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tones, data)
    victim = data / "audio" / "buzz1.flac"
    victim.write_bytes(victim.read_bytes()[:2000])
    (data / "audio" / "hiss2.wav").unlink()
    done = cli("check", data, "--json", tmp_path / "c.json", "--exclude", data / "exclude.txt", "--processes", 1)
    assert done.code == 2
    reasons = {Path(b["path"]).name: b["reason"] for b in json.loads((tmp_path / "c.json").read_text())["bad_files"]}
    assert set(reasons) == {"buzz1.flac", "hiss2.wav"}
    assert reasons["hiss2.wav"] == "missing"
    listed = [line for line in (data / "exclude.txt").read_text().splitlines() if not line.startswith("#")]
    assert sorted(listed) == ["audio/buzz1.flac", "audio/hiss2.wav"]


def test_what_was_found_is_kept_where_statistics_fail(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a\nb.wav", "z\udcff.wav"):
        soundfile.write(os.fsencode(data / name), np.full(8000, np.nan), 8000, format="WAV", subtype="FLOAT")
    places = (tmp_path / "c.json", tmp_path / "exclude.txt")
    done = cli("check", data, "--json", places[0], "--exclude", places[1], "--stats", "ssast", "--processes", 1)
    assert done.code == 2
    assert done.err.splitlines()[-1] == "error: --stats ssast: no file is usable, so there is nothing to measure."
    assert f"error: {data}/a\\nb.wav: non-finite: sample 0 of channel 0 is nan" in done.err
    found = json.loads(places[0].read_text())
    assert [Path(b["path"]).name for b in found["bad_files"]] == ["a\nb.wav", "z\udcff.wav"]
    assert (found["skipped"], found["seconds"]["counts"]) == ([], [])
    assert "z\\udcff.wav" in (tmp_path / "c.html").read_text()
    refused = cli("convert", data, "--exclude", places[1], "--out", tmp_path / "x.jsonl")
    assert "nothing is left of it: it lists no sound files, or all are excluded." in refused.err


def test_files_of_which_no_header_can_be_read_are_all_listed(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.wav", "b.flac"):
        (data / name).touch()
    done = cli("check", data, "--json", tmp_path / "c.json", "--exclude", tmp_path / "exclude.txt", "--processes", 1)
    assert done.code == 2
    assert done.out.startswith("0 usable files, 0.00 hours; 2 unusable\n")
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["bad_by_reason"] == {"not audio": 2}
    assert found["skipped"] == found["bad_files"]
    assert len((tmp_path / "exclude.txt").read_text().splitlines()) == 5
    with pytest.raises(DataError, match=r"2 files cannot be read .*since statistics on the rest"):
        api.input_statistics("ssast", data)


def test_statistics_are_those_of_the_usable_files(cli: Callable[..., Outcome], tones: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tones, data)
    victim = data / "audio" / "buzz1.flac"
    victim.write_bytes(victim.read_bytes()[:2000])
    (data / "audio" / "hiss2.wav").unlink()
    done = cli("check", data, "--json", tmp_path / "c.json", "--stats", "ssast", "--processes", 1)
    assert done.code == 2
    found = json.loads((tmp_path / "c.json").read_text())
    assert [(Path(s["path"]).name, s["reason"]) for s in found["skipped"]] == [("hiss2.wav", "missing")]
    assert {Path(b["path"]).name for b in found["bad_files"]} == {"buzz1.flac", "hiss2.wav"}
    assert found["statistics"]["norm_mean"] < 0


def test_names_that_are_no_text_are_trained_on(cli: Callable[..., Outcome], tones: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for path in (tones / "audio").iterdir():
        (data / path.name[:4]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / path.name[:4] / f"\udcff {path.name}")
    done = cli("pretrain", "ssast", data, "--preset", "test", "--steps", 2, "--out", tmp_path / "p", "--quiet")
    assert done.code == 0, done.err
    done = cli("finetune", tmp_path / "p", data, "--steps", 2, "--out", tmp_path / "f", "--quiet")
    assert done.code == 0, done.err
    done = cli("evaluate", tmp_path / "f", data, "--split", "all", "--json", tmp_path / "e.json")
    assert done.code == 0, done.err
    done = cli("probe", tmp_path / "p", data, "--json", tmp_path / "probe.json")
    assert done.code == 0, done.err
    done = cli("embed", tmp_path / "p", data, "--out", tmp_path / "e.npz")
    assert done.code == 0, done.err


def test_training_leaves_out_what_check_listed(cli: Callable[..., Outcome], tones: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tones, data)
    (data / "audio" / "hiss2.wav").unlink()
    cli("check", data, "--exclude", data / "exclude.txt", "--processes", 1)
    options = ("--preset", "test", "--steps", 1, "--out", tmp_path / "run", "--quiet")
    refused = cli("pretrain", "ssast", data, *options)
    assert refused.code == 2
    assert "hiss2.wav" in refused.err
    assert cli("pretrain", "ssast", data, *options, "--exclude", data / "exclude.txt").code == 0
    assert json.loads((tmp_path / "run" / "data.json").read_text())["items"] == 23
