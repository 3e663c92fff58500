"""A detector: its losses, its teacher, and how its probabilities become events."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from auricle.data.batch import Batch, Stream
from auricle.data.items import Event
from auricle.data.randomness import Draw
from auricle.errors import ConfigError
from auricle.methods import get_method, get_preset
from auricle.metrics import Collars, FrameScores, collar_counts, detect_events
from auricle.nn.heads import pool_frames
from auricle.nn.schedules import sigmoid_ramp
from auricle.tasks.decoding import EventDecoder, choose_decoding
from auricle.tasks.detection import Detector, frame_width, joined, odd_frames, step_edges, step_values
from auricle.tasks.distillation import DistilledDetector, FrameDistillation

CLASSES = ("bell", "dog")
CPU = torch.device("cpu")
Events = tuple[Event, ...] | None


def detector(preset: str = "test", **options: object) -> Detector:
    torch.manual_seed(0)
    encoder = get_method("ssast").build_encoder(get_preset("ssast", preset).model)
    return Detector(encoder, CLASSES, frame_width(encoder), **options)  # type: ignore[arg-type]


def batch(events: tuple[Events, ...], targets: list[list[float]], lengths: list[int] | None = None) -> Batch:
    rng = np.random.default_rng(1)
    rows = len(events)
    sizes = torch.tensor(lengths or [8000] * rows)
    waves = torch.zeros(rows, int(sizes.max()))
    for row, size in enumerate(sizes.tolist()):
        waves[row, :size] = torch.from_numpy(0.1 * rng.standard_normal(size).astype(np.float32))
    return Batch(
        {"audio": Stream(waves, sizes, 16000)},
        Draw(0, (0,) * rows, tuple(range(rows))),
        tuple(map(str, range(rows))),
        torch.tensor(targets),
        events,
    )


NAN = float("nan")
STRONG, WEAK, NONE = (Event(0.1, 0.3, "dog"),), None, None
MIXED = batch((STRONG, WEAK, NONE, ()), [[0, 1], [1, 0], [NAN, NAN], [0, 0]])


def taught(weight: float, teacher: Detector) -> DistilledDetector:
    torch.manual_seed(0)
    encoder = get_method("ssast").build_encoder(get_preset("ssast", "test").model)
    student = DistilledDetector(encoder, CLASSES, frame_width(encoder))
    student.distillation = FrameDistillation(teacher, weight)
    return student.eval()


def other_detector(name: str, classes: tuple[str, ...] = CLASSES, **changes: object) -> Detector:
    torch.manual_seed(5)
    config = dataclasses.replace(get_preset(name, "test").model, **changes)  # type: ignore[type-var]
    encoder = get_method(name).build_encoder(config)
    return Detector(encoder, classes, frame_width(encoder))


@torch.no_grad()
def test_a_detector_may_judge_means_of_seconds() -> None:
    encoder = get_method("ssast").build_encoder(get_preset("ssast", "test").model).eval()
    module = Detector(encoder, CLASSES, frame_width(encoder, 0.2), frame_seconds=0.2).eval()
    assert module.frame_rate == 5
    steps = module.steps(encoder(MIXED.audio.data, MIXED.audio.lengths))
    # Half a second in stretches of 0.2 s, of which the last is shorter.
    assert steps.values.shape == (4, 3, encoder.dim)
    targets = module.frame_targets(MIXED, steps)
    # The dog of the first clip sounds from 0.1 to 0.3 s.
    assert targets[0, :, 1].tolist() == [1.0, 1.0, 0.0]
    assert float(module(MIXED, 0.0)["loss"]) > 0
    # Of a sound of several windows, too, whose borders lie within such stretches.
    sound = np.random.default_rng(0).standard_normal(40_000).astype(np.float32) / 10
    scores = module.scores(sound, CPU)
    np.testing.assert_allclose(scores.edges, [*np.arange(13) / 5, 2.5], atol=1e-6)
    plain, edges = joined(step_values(encoder, [sound], CPU, lambda x: x.double()))
    inside = (edges[:-1] + edges[1:]) / 2 // 0.2 == 3
    mean = torch.from_numpy(plain[inside]).unflatten(1, (-1, encoder.dim)).mean((0, 1))
    expected = module.head(mean.float()[None, None])[0].sigmoid()
    np.testing.assert_allclose(scores.values[3], expected[0, 0].numpy(), atol=1e-4)
    with pytest.raises(ConfigError, match=r"frame_seconds=0.001 is less than a time step of this network"):
        Detector(encoder, CLASSES, encoder.dim, frame_seconds=0.001)


@torch.no_grad()
def test_a_teachers_word_on_time_steps_has_its_share_of_the_loss() -> None:
    teacher = other_detector("ssast")
    alone, student = detector().eval(), taught(0.3, teacher)
    labels = alone(MIXED, 0.0)["frame_loss"]
    said = teacher.head(teacher.encoder(MIXED.audio.data, MIXED.audio.lengths).frames())[0].sigmoid()
    encoded = alone.encoder(MIXED.audio.data, MIXED.audio.lengths)
    cost = torch.nn.functional.binary_cross_entropy_with_logits(alone.head(encoded.frames())[0], said, reduction="none")
    # The first and the last clip are strongly labelled; the others count and cost nothing.
    lesson = cost.mean((1, 2))[[0, 3]].sum() / 4
    found = student(MIXED, 0.0)
    torch.testing.assert_close(found["frame_loss"], 0.7 * labels + 0.3 * lesson, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["clip_loss"], alone(MIXED, 0.0)["clip_loss"])
    assert not teacher.training
    assert not any(name.startswith("distillation") for name in student.state_dict())


@torch.no_grad()
def test_a_teacher_may_have_other_time_steps() -> None:
    teacher = other_detector("atst-clip")
    student = taught(1.0, teacher)
    encoded = student.encoder(MIXED.audio.data, MIXED.audio.lengths)
    heard = teacher.encoder(MIXED.audio.data, MIXED.audio.lengths)
    assert encoded.grid[1] > heard.grid[1]
    found = student.frame_targets(MIXED, encoded)
    said = teacher.head(heard.frames())[0].sigmoid()
    for step, time in enumerate(encoded.times.tolist()):
        nearest = min(range(heard.grid[1]), key=lambda i: abs(float(heard.times[i]) - time))
        torch.testing.assert_close(found[:, step], said[:, nearest])


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tells apart 2 classes \(bell, cat, ...\)"):
        FrameDistillation(other_detector("ssast", ("bell", "cat")), 0.5).check(detector(), 0.5)
    with pytest.raises(ConfigError, match="hears 8000 Hz, the network 16000 Hz"):
        FrameDistillation(other_detector("ssast", sample_rate=8000), 0.5).check(detector(), 0.5)
    teacher = FrameDistillation(other_detector("atst-frame", window_seconds=0.4), 0.5)
    # A window is whole time steps, which a crop need not be.
    teacher.check(detector(), 0.43)
    with pytest.raises(
        ConfigError, match=r"hears 0\.4 s at once, less than crop_seconds=0\.5; give --set crop_seconds=0\.4"
    ):
        teacher.check(detector(), 0.5)


@torch.no_grad()
def test_a_teacher_hears_a_crop_that_ends_a_little_after_its_window() -> None:
    # 20 ms beyond the positions of a network that refuses longer sound.
    teacher = other_detector("asit", position_layout="swapped", sequence_steps=24)
    window = teacher.encoder.window_samples
    longer = batch((STRONG,), [[0, 1]], [window + 320])
    with pytest.raises(ConfigError, match="at once"):
        teacher.encoder(longer.audio.data, longer.audio.lengths)
    student = taught(1.0, teacher)
    encoded = student.encoder(longer.audio.data, longer.audio.lengths)
    said = teacher.eval().head(teacher.encoder(longer.audio.data[:, :window]).frames())[0].sigmoid()
    torch.testing.assert_close(student.frame_targets(longer, encoded)[:, 0], said[:, 0])


def test_only_what_is_known_is_learned_from() -> None:
    module = detector()
    with torch.no_grad():
        found = module(MIXED, 0.0)
    assert set(found) == {"loss", "weight", "frame_loss", "clip_loss"}
    assert float(found["loss"]) == pytest.approx(float(found["frame_loss"] + found["clip_loss"]))
    nothing = module(MIXED.rows(2, 3), 0.0)
    nothing["loss"].backward()
    assert nothing["loss"].item() == 0
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("consistency", [0.0, 2.0])
@torch.no_grad()
def test_micro_batches_add_up_to_the_whole_batch(consistency: float) -> None:
    module = detector(consistency=consistency, mask_freq=20, mask_time=5)
    whole = module(MIXED, 0.7)
    parts = [module(MIXED.rows(start, start + 2), 0.7) for start in (0, 2)]
    total = sum(float(part["loss"]) * float(part["weight"]) for part in parts) / 4
    assert float(whole["weight"]) == 4
    assert float(whole["loss"]) == pytest.approx(total, rel=1e-5)


@torch.no_grad()
def test_padding_and_neighbours_change_nothing() -> None:
    module = detector()
    long = batch((STRONG, STRONG), [[0, 1], [0, 1]], [4000, 9000])
    alone = module(long.rows(0, 1), 0.0)
    cut = Batch(
        {"audio": Stream(long.audio.data[:1, :4000], torch.tensor([4000]), 16000)},
        long.rows(0, 1).draw, ("0",), long.targets[:1], long.events[:1],  # type: ignore[index]
    )  # fmt: skip
    assert float(alone["loss"]) == pytest.approx(float(module(cut, 0.0)["loss"]), rel=1e-5)


def test_the_loss_falls_with_knowing_the_frames() -> None:
    module = detector()
    encoded = module.encoder(MIXED.audio.data)
    targets = module.frame_targets(MIXED, encoded)
    assert targets.shape == (4, encoded.valid.shape[1], 2)
    assert targets[0, :, 0].sum() == 0
    active = encoded.times[targets[0, :, 1] > 0]
    assert active.min() == pytest.approx(0.1, abs=0.02)
    assert active.max() == pytest.approx(0.3, abs=0.02)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = module(MIXED, 0.0)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_teacher_follows_is_saved_and_predicts() -> None:
    module = detector(consistency=1.0)
    assert module.teacher is not None
    before = copy.deepcopy(module.teacher.state_dict())
    with torch.no_grad():
        for parameter in module.encoder.parameters():
            parameter.add_(1.0)
    module.after_step(0.0)
    moved = module.teacher["encoder"].state_dict()
    old, new = before["encoder.norm.weight"], module.encoder.state_dict()["norm.weight"]
    assert torch.allclose(moved["norm.weight"], (old + new) / 2)
    for _ in range(50):
        module.after_step(0.0)
    assert int(module.followed) == 51
    again = detector(consistency=1.0)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again.predictor[0].norm.weight, module.teacher["encoder"].norm.weight)  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in module.teacher.parameters())
    assert detector().predictor[0] is not None


@torch.no_grad()
@pytest.mark.parametrize("tuned_layers", [0, 1])
def test_what_is_frozen_drops_nothing_out_in_the_teacher_either(tuned_layers: int) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(get_preset("atst-frame", "test").model, drop_path=0.5)  # type: ignore[type-var]
    encoder = get_method("atst-frame").build_encoder(config)
    width = frame_width(encoder)
    module = Detector(encoder, CLASSES, width, freeze=True, tuned_layers=tuned_layers, consistency=1.0).train()
    assert module.teacher is not None
    teacher = module.teacher["encoder"]
    assert [part.training for part in teacher.modules()] == [part.training for part in encoder.modules()]
    assert any(part.training for part in encoder.modules()) == bool(tuned_layers)
    if not tuned_layers:
        heard = [network(MIXED.audio.data, MIXED.audio.lengths).frames() for network in (encoder, teacher, teacher)]
        assert torch.equal(heard[0], heard[1])
        assert torch.equal(heard[1], heard[2])
    assert not any(part.training for part in module.eval().modules())


def test_agreement_with_the_teacher_counts_more_and_more() -> None:
    module = detector(consistency=3.0, ramp=0.5, mask_freq=60)
    early, later, end = (float(module(MIXED, p)["consistency"]) for p in (0.0, 0.25, 0.5))
    assert 0 < early < later < end
    assert early == pytest.approx(end * sigmoid_ramp(0.0, 1.0))
    assert float(module(MIXED, 0.9)["consistency"]) == pytest.approx(end)
    # What the student does not see masked, it agrees about.
    assert float(detector(consistency=3.0)(MIXED, 1.0)["consistency"]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("attention", [False, True])
def test_a_clip_is_as_likely_as_its_valid_frames(attention: bool) -> None:
    probability = torch.tensor([[[0.9, 0.1], [0.9, 0.1], [0.0, 1.0]]])
    logits = torch.zeros(1, 3, 2) if attention else None
    pooled = pool_frames(probability, logits, torch.tensor([[True, True, False]]))
    assert pooled[0].tolist() == pytest.approx([0.9, 0.1])
    loud = pool_frames(torch.tensor([[[0.8], [0.0]]]), None, torch.ones(1, 2, dtype=torch.bool))
    assert float(loud) == pytest.approx(0.8)


@pytest.mark.parametrize("preset", ["test", "tiny-patch"])
def test_a_long_sound_in_blocks_is_scored_evenly_to_its_end(preset: str) -> None:
    module = detector(preset).eval()
    sound = 0.1 * np.random.default_rng(2).standard_normal(16000 * 12 + 777).astype(np.float32)
    whole = module.scores(sound, CPU)
    assert whole.edges[0] == 0
    assert whole.edges[-1] == pytest.approx(len(sound) / 16000)
    steps = np.diff(whole.edges)
    assert np.allclose(steps[1:-1], 1 / module.encoder.frame_rate, atol=1e-4)
    blocks = [sound[start : start + 5000] for start in range(0, len(sound), 5000)]
    values, edges = zip(*module.score_blocks(blocks, CPU), strict=True)
    assert len(values) > 1
    assert np.allclose(np.concatenate(values), whole.values, atol=1e-6)
    assert all(before[-1] == after[0] for before, after in itertools.pairwise(edges))


@pytest.mark.parametrize("seconds", [0.001, 0.03, 0.3, 0.66, 0.675])
def test_short_sounds_and_odd_ends_are_scored(seconds: float) -> None:
    module = detector().eval()
    samples = max(1, round(16000 * seconds))
    found = module.scores(np.full(samples, 0.1, np.float32), CPU)
    assert found.edges[-1] == pytest.approx(samples / 16000)


@pytest.mark.parametrize("filters", [(1, 1), (5, 9), (1, 40), (301, 3)])
def test_events_in_blocks_are_those_of_the_whole(filters: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    values = np.stack([np.convolve(x, np.ones(4) / 4, "same") for x in rng.random((2, 240))], axis=1)
    values[:3], values[-3:] = 0.9, 0.9
    edges = np.arange(241) / 10
    scores, thresholds = FrameScores(values, edges), (0.5, 0.55)
    whole = sorted(detect_events(scores.filtered(filters), CLASSES, thresholds))
    assert whole
    for sizes in ([240], [1] * 240, [7, 100, 3, 130]):
        decoder, start, found = EventDecoder(CLASSES, thresholds, filters), 0, []
        for size in sizes:
            found += decoder.add(values[start : start + size], edges[start : start + size + 1])
            start += size
        found += decoder.finish()
        assert [d[:3] for d in sorted(found)] == [d[:3] for d in whole]
        assert [d.score for d in sorted(found)] == pytest.approx([d.score for d in whole])


def test_a_decoder_keeps_no_more_than_its_filter_needs() -> None:
    decoder = EventDecoder(CLASSES, (0.5, 0.5), (11, 3))
    for start in range(0, 5000, 50):
        list(decoder.add(np.ones((50, 2)), np.arange(start, start + 51.0)))
        assert len(decoder.held) <= 50 + 2 * 11
    assert [(d.onset, d.offset) for d in decoder.finish()] == [(0.0, 5000.0)] * 2


def noisy(events: list[Event], seed: int, spikes: bool) -> FrameScores:
    rng = np.random.default_rng(seed)
    values: NDArray[np.float64] = 0.2 * rng.random((200, 2))
    for event in events:
        values[int(event.onset * 20) : int(event.offset * 20), CLASSES.index(event.label)] += 0.5
    if spikes:
        values[rng.integers(0, 200, 20), 1] = 0.9
    return FrameScores(values, np.arange(201) / 20)


def test_thresholds_and_filters_are_chosen_where_events_are_found() -> None:
    truth = [[Event(1, 3, "bell"), Event(5, 7, "dog")], [Event(2, 4, "dog")], [Event(4, 6, "bell")], []] * 3
    scores = [noisy(events, seed, spikes=True) for seed, events in enumerate(truth)]
    thresholds, filters = choose_decoding(truth, scores, CLASSES, (1, 5, 9), Collars())
    assert filters[0] == 1
    assert filters[1] > 1
    found = [detect_events(s.filtered(filters), CLASSES, [t or 0.0 for t in thresholds]) for s in scores]
    assert collar_counts(truth, found, CLASSES).micro_f1() > 0.9
    unfiltered = [detect_events(s, CLASSES, [t or 0.0 for t in thresholds]) for s in scores]
    assert collar_counts(truth, unfiltered, CLASSES).micro_f1() < 0.7


def test_rare_classes_share_what_is_best_for_all() -> None:
    truth = [[Event(1, 3, "bell")], [Event(2, 4, "bell")], [Event(1, 2, "bell"), Event(6, 8, "dog")]] * 2
    scores = [noisy(events, seed, spikes=False) for seed, events in enumerate(truth)]
    for clip in scores:
        clip.values[:, 1] *= 0.1  # by its own events, the threshold of dogs would be far lower
    thresholds, _ = choose_decoding(truth, scores, CLASSES, (1,), Collars())
    assert thresholds[1] is not None
    assert thresholds[0] == pytest.approx(thresholds[1], abs=0.1)
    often, _ = choose_decoding(truth * 3, scores * 3, CLASSES, (1,), Collars())
    assert often[1] is not None
    assert often[1] < 0.1


def test_without_events_nothing_is_chosen() -> None:
    scores = [noisy([], 0, spikes=True)]
    assert choose_decoding([[]], scores, CLASSES, (5, 1), Collars()) == ([None, None], [5, 5])


def test_edges_and_filters_of_time_steps() -> None:
    assert step_edges(np.array([0.5, 1.5, 2.5])).tolist() == [0, 1, 2, 3]
    assert step_edges(np.array([0.5])).tolist() == [0, 1]
    assert [odd_frames(s, 50) for s in (0.0, 0.02, 0.1, 0.2, 1.0)] == [1, 1, 5, 9, 49]
