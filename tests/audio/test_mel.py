"""The mel spectrogram in decibels: its scale, its floor, and that clips do not hear each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from auricle.audio.mel import DecibelMel, htk_mel_filters


def tone(hz: float, seconds: float = 0.5, level: float = 0.5) -> Tensor:
    t = torch.arange(round(16000 * seconds)) / 16000
    return level * (2 * math.pi * hz * t).sin()


def test_a_tone_is_loudest_in_the_filter_around_it_and_ten_times_the_level_is_20_db() -> None:
    frontend = DecibelMel()
    centres = htk_mel_filters(64, 1024, 16000, 60, 7800).argmax(0) * 16000 / 1024
    levels = frontend(torch.stack([tone(1000), tone(1000, level=0.05)]))
    loudest = int(levels[0, 25].argmax())
    assert abs(float(centres[loudest]) - 1000) < 60
    assert float(levels[0, 25, loudest] - levels[1, 25, loudest]) == pytest.approx(20, abs=0.01)


def test_nothing_is_further_below_the_loudest_value_of_the_clip_than_top_db() -> None:
    wave = torch.cat([tone(1000), torch.zeros(8000)])
    levels = DecibelMel(top_db=80)(wave[None])
    assert float(levels.max() - levels.min()) == pytest.approx(80, abs=1e-3)
    assert float(DecibelMel()(torch.zeros(1, 8000)).max()) == pytest.approx(-100)


def test_a_clip_gives_alone_what_it_gives_in_a_batch() -> None:
    frontend, lengths = DecibelMel(), torch.tensor([16000, 7003, 513, 1])
    waves = torch.zeros(4, 16000)
    for row, length in enumerate(lengths.tolist()):
        # The first is much louder: its floor must not be the others'.
        waves[row, :length] = torch.randn(length) * (1.0 if row == 0 else 1e-3)
    together = frontend(waves, lengths)
    for row, (length, frames) in enumerate(zip(lengths.tolist(), frontend.num_frames(lengths).tolist(), strict=True)):
        alone = frontend(waves[row : row + 1, :length])
        assert alone.shape == (1, frames, 64)
        torch.testing.assert_close(together[row, :frames], alone[0], atol=1e-4, rtol=0)


def test_a_shorter_window_stands_in_the_middle_of_the_transform() -> None:
    wave = torch.randn(1, 4000)
    short = DecibelMel(window_samples=640)
    padded = torch.nn.functional.pad(torch.hann_window(640), (192, 192))
    spectrum = torch.stft(
        torch.nn.functional.pad(wave[:, None], (512, 512), mode="reflect")[:, 0],
        *(1024, 160, 1024, padded),
        center=False,
        return_complex=True,
    )
    want = spectrum.abs().square().transpose(1, 2) @ short.mel_filters
    torch.testing.assert_close(short.power(wave), want, rtol=1e-4, atol=1e-4)
    assert short.window.shape == (640,)


def test_autocast_changes_nothing() -> None:
    wave = tone(300)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = DecibelMel()(wave)
    assert torch.equal(cast, DecibelMel()(wave))
