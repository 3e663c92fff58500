"""The parts of the length benchmark: who takes part, what is predicted, where curves cross, and the page."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


def part(name: str) -> Any:
    return importlib.import_module(f"benchmarks.length_scaling.{name}")


def points(name: str, seconds: dict[int, float], training: bool = False, **more: Any) -> list[Any]:
    series = part("series")
    own = series.Series(name, "tiny", 1, training)
    return [series.Point(own, tokens, value, 1000 * value, **more) for tokens, value in seconds.items()]


def test_a_length_is_predicted_by_the_power_law_of_the_two_before_it() -> None:
    predict = part("series").predict
    quadratic = points("x", {1000: 1.0, 2000: 4.0})
    assert predict(quadratic, 4000) == pytest.approx((16.0, 16000.0))
    # Of a single point the worst is assumed; a curve that is still flat grows at least with the length.
    assert predict(quadratic[:1], 4000)[0] == pytest.approx(16.0)
    assert predict(points("x", {1000: 1.0, 2000: 1.1}), 4000)[0] == pytest.approx(2.2)
    assert predict(points("x", {1000: 1.0, 2000: 9.0}), 4000)[0] == pytest.approx(36.0)


def test_curves_cross_where_they_cross_for_good() -> None:
    crossover = part("series").crossover
    linear = points("a", {n: n / 1000 for n in (1000, 2000, 4000, 8000)})
    square = points("b", {n: (n / 1000) ** 2 / 3 for n in (1000, 2000, 4000, 8000)})
    assert crossover(linear, square, "seconds") == pytest.approx(3000, rel=0.01)
    assert crossover(square, linear, "seconds") is None
    assert crossover(linear, points("c", {n: n / 500 for n in (1000, 2000, 4000, 8000)}), "mb") == 0
    assert crossover(linear, [], "seconds") is None


def test_points_survive_their_file_and_a_cut_line(tmp_path: Path) -> None:
    main = part("__main__")
    known = points("SSAMBA", {512: 0.5, 1024: 1.0}, predicted=True, note="x")
    file = tmp_path / "points.jsonl"
    file.write_text("".join(json.dumps(p.row()) + "\n" for p in known) + '{"contestant": "SS')
    assert main.read_points(file) == known


def test_what_would_take_too_much_is_predicted_and_a_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, series = part("__main__"), part("series")
    asked: list[int] = []

    def measured(own: Any, tokens: int, threads: int) -> Any:
        asked.append(tokens)
        return series.Point(own, tokens, (tokens / 1000) ** 2, 10.0)

    monkeypatch.setattr(main, "measured", measured)
    plan = [(series.Series("SSAST", "tiny", 1, False), (1000, 2000, 4000, 8000, 16000))]
    assert main.compute(plan[:1], tmp_path, 1.0, 1)
    assert asked == [1000, 2000, 4000]
    found = main.read_points(tmp_path / "points.jsonl")
    assert [p.predicted for p in found] == [False, False, False, True, True]
    assert found[-1].seconds == pytest.approx(256)
    assert main.compute(plan, tmp_path, 1.0, 1)
    assert asked == [1000, 2000, 4000]
    assert not main.compute([(series.Series("SSAST", "base", 1, False), (1000,))], tmp_path, 0.0, 1)


def test_contestants_of_one_network_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    c, loops = part("contestants"), []
    loop = c.loop
    monkeypatch.setattr(c, "loop", lambda *x: (loops.append(1), loop(*x))[1])  # type: ignore[func-returns-value]
    size, device = c.SIZES["test"], torch.device("cpu")
    for pair in ((c.SSAST, c.STORED), (c.SSAMBA, c.LOOPED)):
        first, second = (c.work_of(name, size, 24, 2, False, device)() for name in pair)
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
        assert first.shape == (2, size.width)
    # Both directions of 24 layers went step by step, once.
    assert len(loops) == 48
    with pytest.raises(ValueError, match="tokens come in rows of 8"):
        c.frames(20)


def test_a_training_step_leaves_gradients_of_every_mixer() -> None:
    c = part("contestants")
    torch.manual_seed(0)
    step = c.work_of(c.SSAMBA, c.SIZES["test"], 16, 1, True, torch.device("cpu"))
    assert step() is None


def test_the_page_says_what_was_predicted_and_compares_with_the_paper(tmp_path: Path) -> None:
    c, page = part("contestants"), part("page")
    lengths = (512, 2048, 22528)
    ours = points(c.SSAMBA, {n: n / 1000 for n in lengths})
    fused = points(c.SSAST, {n: (n / 1000) ** 2 for n in lengths})
    stored = points(c.STORED, {512: 0.6, 2048: 3.0}) + points(c.STORED, {22528: 300.0}, predicted=True)
    looped = points(c.LOOPED, {2048: 2.048 * 30}) + points(c.LOOPED, {22528: 7000.0}, predicted=True)
    training = points(c.SSAMBA, {n: n / 100 for n in lengths}, training=True)
    written = page.write_page([*ours, *fused, *stored, *looped, *training], tmp_path, 2)
    text = written.read_text()
    assert "SSAMBA is faster from about 1,000 tokens on" in text
    assert "At 22,528 tokens it takes 95.6 % less time and 95.6 % less memory." in text
    assert (
        "92.5 % less time and 92.5 % less memory, part of that predicted (the paper, on a GPU: 92.7 % and 95.4 %)"
        in text
    )
    assert "takes 30 times as long at 2,048 tokens" in text
    assert "for 11.0 times the tokens (2,048 to 22,528) SSAMBA takes 11.0 times the memory" in text
    assert "*300 s, 300,000 MB*" in text
    # How something grows whose second length was not run is not known.
    assert "7,000 s" not in text
    assert (tmp_path / "length_scaling.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.length_scaling", "--quick", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "length_scaling.md").read_text()
    assert "## Inference, test, batch 1" in text
    assert "## Training step, test, batch 1" in text
