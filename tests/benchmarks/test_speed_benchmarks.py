"""The benchmarks that print the docs' figures of speed and cost run, and count what they say they count."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pretraining_cost

    return pretraining_cost


def test_operations_are_those_of_the_products_in_the_network(cost) -> None:  # type: ignore[no-untyped-def]
    parameters, operations = cost.count_operations("tiny-patch")
    width, depth, tokens, masked = 192, 12, 514, 400
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    heads = 2 * masked * (width**2 + width * 256) * 2
    one_pass = 3 * (depth * block + heads)
    # Left out here: patch embedding, similarities of the contrastive loss, the front end's filters.
    assert one_pass < operations[1] < 1.03 * one_pass
    assert operations[2] == pytest.approx(2 * operations[1], rel=0.02)
    assert parameters == pytest.approx(5.66e6, rel=0.01)


def test_what_takes_longest_binds(cost) -> None:  # type: ignore[no-untyped-def]
    given = {x.option: x.value for x in cost.ASSUMPTIONS}
    alone = cost.step_of(1, 10**12, 4e8, 1000.0, given, 0.0)
    assert alone.binds == "compute"
    assert alone.network == 0
    assert alone.compute == pytest.approx(24 / (989 * 0.3))
    assert cost.step_of(1, 10**12, 4e8, 10.0, given, 0.0).binds == "input"
    inside, between = (cost.step_of(n, 10**6, 4e8, 1e6, given, 0.0) for n in (8, 64))
    assert between.binds == "network"
    assert inside.network == pytest.approx(2 * 7 / 8 * 4e8 / 450e9)
    assert between.network == pytest.approx(2 * 63 / 64 * 4e8 / 50e9)
    assert cost.step_of(1, 10**12, 4e8, 1000.0, given, 12.0).compute == 2


@pytest.mark.slow
def test_the_speed_benchmark_prints_all_its_tables() -> None:
    command = [sys.executable, str(BENCHMARKS / "ssast_speed.py"), "--quick", "--threads", "1", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for work in (
        "embedding",
        "fine-tuning step",
        "pretraining step",
        "auricle, 80 filters",
        "plain loop",
        "to its bucket",
    ):
        assert f"| {work}" in done.stdout or f" {work} " in done.stdout


@pytest.mark.slow
def test_the_library_benchmark_measures_memory_speed_and_what_kills_change() -> None:
    command = [sys.executable, str(BENCHMARKS / "embedding_library.py"), "--threads", "1"]
    done = subprocess.run(
        [*command, "--hours", "2", "--files", "500", "--kills", "1"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "equal bytes" in done.stdout
    assert "times a loop over `embed_clip`" in done.stdout
    growth = [int(mb) for mb in re.findall(r"\+(\d+) MB", done.stdout.partition("| what")[0])]
    assert len(growth) == 2
    assert max(growth) < 200


@pytest.mark.slow
def test_the_scan_benchmark_prints_all_its_tables() -> None:
    command = [sys.executable, str(BENCHMARKS / "selective_scan.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for row in ("plain torch", "loop", "portable", "KB per step"):
        assert row in done.stdout
    # Each row of the machine's table: the native scan cannot be faster than its limit.
    ratios = re.findall(r"GB/s.*\| +([\d.]+) +\| +[\d.]+ +\|$", done.stdout, re.MULTILINE)
    assert len(ratios) >= 2
    assert all(float(ratio) > 1 for ratio in ratios)
