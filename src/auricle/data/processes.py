"""Processes that do not run the caller's script again.

Symptom: a script without `if __name__ == "__main__"` starts workers, each of which runs the script, which starts
workers. Cause: new processes import the caller's main module, in case what they are to do is defined there. Nothing of
ours is, so here they do not.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from types import ModuleType


def forkserver(module: str) -> ForkServerContext:
    """How processes are started that run functions of `module`.

    Not forked from this process: a forked child of a process that has used torch's threads can deadlock.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


@contextmanager
def detached() -> Iterator[None]:
    """Processes that are started inside do not import the main module of this one."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
