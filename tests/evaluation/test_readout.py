"""Which layers are read and how: choices that never see a test item, mixes that find the layer with the class."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from soundsets import RATE, save_pretrained, tone, write_tones

from auricle.data.formats import read_data
from auricle.data.splits import Fold
from auricle.errors import ConfigError, DataError
from auricle.evaluation import neural
from auricle.evaluation.heads import HEADS, MIXED, fit
from auricle.evaluation.layers import Reading, best_layer, inner_folds, reading, validate_layers
from auricle.evaluation.pages import result_page
from auricle.evaluation.probe import Task, probe
from auricle.evaluation.readout import embed_task, read_out
from auricle.inference.model import load
from auricle.methods.base import Encoded
from auricle.tasks.pooling import pool
from auricle.tasks.windows import encode

Array = NDArray[Any]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are not what is tested here."""
    monkeypatch.setattr("auricle.evaluation.classify.RESAMPLES", 50)


def layered(labels: tuple[str, ...] | list[str], telling: int, layers: int = 3, width: int = 12) -> Array:
    """Noise [N, L, D] in which only layer `telling` carries the class."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(labels), layers, width))
    names = sorted(set(labels))
    x[np.arange(len(labels)), telling, [names.index(label) for label in labels]] += 8
    return x.astype(np.float32)


# Heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", MIXED)
def test_a_mix_gives_its_weight_to_the_layer_that_carries_the_class(head: str) -> None:
    labels = [f"c{i % 4}" for i in range(120)]
    x = layered(labels, telling=1)
    fitted = fit(head, x[:80], labels[:80])
    assert fitted.mixture is not None
    assert fitted.mixture.sum() == pytest.approx(1)
    assert fitted.mixture[1] > 0.9
    assert np.mean([p == t for p, t in zip(fitted.predict(x[80:]), labels[80:], strict=True)]) > 0.9


@pytest.mark.parametrize("head", sorted(set(HEADS) - set(MIXED)))
def test_heads_that_cannot_learn_a_mix_refuse_it(head: str) -> None:
    with pytest.raises(ConfigError, match=f"which {head} does not do; use --head linear or mlp, or --layers all"):
        fit(head, np.zeros((4, 2, 3)), ["a", "b"] * 2)


def test_a_mix_of_one_layer_is_logistic_regression() -> None:
    labels = np.arange(60) % 3
    x = layered([str(i) for i in labels], telling=0, layers=1).astype(np.float64)
    x[:7, 0, 0] -= 3
    expected = LogisticRegression(C=0.3, class_weight="balanced", max_iter=1000).fit(x[:, 0], labels)
    ours = neural.train_linear(x, labels, 0.3).scores(x)
    theirs = expected.decision_function(x[:, 0])
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), atol=3e-2)


def test_an_mlp_follows_from_its_seed_and_draws_from_nothing_else() -> None:
    labels = [f"c{i % 3}" for i in range(30)]
    x = layered(labels, telling=0, layers=1)[:, 0]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = fit("mlp", x, labels, seed=5).scores(x)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(fit("mlp", x, labels, seed=5).scores(x), first)
    assert np.abs(fit("mlp", x, labels, seed=6).scores(x) - first).max() > 1e-3


def test_neighbours_vote_by_cosine_over_the_size_of_their_class() -> None:
    x = np.array([[3.0, 0], [0, 2], [-1, 0], [0, -4], [-2, 2]])
    labels = ["a", "b", "b", "c", "b"]
    centred = x - x.mean(0)
    new = np.array([[1.0, 1], [-5, 1]])
    votes = np.zeros((2, 3))
    for row, query in enumerate(new - x.mean(0)):
        for known, label in zip(centred, labels, strict=True):
            cosine = known @ query / np.linalg.norm(known) / np.linalg.norm(query)
            votes[row, "abc".index(label)] += np.exp(cosine / 0.07) / labels.count(label)
    np.testing.assert_allclose(fit("knn", x, labels).scores(new), votes / votes.sum(1, keepdims=True))


def test_only_the_ten_nearest_vote() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal([10, 0], 0.1, (10, 2)), rng.normal([-10, 0], 0.1, (30, 2))])
    scores = fit("knn", x, ["near"] * 10 + ["far"] * 30).scores(np.array([[10.0, 0]]))
    np.testing.assert_array_equal(scores, [[0.0, 1.0]])


# Layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers, pooling, expected",
    [
        ("last", "", Reading((5,), "own", "one")),
        ("6", "", Reading((5,), "own", "one")),
        (-1, "mean", Reading((5,), "mean", "one")),
        ("1", "", Reading((0,), "mean", "one")),
        ("-6", "rows", Reading((0,), "rows", "one")),
        ("all", "", Reading((0, 1, 2, 3, 4, 5), "mean", "best")),
        ("mix", "cls", Reading((0, 1, 2, 3, 4, 5), "cls", "mix")),
    ],
)
def test_layers_count_from_one_and_the_paper_pools_only_the_last(
    layers: str | int, pooling: str, expected: Reading
) -> None:
    assert reading(layers, pooling, 6) == expected


@pytest.mark.parametrize("layers", ["0", "7", "-7", "first", "1.5", ""])
def test_layers_that_are_not_there_are_refused(layers: str) -> None:
    with pytest.raises(ConfigError, match=f"--layers {re.escape(layers)}: the network has 6 blocks; give 1 to 6"):
        reading(layers, "", 6)


@pytest.mark.parametrize("layers, pooling, message", [("2", "own", "last layer only"), ("last", "max", "no pooling")])
def test_poolings_that_are_not_there_are_refused(layers: str, pooling: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reading(layers, pooling, 6)


@pytest.mark.parametrize("options, parts", [({}, 3), ({"group_column": "speaker"}, 3)])
def test_layers_are_validated_on_training_items_only(options: dict[str, Any], parts: int, tones: Path) -> None:
    task = Task.read([tones], **options)
    for fold in task.folds:
        inner = inner_folds(fold, task.folds, task.manifest.ids, task.labels)
        assert len(inner) == parts
        for train, val in inner:
            assert not set(train) & set(val)
            assert set(train) | set(val) == set(fold.train)
            if options:
                speakers = [{task.manifest[i].labels["speaker"] for i in part} for part in (train, val)]
                assert not speakers[0] & speakers[1]


def test_a_stated_validation_part_validates() -> None:
    fold = Fold("test", (0, 1, 2), (3, 4), (5,))
    assert inner_folds(fold, [fold], list("abcdef"), list("xyxyxy")) == [((0, 1, 2), (3, 4))]


def test_the_last_layer_is_chosen_where_nothing_tells_them_apart() -> None:
    assert best_layer(validate_layers([], 3, lambda *_: 1.0)) == 2
    assert best_layer([0.5, 0.7, 0.7, 0.1]) == 2


def test_the_layer_that_carries_the_class_is_chosen(tones: Path) -> None:
    task = Task.read([tones], group_column="speaker")
    found = read_out(task, layered(task.labels, telling=1), "ridge", Reading((0, 1, 2), "mean", "best"))
    assert [row["chosen"] for row in found.layers] == [0, 4, 0]
    assert found.runs[0].correct.mean() == 1
    assert found.layers[1]["accuracy"]["value"] == 1
    assert found.layers[0]["accuracy"]["value"] < 0.7


def test_test_items_do_not_take_part_in_the_choice(tones: Path) -> None:
    task = Task.read([tones])
    x = layered(task.labels, telling=1)
    # The third layer knows the class of the test items alone.
    test = list(task.folds[0].test)
    x[test, 2] = 3 * layered(task.labels, telling=0, layers=1)[test, 0]
    for head in ("ridge", "knn"):
        found = read_out(task, x, head, Reading((0, 1, 2), "mean", "best"))
        assert [row["chosen"] for row in found.layers] == [0, 1, 0]


def test_a_mix_is_read_out_with_its_weights(tones: Path) -> None:
    task = Task.read([tones])
    found = read_out(task, layered(task.labels, telling=2), "linear", Reading((0, 1, 2), "mean", "mix"))
    weights: list[Any] = [row["weight"] for row in found.layers]
    assert sum(w["value"] for w in weights) == pytest.approx(1)
    assert weights[2]["low"] > 0.8
    assert all(w["low"] <= w["value"] <= w["high"] for w in weights)


# Pooling ----------------------------------------------------------------------------------------------------------


def encoded(prefix: bool = True) -> Encoded:
    """Two clips, two layers, a grid of 2 rows and 3 columns, width 4; the second clip has one column of padding."""
    rng = torch.Generator().manual_seed(0)
    layers = tuple(torch.randn(2, 6, 4, generator=rng) for _ in range(2))
    valid = torch.tensor([[True, True, True], [True, True, False]])
    own = torch.randn(2, 4, generator=rng)
    cls = tuple(torch.randn(2, 2, 4, generator=rng) for _ in range(2)) if prefix else ()
    return Encoded(layers, cls, (2, 3), torch.arange(3.0), valid, own)


def test_poolings_leave_padding_out() -> None:
    e = encoded()
    tokens = e.layers[0][1].unflatten(0, (2, 3))[:, :2]
    torch.testing.assert_close(pool(e, 0, "mean")[1], tokens.mean((0, 1)))
    torch.testing.assert_close(pool(e, 0, "rows")[1], torch.cat([tokens[0].mean(0), tokens[1].mean(0)]))
    torch.testing.assert_close(pool(e, 1, "cls"), e.prefix[1].mean(1))
    torch.testing.assert_close(pool(e, 1, "own"), e.pooled)


def test_poolings_that_a_network_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs prefix tokens, and this network has none"):
        pool(encoded(prefix=False), 0, "cls")
    with pytest.raises(ConfigError, match="last layer only"):
        pool(encoded(), 0, "own")


@pytest.mark.parametrize("pooling", ["mean", "rows", "cls"])
def test_windows_of_long_sounds_count_by_their_time_steps(pooling: Any, model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wave = np.concatenate([tone(300, 1.1), rng.normal(0, 0.2, 4000).astype(np.float32)])
    soundfile.write(tmp_path / "long.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", wave[:5000], RATE, subtype="FLOAT")
    loaded = load(model, precision="fp32")
    items = read_data([tmp_path]).items
    found = loaded.embed_layers(items, (0, 1), pooling)
    for row, samples in zip(found, (wave, wave[:5000]), strict=True):
        windows = list(encode(loaded.encoder, [samples], loaded.device))
        assert len(windows) == (1 if len(samples) == 5000 else 3)
        for layer in (0, 1):
            parts = [pool(w.encoded, layer, pooling)[w.row].numpy() * w.steps for w in windows]
            np.testing.assert_allclose(row[layer], sum(parts) / sum(w.steps for w in windows), atol=1e-5)


def test_the_last_layer_as_the_method_pools_is_what_embed_gives(model: Path, tones: Path) -> None:
    task, loaded = Task.read([tones]), load(model)
    layer = reading("last", "", loaded.encoder.num_layers)
    np.testing.assert_array_equal(embed_task(loaded, task, layer)[:, 0], loaded.embed_items(task.manifest.items))
    np.testing.assert_array_equal(embed_task(loaded, task), embed_task(loaded, task, layer)[:, 0])


# The whole probe --------------------------------------------------------------------------------------------------


def test_a_result_says_what_was_read_and_the_page_shows_the_layers(model: Path, tones: Path, tmp_path: Path) -> None:
    every = probe(model, [tones], layers="all", baselines=["random"], seeds=2)
    assert {k: every.protocol[k] for k in ("head", "layers", "pooling", "seeds")} == {
        "head": "ridge",
        "layers": "all",
        "pooling": "mean",
        "seeds": 1,
    }
    assert [row["layer"] for row in every.layers] == [1, 2]
    assert sum(row["chosen"] for row in every.layers) == 1
    assert len(every.baselines["random"]["runs"]) == len(every.baselines["random"]["layers"]) == 2
    text = result_page(every, tmp_path / "all.html").read_text()
    assert "validation accuracy" in text

    mixed = probe(model, [tones], layers="mix", head="linear", pooling="rows")
    assert (mixed.protocol["layers"], mixed.protocol["pooling"]) == ("mix", "rows")
    assert sum(row["weight"]["value"] for row in mixed.layers) == pytest.approx(1)
    assert "Weight of each layer" in result_page(mixed, tmp_path / "mix.html").read_text()


def test_several_seeds_of_a_drawn_head_are_averaged(model: Path, tones: Path) -> None:
    result = probe(model, [tones], head="mlp", seeds=2, baselines=["random"])
    assert result.protocol["seeds"] == 2
    accuracy: Any = result.metrics["accuracy"]["value"]
    assert accuracy == pytest.approx(np.mean([row["right"] for row in result.items]))
    assert np.sum(result.confusion["rows"]) == 6 if result.confusion else False
    assert len(result.baselines["random"]["runs"]) == 2
    with pytest.raises(ConfigError, match="seeds must be 1 or more, got 0"):
        probe(model, [tones], seeds=0)


def test_two_models_are_compared_on_the_same_items(model: Path, tones: Path, tmp_path: Path) -> None:
    other = save_pretrained(tmp_path / "other", seed=3)
    result = probe(model, [tones], against=other, layers="1")
    (comparison,) = result.comparisons
    assert comparison["b"] == str(other)
    theirs = probe(other, [tones], layers="1")
    values: list[Any] = [r.metrics["accuracy"]["value"] for r in (result, theirs)]
    assert comparison["value"] == pytest.approx(values[0] - values[1])
    assert result.baselines[str(other)]["model"]["hash"] == theirs.model["hash"]
    itself: Any = probe(model, [tones], against=model).comparisons[0]
    assert (itself["low"], itself["value"], itself["high"]) == (0, 0, 0)


def test_the_mix_is_refused_before_anything_is_embedded(tones: Path) -> None:
    with pytest.raises(ConfigError, match="which ridge does not do"):
        probe("no such model", [tones], layers="mix")
    with pytest.raises(DataError):
        probe("no such model", [tones], layers="mix", head="linear", label="nobody")
