"""SSAMBA's encoder: the scaled residual, padding, drop path, where the class token stands, means of seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from networks import RATE, batch, samples, sounds
from torch import Tensor
from torch.nn import functional as F

from auricle.errors import ConfigError
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.spectrogram.tokens import Tokens
from auricle.methods.ssamba import SSAMBAConfig, SSAMBAEncoder, for_finetuning
from auricle.methods.ssamba.model import drop_path
from memory import Held

HALF_MAX = 65504.0


def config(**changes: Any) -> SSAMBAConfig:
    """Two pairs of width 24 over patches of 16 x 16, with positions for 64 frames."""
    return SSAMBAConfig(**{"width": 24, "depth": 4, "window_frames": 64, **changes})


def encoder(**changes: Any) -> SSAMBAEncoder:
    """In evaluation mode; mixers and positions as large as the tokens, so that an error in any of them shows."""
    torch.manual_seed(0)
    network = SSAMBAEncoder(config(**changes)).eval()
    torch.nn.init.normal_(network.positions, std=0.5)
    with torch.no_grad():
        for layer in network.layers:
            layer.mixer.out_proj.weight *= 5  # type: ignore[union-attr]
            torch.nn.init.normal_(layer.norm.weight, 1, 0.2)  # type: ignore[union-attr]
    return network


def tokens_of(network: SSAMBAEncoder, frames: int = 64, clips: int = 2) -> Tokens:
    x = torch.randn(clips, frames, network.config.mel_bins, generator=torch.Generator().manual_seed(1))
    return network.embed_patches(x, torch.full((clips,), frames))[0]


def test_layers_that_nobody_asks_for_are_not_held() -> None:
    network = encoder(depth=24)
    features, frames = torch.randn(1, 640, network.config.mel_bins), torch.tensor([640])
    most = {}
    for layers in (None, (), (3,)):
        with torch.no_grad(), Held() as held:
            encoded = network.forward_features(features, frames, layers)
        most[layers] = held.most
    one = encoded.layers[3].numel() * features.element_size()
    # Of the 12 outputs, the last two are there anyway while they are made.
    assert most[None] - most[()] > 9 * one
    assert 0 < most[(3,)] - most[()] < 2 * one


# The residual -----------------------------------------------------------------------------------------------------


def official(network: SSAMBAEncoder, x: Tensor) -> Iterator[Tensor]:
    """The residual of every pair as the official code adds it up (section 2.5), and the final norm's input."""
    residual: Tensor | None = None
    for first in range(0, network.config.depth, 2):
        summed = []
        said = []
        for place, flip in ((0, []), (1, [1])):
            layer: Any = network.layers[first + place]
            own = x.flip(flip)
            carried = own if residual is None else residual.flip(flip) + own
            said.append(layer.mixer(layer.norm(carried)).flip(flip))
            summed.append(carried.flip(flip))
        x, residual = said[0] + said[1], summed[0] + summed[1]
        yield residual
    assert residual is not None
    yield residual + x


@pytest.mark.parametrize("rms_norm", [False, True])
def test_the_scaled_residual_gives_what_the_doubling_one_gives(rms_norm: bool) -> None:
    network = encoder(depth=24, rms_norm=rms_norm)
    with torch.no_grad():
        tokens = tokens_of(network)
        x = network.with_prefix(network.with_positions(tokens))
        *doubled, last = official(network, x)
        want = network.norm(network.norm(last))
        stages = list(network.stages(x))
        got = network.transform(tokens)[-1]
    assert len(doubled) == len(stages) == network.num_layers == 12
    for k, (stage, residual) in enumerate(zip(stages, doubled, strict=True)):
        # A pair doubles what both of its layers read.
        torch.testing.assert_close(2.0 ** (k + 1) * stage.sums[0], residual, rtol=1e-4, atol=1e-4 * residual.std())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_half_precision_stays_in_range_where_the_doubling_residual_does_not() -> None:
    network = encoder(depth=24)
    with torch.no_grad():
        tokens = tokens_of(network)
        # Early sums dominate the doubled residual: 30 times 2^12 is beyond what fp16 can hold.
        tokens = Tokens(tokens.embeddings * (30 / tokens.embeddings.abs().max()), tokens.grid, tokens.valid)
        want = network.transform(tokens)[-1]
        *_, last = official(network, network.with_prefix(network.with_positions(tokens)))
        assert float(last.abs().max()) > HALF_MAX
        assert not bool(last.half().isfinite().all())
        half = network.half()
        halved = Tokens(tokens.embeddings.half(), tokens.grid, tokens.valid)
        stages = list(half.stages(half.with_prefix(half.with_positions(halved))))
        largest = max(float(x.abs().max()) for stage in stages for x in (*stage.sums, *stage.hidden))
        got = half.transform(halved)[-1]
    assert got.dtype == torch.float16
    # Not near the limit at any place, and equal to the network in float32 to the precision of the type.
    assert largest < HALF_MAX / 100
    torch.testing.assert_close(got.float(), want, rtol=0.02, atol=0.02 * float(want.abs().max()))


