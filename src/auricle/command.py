"""The command that is being run, for what it writes: from Python, one that would do the same.

Only the standard library is imported here: `auricle --help` must answer at once.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_command: ContextVar[str] = ContextVar("command", default="")
# Parameters that the command line takes without a name, and those that it calls otherwise.
_POSITIONAL = ("method", "model", "run", "data")
_FLAGS = {"settings": "set", "baselines": "baseline"}


def current_command() -> str:
    """The command that is being run, or one that does the same as the function that was called from Python."""
    return _command.get()


@contextmanager
def commanded(line: str) -> Iterator[None]:
    """What is done inside belongs to this command."""
    token = _command.set(line)
    try:
        yield
    finally:
        _command.reset(token)


def as_command(verb: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function know the command that does the same, where it was not called by one."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if current_command():
                return function(*args, **kwargs)
            arguments = signature.bind(*args, **kwargs).arguments
            defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
            changed = {name: value for name, value in arguments.items() if value != defaults[name]}
            with commanded(command_line(verb, changed)):
                return function(*args, **kwargs)

        return call

    return decorate


def command_line(verb: str, arguments: Mapping[str, Any]) -> str:
    """`auricle VERB ...` for the arguments of a function of the same name."""
    words: list[str] = ["auricle", *verb.split()]
    for name in (*(n for n in _POSITIONAL if n in arguments), *(n for n in arguments if n not in _POSITIONAL)):
        value = arguments[name]
        if isinstance(value, Mapping):
            value = [f"{key}={entry}" for key, entry in value.items()]
        values = list(value) if isinstance(value, list | tuple) else [value]
        flag = "--" + _FLAGS.get(name, name).replace("_", "-")
        if name in _POSITIONAL:
            # Data may be a manifest, or a function that reads one.
            words += ["DATA" if callable(entry) else str(getattr(entry, "source", entry)) for entry in values]
        elif value is None or value is False:
            words += [flag.replace("--", "--no-", 1)] if value is False else []
        elif value is True:
            words.append(flag)
        else:
            words += [word for entry in values for word in (flag, str(entry))]
    return shlex.join(words)
