"""Embeddings of several blocks, and of windows that overlap."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import auricle
from auricle.errors import ConfigError
from auricle.inference import libraries
from auricle.inference.libraries import Progress
from auricle.inference.model import Model
from auricle.tasks.pooling import layer_indices
from auricle.tasks.windows import encode
from conftest import sound, write_tones

RATE = 16000


def random(preset: str) -> Model:
    return auricle.load(preset, weights="random", precision="fp32")


def test_blocks_are_counted_from_one_and_named_once() -> None:
    assert layer_indices(None, 12) is layer_indices("last", 12) is None
    assert layer_indices("all", 3) == (0, 1, 2)
    assert layer_indices("1, 6,9-12", 12) == (0, 5, 8, 9, 10, 11)
    assert layer_indices([-2, -1], 12) == (10, 11)
    assert layer_indices(3, 12) == (2,)
    for wrong in ("0", "13", "5-13", "3-1", "", "first", [0], []):
        with pytest.raises(ConfigError, match="12 blocks; give numbers from 1 to 12"):
            layer_indices(wrong, 12)
    with pytest.raises(ConfigError, match="twice"):
        layer_indices("1,1-2", 12)


@pytest.mark.parametrize("preset", ["atst-frame-test", "atst-clip-test", "ssast-test"])
def test_blocks_stand_side_by_side(preset: str) -> None:
    model, wave = random(preset), sound("chirp", 0.5, RATE, 3)
    depth = model.encoder.num_layers
    with torch.no_grad():
        encoded = model.encoder(torch.from_numpy(wave)[None])
    found = model.embed(wave, RATE, layers="all")
    # What the authors of ATST read of each block (get_scene_embedding: the means of all, the first one first), else the
    # mean over tokens.
    each = encoded.summaries or tuple(layer.mean(1) for layer in encoded.layers)
    np.testing.assert_allclose(found.clip, torch.cat(each, 1)[0], atol=1e-5)
    np.testing.assert_array_equal(found.clip, model.embed_clip(wave, RATE, layers="all"))
    frames = torch.cat([encoded.frames(layer) for layer in range(depth)], -1)[0]
    np.testing.assert_allclose(found.frames, frames, atol=1e-5)
    last = model.embed(wave, RATE, layers=[-1])
    np.testing.assert_array_equal(last.frames, model.embed(wave, RATE).frames)
    np.testing.assert_array_equal(last.clip, found.clip[-len(last.clip) :])


def test_a_library_of_several_blocks_says_so_and_is_searched_alike(tmp_path: Path) -> None:
    folder = write_tones(tmp_path / "sounds") / "audio"
    run = auricle.pretrain("atst-frame-test", folder, tmp_path / "run", steps=1, quiet=True)
    model = auricle.load(run, precision="fp32")
    files = sorted(folder.iterdir())
    out = tmp_path / "x.npz"
    library = auricle.embed_library(model, folder, out, frames=True, layers="1-2")
    assert (library.metadata["layer"], library.metadata["pooling"]) == ([1, 2], "summary")
    assert library.metadata["dim"] == 2 * model.encoder.dim
    arrays = np.load(out)
    np.testing.assert_allclose(arrays["embeddings"][1], model.embed_clip(files[1], layers=[1, 2]), atol=1e-5)
    assert arrays["frames"].shape == (len(arrays["times"]), 2 * model.encoder.dim)
    # The query of a search is read as the library was.
    assert auricle.search(library, files[2], 1, model=model)[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_table_that_was_begun_is_not_gone_on_with_in_another_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "PART_SECONDS", 1.0)
    model, folder, out = random("atst-frame-test"), write_tones(tmp_path / "sounds") / "audio", tmp_path / "x.npz"

    def stop(progress: Progress) -> None:
        if progress.files == 8:
            raise Stopped

    with pytest.raises(Stopped):
        auricle.embed_library(model, folder, out, layers="1-2", tell=stop)
    for other in ("2", None):
        with pytest.raises(ConfigError, match=re.escape("other settings (layers: was [0, 1], now")):
            auricle.embed_library(model, folder, out, layers=other)
    assert auricle.embed_library(model, folder, out, layers=[1, 2]).metadata["layer"] == [1, 2]


class Stopped(Exception):
    """What ends an embedding here."""


@pytest.mark.parametrize("preset", ["ssast-test", "ssamba-test"])
def test_with_context_every_step_comes_once_and_from_inside_a_window(preset: str) -> None:
    model = random(preset)
    encoder = model.encoder
    wave = sound("chirp", 4.3, RATE, 3)
    whole, plain = round(encoder.window_hop * encoder.frame_rate / RATE), model.embed(wave, RATE)
    context = 2 / encoder.frame_rate
    found = model.embed(wave, RATE, context=context)
    np.testing.assert_allclose(found.times, plain.times, atol=1e-9)
    assert plain.seams == ()
    hop = whole - 4
    windows = list(encode(encoder, [wave], torch.device("cpu"), round(hop * RATE / encoder.frame_rate)))
    assert len(found.seams) == len(windows) - 1 > 1
    # The second window's third step is the first one that is used of it.
    second = windows[1].encoded.frames()[windows[1].row].numpy()
    np.testing.assert_allclose(found.frames[hop + 2 : hop + 4], second[2:4], atol=1e-5)
    first = windows[0].encoded.frames()[windows[0].row].numpy()
    want = np.linalg.norm(second[1:3] - first[hop + 1 : hop + 3]) / np.linalg.norm(first[hop + 1 : hop + 3])
    assert found.seams[0] == pytest.approx(want, rel=1e-4)


def test_context_that_does_not_fit_is_refused() -> None:
    model, wave = random("ssast-test"), sound("chirp", 2.0, RATE, 3)
    for wrong in (-1.0, 100.0, float("inf"), float("nan"), model.encoder.window_hop / RATE / 2):
        with pytest.raises(ConfigError, match="must be longer than twice its context"):
            model.embed(wave, RATE, context=wrong)
