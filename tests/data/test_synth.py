import csv
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from auricle.data.formats import read_data
from auricle.data.splits import folds
from auricle.data.synth import SOURCES, plan, render, write_scenes
from auricle.data.synth.dsp import RATE, band, convolved, filtered_over_time, harmonics, noise, rms, sine
from auricle.data.synth.scenes import KINDS, parts
from auricle.data.synth.surroundings import BACKGROUNDS, reverberated, through_channel
from auricle.errors import ConfigError, DataError

SECONDS = 1.5


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Building blocks -------------------------------------------------------------------------------------------------


def test_harmonics_are_the_sum_of_sines() -> None:
    amplitudes = [1.0, 0.5, -0.25, 0.125]
    expected = sum(a * sine(220.0 * k, 4000) for k, a in enumerate(amplitudes, start=1))
    np.testing.assert_allclose(harmonics(220.0, 4000, amplitudes), expected, atol=1e-4)


def test_harmonics_never_fold_back() -> None:
    spectrum = np.abs(np.fft.rfft(harmonics(3000.0, RATE, np.ones(20)) * np.hanning(RATE)))
    assert sorted(np.argsort(spectrum)[-2:]) == [3000, 6000]
    assert spectrum[6010:].max() < 1e-3 * spectrum.max()


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_by_three_decibels_per_octave_and_slope(slope: float) -> None:
    power = np.abs(np.fft.rfft(noise(rng(0), 1 << 17, slope))) ** 2
    f = np.fft.rfftfreq(1 << 17, 1 / RATE)
    low, high = (power[(f > c / 1.1) & (f < c * 1.1)].mean() for c in (500, 2000))
    assert 10 * np.log10(low / high) / 2 == pytest.approx(3.01 * slope, abs=0.4)


def test_band_passes_the_band_alone() -> None:
    inside, outside = sine(1000.0, 8000), sine(50.0, 8000)
    assert rms(band(inside, 500, 2000)[1000:-1000]) == pytest.approx(rms(inside), rel=0.1)
    assert rms(band(outside, 500, 2000)[1000:-1000]) < 0.02 * rms(outside)


def test_a_constant_filter_over_time_changes_nothing() -> None:
    wave = noise(rng(1), 5003)
    same = filtered_over_time(wave, lambda times, f: np.ones((len(times), len(f)), np.float32))
    np.testing.assert_allclose(same, wave, atol=1e-5)


def test_convolution() -> None:
    wave, response = noise(rng(2), 1000), noise(rng(3), 333)
    np.testing.assert_allclose(convolved(wave, response), np.convolve(wave, response)[:1000], atol=1e-3)


# Sources and scenes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@pytest.mark.parametrize("n", [1600, 24_001])
def test_every_source_sounds_at_any_length_and_never_alike(source, n: int) -> None:  # type: ignore[no-untyped-def]
    waves = [source.render(rng(seed), n) for seed in range(6)]
    for wave in waves:
        assert wave.shape == (n,)
        assert wave.dtype == np.float32
        assert np.isfinite(wave).all()
        assert rms(wave) > 1e-4
    np.testing.assert_array_equal(waves[0], source.render(rng(0), n))
    assert len({wave.tobytes() for wave in waves}) == 6


@pytest.mark.parametrize("render_background", BACKGROUNDS.values(), ids=BACKGROUNDS.keys())
def test_backgrounds_and_what_they_pass_through(render_background) -> None:  # type: ignore[no-untyped-def]
    wave = render_background(rng(0), 8001)
    for heard in (wave, reverberated(rng(1), wave), through_channel(rng(2), wave)):
        assert heard.shape == (8001,)
        assert heard.dtype == np.float32
        assert np.isfinite(heard).all()
        assert rms(heard) > 1e-4


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    scene = plan(3, 17, SECONDS, 10)
    assert plan(3, 17, SECONDS, 10) == scene
    np.testing.assert_array_equal(render(scene), render(scene))
    assert plan(3, 18, SECONDS, 10) != scene
    other = plan(4, 17, SECONDS, 10)
    assert not np.array_equal(render(other), render(scene))


def test_rendering_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    render(plan(0, 0, SECONDS, 10))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("classes", [10, None])
def test_clips_are_audible_and_not_clipped(classes: int | None) -> None:
    for index in range(12):
        wave = render(plan(0, index, SECONDS, classes))
        assert wave.shape == (round(SECONDS * RATE),)
        assert wave.dtype == np.float32
        assert np.abs(wave).max() <= 0.99 + 1e-6
        assert -40 < 20 * np.log10(rms(wave)) < -15


@pytest.mark.parametrize("classes", [10, None])
def test_the_stated_ratio_is_that_of_sounds_to_background(classes: int | None) -> None:
    for index in range(8):
        scene = plan(1, index, SECONDS, classes)
        sounds, background = parts(scene)
        active = np.zeros(len(sounds), bool)
        for sound in scene.sounds:
            active[sound.onset : sound.onset + sound.length] = True
        ratio = 20 * np.log10(rms(sounds[active]) / rms(background))
        assert ratio == pytest.approx(scene.snr, abs=0.01)
        assert -3 <= scene.snr <= 15


