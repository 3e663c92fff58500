"""The result file: one JSON of the same shape for every evaluation.

A number without its interval, its data and the command that made it cannot be compared with anything, so `Result` holds
all of them. Files appear whole or not at all, and hold standard JSON only: NaN and infinity become null.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from auricle import files
from auricle.data.items import Item
from auricle.environment import environment
from auricle.errors import ConfigError, DataError, plural
from auricle.metrics import Bin

if TYPE_CHECKING:
    from typing_extensions import Self

SCHEMA: Final = 1


class Quantity(TypedDict):
    """A number with the bounds of its confidence interval; None where it is unknown or not finite."""

    value: float | None
    low: float | None
    high: float | None


class Comparison(Quantity):
    """The difference `a` minus `b` of two systems on the same items."""

    a: str
    b: str


class Confusion(TypedDict):
    """Counts: `rows[i][j]` items of class `labels[i]` were called `labels[j]`."""

    labels: Sequence[str]
    rows: Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Exhibits:
    """What a page shows of the tested clips beside numbers: themselves, and where the network puts them.

    Attributes:
        items: the clips in the order of the result's `items`.
        embeddings: [N, D] in the same order, or None where the clips were embedded by several networks.
    """

    items: Sequence[Item]
    embeddings: NDArray[np.floating] | None


@dataclasses.dataclass(frozen=True)
class Result:
    """What one evaluation found and everything needed to run it again.

    `items` are mappings with `id`, `label`, `predicted` and `score` (of a tagging `id`, `labels`, `predicted` and
    `scores`); `per_class` are mappings with `label` and the metrics of that class; `baselines` maps a name to
    `{"metrics": {...}}`; `protocol` says how the numbers came about (split, folds, what a `score` is, resampling of the
    intervals); `layers` has a row for each layer where a probe read several (`readout.Readout`); `calibration` are the
    bins of a reliability diagram, where scores are probabilities or shares. `exhibits` are for the page alone.

    Raises:
        DataError: the rows of `confusion` do not fit its labels.
    """

    task: str
    metrics: Mapping[str, Quantity]
    command: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    seed: int
    protocol: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    layers: Sequence[Mapping[str, Any]] = ()
    confusion: Confusion | None = None
    per_class: Sequence[Mapping[str, Any]] = ()
    calibration: Sequence[Bin] = ()
    items: Sequence[Mapping[str, Any]] = ()
    exhibits: Exhibits | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=lambda: environment())

    def __post_init__(self) -> None:
        if self.confusion is None:
            return
        size = len(self.confusion["labels"])
        widths = [len(row) for row in self.confusion["rows"]]
        if widths != [size] * size:
            raise DataError(
                f"confusion: expected {size} rows of {size} counts for {size} labels, "
                f"got {len(widths)} rows of {sorted(set(widths))} counts; give one row and one column for each label."
            )

    def payload(self) -> dict[str, Any]:
        """The content of the file, `schema` first."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "exhibits"}
        return {"schema": SCHEMA, **fields}

    def write(self, path: Path | str) -> Path:
        """Write the result as JSON; see `write_json`."""
        return write_json(path, self.payload())


def quantity(value: float | None, low: float | None = None, high: float | None = None) -> Quantity:
    """A number and its interval as plain floats; NaN and infinity become None.

    Raises:
        DataError: `low` is above `high`.
    """
    number, lower, upper = (None if v is None or not math.isfinite(v) else float(v) for v in (value, low, high))
    if lower is not None and upper is not None and lower > upper:
        raise DataError(f"an interval must have low <= high, got low {lower} and high {upper}; swap the two.")
    return {"value": number, "low": lower, "high": upper}


def verdict(comparison: Comparison) -> str:
    """What the 95 % interval of a difference says in words."""
    low, high = comparison["low"], comparison["high"]
    if low is None or high is None:
        return "too few items to say"
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def system_name(name: str, baseline: Mapping[str, Any]) -> str:
    """A baseline in words, with how it was read out where that is not as the model is."""
    if name == "random":
        return f"random weights ({plural(len(baseline['runs']), 'seed')})"
    return f"{name} (logistic regression)" if name in ("mfcc", "logmel") else name


