"""The log-mel front end against a float64 implementation written from Kaldi's definition, and its edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from auricle.audio.frontends import ENERGY_FLOOR, KaldiFbank, Window, analysis_window, kaldi_mel_filters

WINDOWS: tuple[Window, ...] = ("hanning", "hamming", "povey", "blackman", "rectangular")
FLOOR = math.log(ENERGY_FLOOR)
Array = NDArray[np.float64]


def window_at(kind: str, i: int, size: int) -> float:
    cosine = math.cos(2 * math.pi * i / (size - 1))
    if kind == "hamming":
        return 0.54 - 0.46 * cosine
    if kind == "blackman":
        return 0.42 - 0.5 * cosine + 0.08 * math.cos(4 * math.pi * i / (size - 1))
    if kind == "rectangular":
        return 1.0
    return float((0.5 - 0.5 * cosine) ** (0.85 if kind == "povey" else 1.0))


def mel(hz: float) -> float:
    return 1127.0 * math.log(1.0 + hz / 700.0)


def filter_weight(band: int, bin_: int, bands: int, fft_size: int, rate: int) -> float:
    """Height of triangle `band` at FFT bin `bin_`, by the three cases of Kaldi's code."""
    if bin_ == fft_size // 2:
        return 0.0
    step = (mel(rate / 2) - mel(20.0)) / (bands + 1)
    left, centre, right = (mel(20.0) + (band + k) * step for k in range(3))
    at = mel(bin_ * rate / fft_size)
    if not left < at < right:
        return 0.0
    return (at - left) / (centre - left) if at <= centre else (right - at) / (right - centre)


def reference(wave: Array, rate: int, bands: int, kind: str) -> Array:
    """[T, F] in float64, one frame and one band at a time."""
    size, hop = int(rate * 0.025), int(rate * 0.010)
    fft_size = 2 ** math.ceil(math.log2(size))
    window = [window_at(kind, i, size) for i in range(size)]
    bins = fft_size // 2 + 1
    filters = np.array([[filter_weight(m, k, bands, fft_size, rate) for k in range(bins)] for m in range(bands)])
    rows = []
    for start in range(0, len(wave) - size + 1, hop):
        frame = wave[start : start + size] - wave[start : start + size].mean()
        emphasised = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(size)])
        power = np.abs(np.fft.rfft(emphasised * window, fft_size)) ** 2
        rows.append(np.log(np.maximum(filters @ power, ENERGY_FLOOR)))
    return np.stack(rows)


def sound(samples: int, rate: int = 16000, seed: int = 0) -> NDArray[np.float32]:
    """A chirp in noise, away from zero, so that every band is well above the floor."""
    t = np.arange(samples) / rate
    noise = np.random.default_rng(seed).normal(size=samples)
    return (0.3 * np.sin(2 * np.pi * (200 + 900 * t) * t) + 0.05 * noise + 0.1).astype(np.float32)


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("rate, bands", [(16000, 128), (16000, 64), (22050, 128), (8000, 40)])
def test_values_are_those_of_the_definition(kind: Window, rate: int, bands: int) -> None:
    wave = sound(rate // 5, rate)
    got = KaldiFbank(rate, bands, kind)(torch.from_numpy(wave)[None])[0].numpy()
    want = reference(wave.astype(np.float64), rate, bands, kind)
    assert got.dtype == np.float32
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-3
    assert np.abs(got - want).mean() < 1e-5


@pytest.mark.parametrize("kind", WINDOWS)
def test_windows_are_symmetric(kind: Window) -> None:
    window = analysis_window(kind, 400)
    assert window.dtype == torch.float32
    torch.testing.assert_close(window, window.flip(0), atol=1e-7, rtol=0)
    assert window[200] == window.max()


def test_an_unknown_window_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"povey.*got 'hann'"):
        KaldiFbank(window="hann")  # type: ignore[arg-type]


def test_band_3_of_128_at_16_khz_covers_no_bin_and_no_other_is_empty() -> None:
    filters = kaldi_mel_filters(128, 512, 16000)
    assert filters.shape == (257, 128)
    assert [m for m in range(128) if not filters[:, m].any()] == [3]
    log_mel = KaldiFbank()(torch.from_numpy(sound(8000))[None])
    assert torch.equal(log_mel[..., 3], torch.full_like(log_mel[..., 3], FLOOR))
    assert (log_mel[..., 4] > FLOOR + 1).all()


