"""How the benchmarks time: contestants in turn, several times, compared within each turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from auricle.environment import environment
from auricle.errors import plural


@dataclass(frozen=True)
class Times:
    """Seconds of each repetition of one contestant."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, other: Times) -> tuple[float, float, float]:
        """Median, least and greatest of the ratios to `other`, repetition by repetition."""
        ratios = [a / b for a, b in zip(self.seconds, other.seconds, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


def interleaved(
    contestants: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Times]:
    """Run each contestant once unmeasured, then all of them in turn `repeats` times, so that a slow minute of the
    machine falls on all alike. `time.process_time` as the clock does not count what other processes take."""
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            begin = clock()
            run()
            seconds[name].append(clock() - begin)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def spread(value: tuple[float, float, float], digits: int = 2) -> str:
    """(median, least, greatest) as "2.31 (2.25-2.40)"."""
    middle, low, high = (f"{x:.{digits}f}" for x in value)
    return f"{middle} ({low}-{high})"


def machine(threads: int) -> str:
    """One line that says where a figure comes from."""
    e = environment()
    kind = torch.backends.cpu.get_cpu_capability()
    return (
        f"{plural(e['cores'], 'core')} of {e['processor']} ({kind}), {plural(threads, 'thread')}, torch {e['torch']}, "
        f"Python {e['python']}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns line up."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_page(path: Path, text: str) -> None:
    """Replace a page of the docs."""
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands in a page of the docs between the comments `NAME` and `end of NAME`."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no place for {name}: it wants the lines {begin.strip()} and {end.strip()}")
    write_page(path, f"{before}{begin}\n{text}\n{end}{after}")