def write_json(path: Path | str, payload: Any) -> Path:
    """Write `payload` as indented UTF-8 JSON, atomically.

    NaN and infinity become null. Besides plain data, `payload` may hold dataclasses, paths, enums, dates, sets and
    anything with `tolist()` (numpy scalars and arrays, tensors).

    Raises:
        ConfigError: the path is a folder or cannot be written.
        DataError: `payload` holds something that JSON cannot express.
    """
    return write_text(path, json_text(payload, indent=1))


def json_text(payload: Any, indent: int | None = None) -> str:
    """`payload` as `write_json` writes it, in one line where `indent` is None."""
    data = _plain(payload, "")
    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # A file name that is not UTF-8 reaches us with surrogates; as \u escapes they survive the round trip.
        text = json.dumps(data, indent=indent, ensure_ascii=True, allow_nan=False)
    return text + "\n"


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 text so that a reader sees the old file or the new one, never a part; creates parent folders.

    Raises:
        ConfigError: the path is a folder or cannot be written.
    """
    path = Path(path)
    try:
        # Through a symbolic link: the file it points to is replaced, the link stays.
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise ConfigError(f"{path}: expected a file to write, got a folder; name a file inside it.")
        files.write_text(target, text)
    except OSError as error:
        raise _not_writable(path, error) from error
    return path


class GrowingFile:
    """A UTF-8 text file that holds each line as soon as it is added, whatever ends the process; a context manager.

    The lines since the last `mark` may be put into another order, as long as they are the same, where the file can go
    back: a pipe or a terminal keeps the order in which they came. Missing folders are made.

    Raises:
        ConfigError: the path is a folder or cannot be written.
    """

    def __init__(self, path: Path | str, head: str = "") -> None:
        self.path = Path(path)
        with self._refusing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("wb")
            self.goes_back = self.file.seekable()
        self.add(head)
        self.mark()

    def add(self, line: str) -> None:
        """Append a line, which ends with a newline."""
        with self._refusing():
            # Names that are not UTF-8 keep their bytes.
            self.file.write(line.encode("utf-8", "surrogateescape"))
            self.file.flush()

    def mark(self) -> None:
        """What is there stays as it is."""
        if self.goes_back:
            with self._refusing():
                self.begin = self.file.tell()

    def reorder(self, lines: Iterable[str]) -> None:
        """Write the lines since `mark` again, in this order."""
        if self.goes_back:
            with self._refusing():
                self.file.seek(self.begin)
            self.add("".join(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _not_writable(self.path, error) from error


def _not_writable(path: Path, error: OSError) -> ConfigError:
    reason = f"{error.strerror} ({error.filename})" if error.filename else error.strerror or str(error)
    return ConfigError(f"{path}: cannot be written: {reason}; choose a place that can be written.")


def _plain(value: Any, where: str) -> Any:
    """`value` in the types of the json module; `where` is its place in the payload, for the error."""
    if value is None or isinstance(value, bool | int | str):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, enum.Enum):
        return _plain(value.value, where)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        plain = {_key(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
        if len(plain) != len(value):
            raise DataError(f"{_place(where)}: two keys are the same as text, among {', '.join(plain)}.")
        return plain
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [_plain(item, where) for item in sorted(value, key=str)]
    if hasattr(value, "tolist"):
        listed = value.tolist()
        if not hasattr(listed, "tolist"):
            return _plain(listed, where)
    raise DataError(
        f"{_place(where)}: JSON cannot hold a {type(value).__name__}; convert it to numbers, text, lists or mappings."
    )


def _place(where: str) -> str:
    return where.lstrip(".") or "payload"


def _key(key: Any, where: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str | int | np.integer | Path):
        return str(key)
    raise DataError(f"{_place(where)}: a key must be text or an integer, got {type(key).__name__} {key!r}.")
