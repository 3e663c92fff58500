"""Running the code blocks of a page, as its reader would: in order, in one folder, by the real command line.

Commands of auricle run in this process, which saves each of them the seconds that importing takes. `small` cuts the
budgets, so that a page takes seconds: what is asked for is parsed, checked and run all the same.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from website.blocks import Block, Page, commands, read_page

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
# What the folder of a session is called in what its commands print.
HOME = "/home/me"
# What a budget is cut to.
STEPS, CLIPS, SECONDS = 6, 40, 1.0
# Operators of the shell, for which a command of auricle would need a process of its own.
SHELL = re.compile(r"[|<>&;$`]")
TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)


class BlockError(Exception):
    """A block does not do what its page says; the message begins with the file and line."""


class Session:
    """The blocks of one page, in a folder of its own below `scratch`.

    Sessions that others continue are run once and kept in `scratch`. Blocks that are marked as slow are run if `slow`.
    """

    def __init__(self, page: Page, scratch: Path, slow: bool = False) -> None:
        self.page = page
        self.scratch = scratch
        self.slow = slow
        self.folder = scratch / page.path.resolve().relative_to(REPOSITORY).as_posix().replace("/", ".")
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self) -> Iterator[tuple[Block, str | None]]:
        """Run the page from its beginning; each block with what it printed, or None if it was not run.

        Raises:
            BlockError: one failed.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.page.after:
            shutil.copytree(finished(REPOSITORY / self.page.after, self.scratch), self.folder)
        else:
            self.folder.mkdir(parents=True)
        with _inside(self.folder):
            for block in self.page.blocks:
                yield block, self._run(block)

    def _run(self, block: Block) -> str | None:
        where = f"{self.page.path.resolve().relative_to(REPOSITORY)}:{block.line}"
        printed = io.StringIO()
        try:
            if "shown" in block.marks:
                return None
            if "parsed" in block.marks or ("slow" in block.marks and not self.slow):
                parse(block)
                return None
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.language == "bash":
                self._bash(block, printed)
            elif block.language == "python":
                code = compile(block.text, where, "exec")
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    exec(code, self.names)
            else:
                raise BlockError("neither code, nor a file with a title, nor what the block before it prints")
        except Exception as error:
            raise BlockError(f"{where}: {type(error).__name__}: {error}\n{printed.getvalue()[-2000:]}") from error
        return re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).replace(str(self.folder), HOME)

    def _bash(self, block: Block, printed: io.StringIO) -> None:
        *most, last = commands(block.text)
        for command in most:
            self._command(command, printed, 0)
        self._command(last, printed, int(block.marks.get("exit", "0")))

    def _command(self, command: str, printed: io.StringIO, expected: int) -> None:
        words = shlex.split(command, comments=True)
        if words[0] == "auricle":
            if SHELL.search(command.partition(" #")[0]):
                raise BlockError(f"no shell operators beside auricle, please: {command}")
            code = auricle(words[1:], printed)
        elif words[0] in CHECKS:
            CHECKS[words[0]](words, self.folder)
            return
        else:
            # Tests are those of the repository; everything else happens where the page is.
            where = REPOSITORY if "pytest" in words else self.folder
            environment = {
                **os.environ,
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "PYTHONPATH": os.pathsep.join([str(self.folder), str(REPOSITORY / "src")]),
            }
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, env=environment, cwd=where
            )
            printed.write(done.stdout + done.stderr)
            code = done.returncode
        if code != expected:
            raise BlockError(f"exit code {code}, not {expected}: {command}")


def finished(path: Path, scratch: Path) -> Path:
    """The folder in which the session of a page was run; made once."""
    session = Session(read_page(path), scratch)
    done = session.folder.with_suffix(".done")
    if not done.is_dir():
        for _ in session.run():
            pass
        session.folder.rename(done)
    return done


def auricle(arguments: list[str], printed: io.StringIO) -> int:
    """Run a command of auricle in this process; its exit code."""
    from auricle.cli import main

    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            return main(arguments)
        except SystemExit as end:
            return int(end.code or 0)


