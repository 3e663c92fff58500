"""The decoder that fills in a grid of tokens: what it is given, and what it must not see."""

from __future__ import annotations

import pytest
import torch

from auricle.nn.decoder import GridDecoder

GRIDS = {"row": (1, 12), "square": (3, 4)}


def decoder(rows: int, depth: int = 2) -> GridDecoder:
    torch.manual_seed(0)
    return GridDecoder(8, depth, rows).eval()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_encoded_tokens_go_to_their_places_and_the_fill_everywhere_else(grid: tuple[int, int]) -> None:
    network = decoder(grid[0], depth=0)
    kept, ids = torch.randn(2, 3, 8), torch.tensor([[0, 5, 11], [2, 3, 7]])
    valid = torch.ones(2, 12, dtype=torch.bool)
    filled = network(kept, ids, torch.ones_like(ids, dtype=torch.bool), valid)
    want = network.fill.expand(2, 12, 8).clone()
    for row in range(2):
        want[row, ids[row]] = kept[row]
    torch.testing.assert_close(filled, want)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_filled_token_depends_on_its_neighbours_in_the_grid(grid: tuple[int, int]) -> None:
    network, rows, columns = decoder(grid[0], depth=1), *grid
    valid, ids = torch.ones(1, 12, dtype=torch.bool), torch.arange(12)[None]
    there = torch.ones_like(ids, dtype=torch.bool)
    kept = torch.randn(1, 12, 8, requires_grad=True)
    place = 5
    network(kept, ids, there, valid)[0, place].sum().backward()
    assert kept.grad is not None
    reached = kept.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    row, column = divmod(place, columns)
    reach = 3 if rows == 1 else 1
    near = [i for i in range(12) if abs(i // columns - row) <= 1 and abs(i % columns - column) <= reach]
    assert reached == near


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_what_lies_beyond_a_clip_or_does_not_count_changes_nothing(grid: tuple[int, int]) -> None:
    network, (rows, columns) = decoder(grid[0]), grid
    wide = torch.arange(rows * (columns + 2)).view(rows, -1)
    ids = torch.tensor([[0, 1, columns]])
    kept = torch.randn(1, 3, 8)
    # In a wider grid a token of a later row has another number.
    moved = torch.tensor([[0, 1, columns if rows == 1 else columns + 2]])
    if rows == 1:
        ids, moved = ids.clamp(max=columns - 1), moved.clamp(max=columns - 1)
    inside = torch.zeros(rows, columns + 2, dtype=torch.bool)
    inside[:, :columns] = True
    there = torch.tensor([[True, True, True]])
    want = network(kept, ids, there, torch.ones(1, rows * columns, dtype=torch.bool))
    more, beyond = torch.cat([kept, torch.randn(1, 1, 8)], dim=1), torch.cat([moved, torch.tensor([[3]])], dim=1)
    counts = torch.tensor([[True, True, True, False]])
    got = network(more, beyond, counts, inside.flatten()[None])
    torch.testing.assert_close(got[:, wide[:, :columns].flatten()], want)
