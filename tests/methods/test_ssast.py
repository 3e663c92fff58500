"""SSAST's encoder: what a clip gives depends on the clip alone, and every time step says when it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import LAYOUTS, RATE, config, encoder, samples, sounds
from torch import Tensor

from auricle.errors import ConfigError
from auricle.methods.base import Encoded
from auricle.methods.ssast import SSASTConfig, SSASTEncoder, adapt_encoder, for_finetuning
from auricle.nn.patches import resize_positions

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def row_of(encoded: Encoded, row: int) -> list[Tensor]:
    """Everything that belongs to one clip, without its padding."""
    steps = int(encoded.valid[row].sum())
    return [
        encoded.pooled[row],
        encoded.frames()[row, :steps],
        encoded.times[:steps],
        *(x.unflatten(1, encoded.grid)[row, :, :steps] for x in encoded.layers),
        *(x[row] for x in encoded.prefix),
    ]


# The clip alone ---------------------------------------------------------------------------------------------------


@each_layout
@pytest.mark.parametrize("pooling", ["mean", "prefix"])
@pytest.mark.parametrize("table", [16, 64, 200], ids=lambda frames: f"table-{frames}")
def test_a_clip_alone_gives_what_it_gives_among_longer_ones(layout: str, pooling: str, table: int) -> None:
    network = encoder(layout, pooling=pooling, window_frames=table)
    lengths = [RATE // 100, samples(17), samples(30) + 77, RATE, samples(150)]
    waves, given = sounds(lengths)
    with torch.inference_mode():
        together = network(waves, given)
        for row, length in enumerate(lengths):
            alone = network(waves[row : row + 1, :length])
            for got, want in zip(row_of(together, row), row_of(alone, 0), strict=True):
                torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@each_layout
def test_what_lies_behind_the_end_of_a_clip_is_not_heard(layout: str) -> None:
    network = encoder(layout)
    waves, lengths = sounds([samples(30) + 50, RATE])
    loud = waves.clone()
    loud[0, int(lengths[0]) :] = 1.0
    with torch.inference_mode():
        assert torch.equal(network(waves, lengths).pooled, network(loud, lengths).pooled)


@each_layout
def test_with_attend_padding_a_short_clip_is_the_padded_window(layout: str) -> None:
    network, (waves, _) = encoder(layout, attend_padding=True), sounds([samples(20)])
    with torch.inference_mode():
        alone = network(waves)
        longer, lengths = sounds([samples(20), samples(64)])
        together = network(longer, lengths)
    assert alone.grid == network.config.grid
    assert int(alone.valid.sum()) < alone.grid[1]
    for got, want in zip(row_of(together, 0), row_of(alone, 0), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    # The padding was attended to: without it the result is another.
    ignoring = encoder(layout)
    ignoring.load_state_dict(resized(network, ignoring))
    with torch.inference_mode():
        assert (ignoring(waves).pooled - alone.pooled).abs().max() > 1e-3


def resized(source: SSASTEncoder, target: SSASTEncoder) -> dict[str, Tensor]:
    state = source.state_dict()
    table = resize_positions(state["positions"][:, 2:], source.config.grid, target.config.grid)
    return state | {"positions": torch.cat([state["positions"][:, :2], table], 1)}


def test_the_offset_of_a_clip_is_removed_before_anything_else() -> None:
    network, (waves, lengths) = encoder(), sounds([9000, 9000])
    features, _ = network.features(waves, lengths)
    shifted, _ = network.features(waves + 0.5, lengths)
    torch.testing.assert_close(features, shifted, atol=1e-3, rtol=0)


def test_features_are_normalised_by_twice_the_deviation_and_padded_with_a_log_mel_of_zero() -> None:
    network = encoder(norm_mean=-3.0, norm_std=2.0)
    waves, lengths = sounds([samples(10), samples(20)])
    features, frames = network.features(waves, lengths)
    log_mel = network.frontend(waves[1:] - waves[1:].mean())
    torch.testing.assert_close(features[1:], (log_mel + 3) / 4, atol=1e-4, rtol=0)
    assert frames.tolist() == [10, 20]
    assert network.pad_value == 0.75
    assert torch.equal(features[0, 10:], torch.full((10, 128), 0.75))


# Positions --------------------------------------------------------------------------------------------------------


@each_layout
def test_a_clip_as_long_as_the_table_uses_it_as_it_is(layout: str) -> None:
    network = encoder(layout)
    with torch.inference_mode():
        tokens, _ = network.embed_patches(*network.features(torch.randn(1, network.window_samples)))
    assert tokens.grid == network.config.grid
    assert torch.equal(network.positions_for(tokens.grid, tokens.valid), network.positions[:, 2:])


@each_layout
def test_a_shorter_clip_uses_the_first_columns(layout: str) -> None:
    network = encoder(layout)
    rows, columns = network.config.grid
    table = network.positions[:, 2:].unflatten(1, (rows, columns))
    got = network.positions_for((rows, 3), torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(got.unflatten(1, (rows, 3)), table[:, :, :3])


@each_layout
def test_a_longer_clip_stretches_the_table_and_its_neighbours_keep_theirs(layout: str) -> None:
    network = encoder(layout)
    rows, columns = network.config.grid
    most = columns + 5
    valid = torch.arange(most) < torch.tensor([most, columns, 2])[:, None]
    got = network.positions_for((rows, most), valid).unflatten(1, (rows, most))
    table = network.positions[:, 2:]
    stretched = resize_positions(table, (rows, columns), (rows, most)).unflatten(1, (rows, most))
    own = table.unflatten(1, (rows, columns))
    torch.testing.assert_close(got[0], stretched[0])
    assert torch.equal(got[1, :, :columns], own[0])
    assert torch.equal(got[2, :, :2], own[0, :, :2])


def test_the_order_of_sound_matters() -> None:
    # Without positions a transformer sees a set of patches.
    network, (waves, _) = encoder(), sounds([samples(64)])
    with torch.inference_mode():
        features, frames = network.features(waves)
        forward = network.forward_features(features, frames).pooled
        halves = network.forward_features(torch.cat([features[:, 32:], features[:, :32]], 1), frames).pooled
    assert (forward - halves).abs().max() > 1e-3


# Time -------------------------------------------------------------------------------------------------------------


@each_layout
def test_lengths_grids_and_times_agree_for_fifty_lengths(layout: str) -> None:
    network = encoder(layout)
    step = network.config.stride_time * 0.01
    lengths = torch.linspace(1, 2 * RATE, 50).long().tolist()
    for length in lengths:
        with torch.inference_mode():
            encoded = network(torch.zeros(1, length))
        rows, columns = encoded.grid
        assert all(x.shape == (1, rows * columns, network.dim) for x in encoded.layers)
        assert encoded.frames().shape == (1, columns, rows * network.dim)
        assert encoded.valid.all()
        assert encoded.times.shape == (columns,)
        torch.testing.assert_close(encoded.times.diff(), torch.full((columns - 1,), step), atol=1e-5, rtol=0)
        # The first step's centre is half a patch in; the last step begins before the sound ends.
        half = ((network.config.patch_time - 1) * 160 + 400) / 2 / RATE
        assert float(encoded.times[0]) == pytest.approx(half)
        assert float(encoded.times[-1]) - half < length / RATE
        # No sound is left out but what is too short for a frame of its own.
        assert (length - 400) / RATE < float(encoded.times[-1]) + half


@each_layout
@pytest.mark.parametrize("frames", [60, 64, 67])
@pytest.mark.parametrize("attend_padding", [False, True])
def test_windows_of_a_long_sound_continue_evenly(layout: str, frames: int, attend_padding: bool) -> None:
    network = encoder(layout, window_frames=frames, attend_padding=attend_padding)
    assert network.window_hop <= network.window_samples
    with torch.inference_mode():
        window = network(torch.zeros(1, network.window_samples))
    assert window.grid == network.config.grid
    next_start = network.window_hop / RATE
    step = 1 / network.frame_rate
    assert next_start + float(window.times[0]) - float(window.times[-1]) == pytest.approx(step, rel=1e-5)


@each_layout
def test_a_frame_is_all_rows_of_its_column(layout: str) -> None:
    network = encoder(layout)
    with torch.inference_mode():
        encoded = network(torch.randn(2, RATE // 2) * 0.1)
    rows, columns = encoded.grid
    frame = torch.cat([encoded.layers[-1][1, row * columns + 1] for row in range(rows)])
    assert torch.equal(encoded.frames()[1, 1], frame)
    assert not torch.equal(encoded.frames(0), encoded.frames(-1))


def test_the_sound_of_one_moment_reaches_its_own_column() -> None:
    # Before the blocks a token is its patch: a click shows in the columns that cover it and nowhere else.
    network = encoder("frame")
    waves = torch.zeros(1, samples(64))
    with torch.inference_mode():
        silent = network.embed_patches(*network.features(waves))[0].embeddings
        waves[0, 8000] = 1.0
        click = network.embed_patches(*network.features(waves))[0].embeddings
    changed = ((click - silent).abs().amax(-1)[0] > 0.5).nonzero().flatten()
    times = network.times(64)[changed]
    assert len(changed) in (1, 2)
    assert (times - 0.5).abs().max() < 0.02


# Configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 25}, r"width \(25\) must be a multiple of heads \(3\)"),
        ({"window_frames": 8}, "a patch of 16x16 does not fit into 128 mel bins x 8 frames"),
        ({"mel_bins": 12}, "does not fit into 12 mel bins"),
        ({"mask_ratio": 1.0}, "mask_ratio must lie between 0 and 1, got 1.0"),
        ({"norm_std": 0.0}, "norm_std must be above 0, got 0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_sizes_are_those_of_the_paper() -> None:
    # Section 3 of the paper: encoder parameters without any head; [cls] and [dist] count among them.
    sizes = {(192, 3): 5_487_168, (384, 6): 21_591_168, (768, 12): 85_649_664}
    for (width, heads), parameters in sizes.items():
        with torch.device("meta"):
            network = SSASTEncoder(SSASTConfig(width=width, heads=heads))
        assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("mode", ["patch", "frame"])
def test_fine_tuning_keeps_the_weights_and_adapts_the_positions(mode: str) -> None:
    network = encoder(mode, finetune_stride_freq=10 if mode == "patch" else 128, finetune_stride_time=1)
    tuned = for_finetuning(network, seconds=1.0)
    assert tuned.config.window_frames == 98
    assert tuned.config.stride == ((10, 1) if mode == "patch" else (128, 1))
    positions = resize_positions(network.positions[:, 2:], network.config.grid, tuned.config.grid)
    assert torch.equal(tuned.positions[:, 2:], positions)
    assert torch.equal(tuned.positions[:, :2], network.positions[:, :2])
    for name, parameter in network.named_parameters():
        if name != "positions":
            assert torch.equal(parameter, tuned.get_parameter(name)), name


def test_an_adapted_encoder_is_a_copy() -> None:
    network = encoder()
    adapted = adapt_encoder(network, network.config)
    with torch.no_grad():
        adapted.patch.weight.zero_()
    assert network.patch.weight.any()


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.1])
def test_fine_tuning_on_clips_shorter_than_a_patch_works(seconds: float) -> None:
    tuned = for_finetuning(encoder(), seconds)
    with torch.inference_mode():
        assert tuned(torch.randn(1, max(1, round(seconds * RATE)))).pooled.isfinite().all()
