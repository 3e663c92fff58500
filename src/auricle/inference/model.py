"""A loaded model: embeddings and predictions from files and arrays of any length.

t time steps, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auricle import audio
from auricle.config import from_dict
from auricle.data.items import Item
from auricle.data.labels import Task
from auricle.data.loader import read_item
from auricle.data.randomness import torch_seed
from auricle.errors import AudioError, CheckpointError, ConfigError, with_article
from auricle.methods import find_preset, get_method, get_preset
from auricle.methods.base import AudioEncoder, Encoded, EncoderOnly, Objective, Trainable
from auricle.metrics import Detection, FrameScores
from auricle.tasks.classification import Classifier
from auricle.tasks.detection import Detector
from auricle.tasks.pooling import Layers, Pooling, layer_indices, pool, vector_width
from auricle.tasks.windows import clip_means, embed_clip, stretches
from auricle.training.checkpoint import Checkpoint, no_such_model, require, resolve, restore
from auricle.training.finetuned import build_classifier, build_detector
from auricle.training.precision import autocast, resolve_precision

Array = NDArray[np.float32]
Sound = str | Path | Array | Tensor
# Short blocks for a detector: the one in which a file turns out to be damaged is lost.
DETECTED_SECONDS = 1.0
# Onset and offset in seconds, class probabilities [C].
Row = tuple[float, float, NDArray[np.float64]]


@dataclass(frozen=True)
class Embedding:
    """What a sound is to a model: `clip` [D], `frames` [t, D'] and their centres `times` [t] in seconds.

    Of n layers, `clip` has n parts side by side and `frames` too. `seams` are of overlapping windows (`context`): where
    one joins the next, how much they differ about the time steps beside the seam, relatively (L2).
    """

    clip: Array
    frames: Array
    times: NDArray[np.float64]
    seams: tuple[float, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A stretch of a long sound with a label; `score` is its probability, averaged over windows."""

    onset: float
    offset: float
    label: str
    score: float

    def covers(self, duration: float) -> bool:
        """Whether it is all of a sound of `duration` seconds."""
        return self.onset == 0 and self.offset >= duration


@dataclass(frozen=True)
class Prediction:
    """What a whole sound was taken for, and the segments of a sound longer than one window.

    Attributes:
        label: the likeliest, with its probability `score`.
        labels: all labels of the sound: of a tagging those that reach the threshold, the likeliest first; else `label`.
        scores: probabilities by label.
    """

    label: str
    score: float
    labels: tuple[str, ...]
    scores: dict[str, float]
    segments: tuple[Segment, ...]
    duration: float


@dataclass(frozen=True)
class Detections:
    """The events of a sound in order of their onsets, and its length in seconds."""

    events: tuple[Detection, ...]
    duration: float


class Model:
    """An encoder, with a classifier or a detector where the checkpoint has one.

    Attributes:
        encoder: waves [B, S], lengths [B] to `Encoded`; a plain `nn.Module`.
        classifier, detector: the whole network of a fine-tuned checkpoint, or None.
        config: what the checkpoint's config.json holds.
        hash: identity of the weights.
    """

    def __init__(
        self,
        module: Trainable | EncoderOnly | AudioEncoder,
        config: dict[str, Any],
        hash: str,
        source: str,
        precision: str = "auto",
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module = module.to(self.device).eval()
        self.classifier = module if isinstance(module, Classifier) else None
        self.detector = module if isinstance(module, Detector) else None
        self.objective = module if isinstance(module, Objective) else None
        self.encoder = module if isinstance(module, AudioEncoder) else module.encoder
        self.config, self.hash, self.source = config, hash, source
        self.precision = resolve_precision(precision, self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        head = self.classifier or self.detector
        return head.classes if head else ()

    @property
    def task(self) -> Task:
        if self.detector:
            return "detection"
        return self.classifier.task if self.classifier else "classification"

    def embed(self, sound: Sound, rate: int | None = None, *, layers: Layers = None, context: float = 0.0) -> Embedding:
        """Embed a file, or an array (n,) or (1, n) sampled at `rate`.

        Long sounds are processed in windows of the encoder's length; all of a sound is embedded. The clip embedding is
        the mean of the windows' pooled outputs, weighted by the time steps that are used of them. A time beyond the end
        of a short sound (its last patch reaches into padding) is moved to the end.

        Args:
            layers: blocks that stand side by side, such as "all", "1,6,9-12" or [-2, -1], instead of the last one as
                the paper pools it; of each the clip embedding has what the method's authors read (`Encoded.summaries`),
                or the mean over its tokens.
            context: seconds of sound that each time step of a long sound has on either side at least (or all that there
                is): windows overlap by twice as much, and `Embedding.seams` says what the cuts between them cost.

        Raises:
            AudioError: the file or array cannot be used.
            ConfigError: an array without `rate`, no such layer, or a context that does not fit into a window.
        """
        chosen = layer_indices(layers, self.encoder.num_layers)
        clip, weight = np.zeros(vector_width(self.encoder, chosen)), 0
        with self.autocast():
            found = list(stretches(self.encoder, self.blocks(sound, rate), self.device, chosen, context))
        for stretch in found:
            clip += stretch.vector * len(stretch.times)
            weight += len(stretch.times)
        return Embedding(
            (clip / weight).astype(np.float32),
            np.concatenate([stretch.frames for stretch in found]),
            np.minimum(np.concatenate([stretch.times for stretch in found]), found[-1].end),
            tuple(stretch.seam for stretch in found if stretch.seam is not None),
        )

    def embed_clip(
        self, sound: Sound, rate: int | None = None, *, layers: Layers = None, context: float = 0.0
    ) -> Array:
        """The clip embedding [D] of `embed` alone, in memory that does not grow with the sound."""
        chosen = layer_indices(layers, self.encoder.num_layers)
        with self.autocast():
            return embed_clip(self.encoder, self.blocks(sound, rate), self.device, chosen, context)

    def embed_items(self, items: Sequence[Item]) -> Array:
        """Clip embeddings [items, D] of a data set's items.

        Raises:
            AudioError: an item cannot be read.
        """
        rate = self.encoder.sample_rate
        with self.autocast():
            sounds = (read_item(item.hearing(self.encoder.channel), rate) for item in items)
            return clip_means(self.encoder, sounds, self.device, lambda e: e.pooled, ()).astype(np.float32)

    def embed_layers(self, items: Sequence[Item], layers: Sequence[int], pooling: Pooling) -> Array:
        """Clip embeddings [items, layers, K] of some layers (0 is the first block), pooled as `tasks.pooling` says.

        As in `embed_items`, a long sound is the mean of its windows, weighted by their time steps.

        Raises:
            AudioError: an item cannot be read.
            ConfigError: a pooling that the layer or the network does not have.
        """
        rate = self.encoder.sample_rate

        def value(encoded: Encoded) -> Tensor:
            return torch.cat([pool(encoded, layer, pooling) for layer in layers], dim=1)

        with self.autocast():
            sounds = (read_item(item.hearing(self.encoder.channel), rate) for item in items)
            means = clip_means(self.encoder, sounds, self.device, value, layers)
        return means.reshape(len(items), len(layers), -1).astype(np.float32)

    def classify(self, sound: Sound, rate: int | None = None, threshold: float = 0.5) -> Prediction:
        """Classify or tag a file or array; a long one is averaged over its windows and told apart in `segments`.

        Args:
            threshold: probability from which a tag counts as present; of no effect where labels exclude each other.

        Raises:
            CheckpointError: the model has no classifier.
            AudioError: the file or array cannot be used.
        """
        classifier = self._need_classifier()
        per_second = self.encoder.sample_rate
        rows: list[Row] = []
        total, weight = np.zeros(len(classifier.classes)), 0
        with self.autocast():
            for w, probability in classifier.window_probabilities(self.blocks(sound, rate), self.device):
                total += probability * w.steps
                weight += w.steps
                rows.append((w.start / per_second, (w.start + w.samples) / per_second, probability))
        mean = total / weight
        best = int(mean.argmax())
        labels, segments = (self.classes[best],), tuple(_merge(rows, self.classes))
        if self.task == "tagging":
            present = [i for i in np.argsort(-mean, kind="stable") if mean[i] >= threshold]
            labels, segments = tuple(self.classes[i] for i in present), tuple(_stretches(rows, self.classes, threshold))
        scores = {name: float(p) for name, p in zip(self.classes, mean, strict=True)}
        return Prediction(
            self.classes[best], float(mean[best]), labels, scores, segments if len(rows) > 1 else (), rows[-1][1]
        )

    def classify_items(self, items: Sequence[Item]) -> NDArray[np.float64]:
        """Probabilities [items, C] of a data set's items; see `classify_and_embed_items`."""
        return self.classify_and_embed_items(items)[0]

    def classify_and_embed_items(self, items: Sequence[Item]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities [items, C] of a data set's items, and their clip embeddings [items, D].

        Raises:
            CheckpointError: the model has no classifier.
            AudioError: an item cannot be read.
        """
        classifier, rate = self._need_classifier(), self.encoder.sample_rate
        with self.autocast():
            sounds = (read_item(item.hearing(self.encoder.channel), rate) for item in items)
            return classifier.clip_outputs(sounds, self.device)

    def detect(
        self,
        sound: Sound,
        rate: int | None = None,
        threshold: float | None = None,
        *,
        tell: Callable[[Detection], None] | None = None,
    ) -> Detections:
        """The events of a file or array of any length, in memory that grows with their number only.

        Args:
            threshold: probability above which a class sounds; None: each class by its own, as chosen in training.
            tell: called with each event as soon as it is over (and its windows are through the network), in order of
                their ends. Of a sound that can be read only in part, it gets the events of that part.

        Raises:
            CheckpointError: the model has no detector.
            AudioError: the file or array cannot be used.
        """
        detector, samples = self._need_detector(), 0
        damage: AudioError | None = None

        def heard() -> Iterator[Array]:
            nonlocal samples, damage
            try:
                for block in self.blocks(sound, rate, DETECTED_SECONDS):
                    samples += len(block)
                    yield block
            except AudioError as error:
                # What came before is detected as if the sound ended here.
                damage = error

        events: list[Detection] = []
        with self.autocast():
            for onset, offset, label, score in detector.detect(heard(), self.device, threshold):
                # To the microsecond: half way between two time steps is no round number.
                events.append(Detection(round(onset, 6), round(offset, 6), label, score))
                if tell:
                    tell(events[-1])
        if damage:
            raise damage
        return Detections(tuple(sorted(events)), samples / self.encoder.sample_rate)

    def score_items(self, items: Sequence[Item]) -> list[FrameScores]:
        """Probabilities of each time step of a data set's items, not yet filtered.

        Raises:
            CheckpointError: the model has no detector.
            AudioError: an item cannot be read.
        """
        detector, rate = self._need_detector(), self.encoder.sample_rate
        with self.autocast():
            sounds = (read_item(item.hearing(self.encoder.channel), rate) for item in items)
            return [detector.scores(sound, self.device) for sound in sounds]

    def _need_detector(self) -> Detector:
        if self.detector is None:
            raise CheckpointError(
                f"{self.source} is {with_article(self.config['kind'])} checkpoint, which times no events; train a "
                f"detector first: auricle finetune {self.source} DATA --task detection --out RUN"
            )
        return self.detector

    def _need_classifier(self) -> Classifier:
        if self.detector is not None:
            raise CheckpointError(f"{self.source} is a detector: it finds events in time and does not classify clips.")
        if self.classifier is None:
            raise CheckpointError(
                f"{self.source} is {with_article(self.config['kind'])} checkpoint without classes; train a "
                f"classifier first: auricle finetune {self.source} DATA --out RUN"
            )
        return self.classifier

    def blocks(self, sound: Sound, rate: int | None = None, seconds: float = 30.0) -> Iterable[Array]:
        """Samples at the encoder's rate, some at a time; what `embed` raises of a file is raised while iterating."""
        target = self.encoder.sample_rate
        if isinstance(sound, str | Path):
            return audio.blocks(sound, rate=target, seconds=seconds, channel=self.encoder.channel)
        if rate is None:
            raise ConfigError("an array of samples needs its sample rate: embed(array, rate).")
        return [audio.as_wave(sound, rate, target)[0]]

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the network's arithmetic, as a context."""
        return autocast(self.precision, self.device)


def _merge(rows: Sequence[Row], classes: tuple[str, ...]) -> Iterator[Segment]:
    """Neighbouring windows with the same best class become one segment; each begins where the one before ends."""
    group: list[Row] = []
    for row in [*rows, None]:
        if group and (row is None or row[2].argmax() != group[-1][2].argmax()):
            best = int(group[-1][2].argmax())
            offset = row[0] if row is not None else group[-1][1]
            yield Segment(group[0][0], offset, classes[best], float(np.mean([p[best] for _, _, p in group])))
            group = []
        if row is not None:
            group.append(row)


def _stretches(rows: Sequence[Row], classes: tuple[str, ...], threshold: float) -> list[Segment]:
    """Of each class the stretches of neighbouring windows that reach the threshold, in order of their onsets."""
    found = []
    for number, name in enumerate(classes):
        group: list[Row] = []
        for row in [*rows, None]:
            if row is not None and row[2][number] >= threshold:
                group.append(row)
            elif group:
                score = float(np.mean([p[number] for _, _, p in group]))
                found.append(Segment(group[0][0], group[-1][1], name, score))
                group = []
    return sorted(found, key=lambda segment: (segment.onset, segment.label))


def load(path: str | Path, *, weights: str = "", seed: int = 0, precision: str = "auto") -> Model:
    """Load a checkpoint or run directory (its best checkpoint, else its latest), verified against its checksums.

    A preset's name, like "ssast-tiny-patch", has no weights and is refused unless `weights="random"` asks for a network
    initialised from `seed`.

    Raises:
        CheckpointError: no such thing, damaged, or a preset without `weights`.
    """
    if weights not in ("", "random"):
        raise ConfigError(f"weights must be 'random' or left out, got '{weights}'.")
    if weights == "random":
        return random_model(path, seed, precision)
    require(path, 'from Python, auricle.load(..., weights="random")')
    checkpoint = resolve(Path(path))
    # What is drawn here is overwritten by the checkpoint; the caller's generators stay as they are.
    with torch.random.fork_rng(devices=[]):
        module = restore(lambda: build_module(checkpoint), checkpoint.weights(), str(checkpoint.path))
    return Model(module, checkpoint.config, checkpoint.hash, str(path), precision)


def random_model(source: str | Path, seed: int, precision: str = "auto") -> Model:
    """The network of a preset or of a checkpoint, with its input statistics but fresh weights."""
    if Path(source).exists():
        checkpoint = resolve(Path(source))
        method = get_method(checkpoint.config["method"])
        settings = from_dict(method.CONFIG, checkpoint.config["model"], str(checkpoint.path))
        name = checkpoint.config["method"]
    else:
        name, _ = find_preset(str(source))
        if not name:
            raise CheckpointError(no_such_model(str(source)))
        method, settings = get_method(name), get_preset(name, str(source)).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "init"))
        encoder = method.build_encoder(settings)
    config = {"kind": "encoder", "method": name, "model": settings.__dict__, "preset": str(source)}
    return Model(encoder, config, f"random-{seed}", f"{source} (random weights, seed {seed})", precision)


def build_module(checkpoint: Checkpoint) -> Trainable | EncoderOnly:
    """The network of a checkpoint, without its weights.

    Raises:
        CheckpointError: a kind of checkpoint that this version does not know.
    """
    config = checkpoint.config
    method = get_method(config["method"])
    settings = from_dict(method.CONFIG, config["model"], str(checkpoint.path / "config.json"))
    if config["kind"] == "pretraining":
        return method.build_objective(settings)
    if config["kind"] == "encoder":
        return EncoderOnly(method.build_encoder(settings))
    if config["kind"] == "classifier":
        return build_classifier(checkpoint)
    if config["kind"] == "detector":
        return build_detector(checkpoint)
    raise CheckpointError(f"{checkpoint.path} is of the unknown kind '{config['kind']}'.")