def test_sounds_are_where_the_events_say() -> None:
    dry = [plan(1, index, 4.0, 10) for index in range(40)]
    for scene in dry:
        sounds, _ = parts(scene)
        first = min(sound.onset for sound in scene.sounds)
        assert rms(sounds[:first]) < 1e-3 * rms(sounds)
        for event in scene.events:
            assert rms(sounds[round(event.onset * RATE) : round(event.offset * RATE)]) > 0.05 * rms(sounds)


def test_labelled_sounds_are_of_one_kind_and_do_not_overlap() -> None:
    for index in range(60):
        scene = plan(0, index, 10.0, 12)
        events = scene.events
        assert {event.label for event in events} == {scene.label}
        assert all(0 <= event.onset < event.offset <= 10.0 for event in events)
        assert all(first.offset <= second.onset + 1e-9 for first, second in pairwise(events))
    assert len({len(plan(0, index, 10.0, 12).events) for index in range(60)}) > 2


def test_scenes_without_classes_mix_kinds() -> None:
    mixed = [plan(0, index, 10.0, None) for index in range(40)]
    assert all(scene.label == "" and scene.split == "" for scene in mixed)
    assert {sound.name for scene in mixed for sound in scene.sounds} == {source.name for source in SOURCES}
    assert sum(len({sound.name for sound in scene.sounds}) > 1 for scene in mixed) > 20


def test_kinds_and_ratio_of_scenes_without_classes_can_be_chosen() -> None:
    chosen = [plan(0, index, 4.0, None, ("note", "note", "bell"), (20.0, 40.0)) for index in range(60)]
    names = Counter(sound.name for scene in chosen for sound in scene.sounds)
    assert set(names) == {"note", "bell"}
    assert names["note"] > 1.4 * names["bell"]
    assert all(20 <= scene.snr <= 40 for scene in chosen)


def test_a_note_keeps_one_pitch_of_the_scale() -> None:
    render_note = next(source.render for source in SOURCES if source.name == "note")
    found = []
    for seed in range(40):
        wave = render_note(rng(seed), RATE)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 4 * RATE)) ** 0.5
        # The pitch whose partials hold most of the spectrum's roots, less what lies between them.
        keys = np.arange(28, 101)
        pitches = 440 * 2 ** ((keys - 69) / 12)
        scores = []
        for pitch in pitches:
            partials = np.arange(pitch, min(7600, 12 * pitch), pitch)
            between = partials - pitch / 2
            near = [spectrum[round(f * 3.96) : round(f * 4.04) + 1].max() for f in partials]
            far = [spectrum[round(f * 3.96) : round(f * 4.04) + 1].max() for f in between]
            scores.append((np.sum(near) - np.sum(far)) / len(partials) ** 0.5)
        found.append(int(keys[np.argmax(scores)]))
        turn = np.random.Generator(np.random.Philox(seed))
        assert found[-1] % 12 == int(turn.integers(28, 101)) % 12, seed
    assert len(set(found)) > 20


def test_classes_are_balanced_in_train_and_test() -> None:
    scenes = [plan(5, index, SECONDS, 10) for index in range(300)]
    counts = Counter((scene.split, scene.label) for scene in scenes)
    names = [source.name for source in SOURCES[:10]]
    assert counts == {**{("train", name): 20 for name in names}, **{("test", name): 10 for name in names}}
    two_rounds = {(scene.split, scene.label) for scene in scenes[:20]}
    assert len(two_rounds) == 20


# Corpora ---------------------------------------------------------------------------------------------------------


def test_a_corpus_reads_as_labelled_data(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "new" / "set", clips=8, seconds=SECONDS, seed=2, classes=4)
    assert path == tmp_path / "new" / "set" / "manifest.csv"
    assert list(rows(path)[0]) == ["path", "duration", "split", "label", "source", "snr"]
    manifest = read_data(path.parent)
    assert len(manifest) == 8
    (fold,) = folds(manifest)
    assert (len(fold.train), len(fold.test)) == (4, 4)
    assert set(manifest.labels_of("label")) == {source.name for source in SOURCES[:4]}
    for index, item in enumerate(manifest):
        scene = plan(2, index, SECONDS, 4)
        assert item.labels["label"] == scene.label
        assert item.labels["snr"] == str(scene.snr)
        assert item.labels["source"] == f"synth2-2-{index}"
        assert item.events == scene.events
        audio, rate = soundfile.read(item.streams["audio"].path, dtype="float32")
        assert (rate, item.duration) == (RATE, SECONDS)
        np.testing.assert_allclose(audio, render(scene), atol=1 / 32767)
        info = soundfile.info(item.streams["audio"].path)
        assert (info.format, info.subtype, info.channels) == ("FLAC", "PCM_16", 1)


