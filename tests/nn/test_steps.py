"""Means over stretches of time: of the steps whose centres lie in them, padding left out."""

from __future__ import annotations

import torch

from auricle.nn.steps import Steps, over_stretches


def test_a_stretch_is_the_mean_of_its_valid_steps() -> None:
    times = torch.tensor([0.1, 0.5, 0.9, 1.3, 1.7, 2.1])
    values = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 6, [True, True, False, False, False, False]])
    found = over_stretches(Steps(values, times, valid), 1.0)
    torch.testing.assert_close(
        found.values[0], torch.stack([values[0, :3].mean(0), values[0, 3:5].mean(0), values[0, 5]])
    )
    torch.testing.assert_close(found.values[1, 0], values[1, :2].mean(0))
    assert found.valid.tolist() == [[True, True, True], [True, False, False]]
    torch.testing.assert_close(found.times, torch.tensor([0.5, 1.5, 2.5]))


def test_padding_may_hold_anything_finite_and_long_steps_stay_as_they_are() -> None:
    steps = Steps(
        torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([0.6, 1.8, 3.1]), torch.tensor([[True, True, False]])
    )
    found = over_stretches(steps, 1.0)
    assert found.values.flatten().tolist() == [1.0, 2.0, 0.0]
    # The second from 2 to 3 s has no step.
    torch.testing.assert_close(found.times, torch.tensor([0.5, 1.5, 3.5]))