def test_the_nyquist_bin_has_no_weight() -> None:
    assert not kaldi_mel_filters(40, 512, 16000)[256].any()


@pytest.mark.parametrize("samples", [1, 2, 399, 400, 401, 559, 560, 561, 16000, 16001])
def test_num_frames_is_what_forward_returns(samples: int) -> None:
    frontend = KaldiFbank()
    frames = frontend(torch.randn(1, samples)).shape[1]
    assert frames == int(frontend.num_frames(torch.tensor(samples)))
    assert frames == max(1, 1 + (samples - 400) // 160)


def test_ten_seconds_are_998_frames_and_one_second_98() -> None:
    assert KaldiFbank().num_frames(torch.tensor([160000, 16000])).tolist() == [998, 98]


def test_a_signal_shorter_than_a_window_is_padded_with_zeros() -> None:
    frontend, wave = KaldiFbank(), torch.from_numpy(sound(250))[None]
    padded = torch.nn.functional.pad(wave, (0, 150))
    assert torch.equal(frontend(wave), frontend(padded))


def test_a_batch_gives_each_row_what_it_gives_alone() -> None:
    frontend = KaldiFbank()
    waves = torch.from_numpy(np.stack([sound(4000, seed=s) for s in range(5)]))
    together = frontend(waves)
    for row in range(5):
        torch.testing.assert_close(together[row], frontend(waves[row : row + 1])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["silence", "dc", "one sample", "full scale square", "tiny"])
def test_degenerate_sounds_are_finite_and_never_below_the_floor(kind: str) -> None:
    waves = {
        "silence": torch.zeros(1, 1600),
        "dc": torch.ones(1, 1600),
        "one sample": torch.full((1, 1), 0.5),
        "full scale square": torch.ones(1, 1600) - 2.0 * (torch.arange(1600) // 20 % 2),
        "tiny": torch.randn(1, 1600) * 1e-30,
    }
    log_mel = KaldiFbank()(waves[kind])
    assert log_mel.isfinite().all()
    assert log_mel.min() >= FLOOR
    if kind in ("silence", "dc", "tiny"):
        # The mean of each window is removed, so a constant is silence.
        assert torch.equal(log_mel, torch.full_like(log_mel, FLOOR))


def test_dither_repeats_with_the_generator_and_fills_silence() -> None:
    frontend, silence = KaldiFbank(dither=0.1), torch.zeros(1, 1600)
    first, again = (frontend(silence, torch.Generator().manual_seed(7)) for _ in range(2))
    other = frontend(silence, torch.Generator().manual_seed(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first[..., 20:] > FLOOR + 1).all()


def test_dither_with_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    KaldiFbank(dither=1.0)(torch.zeros(1, 800), torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_dither_a_generator_is_not_drawn_from() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    wave = torch.from_numpy(sound(1600))[None]
    assert torch.equal(KaldiFbank()(wave, generator), KaldiFbank()(wave))
    assert torch.equal(generator.get_state(), before)


def test_dither_is_gaussian_noise_of_the_stated_deviation() -> None:
    # By Parseval the energy over the bins of a rectangular window is proportional to the variance of the noise.
    silence = torch.zeros(1, 160000)
    levels = [
        KaldiFbank(window="rectangular", dither=d)(silence, torch.Generator().manual_seed(0))[..., 4:].mean()
        for d in (0.01, 0.1)
    ]
    assert float(levels[1] - levels[0]) == pytest.approx(math.log(100), abs=1e-3)


def test_gradients_reach_every_sample_and_are_finite() -> None:
    wave = torch.from_numpy(sound(1600))[None].requires_grad_()
    KaldiFbank()(wave).sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    # The last 80 samples lie behind the last whole window.
    assert (wave.grad[0, :1520] != 0).float().mean() > 0.99
    assert not wave.grad[0, 1520:].any()


def test_gradients_of_silence_are_zero_not_nan() -> None:
    wave = torch.zeros(1, 1600, requires_grad=True)
    KaldiFbank()(wave).sum().backward()
    assert wave.grad is not None
    assert torch.equal(wave.grad, torch.zeros_like(wave))


def test_autocast_does_not_change_a_bit() -> None:
    frontend, wave = KaldiFbank(), torch.from_numpy(sound(8000))[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = frontend(wave)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, frontend(wave))


def test_nothing_of_it_enters_a_checkpoint() -> None:
    assert not KaldiFbank().state_dict()
