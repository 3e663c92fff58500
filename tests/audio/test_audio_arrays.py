"""Arrays and tensors as sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soxr
import torch
from audio_files import RATE, tone

from auricle.audio.read import REASONS, as_wave
from auricle.errors import AudioError, ConfigError


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_float_arrays(kind: type[np.floating], shape: tuple[int, ...]) -> None:
    sound = tone().astype(kind)
    samples, rate = as_wave(sound.reshape(shape), RATE)
    assert (samples.dtype.name, samples.shape, rate) == ("float32", (RATE,), RATE)
    assert samples.flags.c_contiguous
    assert np.array_equal(samples, sound.astype(np.float32))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_tensors(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    sound = torch.from_numpy(tone()).to(kind).reshape(shape).requires_grad_()
    samples, _ = as_wave(sound, RATE)
    assert (samples.dtype.name, samples.shape) == ("float32", (RATE,))
    assert np.array_equal(samples, sound.detach().float().numpy().reshape(-1))


@pytest.mark.parametrize(("kind", "scale"), [(np.int16, 2**15), (np.int32, 2**31)])
def test_integers_are_scaled(kind: type[np.signedinteger], scale: int) -> None:
    values = np.array([-scale, -scale // 2, 0, scale // 4, scale - 1]).astype(kind)
    for array in (values, torch.from_numpy(values)):
        samples, _ = as_wave(array, RATE)
        assert samples.dtype == np.float32
        assert np.allclose(samples, [-1, -0.5, 0, 0.25, 1], rtol=0, atol=2 / 2**15)
        assert samples[0] == -1


def test_strided_arrays() -> None:
    sound = tone(channels=2)
    samples, _ = as_wave(sound[::-2, 1], RATE)
    assert samples.flags.c_contiguous
    assert np.array_equal(samples, sound[::-2, 1])


def test_resampling() -> None:
    sound = tone(1, 44_100)
    samples, rate = as_wave(sound, 44_100, 16_000)
    assert (len(samples), rate) == (16_000, 16_000)
    assert np.array_equal(samples, soxr.resample(sound, 44_100, 16_000, quality="VHQ"))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 100), np.float32), "array"),
        (np.zeros((100, 1), np.float32), "array"),
        (np.zeros((1, 1, 100), np.float32), "array"),
        (np.float32(0.5), "array"),
        (np.array(0.5), "array"),
        (np.zeros(100, np.int8), "array"),
        (np.zeros(100, np.uint8), "array"),
        (np.zeros(100, np.int64), "array"),
        (np.zeros(100, bool), "array"),
        (np.zeros(100, complex), "array"),
        (np.array([0.5, None], object), "array"),
        (np.array(["0.5"]), "array"),
        (torch.zeros(2, 100), "array"),
        (torch.zeros(100, dtype=torch.complex64), "array"),
        (torch.zeros(100, dtype=torch.int64), "array"),
        (torch.zeros(100).to_sparse(), "array"),
        (torch.zeros(100, device="meta"), "array"),
        ([0.1, 0.2], "array"),
        (None, "array"),
        ("sound.wav", "array"),
        (np.zeros(0, np.float32), "0 samples"),
        (np.zeros((1, 0), np.float32), "0 samples"),
        (np.array([0, np.nan], np.float32), "non-finite"),
        (np.array([0, np.inf], np.float64), "non-finite"),
        (np.array([0, np.nan], np.float16), "non-finite"),
        (torch.tensor([0.0, float("nan")]), "non-finite"),
        (np.array([0, 1e300]), "level"),
        (np.array([0, -8.1], np.float32), "level"),
    ],
    ids=lambda value: " ".join(repr(value).split())[:40],
)
def test_what_is_no_sound(array: Any, reason: str) -> None:
    with pytest.raises(AudioError) as caught:
        as_wave(array, RATE)
    assert (caught.value.path, caught.value.reason) == ("<array>", reason)
    assert reason in REASONS
    assert caught.value.detail


def test_the_bad_sample_is_named() -> None:
    sound = tone()
    sound[777] = np.inf
    with pytest.raises(AudioError, match="sample 777"):
        as_wave(sound[None], RATE)


@pytest.mark.parametrize("rate", [0, 7, 999, 768_001, 16_000.0, "16000", None])
def test_rates(rate: Any) -> None:
    with pytest.raises(AudioError) as caught:
        as_wave(tone(), rate)
    assert caught.value.reason == "rate"
    if rate is not None:
        with pytest.raises(ConfigError, match="rate"):
            as_wave(tone(), RATE, rate)


def test_shorter_than_one_resampled_sample() -> None:
    with pytest.raises(AudioError, match="0 samples"):
        as_wave(np.ones(1, np.float32), 48_000, 8_000)
