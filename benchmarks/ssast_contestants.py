"""SSAST and transformers' AST doing the same work on the same audio: what `ssast_speed.py` times.

B batch, S samples, T frames, F mel bins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from auricle.data.batch import Batch, Stream
from auricle.data.randomness import Draw
from auricle.methods import ssast
from auricle.methods.ssast.config import SSASTConfig
from auricle.tasks.classification import Classifier
from auricle.training.optim import build_optimizer
from auricle.training.precision import autocast

RATE = 16000
CLASSES = 50
CPU = torch.device("cpu")
# Frames of the work: pretraining and embedding see a whole window of 16 x 16 patches, fine-tuning ESC-50's overlapping
# ones; 512 and 600 tokens.
FRAMES = {"pretraining step": 1024, "fine-tuning step": 512, "embedding": 1024}
Run = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """A network and the batches it is timed with."""

    name: str
    width: int
    heads: int
    depth: int
    train_batch: int
    embed_batch: int

    def batch(self, work: str) -> int:
        return self.embed_batch if work == "embedding" else self.train_batch


def samples(frames: int) -> int:
    return 400 + 160 * (frames - 1)


def audio(count: int, frames: int) -> NDArray[np.float32]:
    """Noise with a level of its own for each clip: [count, S]."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0.01, 0.2, (count, 1))
    return (level * rng.standard_normal((count, samples(frames)))).astype(np.float32)


def batch_of(waves: Tensor, lengths: Tensor | None = None, classes: int = 0) -> Batch:
    """A batch as the loader makes it."""
    count = len(waves)
    lengths = torch.full((count,), waves.shape[1]) if lengths is None else lengths
    targets = torch.eye(classes)[torch.arange(count) % classes] if classes else None
    draw = Draw(0, (0,) * count, tuple(range(count)))
    return Batch({"audio": Stream(waves, lengths, RATE)}, draw, tuple(map(str, range(count))), targets)


def train_step(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """One step as both are trained: backward, clip to norm 1, fused optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


# auricle -------------------------------------------------------------------------------------------------------------


def ssast_config(size: Size, **changes: Any) -> SSASTConfig:
    """The paper's patch model of this size, with one pass unless asked for two."""
    paper = replace(ssast.PRESETS["tiny-patch"].model, passes=1)
    return replace(paper, width=size.width, heads=size.heads, depth=size.depth, **changes)


def ours(work: str, size: Size, precision: str = "fp32", *, from_features: bool = False, passes: int = 1) -> Run:
    """auricle's contestant; `from_features` leaves the front end out."""
    torch.manual_seed(0)
    waves = torch.from_numpy(audio(size.batch(work), FRAMES[work]))
    config = ssast_config(size, passes=passes)  # type: ignore[arg-type]
    if work == "pretraining step":
        objective = ssast.build_objective(config).train()
        batch = batch_of(waves)
        return _trained(objective, "pretrain", precision, lambda: objective(batch, 0.0)["loss"])
    encoder = ssast.build_encoder(config)
    if work == "fine-tuning step":
        encoder = ssast.for_finetuning(encoder, samples(FRAMES[work]) / RATE)
        classifier = Classifier(encoder, [str(i) for i in range(CLASSES)]).train()
        batch = batch_of(waves, classes=CLASSES)
        features, frames = encoder.features(waves)

        def loss() -> Tensor:
            if not from_features:
                return classifier(batch, 0.0)["loss"]
            logits = classifier.logits(encoder.forward_features(features, frames, classifier.read_layers)).float()
            return nn.functional.cross_entropy(logits, batch.targets)

        return _trained(classifier, "finetune", precision, loss)
    encoder.eval()
    features, frames = encoder.features(waves)

    def embed() -> Tensor:
        with torch.no_grad(), autocast(precision, CPU):
            encoded = encoder.forward_features(features, frames, ()) if from_features else encoder(waves, layers=())
            return encoded.pooled

    return embed


def _trained(module: nn.Module, recipe: str, precision: str, loss: Callable[[], Tensor]) -> Run:
    optimizer = build_optimizer(module, getattr(ssast.PRESETS["tiny-patch"], recipe))

    def forward() -> Tensor:
        with autocast(precision, CPU):
            return loss()

    return lambda: train_step(module, optimizer, forward)


# transformers --------------------------------------------------------------------------------------------------------


def theirs(work: str, size: Size, attention: str, precision: str = "fp32", *, from_features: bool = False) -> Run:
    """transformers' AST of the same size on the same tokens, with its own feature extractor and its own loss.

    It has no masked pretraining: beside our pretraining step stands a classification step on as many tokens.
    """
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel

    torch.manual_seed(0)
    stride = 10 if work == "fine-tuning step" else 16
    config = ASTConfig(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        frequency_stride=stride,
        time_stride=stride,
        max_length=FRAMES[work],
        num_labels=CLASSES,
        attn_implementation=attention,
    )
    extractor = ASTFeatureExtractor(max_length=FRAMES[work])
    waves = list(audio(size.batch(work), FRAMES[work]))

    def extract() -> Tensor:
        return extractor(waves, sampling_rate=RATE, return_tensors="pt")["input_values"]

    given = extract()
    if work == "embedding":
        model = ASTModel(config).eval()

        def embed() -> Tensor:
            with torch.no_grad(), autocast(precision, CPU):
                return model(given if from_features else extract()).pooler_output

        return embed
    classifier = ASTForAudioClassification(config).train()
    # What its Trainer uses by default.
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=5e-5, fused=True)
    labels = torch.arange(len(waves)) % CLASSES

    def loss() -> Tensor:
        with autocast(precision, CPU):
            return classifier(given if from_features else extract(), labels=labels).loss

    return lambda: train_step(classifier, optimizer, loss)