def test_a_corpus_for_pretraining_tells_no_labels(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "set", clips=3, seconds=SECONDS, seed=0, classes=None)
    assert list(rows(path)[0]) == ["path", "duration", "source", "snr"]
    assert not (tmp_path / "set" / "events.csv").exists()
    assert not any(source.name in path.read_text() for source in SOURCES)
    assert len(read_data(path.parent)) == 3


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_workers_interruption_and_growth_do_not_change_what_is_written(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    write_scenes(whole, clips=8, seconds=0.5, seed=1, classes=4)
    write_scenes(tmp_path / "parallel", clips=8, seconds=0.5, seed=1, classes=4, workers=2)
    grown = tmp_path / "grown"
    write_scenes(grown, clips=5, seconds=0.5, seed=1, classes=4)
    (grown / "audio" / "000002.flac").unlink()
    (grown / "manifest.csv").unlink()
    kept = (grown / "audio" / "000001.flac").stat().st_mtime_ns
    write_scenes(grown, clips=8, seconds=0.5, seed=1, classes=4)
    assert (grown / "audio" / "000001.flac").stat().st_mtime_ns == kept
    assert contents(whole) == contents(tmp_path / "parallel") == contents(grown)


def test_a_folder_with_other_data_is_left_alone(tmp_path: Path) -> None:
    write_scenes(tmp_path / "set", clips=1, seconds=0.5, seed=1)
    with pytest.raises(DataError, match="holds scenes with seed = 1, not 2; choose another folder"):
        write_scenes(tmp_path / "set", clips=1, seconds=0.5, seed=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.csv").write_text("path\n")
    with pytest.raises(DataError, match="holds something else"):
        write_scenes(tmp_path / "mine", clips=1, seconds=0.5, seed=0)
    assert (tmp_path / "mine" / "manifest.csv").read_text() == "path\n"
    with pytest.raises(DataError, match="holds something else"):
        write_scenes(tmp_path / "mine" / "manifest.csv", clips=1, seconds=0.5, seed=0)
    (tmp_path / "set" / "synth.json").write_text("{")
    with pytest.raises(DataError, match=r"synth\.json: damaged"):
        write_scenes(tmp_path / "set", clips=1, seconds=0.5, seed=1)


def test_the_settings_are_kept(tmp_path: Path) -> None:
    write_scenes(tmp_path / "set", clips=1, seconds=0.5, seed=7)
    found = json.loads((tmp_path / "set" / "synth.json").read_text())
    expected = {"generator": 2, "seed": 7, "seconds": 0.5, "classes": 10, "kinds": list(KINDS), "snr_db": [-3.0, 15.0]}
    assert found == expected


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"clips": 0}, "clips must be at least 1"),
        ({"seconds": 0.1}, "seconds must be at least 0.5"),
        ({"seconds": float("nan")}, "seconds must be at least 0.5"),
        ({"classes": 1}, "classes must lie between 2 and 13"),
        ({"classes": 14}, "classes must lie between 2 and 13"),
        ({"classes": None, "kinds": ("bell", "gong")}, "kinds must name sounds .* got gong"),
        ({"classes": None, "kinds": ()}, "kinds must name sounds .* got none"),
        ({"kinds": ("bell", "note")}, "give classes=None"),
        ({"snr_db": (20.0, 10.0)}, "snr_db must rise"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"clips": 1, "seconds": 1.0, "seed": 0, "classes": 10, "workers": 1}
    with pytest.raises(ConfigError, match=message):
        write_scenes(tmp_path / "set", **{**arguments, **changes})  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


# Difficulty ------------------------------------------------------------------------------------------------------


def mel(f: float) -> float:
    return 2595 * np.log10(1 + f / 700)


def mel_bank() -> np.ndarray:
    """[64, 257] triangles between 20 Hz and 8 kHz."""
    edges = 700 * (10 ** (np.linspace(mel(20), mel(8000), 66) / 2595) - 1)
    f = np.fft.rfftfreq(512, 1 / RATE)
    rising = (f - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - f) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def mfcc_statistics(wave: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over the clip of 20 cepstral coefficients of 64 mel bands."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160] * np.hanning(400).astype(np.float32)
    logs = np.log(np.abs(np.fft.rfft(frames, 512)) ** 2 @ bank.T + 1e-10)
    cosines = np.cos(np.pi / 64 * np.outer(np.arange(20), np.arange(64) + 0.5))
    cepstrum = logs @ cosines.T
    return np.concatenate([cepstrum.mean(0), cepstrum.std(0)])


def test_statistics_of_the_spectrum_neither_fail_nor_solve_it() -> None:
    bank = mel_bank()
    scenes = [plan(0, index, 2.5, 10) for index in range(300)]
    with threadpool_limits(1):
        features = np.stack([mfcc_statistics(render(scene), bank) for scene in scenes])
    labels = np.array([scene.label for scene in scenes])
    train = np.array([scene.split == "train" for scene in scenes])
    assert train.sum() == 200

    def accuracy(of: np.ndarray) -> float:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
        with threadpool_limits(1):
            return float(probe.fit(of[train], labels[train]).score(of[~train], labels[~train]))

    assert 0.4 < accuracy(features) < 0.8
    # The kind of background and the ratio tell nothing about the class.
    kinds = [[scene.snr, *(float(scene.background == name) for name in BACKGROUNDS)] for scene in scenes]
    assert accuracy(np.array(kinds)) < 0.25
