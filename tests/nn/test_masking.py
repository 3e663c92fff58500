"""Mask samplers: exact counts, valid tokens only, no favourites, and the official sampler's own habits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np
import pytest
from numpy.typing import NDArray

from auricle.nn.masking import cluster_mask, official_cluster_mask, official_frame_mask, random_mask

Sampler = Callable[[NDArray[np.bool_], int, np.random.Generator], NDArray[np.int64]]
SAMPLERS: tuple[Sampler, ...] = (random_mask, cluster_mask)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def starts(generator: np.random.Generator, tokens: int) -> Iterator[int]:
    while True:
        yield int(generator.integers(tokens))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("grid", [(8, 64), (8, 10), (1, 40), (1, 1), (3, 2)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.78, 1.0])
def test_as_many_tokens_as_asked_for_each_once_and_sorted(
    sampler: Sampler, grid: tuple[int, int], share: float
) -> None:
    count = round(share * grid[0] * grid[1])
    for seed in range(20):
        ids = sampler(np.ones(grid, bool), count, rng(seed))
        assert ids.dtype == np.int64
        assert len(ids) == count
        assert (np.diff(ids) > 0).all()
        assert not count or (ids.min() >= 0 and ids.max() < grid[0] * grid[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_valid_tokens_are_masked(sampler: Sampler) -> None:
    valid = np.zeros((8, 20), bool)
    valid[:, :7] = True
    for seed in range(50):
        ids = sampler(valid, 40, rng(seed))
        assert len(ids) == 40
        assert valid.ravel()[ids].all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_more_than_the_valid_tokens_are_masked(sampler: Sampler) -> None:
    valid = rng(5).random((4, 9)) < 0.5
    assert sampler(valid, 1000, rng()).tolist() == np.flatnonzero(valid).tolist()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_mask_is_a_function_of_the_generator(sampler: Sampler) -> None:
    valid = np.ones((8, 16), bool)
    masks = [sampler(valid, 60, rng(seed)).tolist() for seed in (1, 1, 2)]
    assert masks[0] == masks[1] != masks[2]


def marginals(draw: Callable[[int], NDArray[np.int64]], tokens: int, draws: int) -> NDArray[np.float64]:
    counts = np.zeros(tokens)
    for seed in range(draws):
        counts[draw(seed)] += 1
    return counts / draws


# Five standard errors: for one of all the tokens below to lie outside by chance has a probability below 1e-3.
ERRORS = 5


@pytest.mark.parametrize("grid, count", [((8, 16), 100), ((8, 16), 64), ((8, 6), 37), ((1, 40), 20)])
def test_every_token_is_in_a_cluster_mask_about_equally_often(grid: tuple[int, int], count: int) -> None:
    draws, tokens = 3000, grid[0] * grid[1]
    share = count / tokens
    found = marginals(lambda seed: cluster_mask(np.ones(grid, bool), count, rng(seed)), tokens, draws)
    bound = 0.05 * share + ERRORS * (share * (1 - share) / draws) ** 0.5
    assert np.abs(found - share).max() < bound


def test_every_token_is_in_a_random_mask_equally_often() -> None:
    draws, share = 3000, 0.5
    found = marginals(lambda seed: random_mask(np.ones((8, 16), bool), 64, rng(seed)), 128, draws)
    assert np.abs(found - share).max() < ERRORS * (share * (1 - share) / draws) ** 0.5


def test_the_official_sampler_spares_the_first_token_and_favours_the_low_ids() -> None:
    def draw(seed: int) -> NDArray[np.int64]:
        generator = rng(seed)
        return official_cluster_mask((8, 64), 400, int(generator.integers(3, 6)), starts(generator, 512))

    found = marginals(draw, 512, 400)
    assert found[0] == 0
    # The surplus that is dropped are the highest ids: the end of the top row is masked less often than the rest.
    assert found[-8:].mean() < found[64:448].mean() - 0.2


def test_clusters_are_clusters_and_random_masks_are_not() -> None:
    def neighbours(ids: NDArray[np.int64]) -> float:
        mask = np.zeros((8, 64), bool)
        mask.ravel()[ids] = True
        return float((mask[:, 1:] & mask[:, :-1]).sum() / mask[:, 1:].sum())

    valid = np.ones((8, 64), bool)
    clustered = np.mean([neighbours(cluster_mask(valid, 100, rng(seed))) for seed in range(50)])
    scattered = np.mean([neighbours(random_mask(valid, 100, rng(seed))) for seed in range(50)])
    assert scattered == pytest.approx(100 / 512, abs=0.05)
    assert clustered > 0.6


def test_squares_do_not_wrap_from_the_end_of_one_row_into_the_next() -> None:
    def lift(draw: Callable[[int], NDArray[np.int64]]) -> float:
        """How much oftener than by chance the end of a row and the start of the next are masked together."""
        masks = np.zeros((1500, 8, 30), bool)
        for seed, mask in enumerate(masks):
            mask.ravel()[draw(seed)] = True
        ends, begins = masks[:, :-1, -1], masks[:, 1:, 0]
        return float((ends & begins).mean() / (ends.mean() * begins.mean()))

    valid = np.ones((8, 30), bool)
    assert lift(lambda seed: cluster_mask(valid, 40, rng(seed))) < 1.2
    assert lift(lambda seed: official_cluster_mask((8, 30), 40, 4, starts(rng(seed), 240))) > 2


# The official samplers -------------------------------------------------------------------------------------------


def test_an_official_square_grows_right_and_up_from_its_start() -> None:
    ids = official_cluster_mask((8, 64), 8, 3, iter([130]))
    assert sorted(ids.tolist()) == [130, 131, 132, 194, 195, 196, 258, 259]


def test_an_official_square_is_cut_at_the_top() -> None:
    ids = official_cluster_mask((4, 10), 5, 3, iter([33, 33, 1]))
    assert set(ids.tolist()) <= {33, 34, 35, 1, 2, 3, 11, 12, 13, 21, 22, 23}
    assert len(ids) == 5


@pytest.mark.parametrize("count", [30, 76, 78])
def test_the_official_sampler_returns_exactly_the_count_without_repeats(count: int) -> None:
    for seed in range(20):
        ids = official_cluster_mask((8, 10), count, 4, starts(rng(seed), 80))
        assert len(set(ids.tolist())) == len(ids) == count


@pytest.mark.parametrize("count", [79, 80, 400])
def test_what_the_official_loop_would_never_end_on_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot mask {count} of 80 tokens; mask at most 78"):
        official_cluster_mask((8, 10), count, 4, repeat(0))


def test_an_official_frame_mask_is_pythons_sample() -> None:
    ids = official_frame_mask(512, 400, random.Random(7))
    assert ids.tolist() == random.Random(7).sample(range(512), 400)
    assert ids.dtype == np.int64
