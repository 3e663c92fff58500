"""ASiT's network and pretext task: what is damaged, what is compared, and a teacher that follows."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from auricle.config import override
from auricle.data.batch import Batch, Stream
from auricle.data.randomness import Draw
from auricle.errors import ConfigError
from auricle.methods import get_method, get_preset
from auricle.methods.asit import ASiTConfig, ASiTEncoder, ASiTObjective, for_finetuning
from auricle.methods.asit.corruption import corrupt
from auricle.methods.asit.sequence import pooled_sequence
from auricle.nn.masking import block_mask, draws_of
from auricle.nn.patches import time_major
from auricle.training import pretrain
from auricle.training.run import read_metrics

RATE = 16000
SMALL: dict[str, Any] = {
    **{"width": 24, "depth": 2, "heads": 2, "window_frames": 64, "view_seconds": 0.655, "drop_path": 0.0},
    **{"clip_prototypes": 20, "patch_prototypes": 10, "projector_hidden": 16, "projector_out": 8},
    **{"decoder_hidden": 16, "decoder_out": 8},
}


def encoder(**changes: Any) -> ASiTEncoder:
    """In evaluation mode, its positions large enough that a wrong one shows."""
    torch.manual_seed(0)
    network = ASiTEncoder(ASiTConfig(**{**SMALL, **changes})).eval()
    torch.nn.init.normal_(network.positions, std=0.5)
    return network


def objective(**changes: Any) -> ASiTObjective:
    return ASiTObjective(encoder(**changes)).train()


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def batch(clips: int, seconds: float = 0.9, partner_seconds: float = 0.9) -> Batch:
    draw, ids = Draw(0, (0,) * clips, tuple(range(clips))), tuple(map(str, range(clips)))

    def part(first: int, length: int) -> dict[str, Stream]:
        waves = torch.cat([noise(length, first + row) for row in range(clips)])
        return {"audio": Stream(waves, torch.tensor([length - 900 * (row % 2) for row in range(clips)]), RATE)}

    others = Batch(part(100, round(partner_seconds * RATE)), draw, ids)
    return Batch(part(0, round(seconds * RATE)), draw, ids, partners=(others,))


# What is damaged --------------------------------------------------------------------------------------------------


def test_rectangles_cover_the_share_and_not_much_more() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        for share in (0.3, 0.5, 0.7):
            covered = block_mask((592, 128), share, draws_of(rng)).mean()
            # The last rectangle is at most 0.3 x 0.3 of the whole.
            assert share <= covered < share + 0.09


@pytest.mark.parametrize("size", [(1, 1), (1, 128), (3, 2), (17, 128), (20, 20), (31, 16)])
@pytest.mark.parametrize("align", [1, 16])
def test_any_size_is_covered_or_given_up(size: tuple[int, int], align: int) -> None:
    masked = block_mask(size, 0.7, draws_of(np.random.default_rng(0)), align=align, most=0.5)
    assert masked.any()
    if align == 1:
        assert masked.mean() >= 0.7


def test_rectangles_are_aligned_where_they_are_asked_to_be() -> None:
    masked = block_mask((80, 48), 0.5, draws_of(np.random.default_rng(1)), align=16, most=0.5)
    tiles = masked.reshape(5, 16, 3, 16).mean(axis=(1, 3))
    assert set(np.unique(tiles)) <= {0.0, 1.0}


@pytest.mark.parametrize(("stripes", "axis"), [("rows", 1), ("columns", 0)])
def test_stripes_reach_over_the_whole_axis(stripes: Any, axis: int) -> None:
    masked = block_mask((60, 40), 0.5, draws_of(np.random.default_rng(0)), stripes=stripes)
    assert set(np.unique(masked.mean(axis))) == {0.0, 1.0}


def features(clips: int = 4) -> tuple[Tensor, Tensor, Draw]:
    frames = torch.tensor([64 - 9 * (row % 2) for row in range(clips)])
    return 1 + torch.rand(clips, 64, 128), frames, Draw(0, (0,) * clips, tuple(range(clips)))


def test_half_of_the_clips_lose_and_half_are_given_something_else_never_both() -> None:
    x, frames, draw = features(200)
    others = 5 + torch.rand(200, 64, 128)
    damaged = corrupt(x, frames, others, ASiTConfig(), draw, "damage")
    assert torch.equal(damaged.features[~damaged.hidden], x[~damaged.hidden])
    replaced = (damaged.features == others).flatten(1).any(1)
    dropped = (damaged.features == 0).flatten(1).any(1)
    assert torch.equal(replaced, ~dropped)
    assert 70 < int(replaced.sum()) < 130
    share = damaged.hidden.float().sum((1, 2)) / (frames * 128)
    assert share[replaced].min() >= 0.3
    assert share[replaced].max() < 0.4
    assert share[dropped].min() >= 0.5
    assert share[dropped].max() < 0.8
    for row in range(200):
        assert not damaged.hidden[row, int(frames[row]) :].any()


def test_without_another_clip_everything_that_is_gone_is_dropped() -> None:
    x, frames, draw = features()
    damaged = corrupt(x, frames, None, ASiTConfig(), draw, "damage")
    assert (damaged.features[damaged.hidden] == 0).all()
    assert damaged.hidden.flatten(1).any(1).all()


def test_noise_has_the_scale_of_normalised_features() -> None:
    x, frames, draw = features(40)
    damaged = corrupt(x, frames, None, ASiTConfig(drop="noise"), draw, "damage")
    gone = damaged.features[damaged.hidden]
    assert float(gone.mean()) == pytest.approx(0, abs=0.02)
    assert float(gone.std()) == pytest.approx(0.5, abs=0.02)


def test_what_becomes_of_a_clip_does_not_depend_on_its_neighbours() -> None:
    task, given = objective(), batch(4)
    clean, damaged = task.views(given)
    alone_clean, alone = task.views(given.rows(1, 2))
    for view in (0, 1):
        frames = int(alone.hidden[view].any(1).nonzero().max()) + 1
        torch.testing.assert_close(alone_clean.features[view, :frames], clean.features[4 * view + 1, :frames])
        assert torch.equal(alone.hidden[view, :frames], damaged.hidden[4 * view + 1, :frames])
        torch.testing.assert_close(alone.features[view, :frames], damaged.features[4 * view + 1, :frames])


def test_the_views_of_a_clip_differ_in_time_and_in_what_is_damaged() -> None:
    clean, damaged = objective(roll=0.0).views(batch(3))
    assert not torch.allclose(clean.features[:3], clean.features[3:], atol=0.1)
    assert not torch.equal(damaged.hidden[:3], damaged.hidden[3:])


def test_a_clip_that_begins_elsewhere_is_still_all_there() -> None:
    given = batch(3, seconds=0.4)
    still, rolled = (objective(roll=roll).views(given)[0].features[0] for roll in (0.0, 1.0))
    assert not torch.allclose(still, rolled, atol=0.1)
    assert float(still.mean()) == pytest.approx(float(rolled.mean()), abs=0.05)


def test_a_shorter_clip_in_another_is_silence_where_it_has_ended() -> None:
    task = objective(alien_probability=1.0, roll=0.0)
    given = batch(6, seconds=0.655, partner_seconds=0.2)
    damaged = task.views(given)[1]
    floor = (torch.finfo(torch.float32).eps + 0 * damaged.features).log()
    silent = (floor - task.config.norm_mean) / (2 * task.config.norm_std)
    late = damaged.hidden[:, 30:]
    assert torch.allclose(damaged.features[:, 30:][late], silent[:, 30:][late], atol=1e-4)


# What is compared -------------------------------------------------------------------------------------------------


def test_the_loss_is_the_sum_of_its_parts() -> None:
    task = objective(reconstruction_weight=3.0)
    result = {name: float(value.detach()) for name, value in task(batch(3), 0.0).items()}
    assert result["loss"] == pytest.approx(result["global"] + result["local"] + 3 * result["reconstruction"], rel=1e-6)
    assert result["weight"] == 3


def test_a_clip_is_compared_across_views_and_a_patch_within_its_own() -> None:
    task = objective()
    with torch.no_grad():
        # Teacher and student say much, so that what is compared with what matters.
        for part in (task.projector, task.student.projector):
            part.clip.weight_g.mul_(5)
            part.patch.weight_g.mul_(5)
    clean, damaged = task.views(batch(2))
    compared = task.compare(clean, damaged, 0.05)
    said, of = (compared.teacher[0] / 0.05).softmax(-1), (compared.student[0] / 0.1).log_softmax(-1)
    across = -(said[[2, 3, 0, 1]] * of).sum(-1).mean()
    torch.testing.assert_close(compared.losses["global"], across)
    said, of = (compared.teacher[1] / 0.05).softmax(-1), (compared.student[1] / 0.1).log_softmax(-1)
    rows = -(said * of).sum(-1)
    own = [int(valid.sum()) * 8 for valid in clean.valid]
    per_clip = [part.mean() for part in rows.split(own)]
    torch.testing.assert_close(compared.losses["local"], torch.stack(per_clip).mean())


def test_only_hidden_pixels_are_rebuilt_and_clips_count_alike_or_by_what_is_hidden() -> None:
    clean = torch.zeros(2, 64, 128)
    hidden = torch.zeros(2, 64, 128, dtype=torch.bool)
    hidden[0, :32], hidden[1, :8] = True, True
    painted = torch.ones(2, 8 * 4, 256)
    painted[1] = 3
    by_clip, by_pixel = (
        objective(reconstruct_over=over)._reconstruction(painted, clean, hidden) for over in ("clips", "pixels")
    )
    assert float(by_clip) == pytest.approx(2)
    assert float(by_pixel) == pytest.approx((4 * 1 + 1 * 3) / 5)


def test_the_decoder_paints_what_a_transposed_convolution_would() -> None:
    decoder, tokens = objective().student.decoder, torch.randn(2, 8 * 4, 24)
    image = decoder.patch(decoder.mlp(tokens).transpose(1, 2).unflatten(2, (8, 4)))
    patches = decoder(tokens).unflatten(2, (16, 16)).unflatten(1, (8, 4))
    torch.testing.assert_close(image[:, 0], patches.permute(0, 1, 3, 2, 4).reshape(2, 128, 64), atol=1e-5, rtol=1e-5)


def test_a_loss_over_pixels_is_not_one_of_micro_batches() -> None:
    assert objective(reconstruct_over="pixels").whole_batch
    assert not objective().whole_batch


# Teachers ---------------------------------------------------------------------------------------------------------


def test_the_teacher_begins_as_the_student_and_follows_with_its_heads() -> None:
    task = objective(momentum=0.75)
    teacher = {f"{part}.{n}": p for part in task.FOLLOWS for n, p in task.get_submodule(part).named_parameters()}
    start = {name: p.clone() for name, p in teacher.items()}
    with torch.no_grad():
        for p in task.student.parameters():
            p.add_(1)
    # At the end its momentum is 1.
    for progress in (0.0, 1.0):
        task.after_step(progress)
        for name, p in teacher.items():
            torch.testing.assert_close(p, start[name] + 0.25)


def test_centres_move_after_the_step_by_what_the_teacher_said() -> None:
    task = objective()
    clean, damaged = task.views(batch(3))
    compared = task.compare(clean, damaged, 0.04)
    assert not task.clip_centre.mean.any()
    task.after_step(0.0)
    torch.testing.assert_close(task.clip_centre.mean[0], 0.1 * compared.teacher[0].mean(0))
    torch.testing.assert_close(task.patch_centre.mean[0], 0.1 * compared.teacher[1].mean(0))


def test_centres_stand_still_in_evaluation() -> None:
    task = objective().eval()
    with torch.no_grad():
        task(batch(2), 1.0)
    task.after_step(1.0)
    assert not task.clip_centre.mean.any()


def test_the_temperature_of_the_teacher_rises_and_stays() -> None:
    task = objective()
    values = [task.temperature(progress) for progress in (0, 0.145, 0.29, 0.6, 0.99)]
    assert values == pytest.approx([0.04, 0.055, 0.07, 0.07, 0.07])
    assert [objective(temperature_warmup=0.0).temperature(p) for p in (0, 0.5)] == pytest.approx([0.04, 0.07])


def test_paths_are_dropped_in_the_student_only_and_more_in_later_layers() -> None:
    task = objective(drop_path=0.9, depth=3)
    assert [block.drop_path.probability for block in task.student.encoder.blocks] == pytest.approx([0, 0.45, 0.9])
    assert [block.drop_path.probability for block in task.encoder.blocks] == [0, 0, 0]
    given = batch(4)
    clean, damaged = task.views(given)
    torch.manual_seed(0)
    first = task.compare(clean, damaged, 0.04)
    again = task.compare(clean, damaged, 0.04)
    assert torch.equal(first.teacher[0], again.teacher[0])
    assert not torch.equal(first.student[0], again.student[0])


@pytest.mark.slow
def test_a_base_network_constructs_and_takes_a_step() -> None:
    preset = get_preset("asit", "base")
    config = dataclasses.replace(preset.model, window_frames=64, view_seconds=0.655)
    task = get_method("asit").build_objective(config).train()
    assert sum(p.numel() for p in task.student.parameters()) == 95_458_945 - (296 - 32) * 768  # type: ignore[attr-defined]
    result = task(batch(1, seconds=0.7), 0.0)
    result["loss"].backward()
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=1e-3)
    optimizer.step()
    task.after_step(0.0)
    assert all(p.isfinite().all() for p in task.parameters())


# Positions --------------------------------------------------------------------------------------------------------


def test_swapped_positions_are_those_of_the_table_read_the_wrong_way_round() -> None:
    network = encoder(position_layout="swapped", window_frames=592)
    official = time_major(network.positions[:, 1:], (8, 37))
    image = official.transpose(1, 2).reshape(1, 24, 8, 37)
    for columns in (3, 37, 62):
        want = torch.nn.functional.interpolate(image, size=(columns, 8), mode="bicubic").flatten(2).transpose(1, 2)
        torch.testing.assert_close(time_major(network.swapped_positions(columns), (8, columns)), want)


def test_a_detector_hears_ten_seconds_at_once_and_whole_patches_only() -> None:
    (config,) = override((ASiTConfig(**{**SMALL, "window_frames": 592}),), {"compat": "pretrainedsed"})
    network = ASiTEncoder(config).eval()
    assert network.window_hop == 62 * 16 * 160
    assert network.window_samples == 400 + 160 * (62 * 16 - 1)
    with torch.no_grad():
        encoded = network(noise(10 * RATE))
    assert encoded.grid == (8, 62)
    assert pooled_sequence(encoded).shape == (1, 250, 24)


def test_the_sequence_of_a_detector_averages_all_tokens_the_class_token_first() -> None:
    with torch.no_grad():
        encoded = encoder()(noise(10240))
    tokens = torch.cat([encoded.prefix[-1], time_major(encoded.layers[-1], encoded.grid)], dim=1)
    assert tokens.shape == (1, 33, 24)
    torch.testing.assert_close(pooled_sequence(encoded, 11)[0, 0], tokens[0, :3].mean(0))
    torch.testing.assert_close(pooled_sequence(encoded, 33), tokens)
    assert pooled_sequence(encoded, 66).shape == (1, 66, 24)


def test_fine_tuning_overlaps_patches_unless_positions_are_swapped() -> None:
    tuned = for_finetuning(encoder(), 1.0)
    assert tuned.config.stride == (10, 10)
    assert tuned.config.grid[0] == 12
    swapped = encoder(position_layout="swapped")
    tuned = for_finetuning(swapped, 1.0)
    assert tuned.config.stride == (16, 16)
    assert tuned.config.heard_frames == 98
    assert torch.equal(tuned.positions, swapped.positions)


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, r"width \(192\) must be a multiple of heads \(5\)"),
        ({"drop_path": 1.0}, "drop_path must be below 1"),
        ({"align": 64}, "rectangles have at most 38 of 128 mel bins, so align must be below that, got 64"),
        ({"drop_share": 1.5}, "drop_share must lie between 0 and 1"),
        ({"position_layout": "swapped", "attend_padding": True}, "position_layout=swapped is for patches that do not"),
        ({"heard_frames": 998}, "heard_frames has no effect without position_layout=swapped"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ASiTConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride_time": 10}, r"stride \(16, 10\) must equal the patch"),
        ({"position_layout": "swapped"}, "not to pretrain"),
        ({"view_seconds": 1.0}, "a view of 1 s has 98 frames, more than the 64 that window_frames=64"),
    ],
)
def test_a_pretext_task_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objective(**changes)


def test_every_recipe_reads_the_class_token_and_overlaps_its_patches() -> None:
    method = get_method("asit")
    for recipe in method.RECIPES.values():
        model, train = recipe.fit(get_preset("asit", "base").model)
        assert isinstance(model, ASiTConfig)
        assert (model.pooling, model.finetune_stride_freq, model.finetune_stride_time) == ("prefix", 10, 10)
        assert train.optimizer == "adam"


def test_the_published_sizes_are_those_of_the_authors_code() -> None:
    for size, count in (("base", 85_482_240), ("small", 21_507_456)):
        with torch.device("meta"):
            network = get_method("asit").build_encoder(get_preset("asit", size).model)
        assert sum(p.numel() for p in network.parameters()) == count
        assert network.config.grid == (8, 37)  # type: ignore[attr-defined]
    widths = [get_preset("asit", size).model.width for size in ("tiny", "small", "base")]  # type: ignore[attr-defined]
    assert [b / a for a, b in itertools.pairwise(widths)] == [2, 2]


# Learning ---------------------------------------------------------------------------------------------------------


def test_a_short_pretraining_lowers_the_loss_and_features_do_not_collapse(tones: Path, tmp_path: Path) -> None:
    # Some seconds: the centres take twenty steps to arrive, and only then do targets stand.
    plan = pretrain.plan("asit", [tones], preset="test", steps=60, settings={"precision": "fp32"})
    pretrain.pretrain(plan, tmp_path / "run", quiet=True)
    rows = read_metrics(tmp_path / "run")
    looked = [row for row in rows if "val_loss" in row]
    assert looked[-1]["val_loss"] < looked[0]["val_loss"]
    assert looked[-1]["val_reconstruction"] < 0.9 * looked[0]["val_reconstruction"]
    # Of 24 clips of three kinds of sound.
    assert min(row["effective_rank"] for row in looked) > 4
    assert looked[-1]["feature_spread"] > 0.3
