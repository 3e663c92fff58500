"""Save checkpoints and be killed at every point of a save; print what a resume would find after each.

    python killed_saves.py FOLDER

A process of its own: the children that are killed are forked from it, and a fork of the test process would copy its
threads' locks. Each child kills itself (SIGKILL) before or after the n-th of the calls that change the file system.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from auricle.training import checkpoint as ckpt


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((50, 7), float(step)), "b": torch.arange(300) + step}


def save(run: Path, step: int) -> None:
    """One interval of a training: save, and keep two."""
    ckpt.save_checkpoint(
        run,
        ckpt.step_name(step),
        weights=tensors(step),
        optimizer=tensors(-step),
        config={"kind": "pretraining", "method": "ssast", "model": {}},
        state={"step": step},
    )
    ckpt.prune(run, 2, ())


class Killer:
    """Counts the calls of some functions, and kills the process before or after the n-th."""

    def __init__(self, point: int) -> None:
        self.point, self.count = point, 0

    def tick(self) -> None:
        self.count += 1
        if self.count == self.point:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            self.tick()
            result = function(*args, **options)
            self.tick()
            return result

        setattr(owner, name, wrapped)

    def arm(self) -> None:
        self.wrap(os, "fsync")
        for method in ("mkdir", "rename", "write_text"):
            self.wrap(Path, method)
        self.wrap(ckpt, "save_file")
        self.wrap(ckpt.shutil, "rmtree")


def start(work: Callable[[], None]) -> int:
    """The process id of a fork that does `work`."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def outcome(run: Path, child: int) -> dict[str, Any]:
    """How the child ended, and what the next start of the run finds."""
    status = os.waitpid(child, 0)[1]
    ckpt.remove_stale(run)
    found, _ = ckpt.latest(run)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "step": found.state["step"] if found else None,
        "whole": found is not None and bool((found.weights()["a"] == found.state["step"]).all()),
        "left": sorted(p.name for p in run.iterdir() if p.name.startswith(".")),
    }


def at_every_point(folder: Path, step: int) -> list[dict[str, Any]]:
    """Kills while `step` is saved in a run with 20 and 30; a step 30 replaces the one there, which is damaged."""
    results: list[dict[str, Any]] = []
    while not results or results[-1]["killed"]:
        point = len(results) + 1
        run = folder / f"{step}-{point}"
        for earlier in (10, 20, 30):
            save(run, earlier)
        if step == 30:
            (run / "step-000030" / "state.json").write_text("{}")

        def killed(run: Path = run, point: int = point) -> None:
            Killer(point).arm()
            save(run, step)

        results.append(outcome(run, start(killed)))
    return results


def at_random_times(folder: Path, times: int) -> list[dict[str, Any]]:
    """One run that saves without end, is killed, and starts again; the delays are drawn from a fixed seed."""
    results, rng, first, run = [], random.Random(0), 1, folder / "random"
    run.mkdir()
    for _ in range(times):

        def saving(first: int = first) -> None:
            for step in range(first, first + 10**6):
                save(run, step)

        child = start(saving)
        time.sleep(rng.uniform(0.01, 0.1))
        os.kill(child, signal.SIGKILL)
        results.append({"from": first, **outcome(run, child)})
        first = (results[-1]["step"] or 0) + 1
    return results


def main() -> None:
    folder = Path(sys.argv[1])
    results = {
        "replace": at_every_point(folder, 30),
        "new": at_every_point(folder, 40),
        "random": at_random_times(folder, 40),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
