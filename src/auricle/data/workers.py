"""Worker processes that read ahead, and deliver in order.

Symptom: a worker is killed, by the kernel when memory is short, and training waits for ever; or training is killed, and
its workers live on. Cause: workers that share one pipe, as those of torch's DataLoader do. A worker that dies in the
middle of a message leaves half of it, and the others hold the pipe open, so that its reader sees no end. Here every
worker has a pipe of its own: either end notices at once that the other is gone. What a worker makes follows from its
number, so another one can take the place of a dead one. Once: two deaths in a row have a cause that will not go away.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any, TypeVar

from auricle.data.processes import detached, forkserver
from auricle.errors import AuricleError

T = TypeVar("T")
# `produce(first, step)` makes things number `first`, `first + step`, ... of an endless sequence.
Produce = Callable[[int, int], Iterator[T]]

TIMEOUT_SECONDS = 120.0
# A worker that dies is replaced, unless one died less than this before.
RESTART_SECONDS = 60.0
# How a worker ends that was told to, as all processes of a batch job are: by the signal itself, or with 255, where the
# server that forks them has ended too.
TOLD_TO_END = (-signal.SIGTERM, 255)

_doing: Any = None


class WorkerWarning(UserWarning):
    """A loader worker died, and another one took its place."""


def doing(what: str) -> None:
    """Note what this worker does next, for the message if it never ends; without effect in the process that trains."""
    if _doing is not None:
        _doing.value = what.encode(errors="replace")[: len(_doing) - 1]


class _Worker:
    """One process, its pipe, and the number of the next thing it owes."""

    def __init__(self, context: Any, produce: Produce[Any], first: int, step: int) -> None:
        self.context, self.produce, self.next, self.step = context, produce, first, step
        self.idle_since_replaced = False
        self.start()

    def start(self) -> None:
        self.doing = RawArray(ctypes.c_char, 1024)
        self.pipe, theirs = self.context.Pipe(duplex=False)
        arguments = (self.produce, self.next, self.step, theirs, self.doing)
        self.process: BaseProcess = self.context.Process(target=_work, args=arguments, daemon=True)
        # What a test's own main module would have it run, a process could not find without that module.
        with contextlib.nullcontext() if self.produce.__module__ == "__main__" else detached():
            self.process.start()
        # Only the worker may hold its end, or its death would not close it.
        theirs.close()

    def receive(self) -> Any:
        """The next thing, or None where the worker has died."""
        try:
            if not self.pipe.poll(TIMEOUT_SECONDS):
                raise AuricleError(
                    f"a loader worker has delivered nothing for {TIMEOUT_SECONDS:g} s, it was {_text(self.doing)}; "
                    "look whether the disk still answers, then run the same command again to resume."
                )
            thing = self.pipe.recv()
        except (EOFError, OSError):
            return None
        self.next, self.idle_since_replaced = self.next + self.step, False
        return thing

    def replace(self, again: bool) -> None:
        """Put another process in the place of the dead one, unless one died shortly before."""
        self.process.join(5.0)
        code = self.process.exitcode
        cause = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        cause += f", {_text(self.doing)}"
        again = again or self.idle_since_replaced
        if again or code in TOLD_TO_END:
            raise AuricleError(
                f"a loader worker died{' again' if again else ''} ({cause}); "
                "run the same command again to resume, with fewer --workers if memory was short."
            )
        warnings.warn(f"a loader worker died ({cause}); another takes its place.", WorkerWarning, stacklevel=3)
        self.end()
        self.idle_since_replaced = True
        self.start()

    def end(self) -> None:
        self.process.kill()
        self.pipe.close()


def read_ahead(produce: Produce[T], workers: int, first: int = 0) -> Iterator[T]:
    """What `produce(first, 1)` would make, made in `workers` (at least 1) processes; `produce` must pickle.

    Each worker is at most one thing ahead, and what its pipe holds. The processes end with the iterator.

    Raises:
        AuricleError: what a worker raised; or workers died, or one made nothing for TIMEOUT_SECONDS.

    Warns:
        WorkerWarning: a worker died and was replaced; what is delivered is the same.
    """
    context = forkserver(produce.__module__)
    started: list[_Worker] = []
    died = -math.inf
    try:
        for number in range(workers):
            started.append(_Worker(context, produce, first + number, workers))
        while True:
            for worker in started:
                while (outcome := worker.receive()) is None:
                    worker.replace(again=time.monotonic() - died < RESTART_SECONDS)
                    died = time.monotonic()
                if isinstance(outcome, AuricleError):
                    raise outcome
                yield outcome
    finally:
        for worker in started:
            worker.end()
        for worker in started:
            worker.process.join(1.0)


def _text(note: Any) -> str:
    return note.value.decode(errors="replace") or "starting"


def _work(produce: Produce[T], first: int, step: int, pipe: Connection, note: Any) -> None:
    global _doing
    _doing = note
    # They reach all processes of a terminal or a batch job; the one that trains decides what they mean.
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # A broken pipe: who reads it has ended, however it ended, and so does this process.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            for outcome in produce(first, step):
                doing("handing over a batch")
                pipe.send(outcome)
        except AuricleError as error:
            pipe.send(error)
        except MemoryError:
            pipe.send(AuricleError(f"a loader worker ran out of memory while {_text(note)}; use fewer --workers."))
