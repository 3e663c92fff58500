"""A loaded model: any sound in, of any length, from a file or an array; and names that are not weights."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from soundsets import RATE, save_classifier, save_pretrained, tone

import auricle
from auricle.audio.read import as_wave
from auricle.data.formats import read_data
from auricle.errors import AudioError, CheckpointError, ConfigError
from auricle.inference.model import Model
from auricle.methods import preset_names


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    # In bf16, rounding depends a little on what shares a batch.
    return auricle.load(save_pretrained(tmp_path_factory.mktemp("model")), precision="fp32")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return auricle.load(save_classifier(tmp_path_factory.mktemp("model"), ("bell", "dog", "rain")), precision="fp32")


def write(path: Path, wave: NDArray[Any], rate: int = RATE) -> Path:
    soundfile.write(path, wave, rate, subtype="FLOAT")
    return path


# Files and arrays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.00005, 0.01, 0.3, 0.655, 2.0, 35.0])
def test_a_file_and_its_samples_give_the_same(model: Model, seconds: float, tmp_path: Path) -> None:
    wave = tone(440, max(seconds, 1 / RATE))
    path = write(tmp_path / "a.wav", wave)
    from_file, from_array = model.embed(path), model.embed(wave, RATE)
    np.testing.assert_allclose(from_file.clip, from_array.clip, atol=1e-6)
    np.testing.assert_allclose(from_file.frames, from_array.frames, atol=1e-5)
    np.testing.assert_array_equal(from_file.times, from_array.times)
    np.testing.assert_allclose(model.embed_clip(str(path)), from_file.clip, atol=1e-6)


def test_one_channel_may_have_its_own_axis_and_tensors_are_arrays(model: Model) -> None:
    wave = tone(440, 1.0)
    want = model.embed(wave, RATE)
    variants: list[Any] = [wave[None], torch.from_numpy(wave), torch.from_numpy(wave)[None], wave.astype(np.float64)]
    for same in variants:
        np.testing.assert_allclose(model.embed(same, RATE).clip, want.clip, atol=1e-6)


def test_a_stereo_file_is_the_mean_of_its_channels(model: Model, tmp_path: Path) -> None:
    left, right = tone(300, 1.0, seed=1), tone(2000, 1.0, seed=2)
    path = write(tmp_path / "stereo.wav", np.stack([left, right], 1))
    want = model.embed(0.5 * (left + right), RATE)
    np.testing.assert_allclose(model.embed(path).clip, want.clip, atol=1e-5)
    assert np.abs(model.embed(left, RATE).clip - want.clip).max() > 1e-3


def test_other_rates_are_resampled(model: Model, tmp_path: Path) -> None:
    wave = tone(440, 3.0, rate=44100)
    path = write(tmp_path / "a.wav", wave, 44100)
    want = model.embed(as_wave(wave, 44100, RATE)[0], RATE)
    for got in (model.embed(path), model.embed(wave, 44100)):
        np.testing.assert_allclose(got.clip, want.clip, atol=1e-3)
        assert got.frames.shape == want.frames.shape


def test_an_array_needs_its_rate(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"needs its sample rate: embed\(array, rate\)"):
        model.embed(tone(440))


@pytest.mark.parametrize("array", [np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.nan])])
def test_arrays_that_are_no_sound_are_refused(model: Model, array: NDArray[Any]) -> None:
    with pytest.raises(AudioError):
        model.embed(array.astype(np.float32), RATE)


def test_many_items_give_what_each_file_gives(model: Model, classifier: Model, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.wav", tone(200 * (i + 1), 0.05 + 0.5 * i)) for i in range(5)]
    items = read_data([tmp_path]).items
    together = model.embed_items(items)
    np.testing.assert_allclose(together, np.stack([model.embed_clip(path) for path in paths]), atol=1e-5)
    probabilities = classifier.classify_items(items)
    for row, path in zip(probabilities, paths, strict=True):
        np.testing.assert_allclose(row, list(classifier.classify(path).scores.values()), atol=1e-5)


# Time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1 / RATE, 0.02, 0.1, 0.64, 0.655, 0.66, 0.67, 1.0, 7.123])
def test_times_rise_evenly_and_lie_within_the_sound(model: Model, seconds: float) -> None:
    embedding = model.embed(tone(440, seconds), RATE)
    assert embedding.clip.shape == (model.encoder.dim,)
    assert embedding.clip.dtype == embedding.frames.dtype == np.float32
    assert len(embedding.frames) == len(embedding.times) >= 1
    assert embedding.times[0] > 0
    assert embedding.times[-1] <= seconds + 1e-9
    steps = np.diff(embedding.times)
    assert (steps > 0).all()
    # All but the last step, which may have been moved back to the end of the sound or start early to be whole.
    np.testing.assert_allclose(steps[:-1], 1 / model.encoder.frame_rate, atol=1e-5)
    assert len(embedding.times) == pytest.approx(seconds * model.encoder.frame_rate, abs=2)


def test_a_click_is_found_at_its_time_anywhere_in_a_long_sound(model: Model) -> None:
    quiet = 1e-3 * np.random.default_rng(0).normal(size=12 * RATE).astype(np.float32)
    before = model.embed(quiet, RATE)
    for second in (0.3, 5.02, 11.9):
        wave = quiet.copy()
        wave[round(second * RATE) : round(second * RATE) + 50] = 0.9
        after = model.embed(wave, RATE)
        change = np.abs(after.frames - before.frames).max(1)
        # Only the window around the click is changed, and some of it is.
        heard = after.times[change > 1e-3]
        window = model.encoder.window_samples / RATE
        assert len(heard)
        assert heard.min() > second - window
        assert heard.max() < second + window


@pytest.fixture(scope="module")
def long_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("long")
    return [write_long(folder / f"{seconds}.wav", seconds) for seconds in (150, 400)]


def write_long(path: Path, seconds: int) -> Path:
    second = tone(500, 1.0)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(seconds):
            file.write(second)
    return path


def test_memory_does_not_grow_with_the_sound_and_all_of_it_is_heard(model: Model, long_files: list[Path]) -> None:
    model.embed_clip(long_files[0])
    peaks = []
    for path in long_files:
        tracemalloc.start()
        model.embed_clip(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 250 seconds more are 16 MB of samples.
    assert peaks[1] - peaks[0] < 1e6
    embedding = model.embed(long_files[1])
    assert len(embedding.times) == pytest.approx(400 * model.encoder.frame_rate, abs=2)
    assert embedding.times[-1] > 399.9
    assert np.diff(embedding.times).max() < 1.01 / model.encoder.frame_rate


def test_the_last_second_of_a_long_sound_counts(model: Model) -> None:
    wave = tone(500, 20.0)
    changed = wave.copy()
    changed[-RATE:] = tone(3000, 1.0)
    assert np.abs(model.embed_clip(wave, RATE) - model.embed_clip(changed, RATE)).max() > 1e-4


# Classification ---------------------------------------------------------------------------------------------------


def test_a_prediction_is_complete(classifier: Model) -> None:
    prediction = classifier.classify(tone(440, 0.5), RATE)
    assert prediction.scores.keys() == {"bell", "dog", "rain"}
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-6)
    assert prediction.label == max(prediction.scores, key=lambda name: prediction.scores[name])
    assert prediction.score == prediction.scores[prediction.label]
    assert prediction.duration == 0.5
    assert prediction.segments == ()


def test_segments_tile_a_long_sound(classifier: Model) -> None:
    wave = np.concatenate([tone(200 * (1 + i % 3) ** 3, 1.5, seed=i) for i in range(6)])
    prediction = classifier.classify(wave, RATE)
    assert prediction.duration == 9.0
    segments = prediction.segments
    assert segments[0].onset == 0
    assert segments[-1].offset == 9.0
    for before, after in itertools.pairwise(segments):
        assert before.offset == after.onset
        assert before.label != after.label
    assert all(1 / 3 <= s.score <= 1 for s in segments)


def test_a_model_without_classes_says_how_to_get_them(model: Model) -> None:
    with pytest.raises(CheckpointError, match=r"is a pretraining checkpoint without classes.*auricle finetune"):
        model.classify(tone(440), RATE)
    assert model.classes == ()


# Loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ssast-tiny", "ssast-tiny-patch", "ssast-base-frame"])
def test_a_preset_is_not_weights_and_the_error_says_where_to_get_some(name: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        auricle.load(name)
    message = str(raised.value)
    assert message.startswith(f"'{name}' names a configuration")
    assert "auricle import FILE --out DIR" in message
    assert 'weights="random"' in message
    assert all(preset in message for preset in preset_names() if preset.startswith(name))


def test_a_name_that_is_nothing_is_answered_with_the_nearest() -> None:
    with pytest.raises(CheckpointError, match=re.escape("did you mean 'ssast-tiny-")):
        auricle.load("ssast-tiny-path")


def test_a_published_file_is_not_a_checkpoint_and_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "SSAST.pth").write_bytes(b"...")
    with pytest.raises(CheckpointError, match=r"is a file; convert .* auricle import"):
        auricle.load(tmp_path / "SSAST.pth")


def test_random_weights_are_a_function_of_their_seed_and_disturb_nobody() -> None:
    state = torch.random.get_rng_state()
    wave = tone(440)
    first, again, other = (auricle.load("ssast-test", weights="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first.embed_clip(wave, RATE), again.embed_clip(wave, RATE))
    assert np.abs(first.embed_clip(wave, RATE) - other.embed_clip(wave, RATE)).max() > 1e-3
    assert (first.hash, other.hash) == ("random-1", "random-2")
    assert "random weights" in first.source


def test_random_weights_of_a_checkpoint_keep_its_network(tmp_path: Path) -> None:
    path = save_pretrained(tmp_path)
    own, random = auricle.load(path), auricle.load(path, weights="random")
    assert random.encoder.config == own.encoder.config
    assert not torch.equal(random.encoder.patch.weight, own.encoder.patch.weight)


def test_loading_disturbs_no_generator_and_repeats(tmp_path: Path) -> None:
    path = save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    first, second = auricle.load(path), auricle.load(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.hash == second.hash
    np.testing.assert_array_equal(first.embed_clip(tone(440), RATE), second.embed_clip(tone(440), RATE))
    assert not first.encoder.training


@pytest.mark.parametrize("precision", ["fp64", "half"])
def test_an_unknown_precision_is_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"precision must be auto, fp32, bf16 or fp16, got '{precision}'"):
        auricle.load("ssast-test", weights="random", precision=precision)


def test_half_precision_gives_nearly_the_same() -> None:
    wave = tone(440, 2.0)
    exact, half = (
        auricle.load("ssast-test", weights="random", precision=precision).embed(wave, RATE)
        for precision in ("fp32", "bf16")
    )
    assert half.clip.dtype == half.frames.dtype == np.float32
    cosine = exact.clip @ half.clip / np.linalg.norm(exact.clip) / np.linalg.norm(half.clip)
    assert cosine > 0.999
