"""A SSAMBA that only looks back hears a stream piece by piece as it hears the whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from networks import RATE
from torch import Tensor

from auricle.errors import ConfigError
from auricle.methods.ssamba import SSAMBAConfig, SSAMBAEncoder, adapt_encoder

AHEAD: dict[str, Any] = {"mixer": "none", "pairs": False, "patch_freq": 128, "stride_freq": 128}


def encoder(**changes: Any) -> SSAMBAEncoder:
    torch.manual_seed(0)
    settings = {"width": 24, "depth": 3, "window_frames": 64, "patch_time": 2, "stride_time": 2, **AHEAD, **changes}
    network = SSAMBAEncoder(SSAMBAConfig(**settings)).eval().requires_grad_(False)
    torch.nn.init.normal_(network.positions, std=0.5)
    return network


def sound(network: SSAMBAEncoder, steps: int) -> Tensor:
    """Two clips of exactly so many time steps."""
    c, front = network.config, network.frontend
    frames = (steps - 1) * c.stride_time + c.patch_time
    samples = (frames - 1) * front.hop_samples + front.window_samples
    return 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(1))


# Shorter than an analysis window, than a hop, than a patch, and longer than several patches.
@pytest.mark.parametrize("sizes", [(400,), (37, 5000, 1, 163), (20_000,)])
@pytest.mark.parametrize("changes", [{}, {"patch_time": 4, "stride_time": 3}, {"final_norms": 1, "rms_norm": True}])
def test_a_stream_in_pieces_gives_what_the_whole_gives(sizes: tuple[int, ...], changes: dict[str, Any]) -> None:
    network = encoder(**changes)
    waves, said, state, start = sound(network, 19), [], None, 0
    while start < waves.shape[1]:
        for size in sizes:
            tokens, state = network.step(waves[:, start : start + size], state)
            said.append(tokens)
            start += size
    assert state is not None
    assert state.columns == 19
    torch.testing.assert_close(torch.cat(said, 1), network(waves).layers[-1], atol=1e-4, rtol=1e-4)


def test_the_state_is_an_argument_and_stays_as_it_was() -> None:
    network = encoder()
    waves = sound(network, 8)
    _, state = network.step(waves[:, :1500])
    first, after = network.step(waves[:, 1500:], state)
    again, _ = network.step(waves[:, 1500:], state)
    assert torch.equal(first, again)
    assert after.columns > state.columns
    # What is remembered does not grow with the stream.
    assert after.samples.shape[1] < network.frontend.window_samples
    assert after.frames.shape[1] < network.config.patch_time
    assert [[part.shape for part in pair] for pair in after.mixers] == [
        [part.shape for part in pair] for pair in state.mixers
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mixer": "v2"}, "mixer=v2"),
        ({"pairs": True, "depth": 4}, "pairs=true"),
        ({"cls_position": "middle"}, "cls_position=middle"),
        ({"patch_freq": 16, "stride_freq": 16}, "patch_freq=16"),
    ],
)
def test_a_network_that_looks_ahead_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"a network with {named} cannot stream: .*context=SECONDS"):
        encoder(**changes).step(torch.zeros(1, 1000))


def test_other_streams_than_before_are_refused() -> None:
    network = encoder()
    _, state = network.step(torch.zeros(2, 1500))
    with pytest.raises(ConfigError, match=r"the state is that of 2 streams, got waves for 3"):
        network.step(torch.zeros(3, 1500), state)
    with pytest.raises(ConfigError, match=r"waves must be \[B, S\], a row for each clip, got the shape \[1500\]"):
        network.step(torch.zeros(1500))


def test_a_stream_ends_where_positions_end() -> None:
    network = encoder()
    waves = sound(network, 33)
    tokens, state = network.step(waves[:, : RATE // 2])
    assert tokens.shape == (2, 24, 24)
    with pytest.raises(ConfigError, match=r"longer than the 32 time steps \(0.64 s\) .* longer table .*window_frames"):
        network.step(waves[:, RATE // 2 :], state)


def test_a_longer_table_of_positions_lets_a_stream_go_on_as_a_long_clip() -> None:
    network = encoder()
    waves, state, said = sound(network, 90), None, []
    # The frames that 90 steps of two cover.
    longer = adapt_encoder(network, dataclasses.replace(network.config, window_frames=180)).eval()
    with torch.no_grad():
        for piece in waves.split(7000, dim=1):
            tokens, state = longer.step(piece, state)
            said.append(tokens)
        torch.testing.assert_close(torch.cat(said, 1), network(waves).layers[-1], atol=1e-4, rtol=1e-4)
