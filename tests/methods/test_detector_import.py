"""Published detectors: their heads come in with their networks, and detect at the times that their authors mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from asit_files import HEADS, detector_state, head_state, vit_state
from atst_files import encoder_state
from goldens import GOLDEN
from safetensors.torch import load_file
from torch import Tensor

import auricle
from auricle.errors import CheckpointError, ConfigError
from auricle.interop.official import build, import_checkpoint, recognise
from auricle.methods.asit.sequence import SequenceEncoder
from auricle.methods.atst.config import FrameConfig
from auricle.methods.atst.model import FrameEncoder
from auricle.methods.base import EncoderOnly
from auricle.nn.patches import time_major
from auricle.tasks.detection import Detector
from scenes import write_scenes

if TYPE_CHECKING:
    # The one beside tests/kernels has the same name.
    from conftest import Outcome

OPTIONS = {"heads": HEADS}
CLASSES = 5
SEQUENCE = GOLDEN / "asit" / "pretrainedsed_forward"


def audioset_strong() -> dict[str, Tensor]:
    """ATST-Frame fine-tuned on AudioSet-Strong, as its authors' trainer writes it."""
    return encoder_state("frame", "encoder.encoder.") | head_state("head.linear", CLASSES)


def audioset_strong_clip() -> dict[str, Tensor]:
    """ATST-Clip after the same training, whose head reads the tokens of its last block without the class token's."""
    return encoder_state("clip", "encoder.encoder.") | head_state("head.linear", CLASSES)


def desed() -> dict[str, Tensor]:
    """The same on DESED, whose head also has the attention that pools a clip."""
    return audioset_strong() | head_state("head.linear_softmax", CLASSES)


def pretrained_sed() -> dict[str, Tensor]:
    """PretrainedSED's ATST-F_strong_1.pt."""
    heads = head_state("strong_head", CLASSES) | head_state("weak_head", 7)
    return encoder_state("frame", "model.atst.") | heads | {"model.atst_mel.window": torch.zeros(3)}


FILES = pytest.mark.parametrize("file", [audioset_strong, audioset_strong_clip, desed, pretrained_sed, detector_state])
Files = Callable[[], dict[str, Tensor]]


def imported(state: dict[str, Tensor], **options: Any) -> Detector:
    module = build(recognise(state, OPTIONS | options, "file"), tuple("abcde"))
    assert isinstance(module, Detector)
    return module.eval()


def noise(seconds: float) -> Tensor:
    return 0.1 * torch.randn(1, round(16000 * seconds), generator=torch.Generator().manual_seed(0))


@FILES
def test_every_tensor_of_the_head_changes_what_is_detected(file: Files) -> None:
    state, heard = file(), noise(0.8)

    def said(state: dict[str, Tensor]) -> Tensor:
        detector = imported(state)
        with torch.no_grad():
            encoded = detector.encoder(heard)
            logits, attention = detector.head(encoded.frames())
        return logits if attention is None else torch.cat([logits, attention], dim=-1)

    before = said(state)
    heads = [name for name in state if name.startswith(("head.", "strong_head."))]
    assert len(heads) == (4 if file is desed else 2)
    for name in heads:
        assert not torch.allclose(said(state | {name: state[name] + 1}), before), name


@FILES
def test_a_head_is_linear_on_what_the_network_says_of_a_step(file: Files) -> None:
    state = file()
    detector = imported(state)
    with torch.no_grad():
        frames = detector.encoder(noise(0.8)).frames()
        logits = detector.head(frames)[0]
    head = "strong_head" if "strong_head.weight" in state else "head.linear"
    torch.testing.assert_close(logits, frames @ state[f"{head}.weight"].T + state[f"{head}.bias"])


@FILES
def test_steps_are_forty_milliseconds_from_the_beginning(file: Files) -> None:
    detector = imported(file())
    assert detector.encoder.frame_rate == 25
    sound = noise(1.9)[0].numpy()
    scores = detector.scores(sound, torch.device("cpu"))
    assert scores.values.shape == (48, CLASSES)
    np.testing.assert_allclose(scores.edges, [*(0.04 * np.arange(48)), 1.9], atol=1e-6)


