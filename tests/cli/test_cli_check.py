"""`auricle check` from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from conftest import Outcome


def test_a_sound_data_set(cli: Callable[..., Outcome], tones: Path, tmp_path: Path) -> None:
    done = cli("check", tones, "--json", tmp_path / "check.json", "--stats", "ssast", "--processes", 1)
    assert done.code == 0
    assert "24 usable files" in done.out
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["bad_files"] == []
    assert found["labels"]["label"] == {"buzz": 8, "chirp": 8, "hiss": 8}
    assert -15 < found["statistics"]["norm_mean"] < 0
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
