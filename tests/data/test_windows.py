"""Windows cover every sample of a stream, whatever its length and however it arrives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from auricle.data.windows import cut_windows
from auricle.methods import get_method, get_preset

WINDOW, HOP, LEAST = 100, 80, 30


def blocks(wave: np.ndarray, size: int) -> list[np.ndarray]:
    return [wave[start : start + size] for start in range(0, len(wave), size)]


@pytest.mark.parametrize("size", [1, 7, 80, 100, 1000])
@pytest.mark.parametrize("length", [1, 29, 30, 99, 100, 101, 120, 121, 180, 181, 200, 260, 261, 999])
def test_every_sample_lies_in_a_window_at_its_own_place(length: int, size: int) -> None:
    wave = np.arange(length, dtype=np.float32)
    seen = np.zeros(length, dtype=bool)
    windows = list(cut_windows(blocks(wave, size), WINDOW, HOP, LEAST))
    for start, samples in windows:
        assert len(samples) <= WINDOW
        np.testing.assert_array_equal(samples, wave[start : start + len(samples)])
        seen[start : start + len(samples)] = True
    assert seen.all()
    starts = [start for start, _ in windows]
    # All but the last, which may reach back, start at multiples of the hop; and all but the last are full.
    assert starts[:-1] == [i * HOP for i in range(len(starts) - 1)]
    assert all(len(samples) == WINDOW for _, samples in windows[:-1])
    assert len(windows[-1][1]) >= min(LEAST, length)


def test_any_sizes_cover_any_stream() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        window = int(rng.integers(1, 60))
        hop, least = int(rng.integers(1, window + 1)), int(rng.integers(1, window + 1))
        wave = np.arange(int(rng.integers(1, 400)), dtype=np.float32)
        size = int(rng.integers(1, 150))
        seen = np.zeros(len(wave), dtype=bool)
        for start, samples in cut_windows(blocks(wave, size), window, hop, least):
            assert min(least, len(wave)) <= len(samples) <= window
            np.testing.assert_array_equal(samples, wave[start : start + len(samples)])
            seen[start : start + len(samples)] = True
        assert seen.all()
    assert list(cut_windows([], 10, 5, 3)) == []


def test_blocks_make_no_difference() -> None:
    wave = np.random.default_rng(0).standard_normal(777).astype(np.float32)
    whole = list(cut_windows([wave], WINDOW, HOP, LEAST))
    for size in (1, 13, 100):
        pieces = list(cut_windows(blocks(wave, size), WINDOW, HOP, LEAST))
        assert [start for start, _ in pieces] == [start for start, _ in whole]
        for (_, a), (_, b) in zip(pieces, whole, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_the_last_full_window_covers_is_not_processed_twice() -> None:
    # 20 samples overlap: a stream that ends inside the first window's reach has one window.
    assert len(list(cut_windows([np.zeros(100, np.float32)], WINDOW, HOP, LEAST))) == 1
    assert len(list(cut_windows([np.zeros(101, np.float32)], WINDOW, HOP, LEAST))) == 2


def test_an_endless_stream_is_cut_in_constant_memory() -> None:
    stream = (np.zeros(50, np.float32) for _ in itertools.count())
    windows = cut_windows(stream, WINDOW, HOP, LEAST)
    for number, (start, samples) in enumerate(itertools.islice(windows, 10_000)):
        assert start == number * HOP
        # A view would keep everything that came before alive.
        assert samples.base is None or samples.base.size < 1000


@pytest.mark.parametrize("preset", ["demo", "tiny-patch", "tiny-frame"])
@pytest.mark.parametrize("finetuned", [False, True])
def test_time_steps_of_an_encoder_continue_evenly_across_windows(preset: str, finetuned: bool) -> None:
    method = get_method("ssast")
    config = get_preset("ssast", preset).model
    with torch.device("meta"):
        encoder = method.build_encoder(config.for_finetuning(112) if finetuned else config)
    columns = encoder.config.grid[1]
    step = encoder.config.stride_time * 160 / 16000
    first, next_window = encoder.times(columns)[-1].item(), encoder.times(1)[0].item() + encoder.window_hop / 16000
    assert next_window - first == pytest.approx(step, abs=1e-6)
    assert encoder.window_hop <= encoder.window_samples