# Front ends ----------------------------------------------------------------------------------------------------------


def torchaudio_arithmetic(waves: Tensor, mel_bins: int = 128) -> Tensor:
    """What `torchaudio.compliance.kaldi.fbank` computes for each clip, call by call: window and filters made anew, a
    padded copy for each operation. It stands in for torchaudio, which has no build for every torch.
    """
    from auricle.audio.frontends import analysis_window, kaldi_mel_filters

    clips = []
    for wave in waves:
        frames = wave.as_strided((1 + (len(wave) - 400) // 160, 400), (160, 1))
        frames = frames - frames.mean(1, keepdim=True)
        before = nn.functional.pad(frames[None], (1, 0), mode="replicate")[0, :, :-1]
        frames = (frames - 0.97 * before) * analysis_window("hanning", 400)
        power = torch.fft.rfft(nn.functional.pad(frames, (0, 112))).abs().pow(2.0)
        energies = power @ kaldi_mel_filters(mel_bins, 512, RATE)
        clips.append(torch.max(energies, torch.tensor(torch.finfo(torch.float32).eps)).log())
    return torch.stack(clips)


def front_ends(clips: int, frames: int) -> Iterator[tuple[str, int, Run]]:
    """(name, mel filters, run) of every front end that is installed, on the same clips."""
    from auricle.audio.frontends import KaldiFbank

    waves = audio(clips, frames)
    tensor = torch.from_numpy(waves)
    for bins in (128, 80):
        frontend = KaldiFbank(RATE, bins)
        yield f"auricle, {bins} filters", bins, lambda frontend=frontend: frontend(tensor)
    yield "torchaudio's arithmetic in torch", 128, lambda: torchaudio_arithmetic(tensor)
    with contextlib.suppress(ImportError):
        from transformers import ASTFeatureExtractor

        extractor = ASTFeatureExtractor(max_length=frames)
        yield "transformers ASTFeatureExtractor (NumPy)", 128, lambda: extractor(list(waves), sampling_rate=RATE)
    with contextlib.suppress(ImportError):
        import librosa

        # Its closest setting: no mean removal, no pre-emphasis, a periodic window.
        settings: dict[str, Any] = {"n_fft": 512, "win_length": 400, "hop_length": 160, "center": False, "n_mels": 128}
        settings |= {"htk": True, "norm": None, "fmin": 20, "fmax": RATE / 2}
        yield (
            "librosa melspectrogram",
            128,
            lambda: [np.log(librosa.feature.melspectrogram(y=w, sr=RATE, **settings) + 1e-7) for w in waves],
        )
    with contextlib.suppress(ImportError):
        import kaldi_native_fbank

        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.dither, options.frame_opts.window_type = 0.0, "hann"
        options.mel_opts.num_bins = 80

        def native() -> list[NDArray[np.float32]]:
            found = []
            for wave in waves:
                fbank = kaldi_native_fbank.OnlineFbank(options)
                fbank.accept_waveform(RATE, wave)
                fbank.input_finished()
                found.append(np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)]))
            return found

        yield "kaldi-native-fbank", 80, native
