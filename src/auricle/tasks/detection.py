"""Sound event detection: an encoder, a head on its time steps, and a loss over frames.

B batch, S samples, T frames of the front end, t time steps, C classes, D width of a time step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from auricle.audio.augment import spec_augment
from auricle.data.batch import Batch
from auricle.data.targets import frame_targets
from auricle.errors import ConfigError
from auricle.methods.base import AudioEncoder, Encoded, SpectrogramEncoder, Trainable
from auricle.metrics import Collars, Detection, FrameScores, detect_events
from auricle.nn.heads import FrameHead, FramePooling, pool_frames
from auricle.nn.schedules import sigmoid_ramp
from auricle.nn.steps import Steps, over_stretches
from auricle.nn.teacher import follow, teacher_of
from auricle.tasks.decoding import EventDecoder
from auricle.tasks.freezing import freeze as freeze_encoder
from auricle.tasks.pooling import columns_of, time_steps
from auricle.tasks.windows import encode

if TYPE_CHECKING:
    from typing_extensions import Self

Floats = NDArray[np.float64]
THRESHOLD = 0.5
FILTER_SECONDS = 0.1
OFFSET_SHARE = 0.2


class Detector(Trainable):
    """Probabilities of C classes at each time step of an encoder; any number of classes may sound at once.

    Strongly labelled clips teach the frames (binary cross-entropy over a clip's own frames), weakly labelled ones the
    clip's pooled probability. With `consistency`, a mean teacher learns beside: its weights follow the network's, it
    hears each clip without SpecAugment, and the network is to agree with it on all clips, unlabelled ones too
    (Tarvainen and Valpola 2017; the DCASE task 4 baseline). The teacher is then what predicts.

    `thresholds` [C] and `filters` [C] (frames of the median filter) turn probabilities into events. They are buffers,
    so that they are saved with the weights that they were chosen for.

    Args:
        frame_width: D, see `frame_width`.
        frame_seconds: what the head reads is the mean over so many seconds; 0: the encoder's own time steps.
        normalise: whether the head normalises each time step first.
        freeze: whether the encoder stays as it is, but for its last `tuned_layers` layers.
        consistency: weight of agreeing with the teacher, from `ramp` (a share of the training) on; 0: no teacher.
        mask_freq, mask_time: widths of SpecAugment's masks, in a network that hears a spectrogram.
        momentum: of the teacher's weights per step; in the first steps less, so that it forgets where it began.
        collar: seconds by which an event may be off, where thresholds are chosen and where events are scored.

    Raises:
        ConfigError: `mask_freq` or `mask_time` for an encoder without a spectrogram, `frame_seconds` shorter than its
            time steps.
    """

    thresholds: Tensor
    filters: Tensor
    followed: Tensor

    def __init__(
        self,
        encoder: AudioEncoder,
        classes: Sequence[str],
        frame_width: int,
        *,
        frame_seconds: float = 0.0,
        pooling: FramePooling = "linear_softmax",
        normalise: bool = True,
        freeze: bool = False,
        tuned_layers: int = 0,
        consistency: float = 0.0,
        ramp: float = 0.25,
        momentum: float = 0.999,
        mask_freq: int = 0,
        mask_time: int = 0,
        collar: float = 0.2,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = tuple(classes)
        self.task = "detection"
        self.head = FrameHead(frame_width, len(self.classes), pooling, normalise)
        self.frozen = freeze_encoder(encoder, tuned_layers) if freeze else ()
        self.consistency, self.ramp, self.momentum = consistency, ramp, momentum
        self.mask_freq, self.mask_time = mask_freq, mask_time
        if self.augments and not isinstance(encoder, SpectrogramEncoder):
            raise ConfigError(
                "mask_freq and mask_time work on a spectrogram, and this network has none; set both to 0."
            )
        if 0 < frame_seconds * encoder.frame_rate < 1:
            raise ConfigError(
                f"frame_seconds={frame_seconds:g} is less than a time step of this network, {1 / encoder.frame_rate:g} "
                "s; make it longer, or leave it out."
            )
        self.frame_seconds = frame_seconds
        self.collar = collar
        for name, value in first_decisions(len(self.classes), self.frame_rate).items():
            self.register_buffer(name, value)
        self.teacher: nn.ModuleDict | None = None
        if consistency:
            self.teacher = teacher_of(nn.ModuleDict({"encoder": encoder, "head": self.head}))
            names = [name for name, part in encoder.named_modules() if part in self.frozen]
            self.frozen += tuple(self.teacher["encoder"].get_submodule(name) for name in names)  # type: ignore[union-attr]
            self.register_buffer("followed", torch.zeros((), dtype=torch.int64))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint records to build the network again."""
        pooling = "linear_softmax" if self.head.attention is None else "attention"
        facts = {"frame_width": self.head.linear.in_features, "pooling": pooling, "consistency": self.consistency}
        facts |= {"normalise": isinstance(self.head.norm, nn.LayerNorm), "frame_seconds": self.frame_seconds}
        return {"kind": "detector", "task": self.task, "collar": self.collar, **facts}

    @property
    def frame_rate(self) -> float:
        """Time steps per second."""
        return 1 / self.frame_seconds if self.frame_seconds else self.encoder.frame_rate

    def steps(self, encoded: Encoded) -> Steps:
        """What the head reads."""
        return time_steps(encoded, self.frame_seconds)

    @property
    def collars(self) -> Collars:
        """What counts as the right time: the offset of a long event may be off by a share of its length."""
        return Collars(self.collar, self.collar, OFFSET_SHARE)

    @property
    def predictor(self) -> tuple[AudioEncoder, FrameHead]:
        """The encoder and the head that predict: the teacher's, where there is one."""
        if self.teacher is None:
            return self.encoder, self.head
        return self.teacher["encoder"], self.teacher["head"]  # type: ignore[return-value]

    # Learning --------------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, a mean over the clips of the batch, its `weight` (how many), and its parts."""
        assert batch.targets is not None
        assert batch.events is not None
        steps = self.steps(self._encode_augmented(batch))
        logits, attention = self.head(steps.values)
        logits = logits.float()
        strong = torch.tensor([events is not None for events in batch.events], device=logits.device)
        weak = ~strong & ~batch.targets.isnan().any(1)
        cost = F.binary_cross_entropy_with_logits(logits, self.frame_targets(batch, steps), reduction="none")
        clip = pool_frames(logits.sigmoid(), attention, steps.valid)
        parts = {
            "frame_loss": _over_frames(cost, steps.valid) * strong,
            "clip_loss": _cross_entropy(clip, batch.targets.nan_to_num()).mean(1) * weak,
        }
        if self.teacher is not None:
            encoder, head = self.predictor
            taught = self.steps(encoder(batch.audio.data, batch.audio.lengths, (-1,)))
            says, attends = head(taught.values)
            probability = says.float().sigmoid()
            whole = pool_frames(probability, attends, taught.valid)
            apart = _over_frames((logits.sigmoid() - probability) ** 2, steps.valid) + ((clip - whole) ** 2).mean(1)
            parts["consistency"] = self.consistency * sigmoid_ramp(progress, self.ramp) * apart
        # Means over all clips, not over those that a part is about: clips then add up alike in every micro-batch.
        means = {name: part.mean() for name, part in parts.items()}
        loss = torch.stack(list(means.values())).sum()
        weight = torch.tensor(float(len(batch)), device=logits.device)
        return {"loss": loss, "weight": weight, **{name: part.detach() for name, part in means.items()}}

    def train(self, mode: bool = True) -> Self:
        """What is frozen stays in evaluation mode, of the teacher too."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    @property
    def augments(self) -> bool:
        """Whether features are changed while training."""
        return bool(self.mask_freq or self.mask_time)

    def _encode_augmented(self, batch: Batch) -> Encoded:
        """What the network hears of a batch: with SpecAugment, each row by its own draw."""
        waves, lengths, encoder = batch.audio.data, batch.audio.lengths, self.encoder
        if not self.augments:
            return encoder(waves, lengths, (-1,))
        assert isinstance(encoder, SpectrogramEncoder)
        features, frames = encoder.features(waves, lengths)
        masked = [
            spec_augment(x, n, self.mask_freq, self.mask_time, batch.draw.rng("augment", row), encoder.pad_value)
            for row, (x, n) in enumerate(zip(features, frames.tolist(), strict=True))
        ]
        return encoder.forward_features(torch.stack(masked), frames, (-1,))

    def frame_targets(self, batch: Batch, steps: Steps) -> Tensor:
        """[B, t, C] on the head's time steps; 0 for clips whose events are not known."""
        assert batch.events is not None
        edges = step_edges(np.round(steps.times.double().cpu().numpy(), 6))
        rows = [frame_targets(events or (), self.classes, edges) for events in batch.events]
        return torch.from_numpy(np.stack(rows)).to(steps.valid.device)

    def after_step(self, progress: float) -> None:
        """Let the teacher follow."""
        if self.teacher is not None:
            self.followed += 1
            momentum = min(1.0 - 1.0 / (1.0 + float(self.followed)), self.momentum)
            follow(self.teacher["encoder"], self.encoder, momentum)  # type: ignore[arg-type]
            follow(self.teacher["head"], self.head, momentum)  # type: ignore[arg-type]

    # Detecting -------------------------------------------------------------------------------------------------------

    def score_blocks(
        self, blocks: Iterable[NDArray[np.float32]], device: torch.device
    ) -> Iterator[tuple[Floats, Floats]]:
        """Probabilities [n, C] and edges [n + 1] in seconds of one stretch of a sound after the other.

        A stretch begins where the one before ends, and the last ends with the sound; memory does not grow with it.
        Autocast is the caller's.

        Args:
            blocks: samples at the encoder's rate.
        """
        encoder, head = self.predictor
        return step_values(encoder, blocks, device, lambda steps: head(steps)[0].double().sigmoid(), self.frame_seconds)

    def scores(self, sound: NDArray[np.float32], device: torch.device) -> FrameScores:
        """Probabilities of a whole sound."""
        return FrameScores(*joined(self.score_blocks([sound], device)))

    def decide(self, scores: FrameScores) -> tuple[FrameScores, list[Detection]]:
        """The filtered probabilities of a whole sound, and its events, class after class."""
        filtered = scores.filtered(self.filters.tolist())
        return filtered, detect_events(filtered, self.classes, self.thresholds.tolist())

    def detect(
        self, blocks: Iterable[NDArray[np.float32]], device: torch.device, threshold: float | None = None
    ) -> Iterator[Detection]:
        """Events of a sound, each as soon as it is over, in memory that does not grow with the sound.

        `threshold` stands for those of all classes, if given.
        """
        thresholds = self.thresholds.tolist() if threshold is None else [threshold] * len(self.classes)
        decoder = EventDecoder(self.classes, thresholds, self.filters.tolist())
        for values, edges in self.score_blocks(blocks, device):
            yield from decoder.add(values, edges)
        yield from decoder.finish()


def step_values(
    encoder: AudioEncoder,
    blocks: Iterable[NDArray[np.float32]],
    device: torch.device,
    value: Callable[[Tensor], Tensor],
    seconds: float = 0.0,
) -> Iterator[tuple[Floats, Floats]]:
    """Values [n, K] of the time steps of a sound, and edges [n + 1] in seconds, one stretch after the other.

    A stretch begins where the one before ends, and the last ends with the sound; memory does not grow with it.
    Autocast is the caller's.

    Args:
        blocks: samples at the encoder's rate.
        value: from the time steps [t, D] of a window to [t, K].
        seconds: of a time step, see `time_steps`.
    """
    stretches = _Stretches()
    heard = _heard(encoder, blocks, device, columns_of if seconds else time_steps)
    for steps, times, end in _pooled(heard, seconds) if seconds else heard:
        with torch.no_grad():
            values = value(steps)
        yield from stretches.add(values.double().cpu().numpy(), times, end)
    yield from stretches.finish()


def _heard(
    encoder: AudioEncoder, blocks: Iterable[NDArray[np.float32]], device: torch.device, read: Callable[[Encoded], Steps]
) -> Iterator[tuple[Tensor, Floats, float]]:
    """The time steps [t, D] of each window, their centres [t] in the sound, and where the window ends, in seconds."""
    for window in encode(encoder, blocks, device, layers=(-1,)):
        steps, start = read(window.encoded), window.start / encoder.sample_rate
        # To the microsecond: encoders keep their times in single precision.
        times = np.round(start + steps.times[: window.steps].double().cpu().numpy(), 6)
        yield steps.values[window.row, : window.steps], times, start + window.samples / encoder.sample_rate


def _pooled(heard: Iterable[tuple[Tensor, Floats, float]], seconds: float) -> Iterator[tuple[Tensor, Floats, float]]:
    """What `_heard` gives as means over `seconds` of the sound each, whichever windows they lie in."""
    values, times, end = torch.zeros(0), np.zeros(0), 0.0
    for more, at, end in heard:
        fresh = at > times[-1] if len(times) else np.ones(len(at), dtype=bool)
        values = torch.cat([values.to(more).reshape(-1, more.shape[1]), more[torch.from_numpy(fresh).to(more.device)]])
        times = np.concatenate([times, at[fresh]])
        # The last stretch may go on in the next window.
        over = int((np.floor(times / seconds) < np.floor(times[-1] / seconds)).sum())
        if over:
            yield *_means(values[:over], times[:over], seconds), end
        values, times = values[over:], times[over:]
    if len(times):
        yield *_means(values, times, seconds), end


def _means(values: Tensor, times: Floats, seconds: float) -> tuple[Tensor, Floats]:
    """Means [n, D] of steps [t, D] over stretches, and the middles [n] of these."""
    valid = torch.ones(1, len(times), dtype=torch.bool, device=values.device)
    pooled = over_stretches(Steps(values[None], torch.from_numpy(times).to(values.device), valid), seconds)
    return pooled.values[0], pooled.times.cpu().numpy()


def joined(stretches: Iterable[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """The values and edges of a whole sound, from those of its stretches."""
    values, edges = zip(*stretches, strict=True)
    return np.concatenate(values), np.concatenate([edges[0], *(part[1:] for part in edges[1:])])


class _Stretches:
    """Turns the time steps of windows into stretches whose edges lie half way between neighbouring steps."""

    def __init__(self) -> None:
        self.values, self.times = np.zeros((0, 0)), np.zeros(0)
        self.begin, self.end = 0.0, 0.0

    def add(self, values: Floats, times: Floats, end: float) -> Iterator[tuple[Floats, Floats]]:
        # A last window that reaches back to hold enough samples repeats steps.
        fresh = times > self.times[-1] if len(self.times) else np.ones(len(times), dtype=bool)
        values, times, self.end = values[fresh], times[fresh], end
        if len(self.times) and len(times):
            yield self._stretch((self.times[-1] + times[0]) / 2)
        if len(times):
            self.values, self.times = values, times

    def finish(self) -> Iterator[tuple[Floats, Floats]]:
        if len(self.times):
            inner = (self.times[1:] + self.times[:-1]) / 2
            # The last steps of a sound may lie in padding.
            kept = 1 + int((inner < self.end).sum())
            self.values, self.times = self.values[:kept], self.times[:kept]
            yield self._stretch(self.end)

    def _stretch(self, end: float) -> tuple[Floats, Floats]:
        edges = np.concatenate([[self.begin], (self.times[1:] + self.times[:-1]) / 2, [end]])
        self.begin = end
        return self.values, edges


def step_edges(times: Floats) -> Floats:
    """Edges [t + 1] of time steps with centres [t]: 0, half way between neighbours, and half a step past the last."""
    inner = (times[1:] + times[:-1]) / 2
    last = times[-1] + (times[-1] - inner[-1] if len(inner) else times[-1])
    return np.concatenate([[0.0], inner, [last]])


def odd_frames(seconds: float, rate: float) -> int:
    """The odd number of frames of a filter of about so many seconds, at least 1."""
    return 2 * round(max(0.0, seconds * rate - 1) / 2) + 1


def first_decisions(classes: int, rate: float) -> dict[str, Tensor]:
    """The `thresholds` and `filters` [C] of a detector with `rate` time steps per second, before any are chosen."""
    frames = odd_frames(FILTER_SECONDS, rate)
    return {
        "thresholds": torch.full((classes,), THRESHOLD),
        "filters": torch.full((classes,), frames, dtype=torch.int64),
    }


@torch.no_grad()
def frame_width(encoder: AudioEncoder, seconds: float = 0.0) -> int:
    """D, how many numbers an encoder gives for each time step, see `time_steps`."""
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    encoded = encoder(torch.zeros(1, encoder.min_samples, device=device), layers=(-1,))
    width = time_steps(encoded, seconds).values.shape[-1]
    encoder.train(training)
    return int(width)


def _over_frames(values: Tensor, valid: Tensor) -> Tensor:
    """The mean [B] of values [B, t, C] over the valid [B, t] frames of each clip, and over classes."""
    return (values.mean(-1) * valid).sum(1) / valid.sum(1)


def _cross_entropy(probability: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of probabilities, which autocast must not touch; same shape."""
    p = probability.float().clamp(1e-7, 1 - 1e-7)
    return -(targets * p.log() + (1 - targets) * (1 - p).log())
