"""The classifier around an encoder: its loss, its augmentations, and sounds longer than its window."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from networks import RATE, batch, encoder, samples, sounds
from torch import Tensor

from auricle.data.batch import Batch
from auricle.tasks import windows as windows_module
from auricle.tasks.classification import Classifier
from auricle.tasks.windows import clip_means, embed_clip, encode

CPU = torch.device("cpu")
CLASSES = ("bell", "dog", "rain")


def classifier(layout: str = "patch-finetune", attend_padding: bool = False, **options: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(encoder(layout, attend_padding=attend_padding), CLASSES, **options).eval()


def labelled(lengths: list[int], targets: Tensor, indices: list[int] | None = None) -> Batch:
    return dataclasses.replace(batch(*sounds(lengths), indices), targets=targets)


# Loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_cross_entropy_with_soft_targets(smoothing: float) -> None:
    model = classifier(label_smoothing=smoothing)
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.0, 0.7]])
    given = labelled([samples(64), samples(40)], targets)
    result = model(given, 0.0)
    encoded = model.encoder(given.audio.data, given.audio.lengths)
    log_probability = model.head.linear(model.head.norm(encoded.pooled)).log_softmax(1)
    smoothed = targets * (1 - smoothing) + smoothing / 3
    torch.testing.assert_close(result["loss"], -(smoothed * log_probability).sum(1).mean())
    assert float(result["weight"]) == 2
    right = log_probability.argmax(1) == targets.argmax(1)
    assert float(result["accuracy"]) == float(right.float().mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_tagging_asks_about_every_class_by_itself(smoothing: float) -> None:
    model = classifier(task="tagging", label_smoothing=smoothing)
    # A mixture of a clip with the tags 0 and 2 and one with 2 alone: the shared tag is there in full.
    targets = torch.tensor([[0.6, 0.0, 1.0], [0.0, 1.0, 0.0]])
    given = labelled([samples(64), samples(40)], targets)
    result = model(given, 0.0)
    encoded = model.encoder(given.audio.data, given.audio.lengths)
    present = model.head.linear(model.head.norm(encoded.pooled)).sigmoid()
    smoothed = targets * (1 - smoothing) + smoothing / 2
    expected = -(smoothed * present.log() + (1 - smoothed) * (1 - present).log()).mean()
    torch.testing.assert_close(result["loss"], expected)
    assert float(result["weight"]) == 2
    assert "accuracy" not in result


def test_binary_cross_entropy_serves_a_classification_too() -> None:
    model = classifier(loss="bce")
    assert "accuracy" in model(labelled([samples(64)], torch.eye(3)[:1]), 0.0)
    probabilities = model.clip_probabilities([noise(5000)], CPU)
    assert not np.allclose(probabilities.sum(), 1)
    np.testing.assert_allclose(next(model.window_probabilities([noise(5000)], CPU))[1], probabilities[0], atol=1e-6)


@pytest.mark.parametrize("layout", ["patch-finetune", "frame"])
def test_the_mixing_head_reads_all_layers_of_a_clip_and_no_padding(layout: str) -> None:
    model = classifier(layout, head="mix")
    waves, lengths = sounds([samples(64), samples(30)])
    together = model.logits(model.encoder(waves, lengths))
    alone = model.logits(model.encoder(waves[1:, : samples(30)]))
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)
    encoded = model.encoder(waves[:1])
    means = [torch.cat(pair, 1).mean(1) for pair in zip(encoded.prefix, encoded.layers, strict=True)]
    by_hand = model.head.linear(model.head.projector(torch.stack(means).mean(0)))
    torch.testing.assert_close(together[:1], by_hand, atol=1e-5, rtol=1e-4)


# Augmentation -----------------------------------------------------------------------------------------------------


def augmented(model: Classifier, lengths: list[int], indices: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    given = labelled(lengths, torch.eye(3)[: len(lengths)], indices)
    features, frames = model.encoder.features(given.audio.data, given.audio.lengths)
    before = features.clone()
    after = model.augment(features, frames, given)
    assert torch.equal(features, before)
    return before, after, frames


def test_without_settings_nothing_is_augmented() -> None:
    before, after, _ = augmented(classifier(), [samples(64)])
    assert torch.equal(before, after)


@pytest.mark.parametrize("settings", [{"mask_freq": 40, "mask_time": 200}, {"noise": True}], ids=["masks", "noise"])
def test_what_is_drawn_for_a_clip_does_not_depend_on_its_neighbours(settings: dict[str, Any]) -> None:
    model = classifier(**settings)
    _, alone, _ = augmented(model, [samples(30)])
    before, together, frames = augmented(model, [samples(30), samples(64), samples(20)])
    torch.testing.assert_close(together[0, :30], alone[0, :30], atol=1e-5, rtol=0)
    assert not torch.equal(together, before)
    for row, real in enumerate(frames.tolist()):
        assert torch.equal(together[row, real:], torch.full_like(together[row, real:], model.encoder.pad_value))


def test_clips_are_augmented_each_by_its_own_draw_and_repeatably() -> None:
    model = classifier(mask_freq=40, mask_time=20, noise=True)
    _, first, _ = augmented(model, [samples(64)], [0])
    _, again, _ = augmented(model, [samples(64)], [0])
    _, other, _ = augmented(model, [samples(64)], [1])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("length", [1, 300, samples(2)])
def test_clips_shorter_than_the_masks_are_trained_on(length: int) -> None:
    model = classifier(mask_freq=48, mask_time=192, noise=True)
    assert model(labelled([length, length], torch.eye(3)[:2]), 0.0)["loss"].isfinite()


def test_noise_is_no_higher_than_a_tenth_and_rolls_by_at_most_ten_frames() -> None:
    model = classifier("frame", noise=True)
    for index in range(20):
        before, after, _ = augmented(model, [samples(64)], [index])
        shifts = [(after[0] - before[0].roll(shift, 0)) for shift in range(-10, 10)]
        assert any(bool((added >= -1e-6).all()) and bool((added < 0.1 + 1e-6).all()) for added in shifts)


# Sounds of any length ---------------------------------------------------------------------------------------------

# Fewer samples than an analysis window, less than a window of the network, and several with a rest.
LENGTHS = (100, 5000, 3 * RATE + 123)


def noise(length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (0.1 * np.random.default_rng(length).normal(size=length)).astype(np.float32)


@pytest.mark.parametrize("layout", ["patch", "patch-finetune", "frame-finetune"])
@pytest.mark.parametrize("attend_padding", [False, True])
def test_many_sounds_together_give_what_each_gives_alone(layout: str, attend_padding: bool) -> None:
    model = classifier(layout, attend_padding)
    waves = [noise(length) for length in (*LENGTHS, 5001, 7000)]
    embeddings = clip_means(model.encoder, waves, CPU, lambda encoded: encoded.pooled)
    probabilities = model.clip_probabilities(waves, CPU)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    for row, wave in enumerate(waves):
        np.testing.assert_allclose(embeddings[row], embed_clip(model.encoder, [wave], CPU), atol=2e-5)
        windows = list(model.window_probabilities([wave], CPU))
        steps = np.array([window.steps for window, _ in windows])
        mean = (np.stack([p for _, p in windows]) * steps[:, None]).sum(0) / steps.sum()
        np.testing.assert_allclose(probabilities[row], mean, atol=2e-5)


def test_how_a_sound_is_cut_into_blocks_does_not_matter() -> None:
    model, wave = classifier(), noise(LENGTHS[-1])
    whole = embed_clip(model.encoder, [wave], CPU)
    for size in (777, 16000):
        blocks = (wave[i : i + size] for i in range(0, len(wave), size))
        np.testing.assert_allclose(embed_clip(model.encoder, blocks, CPU), whole, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_windows_cover_a_sound_and_weigh_what_they_hold(length: int) -> None:
    network = encoder("patch-finetune")
    windows = list(encode(network, [noise(length)], CPU))
    assert windows[0].start == 0
    assert windows[-1].start + windows[-1].samples == length
    for before, after in itertools.pairwise(windows):
        assert before.start < after.start <= before.start + before.samples
    assert all(1 <= window.steps <= network.config.grid[1] for window in windows)


def test_a_short_rest_counts_less_than_a_full_window() -> None:
    network = encoder("patch", attend_padding=True)
    length = network.window_hop + samples(20)
    full, rest = encode(network, [noise(length)], CPU)
    assert (full.steps, rest.steps) == (4, 2)
    want = (full.vector() * 4 + rest.vector() * 2) / 6
    np.testing.assert_allclose(embed_clip(network, [noise(length)], CPU), want, atol=1e-6)


def test_a_batch_of_windows_is_bounded_by_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    network, shapes = encoder("patch"), []
    forward = network.forward

    def watched(waves: torch.Tensor, *rest: Any, **more: Any) -> Any:
        shapes.append(tuple(waves.shape))
        return forward(waves, *rest, **more)

    monkeypatch.setattr(network, "forward", watched)
    short, long = 2000, network.window_samples
    monkeypatch.setattr(windows_module, "CPU_SECONDS", 3 * long / network.sample_rate)
    clip_means(network, [noise(n) for n in (long, short, long, short, long, long)], CPU, lambda encoded: encoded.pooled)
    assert sum(rows for rows, _ in shapes) == 6
    assert max(rows * width for rows, width in shapes) <= 3 * long
    assert shapes == [(2, short), (3, long), (1, long)]
