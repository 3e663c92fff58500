"""Results record the versions, the machine and the commit they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import auricle
from auricle import environment


def test_environment_names_versions_and_machine() -> None:
    found = environment.environment()
    assert found["auricle"] == auricle.__version__
    assert found["torch"] == torch.__version__
    assert found["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert found["platform"]
    assert found["processor"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert {"numpy", "accelerator", "git"} <= set(found)


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
