"""Probes: heads that learn what is there and nothing else, on the split that the data states, beside baselines."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from soundsets import PITCHES, RATE, save_pretrained, tone, write_table, write_tones

from auricle.audio.frontends import KaldiFbank
from auricle.audio.read import read
from auricle.data.formats import read_data
from auricle.data.tables import read_table
from auricle.errors import AudioError, ConfigError, DataError
from auricle.evaluation.baselines import BASELINES, baseline
from auricle.evaluation.heads import HEADS, fit
from auricle.evaluation.probe import RANDOM_SEEDS, Task, probe, probe_features
from auricle.evaluation.results import Result

each_head = pytest.mark.parametrize("head", HEADS)
Array = NDArray[Any]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(tmp_path_factory.mktemp("model"))


def clusters(classes: int, each: int, apart: float, seed: int = 0) -> tuple[Array, list[str]]:
    """Gaussian clouds of width 1 in 20 dimensions, their centres `apart` from the origin."""
    rng = np.random.default_rng(seed)
    centres = apart * np.linalg.qr(rng.normal(size=(20, classes)))[0].T
    x = np.concatenate([centre + rng.normal(size=(each, 20)) for centre in centres])
    return x.astype(np.float32), [f"c{i}" for i in range(classes) for _ in range(each)]


# Heads ------------------------------------------------------------------------------------------------------------


@each_head
@pytest.mark.parametrize("classes", [2, 5])
def test_separable_classes_are_told_apart(head: str, classes: int) -> None:
    x, labels = clusters(classes, 30, apart=8)
    fitted = fit(head, x, labels)
    assert fitted.classes == tuple(sorted(set(labels)))
    assert fitted.scores(x).shape == (len(x), classes)
    assert fitted.predict(x) == labels
    moved = x + np.random.default_rng(9).normal(0, 0.5, x.shape)
    assert np.mean([p == e for p, e in zip(fitted.predict(moved), labels, strict=True)]) > 0.97


@each_head
def test_noise_is_not_told_apart(head: str) -> None:
    rng = np.random.default_rng(1)
    train, test = rng.normal(size=(200, 20)), rng.normal(size=(2000, 20))
    labels = [f"c{i % 4}" for i in range(200)]
    truth = [f"c{i % 4}" for i in range(2000)]
    accuracy = np.mean([p == t for p, t in zip(fit(head, train, labels).predict(test), truth, strict=True)])
    # Chance is 1 in 4; four standard errors of 2000 draws.
    assert abs(accuracy - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5


@each_head
@pytest.mark.parametrize("scale, shift", [(1e-4, 0.0), (1e4, 0.0), (1.0, 1e3)])
def test_neither_scale_nor_offset_of_embeddings_matters(head: str, scale: float, shift: float) -> None:
    x, labels = clusters(3, 20, apart=2)
    x = x.astype(np.float64)
    plain, moved = fit(head, x, labels).scores(x), fit(head, x * scale + shift, labels).scores(x * scale + shift)
    np.testing.assert_allclose(moved, plain, atol=1e-3)


def test_the_order_of_training_clips_does_not_matter_to_the_ridge() -> None:
    x, labels = clusters(3, 20, apart=1)
    order = np.random.default_rng(2).permutation(len(x))
    permuted = fit("ridge", x[order], [labels[i] for i in order])
    np.testing.assert_allclose(permuted.scores(x), fit("ridge", x, labels).scores(x), atol=1e-5)


@each_head
def test_rare_classes_count_as_much_as_common_ones(head: str) -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(-1, 1, (190, 3)), rng.normal(1, 1, (10, 3))])
    labels = ["common"] * 190 + ["rare"] * 10
    predicted = np.array(fit(head, x, labels).predict(x))
    # Unweighted, nearly everything would be called common.
    assert np.mean(predicted[190:] == "rare") > 0.5


@each_head
def test_features_that_do_not_vary_give_finite_scores(head: str) -> None:
    x = np.zeros((12, 4), np.float32)
    fitted = fit(head, x, ["a", "b"] * 6)
    assert np.isfinite(fitted.scores(x)).all()
    x[:, 0] = np.tile([1.0, -1.0], 6)
    assert fit(head, x, ["a", "b"] * 6).predict(x) == ["a", "b"] * 6


@each_head
def test_classes_with_a_single_clip_are_allowed(head: str) -> None:
    x, labels = clusters(3, 4, apart=8)
    assert fit(head, x[:9], labels[:9]).classes == ("c0", "c1", "c2")


def test_an_unknown_head_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no head 'forest'; the heads are ridge, linear, mlp, knn"):
        fit("forest", np.zeros((2, 2)), ["a", "b"])


# The task ---------------------------------------------------------------------------------------------------------


def test_a_stated_split_is_one_fold(tones: Path) -> None:
    task = Task.read([tones])
    assert task.protocol == "1 fold by column 'split'"
    (fold,) = task.folds
    assert {task.manifest[i].labels["split"] for i in fold.train} == {"train"}
    assert {task.manifest[i].labels["split"] for i in fold.test} == {"test"}
    assert len(fold.train) + len(fold.test) == len(task.manifest) == 24


def test_groups_are_left_out_one_by_one(tones: Path) -> None:
    task = Task.read([tones], group_column="speaker")
    assert task.protocol == "4 folds by column 'speaker'"
    for fold in task.folds:
        speakers = [{task.manifest[i].labels["speaker"] for i in part} for part in (fold.train, fold.test)]
        assert speakers[1] == {fold.name}
        assert fold.name not in speakers[0]


def without_split(tones: Path, to: Path) -> Path:
    items = read_data([tones])
    rows = [{"path": i.streams["audio"].path, "label": i.labels["label"]} for i in items]
    return write_table(to, rows)


def test_data_without_a_split_is_cross_validated(tones: Path, tmp_path: Path) -> None:
    task = Task.read([without_split(tones, tmp_path)], seed=3)
    assert task.protocol == "5 stratified folds, seed 3"
    assert sorted(i for fold in task.folds for i in fold.test) == list(range(24))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label": "lable"}, r"no column 'lable' \(did you mean 'label'"),
        ({"label": "constant"}, r"column 'constant' holds one class \('x'\); a probe needs two"),
        ({"group_column": "nobody"}, "no column 'nobody'"),
    ],
)
def test_a_task_that_cannot_be_probed_is_refused(
    options: dict[str, Any], message: str, tones: Path, tmp_path: Path
) -> None:
    items = read_data([tones])
    rows = [{"path": i.streams["audio"].path, "label": i.labels["label"], "constant": "x"} for i in items]
    with pytest.raises(DataError, match=message):
        Task.read([write_table(tmp_path, rows)], **options)


def labelled_task(tones: Path, labels: dict[str, str], **options: Any) -> Task:
    """The tones with other labels: by speaker."""
    task = Task.read([tones], **options)
    return dataclasses.replace(task, labels=tuple(labels[item.labels["speaker"]] for item in task.manifest))


@each_head
def test_every_test_item_is_predicted_once(head: str, tones: Path) -> None:
    task = Task.read([tones], group_column="speaker")
    features = np.stack([np.eye(3)[list(PITCHES).index(label)] for label in task.labels]).astype(np.float32)
    predictions = probe_features(task, features, head)
    assert sorted(predictions.ids) == sorted(task.manifest.ids)
    assert predictions.predicted == predictions.truth
    assert len(predictions.scores) == 24


@each_head
def test_a_class_that_a_fold_cannot_train_on_counts_as_wrong(head: str, tones: Path) -> None:
    # Speaker s3 alone says "odd": left out, nobody else does.
    task = labelled_task(tones, {"s0": "a", "s1": "b", "s2": "a", "s3": "odd"}, group_column="speaker")
    features = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    predictions = probe_features(task, features, head)
    of_odd = [p for p, t in zip(predictions.predicted, predictions.truth, strict=True) if t == "odd"]
    assert len(of_odd) == 6
    assert set(of_odd) <= {"a", "b"}
    metrics = predictions.metrics()
    assert metrics["accuracy"]["value"] is not None
    assert metrics["uar"]["value"] == pytest.approx(recall(predictions.predicted, predictions.truth))


def recall(predicted: tuple[str, ...], truth: tuple[str, ...]) -> float:
    pairs = list(zip(predicted, truth, strict=True))
    return float(np.mean([np.mean([p == t for p, t in pairs if t == name]) for name in sorted(set(truth))]))


@each_head
def test_a_fold_that_trains_on_one_class_is_refused_by_name(head: str, tones: Path) -> None:
    task = labelled_task(tones, {"s0": "a", "s1": "a", "s2": "a", "s3": "odd"}, group_column="speaker")
    with pytest.raises(DataError, match=r"fold 's3': all 18 training items have the label 'a'"):
        probe_features(task, np.zeros((24, 5), np.float32), head)


# Baselines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, width", [("mfcc", 40), ("logmel", 256)])
def test_baselines_are_finite_on_whatever_can_be_read(name: str, width: int, tmp_path: Path) -> None:
    sounds = {"silence": np.zeros(8000), "one": np.ones(1), "constant": np.full(8000, 0.5), "tone": tone(440)}
    for stem, wave in sounds.items():
        soundfile.write(tmp_path / f"{stem}.wav", wave, RATE)
    features = baseline(name)(read_data([tmp_path]).items)
    assert features.shape == (4, width)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    # Sorted by name: constant, one, silence, tone. Without their mean, a constant and silence are the same.
    np.testing.assert_array_equal(features[0], features[2])
    assert not features[0, width // 2 :].any()
    assert features[3, width // 2 :].any()


def test_cepstra_are_an_orthonormal_transform_of_the_log_mel_means(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440), RATE)
    wave = read(tmp_path / "a.wav")[0]
    log_mel = KaldiFbank(RATE, 64)(torch.from_numpy(wave - wave.mean())[None])[0].numpy()
    cepstra = dct(log_mel, norm="ortho")[:, :20]
    features = baseline("mfcc")(read_data([tmp_path]).items)[0]
    np.testing.assert_allclose(features, np.concatenate([cepstra.mean(0), cepstra.std(0)]), atol=1e-3)


def test_an_unknown_baseline_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no baseline 'cqt'; the baselines are mfcc, logmel and random"):
        baseline("cqt")


# The whole probe --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(model: Path, tones: Path) -> Result:
    return probe(model, [tones], baselines=("mfcc", "logmel", "random"), seed=4)


def test_a_probe_hears_the_pitch_of_tones(result: Result) -> None:
    assert (result.metrics["accuracy"]["value"] or 0) > 0.8


def test_the_file_of_a_probe_holds_everything_needed_to_judge_it(result: Result, tones: Path, tmp_path: Path) -> None:
    written = json.loads(result.write(tmp_path / "result.json").read_text())
    assert written["task"] == "probe"
    assert written["seed"] == 4
    # Called from Python: the command that does the same.
    assert shlex.split(written["command"])[:2] == ["auricle", "probe"]
    assert written["command"].endswith(f"{tones} --baseline mfcc --baseline logmel --baseline random --seed 4")
    assert set(written["metrics"]) == {"accuracy", "uar", "macro_f1"}
    for metrics in (written["metrics"], *(b["metrics"] for b in written["baselines"].values())):
        for quantity in metrics.values():
            assert 0 <= quantity["low"] <= quantity["value"] <= quantity["high"] <= 1
    assert written["data"] == {
        "hash": read_data([tones]).hash,
        "audio_hash": read_data([tones]).audio_hash,
        "source": str(tones),
        "items": 24,
        "label": "label",
    }
    assert written["model"].keys() >= {"source", "hash", "kind", "method", "encoder_parameters", "precision"}
    protocol = written["protocol"]
    assert (protocol["head"], protocol["tested"], protocol["classes"]) == ("ridge", 6, 3)
    assert (protocol["split"], protocol["chosen_by"]) == ("test", "1 fold by column 'split'")
    assert written["confusion"]["labels"] == sorted(PITCHES)
    assert np.sum(written["confusion"]["rows"]) == 6
    assert sorted(item["id"] for item in written["items"]) == sorted(f"{p}{n}.wav" for p in PITCHES for n in (3, 7))
    right = np.mean([item["predicted"] == item["label"] for item in written["items"]])
    assert written["metrics"]["accuracy"]["value"] == pytest.approx(right)


def test_feature_statistics_are_read_out_by_logistic_regression_whatever_the_model_is(result: Result) -> None:
    assert result.protocol["head"] == "ridge"
    assert {name: b["head"] for name, b in result.baselines.items()} == {
        "mfcc": "linear",
        "logmel": "linear",
        "random": "ridge",
    }


def test_each_baseline_is_compared_with_the_model_on_the_same_items(result: Result) -> None:
    assert set(result.baselines) == {"mfcc", "logmel", "random"}
    assert [len(b["runs"]) for b in result.baselines.values()] == [1, 1, len(RANDOM_SEEDS)]
    ours: Any = result.metrics["accuracy"]["value"]
    for comparison in result.comparisons:
        runs = result.baselines[comparison["b"]]["runs"]
        assert comparison["a"] == "model"
        bounds: Any = comparison
        assert bounds["value"] == pytest.approx(ours - np.mean(runs))
        assert bounds["low"] <= bounds["value"] <= bounds["high"]


def test_a_probe_repeats_and_does_not_depend_on_the_order_of_the_table(
    model: Path, tones: Path, tmp_path: Path, result: Result
) -> None:
    lines = tones.read_text().splitlines()
    order = np.random.default_rng(0).permutation(len(lines) - 1)
    # Beside the first table, where its relative paths hold.
    shuffled = tones.with_name("shuffled.csv")
    shuffled.write_text("\n".join([lines[0], *(lines[1 + i] for i in order)]) + "\n")
    for head in HEADS:
        first, second = (probe(model, [table], head=head, seeds=1) for table in (tones, shuffled))
        assert list(first.items) == list(second.items)
        assert first.metrics == second.metrics
        assert first.data["hash"] == second.data["hash"]


def test_random_weights_replace_those_of_the_checkpoint(model: Path, tones: Path) -> None:
    own, random, again = (probe(model, [tones], random_weights=seed) for seed in (None, 0, 0))
    assert own.model["hash"] != random.model["hash"] == "random-0"
    assert random.items == again.items
    assert own.items != random.items


def test_an_unreadable_file_stops_the_probe_and_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    table = write_tones(tmp_path / "tones", clips=4)
    broken = table.parent / "low2.wav"
    # A flawless header over missing sound.
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(AudioError, match=r"low2\.wav: .*remove the file from the data to probe without it"):
        probe(model, [table])


def test_baselines_have_names_that_the_command_line_knows() -> None:
    assert set(BASELINES) == {"mfcc", "logmel"}


def test_several_labels_per_clip_are_refused(tones: Path, tmp_path: Path) -> None:
    rows = read_table(tones).rows
    labels = ("low", "low;mid")
    listed = [{"path": tones.parent / row.cells["path"], "label": labels[n % 2]} for n, row in enumerate(rows)]
    with pytest.raises(DataError, match="several labels per clip"):
        Task.read([write_table(tmp_path, listed)])
