"""Which points there are, and which of them are predicted instead of run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# A point that would take longer than this for one pass, or more memory, is predicted and not run.
MOST_SECONDS, MOST_MB = 60.0, 12_000.0


@dataclass(frozen=True)
class Series:
    """One contestant at one work, over rising lengths."""

    contestant: str
    size: str
    batch: int
    training: bool

    @property
    def work(self) -> str:
        return "training step" if self.training else "inference"


@dataclass(frozen=True)
class Point:
    """What one length takes; `predicted` points were not run, and `note` says why something else was not."""

    series: Series
    tokens: int
    seconds: float
    mb: float
    predicted: bool = False
    note: str = ""

    def row(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self.series), **{k: v for k, v in asdict(self).items() if k != "series"}}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Point:
        """The reverse of `row`."""
        names = Series.__dataclass_fields__
        return cls(Series(**{n: row[n] for n in names}), **{k: v for k, v in row.items() if k not in names})


def predict(done: Sequence[Point], tokens: int) -> tuple[float, float]:
    """Seconds and MB at `tokens`, by the power law through the last two points of a series.

    Its exponent lies between 1, the least that reading the tokens takes, and 2, the most that attention does; of a
    single point, 2 is assumed, so that nothing is begun that could take too long.
    """
    last = done[-1]
    factor = tokens / last.tokens
    found = []
    for name in ("seconds", "mb"):
        exponent = 2.0
        if len(done) > 1:
            before = done[-2]
            ratio = max(getattr(last, name), 1e-9) / max(getattr(before, name), 1e-9)
            exponent = min(2.0, max(1.0, math.log(ratio) / math.log(last.tokens / before.tokens)))
        found.append(getattr(last, name) * factor**exponent)
    return found[0], found[1]


def too_much(seconds: float, mb: float) -> bool:
    return seconds > MOST_SECONDS or mb > MOST_MB


def crossover(ours: Sequence[Point], theirs: Sequence[Point], name: str) -> float | None:
    """Tokens from which on ours takes less of `name`, between the points on a double logarithmic scale.

    0 if it does at the shortest length already, None if it does not even at the longest.
    """
    mine, other = ({p.tokens: math.log(getattr(p, name)) for p in points} for points in (ours, theirs))
    common = sorted(mine.keys() & other.keys())
    gaps = [(n, other[n] - mine[n]) for n in common]
    if not gaps or gaps[-1][1] <= 0:
        return None
    above = [n for n, gap in gaps if gap <= 0]
    if not above:
        return 0.0
    at = common.index(above[-1])
    (n0, g0), (n1, g1) = gaps[at], gaps[at + 1]
    return math.exp(math.log(n0) + (math.log(n1) - math.log(n0)) * -g0 / (g1 - g0))


def missing(tokens: Sequence[int], done: Sequence[Point]) -> Iterator[int]:
    """The lengths of a series that have no point yet, rising."""
    known = {point.tokens for point in done}
    yield from (n for n in sorted(tokens) if n not in known)
