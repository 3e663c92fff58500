"""What pages show of clips: maps, sounds, the surest errors, and scores that say what they are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle import api
from auricle.config import TrainConfig, used_settings
from auricle.data.formats import read_data
from auricle.evaluation import exhibits, heads, maps, pages, snippets
from auricle.evaluation.classify import Predictions, class_scores
from auricle.training.pretrain import FOR_FINETUNING


def test_a_map_keeps_groups_together_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 20)
    x = 5 * np.eye(3, 16)[groups] + 0.3 * rng.normal(size=(60, 16))
    points = maps.project(x)
    np.testing.assert_array_equal(points, maps.project(x))
    nearest = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(60)
    assert (groups[nearest.argmin(1)] == groups).all()


@pytest.mark.parametrize("x", [np.ones((9, 4)), np.zeros((1, 4)), np.eye(3)], ids=["all alike", "one", "three"])
def test_a_map_of_too_little_is_still_a_map(x: np.ndarray) -> None:
    points = maps.project(x)
    assert points.shape == (len(x), 2)
    assert np.isfinite(points).all()


def test_first_clips_come_in_turn_from_each_label() -> None:
    labels = ["a"] * 5 + ["b"] * 2 + ["c"]
    assert exhibits.spread_over(labels, 4) == [0, 5, 7, 1]
    assert sorted(exhibits.spread_over(labels, 99)) == list(range(8))


def test_a_snippet_is_the_loudest_part_and_small(tmp_path: Path) -> None:
    wave = np.zeros(16000 * 20)
    wave[16000 * 12 : 16000 * 13] = 0.5 * np.sin(np.arange(16000) / 3)
    soundfile.write(tmp_path / "long.flac", wave, 16000)
    (item,) = read_data([tmp_path]).items
    made = snippets.snippet(item, 2.0)
    heard, rate = soundfile.read(io.BytesIO(made.content))
    assert made.size == len(made.content) < 70_000
    assert rate == snippets.RATE
    # MP3 adds up to a tenth of a second.
    assert 2.0 <= len(heard) / rate < 2.15
    assert np.square(heard).sum() == pytest.approx(0.81 * np.square(wave).sum(), rel=0.05)


def test_scores_of_heads_are_what_their_names_say() -> None:
    rng = np.random.default_rng(1)
    for classes in (2, 3):
        y = np.arange(60) % classes
        x = np.eye(classes, 8)[y] + 0.5 * rng.normal(size=(60, 8))
        for head, name in heads.SCORES.items():
            values = heads.fit(head, x.astype(np.float32), [str(k) for k in y]).scores(x)
            assert values.shape == (60, classes)
            if name == "margin":
                assert values.min() < 0
            else:
                assert values.min() >= 0
                np.testing.assert_allclose(values.sum(1), 1, rtol=1e-6)
            assert (values.argmax(1) == y).mean() > 0.7


def test_classes_have_recall_precision_and_f1_over_all_runs() -> None:
    runs = [
        Predictions(("1", "2", "3"), ("a", "a", "b"), predicted, (1.0, 1.0, 1.0))
        for predicted in (("a", "b", "b"), ("a", "a", "c"))
    ]
    assert class_scores(runs) == [
        {"label": "a", "recall": 0.75, "precision": 1.0, "F1": pytest.approx(6 / 7), "items": 2},
        {"label": "b", "recall": 0.5, "precision": 0.5, "F1": 0.5, "items": 1},
        {"label": "c", "recall": None, "precision": 0.0, "F1": 0.0, "items": 0},
    ]


def test_the_surest_error_of_a_tagging_is_a_likely_tag_that_is_not_there() -> None:
    rows = [
        {"id": "1", "labels": ["a"], "predicted": ["a"], "scores": {"a": 0.9, "b": 0.8}},
        {"id": "2", "labels": ["a"], "predicted": [], "scores": {"b": 0.4, "a": 0.3}},
        {"id": "3", "labels": [], "predicted": ["b"], "scores": {"b": 0.7}},
    ]
    assert [row["id"] for row in exhibits.surest_errors(rows)] == ["3", "2"]


def test_a_result_names_its_score_and_keeps_its_clips_out_of_the_file(
    tones: Path, pretrained: Path, finetuned: Path, tmp_path: Path
) -> None:
    ridge, linear = (api.probe(pretrained, tones, head=head) for head in ("ridge", "linear"))
    assert (ridge.protocol["score"], linear.protocol["score"]) == ("margin", "probability")
    # A margin is not a confidence.
    assert not ridge.calibration
    assert sum(b.count for b in linear.calibration) == 6
    evaluated = api.evaluate(finetuned, tones)
    assert evaluated.exhibits is not None
    assert evaluated.exhibits.embeddings is not None
    assert [item.id for item in evaluated.exhibits.items] == [row["id"] for row in evaluated.items]
    written = json.loads(evaluated.write(tmp_path / "r.json").read_text())
    assert "exhibits" not in written
    assert written["calibration"][0].keys() == {"index", "count", "confidence", "accuracy"}
    assert [row["label"] for row in written["per_class"]] == ["buzz", "chirp", "hiss"]


def test_a_page_says_what_a_rising_loss_means_where_it_may_rise(tones: Path, pretrained: Path, tmp_path: Path) -> None:
    items = read_data([tones]).items
    warning = "It is no measure of progress"
    assert warning not in pages.pretraining_page(pretrained, items).read_text()
    run = api.pretrain("asit-test", [tones], tmp_path / "asit", steps=1, quiet=True)
    assert warning in (run / "report.html").read_text()


def test_a_page_shows_the_settings_that_had_an_effect(tones: Path, pretrained: Path) -> None:
    shown = used_settings(TrainConfig(steps=5, schedule="constant"), FOR_FINETUNING)
    assert {"steps", "lr", "warmup"} <= shown.keys()
    assert not {"epochs", "mixup", "loss", "warmup_steps", "final_lr", "decay_every"} & shown.keys()
    page = pages.pretraining_page(pretrained, read_data([tones]).items).read_text()
    settings = page[page.index('id="settings"') :]
    assert "batch_size" in settings
    assert "label_smoothing" not in settings
