"""A library of windows that overlap: its rows are what `embed(..., context=)` gives, and it says what the cuts cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import auricle
from auricle.errors import ConfigError
from auricle.inference import libraries
from auricle.inference.model import Model
from auricle.inference.table import open_library
from conftest import sound

RATE = 16000
CONTEXT = 0.2


@pytest.fixture(scope="module")
def model(pretrained: Path) -> Model:
    # In bf16, rounding depends a little on what shares a batch.
    return auricle.load(pretrained, precision="fp32")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two long sounds, two short ones, and a long one that breaks off."""
    folder = tmp_path_factory.mktemp("sounds")
    for number, seconds in enumerate((9.3, 0.4, 17.05, 0.8)):
        soundfile.write(folder / f"{number}.wav", sound("chirp", seconds, RATE, number), RATE)
    soundfile.write(folder / "broken.flac", sound("hiss", 8.0, RATE, 9), RATE)
    whole = (folder / "broken.flac").read_bytes()
    (folder / "broken.flac").write_bytes(whole[: len(whole) * 3 // 4])
    return folder


@pytest.fixture(params=[2.0, 600.0], ids=["short-parts", "one-part"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two seconds of sound, so that windows overlap from part to part; and all in one."""
    monkeypatch.setattr(libraries, "PART_SECONDS", request.param)
    monkeypatch.setattr(libraries, "PART_SECONDS_WITH_FRAMES", request.param)


def good(sounds: Path) -> list[Path]:
    return sorted(sounds.glob("*.wav"))


def test_clips_frames_and_seams_are_what_embed_gives(model: Model, sounds: Path, tmp_path: Path, parts: None) -> None:
    library = auricle.embed_library(model, sounds, tmp_path / "x.npz", frames=True, context=CONTEXT)
    file = np.load(tmp_path / "x.npz")
    want = [model.embed(path, context=CONTEXT) for path in good(sounds)]
    assert [Path(path) for path in library.paths] == good(sounds)
    np.testing.assert_allclose(file["embeddings"], [one.clip for one in want], atol=1e-5)
    np.testing.assert_allclose(file["frames"], np.concatenate([one.frames for one in want]), atol=1e-5)
    np.testing.assert_allclose(file["times"], np.concatenate([one.times for one in want]), atol=1e-9)
    assert np.diff(file["offsets"]).tolist() == [len(one.times) for one in want]
    # What was embedded of the broken file has seams, too, and is not in the table.
    seams = [seam for one in want for seam in one.seams]
    assert library.metadata["seams"]["count"] == len(seams) > 10
    assert library.metadata["seams"]["mean"] == pytest.approx(np.mean(seams), rel=1e-4)
    assert library.metadata["seams"]["largest"] == pytest.approx(max(seams), rel=1e-4)


def test_windows_overlap_by_twice_the_context(model: Model, sounds: Path, tmp_path: Path, parts: None) -> None:
    encoder = model.encoder
    library = auricle.embed_library(model, sounds, tmp_path / "x.parquet", context=CONTEXT)
    rows = library.paths == str(good(sounds)[2])
    starts, ends = library.starts[rows], library.ends[rows]
    steps = 2 * np.ceil(CONTEXT * encoder.frame_rate)
    hop = encoder.window_hop / RATE - steps / encoder.frame_rate
    np.testing.assert_allclose(np.diff(starts), hop, atol=1e-6)
    assert (starts[0], ends[-1]) == (0.0, 17.05)
    assert library.metadata["context"] == CONTEXT
    assert library.metadata["hop"] == pytest.approx(hop)


def test_killed_between_two_parts_it_ends_with_the_same_bytes(
    model: Model, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "PART_SECONDS_WITH_FRAMES", 2.0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole, cut = tmp_path / "a/x.npz", tmp_path / "b/x.npz"
    auricle.embed_library(model, sounds, whole, frames=True, context=CONTEXT)
    add = libraries.Parts.add

    def stop_after(number: int) -> None:
        def limited(parts: libraries.Parts, part: Any) -> None:
            if parts.count == number:
                raise KeyboardInterrupt
            add(parts, part)

        monkeypatch.setattr(libraries.Parts, "add", limited)

    for number in (1, 4, 7):
        stop_after(number)
        with pytest.raises(KeyboardInterrupt):
            auricle.embed_library(model, sounds, cut, frames=True, context=CONTEXT)
    monkeypatch.setattr(libraries.Parts, "add", add)
    with pytest.raises(ConfigError, match=r"begun with other settings \(context: was 0\.2, now 0\.1\)"):
        auricle.embed_library(model, sounds, cut, frames=True, context=0.1)
    auricle.embed_library(model, sounds, cut, frames=True, context=CONTEXT)
    assert cut.read_bytes() == whole.read_bytes()


def test_the_command_says_what_the_seams_cost(
    cli: Callable[..., Any], pretrained: Path, sounds: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.npz"
    done = cli("embed", pretrained, *good(sounds), "--context", CONTEXT, "--out", out)
    assert done.code == 0, done.err
    seams = open_library(out).metadata["seams"]
    assert (
        f"seams: {seams['count']}, at which two windows differ by {100 * seams['mean']:.1f} % on average, "
        f"{100 * seams['largest']:.1f} % at most"
    ) in done.out
    # The query is heard as the library was.
    done = cli("search", out, good(sounds)[2], "-k", 1)
    assert done.out.startswith("1.0000")
    done = cli("embed", pretrained, good(sounds)[1], "--context", CONTEXT, "--out", tmp_path / "short.npz")
    assert "seams: none, no sound is longer than a window" in done.out
    done = cli("embed", pretrained, *good(sounds), "--out", tmp_path / "plain.npz")
    assert "seams" not in done.out
    assert open_library(tmp_path / "plain.npz").metadata["seams"] is None


def test_a_context_that_does_not_fit_is_refused_before_anything_is_embedded(
    cli: Callable[..., Any], pretrained: Path, sounds: Path, tmp_path: Path
) -> None:
    done = cli("embed", pretrained, sounds, "--context", 100, "--out", tmp_path / "x.npz")
    assert done.code == 2
    assert "context 100 s: a window of this network has" in done.err
    assert list(tmp_path.iterdir()) == []
    done = cli("embed", pretrained, sounds, "--context", "-1", "--out", tmp_path / "x.npz")
    assert "expected a number above 0, got '-1'" in done.err
