"""Augmentations: what is drawn comes from outside, and no mask leaves the clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from auricle.audio.augment import (
    FREQUENCY_ONLY,
    ResizeCrop,
    central_crop,
    draw_mask,
    mix_log,
    mix_waveforms,
    noise_and_roll,
    spec_augment,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# SpecAugment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5, 30, 200])
@pytest.mark.parametrize("widest", [1, 10, 96])
@pytest.mark.parametrize("width", [0.0, 0.5, 0.999999])
@pytest.mark.parametrize("start", [0.0, 0.5, 0.999999])
def test_a_mask_lies_inside_the_axis_whatever_is_drawn(size: int, widest: int, width: float, start: float) -> None:
    first, end = draw_mask(size, widest, width, start)
    assert 0 <= first <= end <= size
    assert end - first <= widest


def test_width_and_start_are_truncated_as_in_the_official_code() -> None:
    # Width 24 * 0.51 = 12.24; the start is drawn over 128 - 12.24, not over 128 - 12.
    assert draw_mask(128, 24, 0.51, 0.9999) == (115, 127)
    assert draw_mask(128, 24, 0.0, 0.5) == (64, 64)


def test_spec_augment_masks_one_band_and_one_stretch_and_returns_a_copy() -> None:
    features = torch.randn(60, 40)
    before = features.clone()
    masked = spec_augment(features, 60, 16, 24, rng(1), fill=9.0)
    draws = rng(1).random(4)
    low, high = draw_mask(40, 16, *draws[:2])
    start, end = draw_mask(60, 24, *draws[2:])
    want = features.clone()
    want[:, low:high] = 9.0
    want[start:end] = 9.0
    assert high > low
    assert end > start
    assert torch.equal(masked, want)
    assert torch.equal(features, before)


def test_a_maximum_of_zero_masks_nothing_and_draws_nothing() -> None:
    features, generator = torch.randn(20, 8), rng()
    assert torch.equal(spec_augment(features, 20, 0, 0, generator, fill=9.0), features)
    assert generator.random() == rng().random()
    # Only the time mask: its draws are the first two.
    masked = spec_augment(features, 20, 0, 10, rng(), fill=9.0)
    start, end = draw_mask(20, 10, *rng().random(2))
    assert torch.equal((masked == 9.0).all(1).nonzero().flatten(), torch.arange(start, end))


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_time_mask_of_a_short_padded_clip_stays_on_its_frames(frames: int) -> None:
    features = torch.zeros(50, 8)
    for seed in range(200):
        masked = spec_augment(features, frames, 0, 96, rng(seed), fill=1.0)
        assert not masked[frames:].any()


def test_masks_vary_in_width_and_reach_all_but_the_last_step() -> None:
    hit, widths = torch.zeros(30), set()
    for seed in range(400):
        masked = spec_augment(torch.zeros(30, 4), 30, 0, 12, rng(seed), fill=1.0)[:, 0]
        hit += masked
        widths.add(int(masked.sum()))
    # The width is drawn as a real number and cut to whole steps, as in the official code: the last one is never masked.
    assert (hit > 0).tolist() == [True] * 29 + [False]
    assert widths == set(range(12))


# Mixup -----------------------------------------------------------------------------------------------------------


def test_a_shorter_partner_is_padded_and_the_mixture_has_no_offset() -> None:
    first, second = rng(1).normal(0.3, 1, 1000).astype(np.float32), rng(2).normal(-0.7, 1, 600).astype(np.float32)
    mixed = mix_waveforms(first, second, 0.7)
    partner = np.concatenate([second - second.mean(), np.zeros(400)])
    want = 0.7 * (first - first.mean()) + 0.3 * partner
    np.testing.assert_allclose(mixed, want - want.mean(), atol=1e-6)
    assert mixed.dtype == np.float32
    assert abs(float(mixed.mean())) < 1e-6


def test_a_longer_partner_is_cut() -> None:
    first, second = rng(1).normal(size=600).astype(np.float32), rng(2).normal(0.5, 1, 1000).astype(np.float32)
    mixed = mix_waveforms(first, second, 0.25)
    want = 0.25 * (first - first.mean()) + 0.75 * (second - second.mean())[:600]
    np.testing.assert_allclose(mixed, want - want.mean(), atol=1e-6)


@pytest.mark.parametrize("weight, which", [(1.0, 0), (0.0, 1)])
def test_the_extreme_weights_give_one_of_the_two(weight: float, which: int) -> None:
    waves = [rng(seed).normal(size=500).astype(np.float32) for seed in (1, 2)]
    mixed = mix_waveforms(waves[0], waves[1], weight)
    np.testing.assert_allclose(mixed, waves[which] - waves[which].mean(), atol=1e-6)


def test_mixing_leaves_its_inputs_alone() -> None:
    first, second = np.ones(10, np.float32), np.arange(10, dtype=np.float32)
    mix_waveforms(first, second, 0.5)
    assert first.tolist() == [1.0] * 10
    assert second.tolist() == list(range(10))


# Noise and roll --------------------------------------------------------------------------------------------------


def test_noise_has_the_stated_height_and_the_shift_is_circular() -> None:
    features, field = torch.arange(12.0).reshape(4, 3), torch.rand(4, 3)
    moved = noise_and_roll(features, field, 0.5, 1)
    want = features + field * 0.05
    assert torch.equal(moved[1:], want[:3])
    assert torch.equal(moved[0], want[3])
    assert torch.equal(noise_and_roll(moved, torch.zeros(4, 3), 0.5, -1), want)


def test_a_shift_beyond_a_short_clip_wraps_around() -> None:
    features = torch.arange(3.0)[:, None]
    assert noise_and_roll(features, torch.zeros(3, 1), 1.0, -10).flatten().tolist() == [1.0, 2.0, 0.0]


# BYOL-A -----------------------------------------------------------------------------------------------------------


def test_spectrograms_are_mixed_as_powers() -> None:
    first, second = torch.randn(7, 5), torch.randn(7, 5)
    torch.testing.assert_close(mix_log(first, second, 0.7).exp(), 0.7 * first.exp() + 0.3 * second.exp())
    torch.testing.assert_close(mix_log(first, second, 1.0), first)


@pytest.mark.parametrize("frames", [1, 2, 40, 101])
@pytest.mark.parametrize("kind", [ResizeCrop(), FREQUENCY_ONLY])
def test_a_resized_crop_lies_in_its_canvas_and_keeps_the_shape(kind: ResizeCrop, frames: int) -> None:
    features = torch.randn(frames, 16)
    for seed in range(50):
        box = kind.draw(frames, 16, rng(seed))
        high, wide = kind.canvas_of(frames, 16)
        assert min(box[:2]) >= 0
        assert min(box[2:]) >= 1
        assert box[0] + box[2] <= high
        assert box[1] + box[3] <= wide
        got = kind.apply(features, box)
        assert got.shape == features.shape
        assert got.isfinite().all()


def test_the_whole_spectrogram_is_a_crop_of_the_canvas() -> None:
    features = torch.randn(40, 16)
    torch.testing.assert_close(ResizeCrop().apply(features, (0, 10, 16, 40)), features)
    # Beside it the canvas is 0.
    assert not ResizeCrop().apply(features, (0, 0, 16, 9)).any()


def test_crops_of_frequency_only_leave_each_frame_in_its_place() -> None:
    features = torch.zeros(40, 16)
    features[7] = torch.randn(16)
    got = FREQUENCY_ONLY.apply(features, FREQUENCY_ONLY.draw(40, 16, rng(3)))
    assert got[7].any()
    assert not torch.cat([got[:7], got[8:]]).any()


def test_central_crops() -> None:
    wave = np.arange(7, dtype=np.float32)
    assert central_crop(wave, 4).tolist() == [1, 2, 3, 4]
    assert central_crop(wave, 9) is wave
    assert central_crop(wave, 9, pad=True).tolist() == [*range(7), 0, 0]
