"""Start the command line in processes that can be killed, without waiting each time for torch to be imported.

The processes are forked from one server that has imported everything and done nothing. They are otherwise what a shell
starts: their own memory, files and signals.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import get_args, get_type_hints

from auricle.methods import get_method, method_names
from auricle.training.checkpoint import steps_saved

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["auricle.api", "auricle.cli", "torch._dynamo", "jsonargparse", "launch"])


def _run(
    arguments: list[str], log: str, group: bool, variables: dict[str, str], prepare: Callable[[], None] | None
) -> None:
    os.environ.update(variables)
    if group:
        os.setpgid(0, 0)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from auricle.cli import main
    from auricle.evaluation import pages

    # Drawn after the last step, for longer than these runs train.
    pages.pretraining_page = pages.finetuning_page = lambda *arguments: None  # type: ignore[assignment]
    if prepare is not None:
        prepare()
    sys.exit(main(arguments))


class Command:
    """`auricle ARGS...` in a process of its own; what it prints goes to the end of `log`.

    With `group`, signals go to the processes that it starts as well, as they do from a terminal. `variables` are set in
    its environment, and `prepare` is called before the command is.
    """

    def __init__(
        self,
        log: Path,
        *arguments: object,
        group: bool = False,
        variables: dict[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.log, self.group = log, group
        self.process: BaseProcess = CONTEXT.Process(
            target=_run, args=([str(a) for a in arguments], str(log), group, variables or {}, prepare)
        )
        self.process.start()

    def wait(self, timeout: float = 100.0) -> int:
        """The exit code; -9 where it was killed by SIGKILL."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise TimeoutError(f"still running after {timeout} s:\n{self.log.read_text()}")
        return code

    def wait_for_checkpoint(self, run: Path, after: int = -1) -> int:
        """The step of the newest checkpoint once there is one beyond `after`; `after` itself if the command ends."""
        while self.process.is_alive():
            newest = max(steps_saved(run), default=-1)
            if newest > after:
                return newest
            time.sleep(0.001)
        return after

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if self.group else os.kill)(self.process.pid, number)
        return self.wait()


class Together:
    """`auricle ARGS...` in `size` processes that train together: what torchrun starts, without torchrun's seconds."""

    def __init__(self, log: Path, size: int, *arguments: object, prepare: Callable[[], None] | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.log = log
        self.commands = [
            Command(log, *arguments, variables={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, prepare=prepare)
            for rank in range(size)
        ]

    def wait(self) -> list[int]:
        """The exit codes, by rank."""
        return [command.wait() for command in self.commands]

    def signal(self, number: signal.Signals, *ranks: int) -> list[int]:
        """Send a signal to these ranks, or to all, and return the exit codes of all."""
        for rank in ranks or range(len(self.commands)):
            pid = self.commands[rank].process.pid
            assert pid is not None
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return self.wait()


def pretext_tasks() -> list[tuple[str, str]]:
    """The methods of the registry that can be pretrained, each with every `pretext` that its settings offer, or ""."""
    tasks: list[tuple[str, str]] = []
    for name in method_names():
        method = get_method(name)
        if "pretrain" in method.CAPABILITIES:
            offered = get_args(get_type_hints(method.CONFIG).get("pretext"))
            tasks += [(name, pretext) for pretext in offered or ("",)]
    return tasks


def run_and_kill(log: Path, run: Path, *arguments: object, kills: int, seed: int = 0) -> list[int]:
    """Run to the end with `kills` SIGKILLs, each a random moment after a new checkpoint; returns the newest at each.

    On a busy machine the run may reach its end before the last of them.
    """
    rng, at = random.Random(seed), [-1]
    for _ in range(kills):
        command = Command(log, *arguments, "--out", run)
        newest = command.wait_for_checkpoint(run, at[-1])
        time.sleep(rng.uniform(0.0, 0.02))
        if command.signal(signal.SIGKILL) != -signal.SIGKILL:
            break
        at.append(newest)
    code = Command(log, *arguments, "--out", run).wait()
    assert code == 0, log.read_text()
    assert len(at) > min(kills, 1), f"it was never killed:\n{log.read_text()}"
    return at[1:]