@FILES
def test_a_short_sound_is_what_it_is_in_a_clip_filled_up_with_silence(file: Files) -> None:
    encoder = imported(file()).encoder
    short = noise(0.5)
    whole = torch.nn.functional.pad(short, (0, encoder.window_samples - short.shape[1]))
    with torch.no_grad():
        alone, filled = encoder(short), encoder(whole)
        # Beside a longer one, too, with anything behind its end.
        pair = encoder(
            torch.stack([whole[0] + (whole[0] == 0), noise(encoder.window_samples / 16000)[0]]),
            torch.tensor([short.shape[1], encoder.window_samples]),
        )
    assert int(alone.valid.sum()) == 13
    assert bool(filled.valid.all())
    torch.testing.assert_close(alone.frames()[:, :13], filled.frames()[:, :13])
    torch.testing.assert_close(pair.frames()[:1, :13], filled.frames()[:, :13])
    assert pair.valid.sum(1).tolist() == [13, filled.valid.shape[1]]


def test_atst_hears_as_long_as_it_has_positions_for() -> None:
    for columns, samples in ((20, 12_800), (250, 160_000)):
        state = encoder_state("frame", "encoder.encoder.", columns=columns) | head_state("head.linear", CLASSES)
        encoder = imported(state).encoder
        assert (encoder.window_samples, encoder.window_hop) == (samples, samples)


def test_a_head_of_atst_clip_that_reads_clips_makes_no_detector() -> None:
    probe = encoder_state("clip", "encoder.encoder.") | head_state("head.linear", CLASSES, width=48)
    assert recognise(probe, OPTIONS, "file").kind == "encoder"


def test_the_decibels_of_pretrainedsed_have_a_floor_of_their_own() -> None:
    quiet = 1e-4 * noise(0.8)
    features = {}
    for file in (audioset_strong, pretrained_sed):
        encoder = imported(file()).encoder
        assert isinstance(encoder, FrameEncoder)
        features[file] = encoder.features(quiet)[0]
    floor = (-50.0 + 79.6482) / (50.6842 + 79.6482) * 2 - 1
    assert features[pretrained_sed].min() == pytest.approx(floor, abs=1e-4)
    torch.testing.assert_close(features[pretrained_sed], features[audioset_strong].clamp(min=floor), atol=1e-4, rtol=0)
    assert features[audioset_strong].min() < floor - 0.1


@pytest.mark.parametrize("heads", [{}, head_state("weak_head", 7)], ids=["ssl", "weak"])
def test_networks_of_pretrainedsed_hear_as_its_detectors_do(heads: dict[str, Tensor]) -> None:
    state = encoder_state("frame", "model.atst.") | heads | {"model.atst_mel.window": torch.zeros(3)}
    alone = recognise(state, OPTIONS, "file")
    assert alone.kind == "encoder"
    assert alone.config == imported(pretrained_sed()).encoder.config
    module, heard = build(alone).eval(), noise(0.3)
    assert isinstance(module, EncoderOnly)
    detector = imported(pretrained_sed())
    with torch.no_grad():
        torch.testing.assert_close(module.encoder(heard).pooled, detector.encoder(heard).pooled)
    # The weights before any training of theirs may be heard as their authors do.
    official = recognise(state, OPTIONS | {"compat": "official"}, "file").config
    assert official == recognise(encoder_state("frame"), OPTIONS, "file").config
    with pytest.raises(ConfigError, match="compat must be official or detector or pretrainedsed, got 'sed'"):
        recognise(state, OPTIONS | {"compat": "sed"}, "file")


@pytest.mark.skipif(not SEQUENCE.is_dir(), reason="no golden cases found; set AURICLE_GOLDEN to their folder")
def test_the_sequence_of_asit_is_that_of_the_reference() -> None:
    case, meta = load_file(SEQUENCE / "io.safetensors"), json.loads((SEQUENCE / "meta.json").read_text())
    weights = load_file(SEQUENCE / "weights.safetensors")
    state = {f"model.{name}": value for name, value in weights.items()} | head_state("strong_head", CLASSES)
    heads, frames = meta["arguments"]["num_heads"], case["x"].shape[3]
    encoder = imported(state, heads=heads, heard_frames=frames).encoder
    assert isinstance(encoder, SequenceEncoder)
    features = case["x"][:, 0].transpose(1, 2)
    with torch.no_grad():
        encoded = encoder.forward_features(features, torch.tensor([frames]))
    torch.testing.assert_close(encoded.frames(), case["sequence250"], atol=2e-5, rtol=1e-4)
    assert bool(encoded.valid.all())