# What is checked instead of run ----------------------------------------------------------------------------------


def parse(block: Block) -> None:
    """Check what a block says without running it: Python is compiled, commands go through the real parser."""
    if block.language == "python":
        compile(block.text, "block", "exec")
        return
    for command in commands(block.text):
        words = shlex.split(command, comments=True)
        if "auricle" in words:
            parse_auricle(words[words.index("auricle") + 1 :])


def parse_auricle(arguments: list[str]) -> None:
    """Check the command, its options and the names of method, preset and recipe among them.

    Raises:
        BlockError: the parser refuses them.
        ConfigError: there is no such method, preset or recipe.
    """
    from auricle.cli import build_parser
    from auricle.methods import find_preset, get_preset, get_recipe

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            args = build_parser().parse_args(arguments)
    except SystemExit as end:
        if end.code:
            raise BlockError(told.getvalue()) from None
        return
    model = getattr(args, "method", None) or getattr(args, "model", "")
    method = find_preset(str(model))[0] or (model if args.verb == "pretrain" else "ssast")
    if getattr(args, "preset", ""):
        get_preset(method, args.preset)
    if getattr(args, "recipe", ""):
        get_recipe(method, args.recipe)


def _make(words: list[str], folder: Path) -> None:
    """The target is there: `make demo` takes minutes, and `make test` would run this very test."""
    targets = TARGET.findall((REPOSITORY / "Makefile").read_text())
    for target in words[1:]:
        if target not in targets:
            raise BlockError(f"the Makefile has no target {target}")


def _pip(words: list[str], folder: Path) -> None:
    """The network is not asked: extras of auricle must be there, and an editable install of a project that the page
    wrote puts its entry points and its folder on the path, as pip does."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for extra in filter(None, word.partition("[")[2].rstrip("]").split(",")):
            if extra not in extras:
                raise BlockError(f"auricle has no extra '{extra}'")
    project = folder / words[-1] / "pyproject.toml"
    if words[:3] == ["pip", "install", "-e"] and project.is_file():
        facts = tomllib.loads(project.read_text())["project"]
        info = project.parent / f"{facts['name'].replace('-', '_')}-{facts['version']}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: {facts['version']}\n")
        lines = [
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in facts.get("entry-points", {}).items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()


def _torchrun(words: list[str], folder: Path) -> None:
    """Parsed by torchrun's own parser, and the command behind it by ours; `tests/training/test_distributed.py` runs
    several processes."""
    from torch.distributed.run import get_args_parser

    own = get_args_parser().parse_args(words[1:])
    parse_auricle([word for word in own.training_script_args if word != "--"])


CHECKS: dict[str, Callable[[list[str], Path], None]] = {"make": _make, "pip": _pip, "torchrun": _torchrun}


# Small budgets ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Every training takes STEPS steps (pretraining, of the preset `test`), and few and short scenes are generated."""
    from auricle import api
    from auricle.data import synth

    with contextlib.ExitStack() as stack:
        for name in ("pretrain", "finetune", "cross_validate"):
            stack.enter_context(mock.patch.object(api, name, _shortened(getattr(api, name))))
        stack.enter_context(mock.patch.object(synth, "write_scenes", _fewer(synth.write_scenes)))
        yield


def _shortened(function: Callable[..., Any]) -> Callable[..., Any]:
    from auricle.methods import get_method

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if function.__name__ == "pretrain" and not options.get("init") and "test" in get_method(args[0]).PRESETS:
            options["preset"] = options.get("preset") or "test"
        options["steps"] = min(options.get("steps") or STEPS, STEPS)
        options.pop("max_minutes", None)
        return function(*args, **options)

    return call


def _fewer(function: Callable[..., Path]) -> Callable[..., Path]:
    @functools.wraps(function)
    def call(out: Path, clips: int, seconds: float, seed: int) -> Path:
        return function(out, min(clips, CLIPS), min(seconds, SECONDS), seed)

    return call


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder whose modules can be imported; modules that were imported from it are forgotten after."""
    before, modules = Path.cwd(), set(sys.modules)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
