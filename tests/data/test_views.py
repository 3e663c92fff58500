"""Views of clips: drawn from the row's own key, within the clip's own samples."""

from __future__ import annotations

import torch
from torch import Tensor

from auricle.data.batch import Stream
from auricle.data.randomness import Draw
from auricle.data.views import random_crop, random_roll

LENGTHS = (50, 100, 7)


def audio(*lengths: int) -> Stream:
    """Row b counts from 1000 b + 1 on, and is padded with zeros."""
    waves = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        waves[row, :length] = 1000 * row + 1 + torch.arange(length)
    return Stream(waves, torch.tensor(lengths), 10)


def draw(rows: int, epoch: int = 0) -> Draw:
    return Draw(0, (epoch,) * rows, tuple(range(rows)))


def steps(wave: Tensor) -> set[float]:
    return set(wave.diff().tolist())


def test_a_crop_is_a_stretch_of_the_clip_and_a_short_clip_is_whole() -> None:
    begins = set()
    for epoch in range(50):
        crop = random_crop(audio(*LENGTHS), 2.0, draw(3, epoch), "view")
        assert crop.data.shape == (3, 20)
        assert crop.lengths.tolist() == [20, 20, 7]
        assert steps(crop.data[0]) == steps(crop.data[1]) == {1.0}
        assert crop.data[2].tolist() == [*range(2001, 2008), *[0] * 13]
        begins.add(int(crop.data[0, 0]))
    assert min(begins) <= 4
    assert max(begins) >= 28


def test_a_batch_of_short_clips_is_no_longer_than_they_are() -> None:
    assert random_crop(audio(7, 5), 2.0, draw(2), "view").data.shape == (2, 7)


def test_what_is_rolled_is_all_there_and_padding_stays() -> None:
    given, moved = audio(*LENGTHS), 0
    for epoch in range(40):
        rolled = random_roll(given, 0.5, draw(3, epoch), "roll")
        assert torch.equal(rolled.lengths, given.lengths)
        for row, length in enumerate(LENGTHS):
            assert rolled.data[row, :length].sort().values.tolist() == given.data[row, :length].tolist()
            assert not rolled.data[row, length:].any()
        moved += not torch.equal(rolled.data[1], given.data[1])
    assert 8 < moved < 32
    assert torch.equal(random_roll(given, 0.0, draw(3), "roll").data, given.data)


def test_a_row_is_the_same_alone_and_in_company() -> None:
    given = audio(*LENGTHS)
    alone = Stream(given.data[1:2], given.lengths[1:2], 10)
    key = Draw(0, (0,), (1,))
    assert torch.equal(random_crop(alone, 2.0, key, "v").data[0], random_crop(given, 2.0, draw(3), "v").data[1])
    assert torch.equal(random_roll(alone, 1.0, key, "r").data[0], random_roll(given, 1.0, draw(3), "r").data[1])
