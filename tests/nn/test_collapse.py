"""Signs of collapse on features whose rank is known."""

from __future__ import annotations

import math

import pytest
import torch

from auricle.nn.collapse import effective_rank, feature_spread


@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_equal_singular_values_count_as_their_number(rank: int) -> None:
    # Orthonormal columns with zero mean: rows of a Fourier basis.
    t = torch.arange(64).double()
    basis = torch.stack([(2 * math.pi * (1 + k // 2) * t / 64 + (k % 2) * math.pi / 2).sin() for k in range(rank)], 1)
    features = basis @ torch.linalg.qr(torch.randn(20, rank).double())[0].T
    assert effective_rank(features) == pytest.approx(rank, rel=1e-6)


def test_unequal_singular_values_by_hand() -> None:
    features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(features) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_the_mean_and_the_scale_do_not_count() -> None:
    torch.manual_seed(0)
    features = torch.randn(30, 8)
    assert effective_rank(1e-3 * features + 5) == pytest.approx(effective_rank(features), rel=1e-3)
    assert 6 < effective_rank(features) <= 8


@pytest.mark.parametrize("features", [torch.ones(10, 4), torch.zeros(10, 4), torch.randn(1, 4)])
def test_identical_features_have_rank_and_spread_zero(features: torch.Tensor) -> None:
    assert effective_rank(features) == 0.0
    assert feature_spread(features) == 0.0


def test_spread_is_relative_to_the_size_of_the_features() -> None:
    features = torch.tensor([[3.0, 3.0], [5.0, 5.0]])
    assert feature_spread(features) == pytest.approx(1 / math.sqrt(17), rel=1e-6)
    assert feature_spread(10 * features) == pytest.approx(feature_spread(features), rel=1e-6)
    torch.manual_seed(0)
    assert feature_spread(torch.randn(500, 30)) == pytest.approx(1, abs=0.02)