def test_a_step_of_asit_is_the_mean_of_its_part_of_all_tokens() -> None:
    encoder = imported(detector_state()).encoder
    plain = build(recognise(vit_state("model."), OPTIONS, "file")).get_submodule("encoder").eval()
    with torch.no_grad():
        sequence, network = encoder(noise(10.0)), plain(noise(10.0))  # type: ignore[operator]
    tokens = torch.cat([network.prefix[-1], time_major(network.layers[-1], network.grid)], dim=1)
    assert (tokens.shape[1], sequence.grid) == (497, (1, 250))
    # Step j has the tokens from floor(497 j / 250) to ceil(497 (j + 1) / 250).
    for step, part in ((0, slice(0, 2)), (124, slice(246, 249)), (249, slice(495, 497))):
        torch.testing.assert_close(sequence.frames()[0, step], tokens[0, part].mean(0))
    with pytest.raises(ConfigError, match="hears 10 s at once, got 11 s; embed and detect"):
        encoder(noise(11.0))


def test_what_is_imported_predicts_is_evaluated_and_learns_further(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    torch.save({"state_dict": audioset_strong()}, tmp_path / "strong.ckpt")
    (tmp_path / "names.txt").write_text("dog\nbell\ntone\nhiss\ncat\n")
    strong = tmp_path / "strong"
    given = ("--set", f"heads={HEADS}", "--out", strong)
    done = cli("import", tmp_path / "strong.ckpt", "--classes", tmp_path / "names.txt", *given)
    assert done.code == 0, done.err
    assert "head.linear.weight [5, 24] -> head.linear.weight (weight)" in done.out
    assert "threshold=0.5 of every class and a median filter of 3 steps (0.12 s)" in done.out
    done = cli("info", strong)
    assert "25 time steps per second" in done.out
    assert "chunking=filled" in done.out

    scenes = write_scenes(tmp_path / "scenes", ("train", "train", "val", "test") * 2)
    done = cli("predict", strong, scenes / "00.wav", "--threshold", 0, "--tsv", tmp_path / "events.tsv")
    assert done.code == 0, done.err
    found = [line.split("\t")[3] for line in (tmp_path / "events.tsv").read_text().splitlines()]
    assert set(found) == {"event_label", "dog", "bell", "tone", "hiss", "cat"}
    done = cli("evaluate", strong, scenes)
    assert done.code == 0, done.err
    assert "psds1" in done.out
    done = cli("finetune", strong, scenes, "--steps", 2, "--set", "batch_size=2", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert auricle.load(tmp_path / "run").encoder.frame_rate == 25


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    torch.save(detector_state(), tmp_path / "strong.pt")
    report = import_checkpoint(tmp_path / "strong.pt", tmp_path / "numbered", options=OPTIONS)
    assert auricle.load(report.path).classes == ("0", "1", "2", "3", "4")


def test_a_head_that_does_not_fit_its_network_is_refused() -> None:
    wide = encoder_state("frame", "encoder.encoder.") | head_state("head.linear", CLASSES, width=25)
    with pytest.raises(CheckpointError, match="reads 25 numbers of each time step, but its network has 24"):
        imported(wide)
    with pytest.raises(CheckpointError, match="reads 24 numbers of each time step, but its network has 192"):
        imported(detector_state(), compat="pretrainedsed")
    lacking = {name: value for name, value in pretrained_sed().items() if name != "strong_head.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing tensor \(head\.linear\.bias\)"):
        imported(lacking)


def test_what_hears_clips_of_one_length_is_not_pretrained() -> None:
    with pytest.raises(ConfigError, match="chunking=filled is for detectors"):
        FrameConfig(chunking="filled").check_pretraining()
