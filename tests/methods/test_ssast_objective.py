"""SSAST's pretext task: whose tokens are masked, what the losses are means over, and what must not change them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from networks import RATE, batch, config, objective, samples, sounds
from torch import Tensor

from auricle.errors import ConfigError
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.spectrogram.masks import Mask, gather
from auricle.methods.ssast import SSASTEncoder
from auricle.nn.losses import info_nce, masked_mse
from auricle.nn.patches import patchify

PRETRAINING = ("patch", "frame")
SAMPLERS = ("cluster", "random", "official")
each_layout = pytest.mark.parametrize("layout", PRETRAINING)
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def places(task: MaskedPatchObjective, lengths: list[int], clip: int, seed: int = 0) -> set[tuple[int, int]]:
    """(row, column) of what is masked of one clip of a batch."""
    waves, given = sounds(lengths)
    tokens, _ = task.encoder.embed_patches(*task.encoder.features(waves, given))
    mask = task.draw_mask(tokens, batch(waves, given, seed=seed).draw, "mask")
    ids = mask.ids[clip, mask.valid[clip]].tolist()
    assert len(set(ids)) == len(ids)
    return {divmod(i, tokens.grid[1]) for i in ids}


# Masks ------------------------------------------------------------------------------------------------------------


@each_layout
@each_sampler
@pytest.mark.parametrize("count", [0, 5])
def test_only_tokens_of_the_clip_are_masked_and_as_many_as_asked_for(layout: str, sampler: str, count: int) -> None:
    task = objective(layout, mask_sampler=sampler, mask_count=count, mask_ratio=0.5)
    lengths = [samples(n) for n in (33, 64, 17, 64)]
    rows = task.config.grid[0]
    for seed in range(10):
        for clip, frames in enumerate((33, 64, 17, 64)):
            columns = -(-frames // task.config.patch_time)
            masked = places(task, lengths, clip, seed)
            assert all(column < columns for _, column in masked)
            # A count is of a whole window; a shorter clip has the same share of its tokens masked.
            share = count / (rows * task.config.grid[1]) if count else 0.5
            assert len(masked) == max(1, min(round(share * rows * columns), rows * columns - 1))


@each_layout
@each_sampler
def test_the_mask_of_a_clip_does_not_depend_on_its_neighbours(layout: str, sampler: str) -> None:
    task = objective(layout, mask_sampler=sampler, mask_ratio=0.5)
    alone = places(task, [samples(33)], 0)
    assert alone == places(task, [samples(33), samples(64)], 0) == places(task, [samples(33), samples(150)], 0)


@each_layout
@each_sampler
def test_masks_differ_between_clips_epochs_seeds_and_purposes(layout: str, sampler: str) -> None:
    # Long clips: of few tokens the official sampler may well choose the same ones twice.
    task = objective(layout, mask_sampler=sampler, mask_ratio=0.5, window_frames=256)
    waves, lengths = sounds([samples(256)] * 2)
    tokens, _ = task.encoder.embed_patches(*task.encoder.features(waves, lengths))
    draw = batch(waves, lengths).draw
    variants = [
        task.draw_mask(tokens, changed, stream).ids[0]
        for changed, stream in (
            (draw, "mask"),
            (draw, "mask-generative"),
            (dataclasses.replace(draw, seed=1), "mask"),
            (dataclasses.replace(draw, epochs=(1, 1)), "mask"),
            (dataclasses.replace(draw, indices=(1, 0)), "mask"),
        )
    ]
    assert torch.equal(variants[0], task.draw_mask(tokens, draw, "mask").ids[0])
    assert not any(torch.equal(variants[0], other) for other in variants[1:])


@each_layout
@each_sampler
@pytest.mark.parametrize("length", [1, 160, samples(16), samples(18)])
def test_the_shortest_clips_have_a_masked_token_and_a_finite_loss(layout: str, sampler: str, length: int) -> None:
    task = objective(layout, mask_sampler=sampler)
    waves, lengths = sounds([length, length])
    result = task(batch(waves, lengths), 0.0)
    assert result["weight"] >= 2
    assert result["loss"].isfinite()
    masked = places(task, [length], 0)
    columns = -(-max(1, 1 + (length - 400) // 160) // task.config.patch_time)
    assert 1 <= len(masked) <= max(1, task.config.grid[0] * columns - 1)


@pytest.mark.parametrize("layout, tokens", [("patch", 32), ("frame", 32)])
def test_a_count_that_leaves_nothing_to_see_is_refused_when_the_task_is_built(layout: str, tokens: int) -> None:
    for count in (tokens - 1, tokens, 400):
        with pytest.raises(
            ConfigError, match=f"mask_count is {count}, but a clip of 64 frames has only {tokens} tokens"
        ):
            objective(layout, mask_count=count)
    objective(layout, mask_count=tokens - 2)


def test_overlapping_patches_cannot_be_pretrained() -> None:
    with pytest.raises(ConfigError, match=r"stride \(10, 10\) must equal the patch \(16, 16\)"):
        objective("patch-finetune")


# Losses -----------------------------------------------------------------------------------------------------------


def by_hand(task: MaskedPatchObjective, waves: Tensor, lengths: Tensor, masks: tuple[Mask, Mask]) -> dict[str, Tensor]:
    """The official order of things: two passes, each with a whole input whose masked patches are replaced."""
    c, network = task.config, task.encoder
    tokens, features = network.embed_patches(*network.features(waves, lengths))
    patches = patchify(features, c.kernel, c.stride)
    outputs = []
    for mask, head in zip(masks, (task.discriminative, task.generative), strict=True):
        embeddings = tokens.embeddings.clone()
        for row in range(len(waves)):
            embeddings[row, mask.ids[row, mask.valid[row]]] = task.mask_token[0, 0]
        normed = network.transform(dataclasses.replace(tokens, embeddings=embeddings))[-1][:, 2:]
        outputs.append((head(gather(normed, mask.ids)), gather(patches, mask.ids), mask.valid))
    nce, accuracy = info_nce(*outputs[0], c.softmax_over)
    return {"nce": nce, "accuracy": accuracy, "mse": masked_mse(*outputs[1])}


@each_layout
@pytest.mark.parametrize("passes", [1, 2])
def test_one_and_two_passes_give_the_losses_of_their_masks(layout: str, passes: int) -> None:
    task = objective(layout, passes=passes, mask_ratio=0.4)
    waves, lengths = sounds([samples(64), samples(40)])
    given = batch(waves, lengths)
    tokens, _ = task.encoder.embed_patches(*task.encoder.features(waves, lengths))
    first = task.draw_mask(tokens, given.draw, "mask")
    second = task.draw_mask(tokens, given.draw, "mask-generative") if passes == 2 else first
    want = by_hand(task, waves, lengths, (first, second))
    got = task(given, 0.0)
    for name, value in want.items():
        torch.testing.assert_close(got[name], value)
    torch.testing.assert_close(got["loss"], want["nce"] + 10 * want["mse"])
    assert float(got["weight"]) == float(first.valid.sum())


@each_layout
def test_one_pass_runs_the_encoder_once_and_two_passes_twice(layout: str) -> None:
    for passes in (1, 2):
        runs: list[int] = []
        task = objective(layout, passes=passes)
        task.encoder.norm.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        task(batch(*sounds([samples(64)])), 0.0)
        assert len(runs) == passes


@pytest.mark.parametrize("task_name, part", [("discriminative", "nce"), ("generative", "mse")])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_single_task_has_its_own_loss_alone(task_name: str, part: str, passes: int) -> None:
    task = objective(task=task_name, passes=passes)
    result = task(batch(*sounds([samples(64)])), 0.0)
    assert {"nce", "mse"} & set(result) == {part}
    assert torch.equal(result["loss"], result[part])
    result["loss"].backward()
    unused = task.generative if task_name == "discriminative" else task.discriminative
    assert all(p.grad is None for p in unused.parameters())


@each_layout
@each_sampler
def test_losses_do_not_depend_on_padding(layout: str, sampler: str) -> None:
    task = objective(layout, mask_sampler=sampler, mask_ratio=0.5, passes=2)
    waves, lengths = sounds([samples(33), samples(50)])
    padded = torch.nn.functional.pad(waves, (0, 7000))
    want, got = task(batch(waves, lengths), 0.0), task(batch(padded, lengths), 0.0)
    assert want.keys() == got.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, atol=1e-5, rtol=1e-5)


@each_layout
def test_the_loss_of_a_batch_is_the_mean_of_its_clips_weighted_by_their_tokens(layout: str) -> None:
    # A clip is drawn, masked and encoded as if it were alone; micro-batches therefore add up to the batch.
    task = objective(layout, mask_sampler="cluster", mask_ratio=0.5)
    given = batch(*sounds([samples(33), samples(64), samples(20)]))
    whole = task(given, 0.0)
    parts = [task(given.rows(i, i + 1), 0.0) for i in range(3)]
    weight = torch.stack([p["weight"] for p in parts])
    assert torch.equal(whole["weight"], weight.sum())
    for name in ("loss", "nce", "mse"):
        mean = (torch.stack([p[name] for p in parts]) * weight).sum() / weight.sum()
        torch.testing.assert_close(whole[name], mean, atol=1e-5, rtol=1e-5)


def test_masked_patches_are_hidden_from_the_encoder() -> None:
    task = objective()
    waves, lengths = sounds([samples(64)])
    tokens, _ = task.encoder.embed_patches(*task.encoder.features(waves, lengths))
    mask = Mask(torch.tensor([[3, 10, 17]]), torch.ones(1, 3, dtype=torch.bool))
    changed = tokens.embeddings.clone()
    changed[0, [3, 10, 17]] += 100
    seen = task.run(tokens, mask).normed
    assert torch.equal(seen, task.run(dataclasses.replace(tokens, embeddings=changed), mask).normed)
    changed[0, 4] += 1
    assert not torch.equal(seen, task.run(dataclasses.replace(tokens, embeddings=changed), mask).normed)


@each_layout
def test_targets_carry_no_gradient(layout: str) -> None:
    task = objective(layout)
    waves, lengths = sounds([samples(64)])
    tokens, features = task.encoder.embed_patches(*task.encoder.features(waves, lengths))
    features = features.detach().requires_grad_()
    mask = task.draw_mask(tokens, batch(waves, lengths).draw, "mask")
    task.losses(tokens, features, mask, mask)[0]["loss"].backward()
    assert features.grad is None


def test_the_official_softmax_gives_the_last_bias_no_gradient_and_the_papers_does() -> None:
    sizes = {}
    for axis in ("predictions", "targets"):
        task = objective(softmax_over=axis, task="discriminative")
        task(batch(*sounds([samples(64)] * 2)), 0.0)["loss"].backward()
        gradient = task.discriminative[2].bias.grad
        assert isinstance(gradient, Tensor)
        sizes[axis] = float(gradient.abs().max())
    assert sizes["predictions"] < 1e-5 < 1e-3 < sizes["targets"]


def test_half_precision_does_not_reach_the_losses() -> None:
    task, given = objective(), batch(*sounds([samples(64)] * 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = task(given, 0.0)
    exact = task(given, 0.0)
    assert cast["loss"].dtype == torch.float32
    torch.testing.assert_close(cast["loss"], exact["loss"], rtol=0.05, atol=0)


# Looking at it ----------------------------------------------------------------------------------------------------


@each_layout
def test_a_reconstruction_changes_the_masked_patches_only(layout: str) -> None:
    task = objective(layout)
    waves, lengths = sounds([samples(64), samples(40)])
    shown = task.reconstruct(batch(waves, lengths))
    assert shown is not None
    original, hidden, rebuilt = shown.original, shown.hidden, shown.rebuilt
    assert shown.frames.tolist() == [64, 40]
    assert original.shape == hidden.shape == rebuilt.shape == (2, 64, 128)
    log_mel = task.encoder.frontend((waves - waves.sum(1, keepdim=True) / lengths[:, None])[:1])
    torch.testing.assert_close(original[:1], log_mel, atol=1e-3, rtol=0)
    torch.testing.assert_close(rebuilt[~hidden], original[~hidden])
    assert (rebuilt[hidden] != original[hidden]).float().mean() > 0.99
    assert 0.2 < float(hidden[0].float().mean()) < 0.9


def test_a_discriminative_task_fills_nothing_in() -> None:
    assert objective(task="discriminative").reconstruct(batch(*sounds([samples(64)]))) is None


def test_monitoring_tells_collapsed_embeddings_from_healthy_ones() -> None:
    task, given = objective(), batch(*sounds([samples(64)] * 6))
    healthy = task.monitor(given)
    with torch.no_grad():
        task.encoder.norm.weight.zero_()
    assert task.monitor(given) == {"effective_rank": 0.0, "feature_spread": 0.0}
    assert healthy["effective_rank"] > 2
    assert healthy["feature_spread"] > 0


# Full size --------------------------------------------------------------------------------------------------------


def one_step(size: dict[str, Any], layout: str, **changes: Any) -> tuple[float, float]:
    settings = config(layout, **size, mask_ratio=0.5, window_frames=32, init_std=0.02, **changes)
    torch.manual_seed(0)
    task = MaskedPatchObjective(SSASTEncoder(settings))
    given = batch(*sounds([RATE // 5]))
    optimizer = torch.optim.SGD(task.parameters(), lr=1e-4)
    losses = []
    for _ in range(2):
        loss = task(given, 0.0)["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[1]


def test_a_base_network_takes_a_step_that_lowers_its_loss() -> None:
    before, after = one_step({"width": 768, "depth": 12, "heads": 12}, "patch")
    assert after < before


@pytest.mark.slow
@pytest.mark.parametrize("layout", PRETRAINING)
@pytest.mark.parametrize("width, heads", [(192, 3), (384, 6), (768, 12)])
def test_every_size_takes_a_step_that_lowers_its_loss(width: int, heads: int, layout: str) -> None:
    before, after = one_step({"width": width, "depth": 12, "heads": heads}, layout, passes=2)
    assert after < before
