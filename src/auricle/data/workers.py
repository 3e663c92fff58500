"""Worker processes that read ahead, and deliver in order.

Symptom: a worker is killed, by the kernel when memory is short, and training waits for ever; or training is killed, and
its workers live on. Cause: workers that share one pipe, as those of torch's DataLoader do. A worker that dies in the
middle of a message leaves half of it, and the others hold the pipe open, so that its reader sees no end. Here every
worker has a pipe of its own: either end notices at once that the other is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from auricle.errors import AuricleError

T = TypeVar("T")
# `produce(first, step)` makes things number `first`, `first + step`, ... of an endless sequence.
Produce = Callable[[int, int], Iterator[T]]

TIMEOUT_SECONDS = 120.0


def read_ahead(produce: Produce[T], workers: int) -> Iterator[T]:
    """What `produce(0, 1)` would make, made in `workers` (at least 1) processes; `produce` must pickle.

    Each worker is at most one thing ahead, and what its pipe holds. The processes end with the iterator.

    Raises:
        AuricleError: what a worker raised; or a worker died, or made nothing for TIMEOUT_SECONDS.
    """
    # forkserver: a forked child of a process that has used torch's threads can deadlock.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([produce.__module__])
    started: list[tuple[BaseProcess, Connection]] = []
    try:
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(target=_work, args=(produce, number, workers, theirs), daemon=True)
            process.start()
            # Only the worker may hold its end, or its death would not close it.
            theirs.close()
            started.append((process, ours))
        while True:
            for process, pipe in started:
                yield _receive(process, pipe)
    finally:
        for process, pipe in started:
            process.kill()
            pipe.close()
        for process, _ in started:
            process.join(1.0)


def _receive(process: BaseProcess, pipe: Connection) -> Any:
    try:
        if not pipe.poll(TIMEOUT_SECONDS):
            raise AuricleError(
                f"a loader worker has delivered nothing for {TIMEOUT_SECONDS:g} s; "
                "look whether the disk still answers, then run the same command again to resume."
            )
        outcome = pipe.recv()
    except (EOFError, OSError):
        process.join(5.0)
        raise AuricleError(
            f"a loader worker died ({_cause(process.exitcode)}); "
            "run the same command again to resume, with fewer --workers if memory was short."
        ) from None
    if isinstance(outcome, AuricleError):
        raise outcome
    return outcome


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"


def _work(produce: Produce[T], first: int, step: int, pipe: Connection) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that trains decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A broken pipe: who reads it has ended, however it ended, and so does this process.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            for outcome in produce(first, step):
                pipe.send(outcome)
        except AuricleError as error:
            pipe.send(error)