def test_layers_one_after_the_other_double_nothing() -> None:
    network = encoder(pairs=False)
    assert network.num_layers == 4
    with torch.no_grad():
        tokens = tokens_of(network)
        x = network.with_prefix(network.with_positions(tokens))
        stages = list(network.stages(x))
        assert [stage.halvings for stage in stages] == [0, 0, 0, 0]
        total = x + sum(stage.hidden[0] for stage in stages)
        torch.testing.assert_close(network.last_sum(stages[-1]), total)
        want = F.layer_norm(total, (24,), network.norm.weight, network.norm.bias)
        torch.testing.assert_close(network.final(total)[0], want)


def test_the_final_norm_is_applied_as_often_as_asked() -> None:
    once, twice = (encoder(final_norms=n) for n in (1, 2))
    with torch.no_grad():
        for network in (once, twice):
            torch.nn.init.normal_(network.norm.weight, 1, 0.5, generator=torch.Generator().manual_seed(0))
        first, second = once.transform(tokens_of(once))[-1], twice.transform(tokens_of(twice))[-1]
        assert not torch.allclose(first, second, atol=0.1)
        torch.testing.assert_close(once.norm(first), second)


# Clips of different lengths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cls_position": "middle"},
        {"mixer": "v1"},
        {"mixer": "none"},
        {"pairs": False, "rms_norm": True, "pooling": "prefix"},
    ],
    ids=["released", "cls in the middle", "v1", "forward only", "in sequence"],
)
def test_a_clip_among_others_gives_what_it_gives_alone(changes: dict[str, Any]) -> None:
    network = encoder(**changes)
    # 4, 1, 3 and 6 columns of eight rows: patches of a shorter clip are not neighbours in its batch.
    waves, lengths = sounds([samples(64), 1000, samples(40), samples(90)])
    with torch.no_grad():
        together = network(waves, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = network(waves[row : row + 1, :length])
            steps = int(together.valid[row].sum())
            torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=1e-4)
            for layer in range(network.num_layers):
                got = together.frames(layer)[row, :steps]
                torch.testing.assert_close(got, alone.frames(layer)[0], atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(together.prefix[layer][row], alone.prefix[layer][0], atol=1e-5, rtol=1e-4)


def test_both_ends_of_a_sound_are_heard_everywhere() -> None:
    network = encoder(position_init="sincos")
    waves, _ = sounds([samples(64)])
    changed = waves.clone()
    changed[:, -2000:] = 0
    with torch.no_grad():
        first, second = (network(x).frames() for x in (waves, changed))
    assert (first - second).abs().amax(-1).min() > 1e-4


def test_the_class_token_stands_in_the_middle_of_the_clips_own_patches() -> None:
    network = encoder(cls_position="middle")
    valid = torch.tensor([[True, True, True], [True, True, False]])
    tokens = Tokens(torch.zeros(2, 6, 24), (2, 3), valid)
    order = network.order(tokens.token_valid())
    assert order is not None
    # 0 is the class token; the second clip's own patches are 1, 2, 4 and 5.
    assert order[0].tolist() == [1, 2, 3, 0, 4, 5, 6]
    assert order[1].tolist()[:5] == [1, 2, 0, 4, 5]


# Drop path --------------------------------------------------------------------------------------------------------


def test_drop_path_keeps_whole_clips_and_the_mean() -> None:
    torch.manual_seed(0)
    kept = drop_path(torch.ones(20_000, 3), 0.25)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert bool((kept == kept[:, :1]).all())
    assert float(kept.mean()) == pytest.approx(1, abs=0.02)


def test_the_layers_of_a_pair_drop_by_themselves_and_their_mean_goes_on() -> None:
    network = encoder(depth=6, drop_path=0.9).train()
    torch.manual_seed(3)
    with torch.no_grad():
        first, second, third = network.stages(network.with_prefix(network.with_positions(tokens_of(network, clips=40))))
        # Nothing to drop before the first pair.
        assert first.sums[0] is first.sums[1]
        said = (first.hidden[0] + first.hidden[1]) / 2
        ahead, behind = ((x - first.sums[0]) for x in second.sums)
        # Each layer reads what was said in full, divided by its own share, or nothing of it.
        shares = [1 - network.config.drop_path * (layer - 1) / 5 for layer in (2, 3)]
        for change, share in zip((ahead, behind), shares, strict=True):
            kept = change.flatten(1).abs().amax(1) > 1e-6
            assert 0 < int(kept.sum()) < 40
            torch.testing.assert_close(change[kept], said[kept] / share, atol=1e-5, rtol=1e-4)
        assert not torch.equal(ahead.flatten(1).any(1), behind.flatten(1).any(1))
        carried = (second.sums[0] + second.sums[1]) / 2
        torch.testing.assert_close(second.carried, carried)
        told = (second.hidden[0] + second.hidden[1]) / 4
        dropped = (third.sums[0] - carried).flatten(1).abs().amax(1) < 1e-6
        torch.testing.assert_close(third.sums[0][~dropped], (carried + told / (1 - 0.9 * 3 / 5))[~dropped])


def test_a_network_in_evaluation_drops_nothing() -> None:
    network = encoder(drop_path=0.9)
    waves, _ = sounds([samples(64)] * 3)
    with torch.no_grad():
        assert torch.equal(network(waves).pooled, network(waves).pooled)
        network.train()
        assert not torch.equal(network(waves).pooled, network(waves).pooled)


# Means of seconds -------------------------------------------------------------------------------------------------


def test_a_second_is_the_mean_of_the_columns_whose_centres_lie_in_it() -> None:
    network = encoder(window_frames=320)
    tokens = tokens_of(network, frames=320, clips=1)
    normed = torch.randn(1, 1 + 8 * 20, 24)
    seconds = network.per_second(normed, tokens.grid)
    # 3.2 s of 6.25 columns each.
    assert seconds.shape == (1, 4, 24)
    centres = network.times(20)
    columns = normed[:, 1:].unflatten(1, (8, 20)).mean(1)
    for second in range(4):
        inside = (centres >= second) & (centres < second + 1)
        assert 1 <= int(inside.sum()) <= 7
        torch.testing.assert_close(seconds[0, second], columns[0, inside].mean(0))


def test_the_official_seconds_are_slices_of_the_token_order() -> None:
    network = encoder(seconds="official")
    normed = torch.randn(2, 130, 24)
    got = network.per_second(normed, (3, 43))
    torch.testing.assert_close(got[:, 0], normed[:, :2].mean(1))
    torch.testing.assert_close(got[:, 59], normed[:, 118:120].mean(1))
    with pytest.raises(ValueError, match="33 tokens cannot be cut into 60 chunks"):
        network.per_second(torch.zeros(1, 33, 24), (8, 4))


# Settings and sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, "depth must be even to make pairs, got 3; set pairs=false"),
        ({"drop_path": 1.0}, "drop_path must be below 1"),
        ({"drop_path": 1.5}, "drop_path must lie between 0 and 1"),
        ({"states": 0}, "states must be above 0"),
        ({"states": 1000}, "states must be at most 256"),
        ({"width": 65_536, "depth": 1000}, "weights; at most"),
    ],
)
def test_settings_that_make_no_network_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("width", "in_layer", "in_encoder"),
    [(192, 282_240, 6_922_176), (384, 1_043_712, 25_345_920)],
    ids=["tiny", "small"],
)
def test_sizes_are_those_of_the_released_models(width: int, in_layer: int, in_encoder: int) -> None:
    with torch.device("meta"):
        network = SSAMBAEncoder(SSAMBAConfig(width=width, attend_padding=True))
    assert sum(p.numel() for p in network.layers[0].parameters()) == in_layer
    assert sum(p.numel() for p in network.parameters()) == in_encoder
    assert SSAMBAConfig(width=width).layer_weights() == pytest.approx(in_layer, rel=0.05)


def test_fine_tuning_takes_overlapping_patches_of_the_same_network() -> None:
    network = encoder()
    tuned = for_finetuning(network, 1.0)
    assert tuned.config.stride == (10, 10)
    assert tuned.config.grid == (12, 10)
    assert torch.equal(tuned.layers[3].mixer.in_proj.weight, network.layers[3].mixer.in_proj.weight)
    with torch.no_grad():
        assert tuned(sounds([RATE])[0]).frames().shape == (1, 10, 12 * 24)


def test_masks_and_losses_are_those_of_ssast() -> None:
    torch.manual_seed(0)
    task = MaskedPatchObjective(encoder(mask_count=12, mask_sampler="official", passes=2))
    with torch.no_grad():
        losses = task(batch(*sounds([samples(64), samples(40)])), 0.0)
    assert float(losses["weight"]) == 12 + round(12 / 32 * 24)
    assert float(losses["loss"]) == pytest.approx(float(losses["nce"] + 10 * losses["mse"]), rel=1e-6)
    assert np.isfinite(float(losses["loss"]))
