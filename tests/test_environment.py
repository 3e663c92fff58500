"""Results record the versions, the machine and the commit they come from."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import auricle
from auricle import environment
from auricle.command import command_line


def test_environment_names_versions_and_machine() -> None:
    found = environment.environment()
    assert found["auricle"] == auricle.__version__
    assert found["torch"] == torch.__version__
    assert found["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert found["platform"]
    assert found["processor"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert {"numpy", "accelerator", "git"} <= set(found)


def test_the_command_is_recorded_and_from_python_one_that_does_the_same(
    tones: Path, pretrained: Path, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(run: str) -> str:
        found: str = json.loads((tmp_path / run / "environment.json").read_text())["command"]
        return found

    monkeypatch.chdir(tmp_path)
    assert environment.environment()["command"] == ""
    assert cli("pretrain", "ssast", tones, "--preset", "test", "--steps", 2, "--quiet", "--out", "a b").code == 0
    assert recorded("a b") == f"auricle pretrain ssast {tones} --preset test --steps 2 --quiet --out 'a b'"
    auricle.pretrain("ssast", tones, "c", preset="test", steps=2, settings={"lr": 0.002}, quiet=True, workers=0)
    assert recorded("c") == f"auricle pretrain ssast {tones} --out c --preset test --set lr=0.002 --steps 2 --quiet"
    # Which resumes the same run.
    assert cli(*shlex.split(recorded("c"))[1:]).code == 0
    auricle.finetune(pretrained, [tones], "d", steps=2, group_column="group", quiet=True)
    assert recorded("d") == f"auricle finetune {pretrained} {tones} --out d --group-column group --steps 2 --quiet"
    assert environment.environment()["command"] == ""


def test_commands_of_functions() -> None:
    arguments = {"cache": False, "model": "m", "data": ["x", "y z"], "against": "n", "ensemble": ["a", "b"], "seed": 3}
    assert command_line("probe", arguments) == (
        "auricle probe m x 'y z' --no-cache --against n --ensemble a --ensemble b --seed 3"
    )


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package tracked in a repository with one commit."""
    try:
        git(tmp_path, "init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return package


def test_git_state_is_the_commit_and_whether_files_differ(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As inside a git hook, where such variables point to the repository of the hook.
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    state = environment._git_state(checkout)
    monkeypatch.delenv("GIT_DIR")
    assert state == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "__init__.py").write_text("changed = True\n")
    assert environment._git_state(checkout) == {**state, "dirty": True}


def test_package_installed_inside_another_checkout_has_no_git_state(checkout: Path) -> None:
    installed = checkout / "venv" / "auricle"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert environment._git_state(installed) is None
