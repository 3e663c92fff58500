"""ATST's networks: chunks of long clips, views, masks, and a teacher that follows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from auricle.audio.augment import ResizeCrop
from auricle.config import override
from auricle.data.batch import Batch, Stream
from auricle.data.randomness import Draw
from auricle.errors import ConfigError
from auricle.methods import get_method, get_preset
from auricle.methods.atst.config import ATSTConfig, ClipConfig, FrameConfig
from auricle.methods.atst.model import ATSTEncoder, ClipEncoder, FrameEncoder
from auricle.methods.atst.objective import ClipObjective, FrameObjective
from auricle.nn.masking import span_mask
from auricle.nn.patches import sincos_positions

RATE = 16000
SMALL: dict[str, Any] = {"width": 24, "depth": 2, "heads": 2, "projector_hidden": 32, "projector_out": 16}


def encoder(kind: type[ATSTConfig], **changes: Any) -> Any:
    torch.manual_seed(0)
    config = kind(**{**SMALL, "window_frames": 41, "view_seconds": 0.4, "drop_path": 0.0, **changes})
    return (ClipEncoder if kind is ClipConfig else FrameEncoder)(config).eval()  # type: ignore[arg-type]


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def batch(clips: int, seconds: float = 0.6, partners: int = 2) -> Batch:
    size = round(seconds * RATE)
    draw, ids = Draw(0, (0,) * clips, tuple(range(clips))), tuple(map(str, range(clips)))

    def part(seed: int) -> dict[str, Stream]:
        waves = torch.cat([noise(size, 100 * seed + row) for row in range(clips)])
        return {"audio": Stream(waves, torch.tensor([size - 900 * (row % 2) for row in range(clips)]), RATE)}

    return Batch(part(0), draw, ids, partners=tuple(Batch(part(1 + i), draw, ids) for i in range(partners)))


# Long clips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ClipConfig, FrameConfig])
def test_a_long_clip_is_its_chunks_side_by_side_under_one_floor(kind: type[ATSTConfig]) -> None:
    network = encoder(kind)
    # Two chunks of ten steps and one of three; the second one is quiet, so that the floor of the first decides.
    wave = noise(23 * 640)
    wave[:, 6400:12800] *= 1e-5
    features, frames = network.features(wave)
    with torch.no_grad():
        whole = network.forward_features(features, frames)
        parts = []
        for start in (0, 40, 80):
            piece = features[:, start : start + 40]
            count = torch.tensor([piece.shape[1] + (start < 80)])
            parts.append(network.forward_features(piece, count))
    assert whole.grid == (1, 23)
    for layer in range(2):
        torch.testing.assert_close(whole.layers[layer], torch.cat([p.layers[layer] for p in parts], dim=1))
    weights = torch.tensor([10.0, 10.0, 3.0])[:, None] / 23
    torch.testing.assert_close(whole.pooled, sum(w * p.pooled for w, p in zip(weights, parts, strict=True)))
    # The quiet chunk by itself would have a floor of its own.
    assert not torch.allclose(network.features(wave[:, 6400:12800])[0][:, 5:35], features[:, 45:75], atol=0.1)


def test_the_summary_of_a_clip_network_is_its_class_token_beside_the_mean() -> None:
    network = encoder(ClipConfig)
    with torch.no_grad():
        encoded = network(noise(6400))
    assert network.summary_dim == 48
    for layer in range(2):
        want = torch.cat([encoded.prefix[layer][:, 0], encoded.layers[layer].mean(1)], dim=1)
        torch.testing.assert_close(encoded.summaries[layer], want)
    torch.testing.assert_close(encoded.pooled, encoded.prefix[-1][:, 0])


def test_every_time_step_that_begins_within_the_clip_is_there() -> None:
    network = encoder(FrameConfig)
    for samples, steps in ((1, 1), (640, 1), (799, 1), (800, 2), (1280, 2), (6400, 10), (6560, 11), (64000, 100)):
        with torch.no_grad():
            assert network(noise(samples)).grid[1] == steps, samples


def test_the_official_chunking_loses_frames_and_counts_as_its_authors_do() -> None:
    # Chunks of 41 frames hold ten patches and lose a frame each.
    wave = noise(92 * 160)
    scene = encoder(FrameConfig, chunking="scene", chunk_frames=41)
    with torch.no_grad():
        encoded = scene(wave)
    assert encoded.grid == (1, 10 + 10 + 2)
    torch.testing.assert_close(encoded.times, 0.04 * torch.arange(22))
    means = [encoded.layers[-1][:, a:b].mean(1) for a, b in ((0, 10), (10, 20), (20, 22))]
    torch.testing.assert_close(encoded.pooled, torch.stack(means).mean(0))
    # The rest of eleven frames is less than half a chunk.
    downstream = encoder(FrameConfig, chunking="downstream", chunk_frames=41)
    with torch.no_grad():
        torch.testing.assert_close(downstream(wave).pooled, torch.stack(means[:2]).mean(0))


def test_the_official_mean_of_a_clip_network_divides_by_the_rest_of_the_clip() -> None:
    wave = noise(82 * 160)
    network = encoder(ClipConfig, chunking="downstream", chunk_frames=41)
    with torch.no_grad():
        encoded = network(wave)
    first, second = encoded.layers[-1][:, :10], encoded.layers[-1][:, 10:20]
    # 83 frames and 42 frames are left: 20 and 10 patches.
    want = (first.sum(1) / 20 + second.sum(1) / 10) / 2
    torch.testing.assert_close(encoded.summaries[-1][:, 24:], want)


def test_compat_stands_for_the_official_chunks() -> None:
    (clip,) = override((ClipConfig(),), {"compat": "official"})
    (frame,) = override((FrameConfig(),), {"compat": "official", "chunking": "downstream"})
    assert (clip.chunking, clip.chunk, clip.channel) == ("downstream", 601, 0)
    assert (frame.chunking, frame.chunk, frame.channel) == ("downstream", 1001, 0)


def test_fine_tuning_counts_chunks_as_classifiers_are_trained() -> None:
    method = get_method("atst-frame")
    tuned = method.for_finetuning(encoder(FrameConfig, chunking="scene"), 0.8)
    assert tuned.config.chunking == "downstream"
    assert tuned.window_samples == round(0.8 * RATE)
    assert method.for_finetuning(encoder(FrameConfig), 0.8).config.chunking == "whole"


# Views ------------------------------------------------------------------------------------------------------------


def task(kind: str, **changes: Any) -> Any:
    network = encoder(ClipConfig if kind == "clip" else FrameConfig, **changes)
    return (ClipObjective if kind == "clip" else FrameObjective)(network).train()


@pytest.mark.parametrize("kind", ["clip", "frame"])
def test_a_row_is_changed_alike_whatever_it_is_batched_with(kind: str) -> None:
    objective, given = task(kind), batch(4)
    view = objective.crop_view(given, "view")
    alone = objective.crop_view(given.rows(1, 2), "view")
    frames = int(alone.frames[0])
    assert int(view.frames[1]) == frames
    torch.testing.assert_close(alone.features[0, :frames], view.features[1, :frames], atol=1e-5, rtol=0)
    changed = objective.change_view(view, given, 0, 0, ResizeCrop())
    changed_alone = objective.change_view(alone, given.rows(1, 2), 0, 0, ResizeCrop())
    torch.testing.assert_close(changed.features[1, :frames], changed_alone.features[0, :frames], atol=1e-4, rtol=0)
    assert not torch.allclose(changed.features, view.features, atol=0.1)
    assert not changed.features[1, frames:].any()


def test_partners_are_heard_in_the_views() -> None:
    objective, given = task("clip"), batch(4)
    mixed = objective(given, 0.0)["loss"]
    assert not torch.equal(mixed, objective(dataclasses.replace(given, partners=()), 0.0)["loss"])
    assert torch.equal(
        task("clip", view_mixup=0.0)(given, 0.0)["loss"],
        task("clip", view_mixup=0.0)(dataclasses.replace(given, partners=()), 0.0)["loss"],
    )


def test_a_frame_network_asks_for_as_many_partners_as_it_changes_views() -> None:
    assert task("frame").partners == 1
    assert task("frame", augment_teacher=True).partners == 2
    assert task("clip").partners == 2


# Masks ------------------------------------------------------------------------------------------------------------


def test_half_of_250_steps_are_masked_and_every_step_as_often() -> None:
    masks = np.zeros((2000, 250))
    for seed in range(2000):
        masks[seed, span_mask(250, 0.65, 5, np.random.default_rng(seed))] = 1
    share = masks.mean(1)
    # The official code's, measured: 50.3 %, 42.8 % at least and 58.0 % at most.
    assert share.mean() == pytest.approx(0.503, abs=0.004)
    assert share.min() > 0.40
    assert share.max() < 0.61
    assert masks[:, 4:-4].mean(0).std() < 0.02
    assert masks[:, -1].mean() > 0.05


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 9])
def test_short_clips_are_masked_and_not_all_of_them(steps: int) -> None:
    for seed in range(50):
        masked = span_mask(steps, 0.65, 5, np.random.default_rng(seed))
        assert len(np.unique(masked)) == len(masked) >= 1
        assert masked.min() >= 0
        assert masked.max() < steps
        assert len(masked) < steps or steps == 1


def test_the_loss_is_of_masked_steps_only_and_counts_them() -> None:
    objective, given = task("frame"), batch(3)
    view = objective.crop_view(given, "view")
    masked = objective.draw_masks(view, given)
    result = objective(given, 0.0)
    assert float(result["weight"]) == int(masked.sum())
    compared = objective.compare(view, view, masked)
    assert len(compared.student) == len(compared.teacher) == 2 * int(masked.sum())
    single = task("frame", symmetric=False).compare(view, view, masked)
    assert len(single.student) == int(masked.sum())


def test_a_masked_step_is_hidden_from_the_student() -> None:
    objective, given = task("frame"), batch(2)
    view = objective.crop_view(given, "view")
    masked = objective.draw_masks(view, given)
    other = view.features.clone()
    hidden = masked.repeat_interleave(4, dim=1)[:, : other.shape[1]]
    other[:, : hidden.shape[1]][hidden] += 1.0
    changed = dataclasses.replace(view, features=other)
    token = objective.student.mask_token
    seen = [objective.at_masks(objective.student.encoder, v, masked, token) for v in (view, changed)]
    torch.testing.assert_close(*seen)
    assert not torch.allclose(*(objective.at_masks(objective.encoder, v, masked) for v in (view, changed)))


# Teachers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "frame"])
def test_the_teacher_begins_as_the_student_and_follows_it(kind: str) -> None:
    objective = task(kind, momentum=0.75)
    teacher = objective.encoder
    start = teacher.blocks[0].mlp.fc1.weight.clone()
    assert torch.equal(start, objective.student.encoder.blocks[0].mlp.fc1.weight)
    with torch.no_grad():
        for p in objective.student.parameters():
            p.add_(1)
    objective.after_step(0.0)
    torch.testing.assert_close(teacher.blocks[0].mlp.fc1.weight, start + 0.25)
    objective.after_step(1.0)
    torch.testing.assert_close(teacher.blocks[0].mlp.fc1.weight, start + 0.25)


def test_the_teacher_normalises_by_the_batch_and_keeps_statistics_of_its_own() -> None:
    objective = task("clip")
    with torch.no_grad():
        objective.student.projector[0].weight.mul_(3)
    objective(batch(4), 0.0)
    ours, theirs = objective.student.projector[1], objective.projector[1]
    assert int(theirs.num_batches_tracked) == 1
    assert theirs.running_mean.any()
    objective.after_step(0.0)
    assert not torch.equal(ours.running_mean, theirs.running_mean)


def test_drop_path_is_drawn_in_student_and_teacher() -> None:
    objective, given = task("clip", drop_path=0.9), batch(4)
    torch.manual_seed(0)
    first = objective(given, 0.0)["loss"]
    assert not torch.equal(objective(given, 0.0)["loss"], first)
    torch.manual_seed(0)
    assert torch.equal(objective(given, 0.0)["loss"], first)


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, r"width \(384\) must be a multiple of heads \(5\)"),
        ({"highest_hz": 9000.0}, "filters must lie between 0 and half the sample rate, 8000 Hz"),
        ({"fft_window": 2048}, "fft_window .* must not be longer"),
        ({"view_seconds": 11.0}, "a view of 11 s has 275 time steps, more than the 250"),
        ({"drop_path": 1.0}, "drop_path must be below 1"),
        ({"mask_ratio": 1.0}, "mask_ratio must lie between 0 and 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FrameConfig(**changes)


@pytest.mark.parametrize("name", ["atst-clip", "atst-frame"])
def test_the_published_sizes_are_those_of_the_files(name: str) -> None:
    # With a mask token, which ATST-Clip's code never uses and ATST-Frame's objective keeps beside the encoder here.
    published = {"atst-clip": (85_420_032, 21_476_352), "atst-frame": (85_419_264, 21_475_968)}[name]
    for size, count, width in zip(("base", "small"), published, (768, 384), strict=True):
        with torch.device("meta"):
            network: ATSTEncoder = get_method(name).build_encoder(get_preset(name, size).model)  # type: ignore[assignment]
        assert sum(p.numel() for p in network.parameters()) == count - width
        assert network.config.grid == (1, 250)


def test_networks_begin_with_the_weights_and_positions_that_are_asked_for() -> None:
    network = encoder(ClipConfig, init_std=0.06, position_init="sincos")
    assert float(network.blocks[0].mlp.fc1.weight.detach().std()) == pytest.approx(0.06, rel=0.05)
    waves = 0.3 * sincos_positions(network.config.grid, network.config.width)
    torch.testing.assert_close(network.positions[:, 1:].detach(), waves)
    # The class token's is not among them.
    assert float(network.positions[:, 0].detach().abs().max()) < 0.1
