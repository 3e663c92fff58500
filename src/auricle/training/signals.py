"""Signals that ask a long piece of work to save and end."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from auricle.errors import Interrupted


@contextmanager
def caught_signals() -> Iterator[set[signal.Signals]]:
    """Collect SIGTERM, SIGUSR1 (batch systems warn with it) and SIGINT; a second SIGINT ends the process at once."""
    caught: set[signal.Signals] = set()

    def handle(number: int, frame: object) -> None:
        if number == signal.SIGINT and signal.SIGINT in caught:
            raise KeyboardInterrupt
        caught.add(signal.Signals(number))

    try:
        previous = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    except ValueError:
        # Not in the main thread: signals stay with whoever owns them.
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interruption(caught: Collection[signal.Signals], saved: str) -> Interrupted:
    """The error that ends the work; `saved` says what is safe."""
    number = signal.SIGINT if signal.SIGINT in caught else min(caught)
    code = 130 if number == signal.SIGINT else 75
    return Interrupted(f"{number.name}: saved {saved}; run the same command again to go on.", code)
