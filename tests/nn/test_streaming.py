"""Windows over streams: every token once, exact where one window is enough, and honest about what the seams cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.nn.mamba import TILE, Kind, Mamba
from auricle.nn.streaming import in_windows
from memory import Held

LENGTH = 400


class Stack(nn.Module):
    """Two bidirectional layers with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mamba(16, states=8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(nn.functional.layer_norm(x, x.shape[-1:]))
        return x


@pytest.fixture
def network() -> Stack:
    torch.manual_seed(0)
    return Stack().eval().requires_grad_(False)


def pieces(x: Tensor) -> Iterator[Tensor]:
    """x in pieces of very different lengths."""
    start = 0
    for size in (1, 2, 150, 3, 40, LENGTH):
        if start < x.shape[1]:
            yield x[:, start : start + size]
        start += size


def streamed(network: Stack, x: Tensor, window: int, context: int) -> tuple[Tensor, list[float]]:
    found = list(in_windows(network, pieces(x), window, context))
    assert found[0].seam is None
    return torch.cat([piece.out for piece in found], 1), [piece.seam for piece in found[1:] if piece.seam is not None]


@pytest.mark.parametrize(("length", "window"), [(1, 64), (64, 64), (LENGTH, LENGTH)])
def test_a_stream_that_fits_into_a_window_is_exact(network: Stack, length: int, window: int) -> None:
    x = torch.randn(2, length, 16)
    out, seams = streamed(network, x, window, 8)
    assert not seams
    torch.testing.assert_close(out, network(x))


@pytest.mark.parametrize(("window", "context"), [(64, 8), (65, 32), (129, 1)])
def test_every_token_comes_out_once_and_in_order(window: int, context: int) -> None:
    x = torch.arange(float(LENGTH))[None, :, None]
    found = list(in_windows(lambda tokens: tokens, pieces(x), window, context))
    assert torch.equal(torch.cat([piece.out for piece in found], 1), x)
    # Windows that say the same everywhere: the seams are compared at the same tokens.
    assert all(piece.seam == 0 for piece in found[1:])


def test_what_the_seams_report_is_what_they_cost(network: Stack) -> None:
    x = torch.randn(1, LENGTH, 16)
    whole, costs = network(x), []
    for context in (2, 8, 32):
        out, seams = streamed(network, x, 100, context)
        wrong = (out - whole).norm(dim=-1) / whole.norm(dim=-1)
        # The two tokens beside a seam, and everything else, are not worse than a few times the report.
        assert float(wrong.max()) <= 4 * max(seams)
        assert float(wrong.max()) >= max(seams) / 4
        costs.append(max(seams))
    assert costs[0] > 4 * costs[1] > 16 * costs[2]


def test_windows_that_are_too_short_are_refused(network: Stack) -> None:
    with pytest.raises(ConfigError, match="longer than twice"):
        next(in_windows(network, [torch.zeros(1, 9, 16)], 16, 8))
    with pytest.raises(ConfigError, match="at least one token"):
        next(in_windows(network, [], 16, 4))


@pytest.mark.parametrize("kind", ["v2", "v1", "none"])
def test_inference_holds_a_few_tensors_of_the_length_and_none_of_length_times_state(kind: Kind) -> None:
    mixer, length = Mamba(16, states=16, kind=kind), 8 * TILE
    x = torch.randn(1, length, 16)
    with torch.no_grad(), Held() as held:
        mixer(x)
    # What is convolved, its gate, and what the first direction says; and tiles, of which there are eight.
    bound = 4 * x.element_size() * mixer.channels * length
    assert held.most <= bound
    with torch.enable_grad(), Held() as held:
        mixer(x)
    assert held.most > 1.4 * bound


def test_a_state_is_an_argument_and_stays_as_it_was() -> None:
    torch.manual_seed(0)
    mixer, frame = Mamba(16, kind="none"), torch.randn(1, 1, 16)
    with torch.no_grad():
        _, state = mixer.step(torch.randn(1, 5, 16))
        before = [part.clone() for part in state]
        first, _ = mixer.step(frame, state)
        second, after = mixer.step(frame, state)
    assert torch.equal(first, second)
    assert all(torch.equal(part, old) for part, old in zip(state, before, strict=True))
    assert [part.shape for part in after] == [part.shape for part in state]
