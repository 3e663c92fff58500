"""Sounds of any length through an encoder, window by window, in constant memory.

D width, C classes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from auricle.data.windows import cut_windows
from auricle.errors import ConfigError
from auricle.methods.base import AudioEncoder, Encoded
from auricle.nn.streaming import Piece, join_windows
from auricle.tasks.pooling import frames_of, layers_read, vector_width, vectors_of

Array = NDArray[np.float32]
# Whole windows that go through the network together, or as much sound in shorter ones. On a CPU, more than some seconds
# are no faster and take more memory.
BATCH = 16
CPU_SECONDS = 48.0
# Batches of windows that are sorted by length together, and how much longer than its shortest a window may be.
POOL = 16
STRETCH = 1.25


@dataclass(frozen=True)
class Window:
    """One window of a sound: where it lies in samples, and its row of an encoded batch."""

    start: int
    samples: int
    encoded: Encoded
    row: int

    @property
    def steps(self) -> int:
        """Time steps that hold sound: the weight of the window in means over a clip."""
        return int(self.encoded.valid[self.row].sum())

    def vector(self, layers: tuple[int, ...] | None = None) -> NDArray[np.float64]:
        """[K], see `vectors_of`."""
        result: NDArray[np.float64] = vectors_of(self.encoded, layers)[self.row].double().cpu().numpy()
        return result


@dataclass(frozen=True)
class Stretch:
    """What is used of a window: its vector [K], frames [t, D'] and their centres [t] in seconds, and where it ends.

    `seam` is what the cut before it costs, see `nn.streaming.Piece`; None without context, and at the beginning.
    """

    vector: NDArray[np.float64]
    frames: Array
    times: NDArray[np.float64]
    end: float
    seam: float | None


@dataclass(frozen=True)
class Overlap:
    """How the windows of a long sound overlap.

    Attributes:
        steps: time steps at the beginning of a window that are not used, but of a sound's first; 0: no overlap.
        hop: samples from one window to the next.
    """

    steps: int
    hop: int


def overlap_for(encoder: AudioEncoder, context: float) -> Overlap:
    """Windows in which each time step that is used has `context` seconds on either side, or all that there is.

    Raises:
        ConfigError: a context of half a window or more, or below 0.
    """
    step, whole = encoder.sample_rate / encoder.frame_rate, whole_steps(encoder)
    steps = math.ceil(context * encoder.frame_rate - 1e-9) if math.isfinite(context) else whole
    if not 0 <= 2 * steps < whole:
        raise ConfigError(
            f"context {context:g} s: a window of this network has {whole / encoder.frame_rate:g} s, and must be longer "
            "than twice its context; give less, but not less than 0."
        )
    return Overlap(steps, encoder.window_hop - round(2 * steps * step))


def whole_steps(encoder: AudioEncoder) -> int:
    """Time steps from a window to the next where they do not overlap."""
    return round(encoder.window_hop * encoder.frame_rate / encoder.sample_rate)


def join_overlapping(
    encoder: AudioEncoder, overlap: Overlap, windows: Iterable[tuple[int, int, Tensor]]
) -> Iterator[Piece]:
    """What is used of consecutive windows of a sound, as `nn.streaming.join_windows` gives it.

    Args:
        windows: first sample, number of samples, and frames [1, t, D] of the time steps that hold sound.

    Raises:
        ConfigError: windows whose time steps do not continue evenly.
    """
    rate, whole = encoder.frame_rate / encoder.sample_rate, whole_steps(encoder)

    def placed() -> Iterator[tuple[int, Tensor]]:
        for start, samples, frames in windows:
            if samples == encoder.window_samples and frames.shape[1] != whole:
                raise ConfigError(
                    f"a window has {frames.shape[1]} time steps instead of {whole}, as the official code cuts it, and "
                    "such windows cannot overlap; import the model with --set chunking=whole, or leave out context."
                )
            yield round(start * rate), frames

    return join_windows(placed(), overlap.steps)


def stretches(
    encoder: AudioEncoder,
    blocks: Iterable[Array],
    device: torch.device,
    layers: tuple[int, ...] | None = None,
    context: float = 0.0,
) -> Iterator[Stretch]:
    """A sound window by window, each time step once.

    With `context`, windows overlap: each time step has so many seconds of sound on either side in the window that it
    comes from, or all that there is.

    Raises:
        ConfigError: a context of half a window or more, or windows whose time steps do not continue evenly.
    """
    rate, overlap = encoder.sample_rate, overlap_for(encoder, context)
    waiting: deque[Window] = deque()

    def encoded() -> Iterator[tuple[int, int, Tensor]]:
        for window in encode(encoder, blocks, device, overlap.hop, layers_read(layers, frames=True)):
            waiting.append(window)
            frames = frames_of(window.encoded, layers)[window.row, : window.steps].float()
            # A copy: a view would keep the whole batch of windows alive.
            yield window.start, window.samples, frames[None].cpu().clone()

    apart = (Piece(frames, 0, None) for _, _, frames in encoded())
    pieces = join_overlapping(encoder, overlap, encoded()) if overlap.steps else apart
    for piece in pieces:
        window = waiting.popleft()
        used = slice(piece.first, piece.first + piece.out.shape[1])
        start, times = window.start / rate, window.encoded.times[used].double().cpu().numpy()
        end = start + window.samples / rate
        yield Stretch(window.vector(layers), piece.out[0].numpy(), start + times, end, piece.seam)


def encode(
    encoder: AudioEncoder,
    blocks: Iterable[Array],
    device: torch.device,
    hop: int | None = None,
    layers: Collection[int] | None = None,
) -> Iterator[Window]:
    """Encode a sound given in blocks of samples at the encoder's rate; windows of equal length share a batch.

    Windows begin every `hop` samples, by default the encoder's own. A window's result does not depend on the others.
    It holds the outputs of `layers`, by default of all.
    Autocast is the caller's.
    """
    held: list[tuple[int, Array]] = []
    limit = batch_samples(encoder, device)
    for window in cut_windows(blocks, encoder.window_samples, hop or encoder.window_hop, encoder.min_samples):
        full = (len(held) + 1) * len(window[1]) > limit
        if held and (full or len(window[1]) != len(held[0][1])):
            yield from _encode_batch(encoder, held, device, layers)
            held = []
        held.append(window)
    if held:
        yield from _encode_batch(encoder, held, device, layers)


def _encode_batch(
    encoder: AudioEncoder, windows: list[tuple[int, Array]], device: torch.device, layers: Collection[int] | None
) -> Iterator[Window]:
    waves = torch.from_numpy(np.stack([samples for _, samples in windows])).to(device)
    with torch.no_grad():
        encoded = encoder(waves, layers=layers)
    for row, (start, samples) in enumerate(windows):
        yield Window(start, len(samples), encoded, row)


def encode_pool(
    encoder: AudioEncoder, windows: Sequence[Array], device: torch.device, layers: Collection[int] | None = None
) -> Iterator[tuple[list[int], Encoded]]:
    """Encode windows of any lengths: the indices of a batch of them, and what they became.

    Windows of like length, of whatever sounds, share a batch, so that little is padded; as encoders ignore padding,
    that changes no result beyond rounding. They hold the outputs of `layers`, by default of all. Autocast is the
    caller's.
    """
    limit = batch_samples(encoder, device)
    in_order = sorted(enumerate(windows), key=lambda window: len(window[1]))
    for chosen in _batches(in_order, limit):
        waves = pad_sequence([torch.from_numpy(samples) for _, samples in chosen], batch_first=True).to(device)
        lengths = torch.tensor([len(samples) for _, samples in chosen], device=device)
        with torch.no_grad():
            yield [index for index, _ in chosen], encoder(waves, lengths, layers)


def clip_means(
    encoder: AudioEncoder,
    sounds: Iterable[Array],
    device: torch.device,
    value: Callable[[Encoded], Tensor],
    layers: Collection[int] | None = None,
) -> NDArray[np.float64]:
    """For each of many whole sounds the mean of `value(encoded)` [B, K] over its windows, weighted by their steps.

    Returns [sounds, K]. `layers` are those that `value` reads, by default all. See `encode_pool` for how windows share
    batches.
    """
    totals: list[NDArray[np.float64]] = []
    weights: list[int] = []
    owners: list[int] = []
    held: list[Array] = []
    limit, waiting = batch_samples(encoder, device), 0

    def flush() -> None:
        for indices, encoded in encode_pool(encoder, held, device, layers):
            values = value(encoded).double().cpu().numpy()
            for index, row, steps in zip(indices, values, encoded.valid.sum(1).tolist(), strict=True):
                totals[owners[index]] = totals[owners[index]] + row * steps
                weights[owners[index]] += steps
        held.clear()
        owners.clear()

    for number, sound in enumerate(sounds):
        totals.append(np.zeros(1))
        weights.append(0)
        for _, samples in cut_windows([sound], encoder.window_samples, encoder.window_hop, encoder.min_samples):
            owners.append(number)
            held.append(samples)
            waiting += len(samples)
        if waiting >= POOL * limit:
            flush()
            waiting = 0
    flush()
    return np.stack(totals) / np.array(weights)[:, None]


def batch_samples(encoder: AudioEncoder, device: torch.device) -> int:
    """Samples of a batch of windows, padding included; a single window may be longer."""
    whole = BATCH * encoder.window_samples
    return min(whole, round(CPU_SECONDS * encoder.sample_rate)) if device.type == "cpu" else whole


def _batches(windows: list[tuple[int, Array]], limit: int) -> Iterator[list[tuple[int, Array]]]:
    """Windows sorted by length, cut into batches of like length that hold `limit` samples with their padding."""
    chosen: list[tuple[int, Array]] = []
    for window in windows:
        length = len(window[1])
        if chosen and ((len(chosen) + 1) * length > limit or length > STRETCH * len(chosen[0][1])):
            yield chosen
            chosen = []
        chosen.append(window)
    if chosen:
        yield chosen


def embed_clip(
    encoder: AudioEncoder,
    blocks: Iterable[Array],
    device: torch.device,
    layers: tuple[int, ...] | None = None,
    context: float = 0.0,
) -> Array:
    """The clip embedding [K] of one sound of any length: the windows' vectors, averaged as in `clip_means`.

    With `context` windows overlap, and each counts by the time steps that `stretches` uses of it.
    """
    total, weight, read = np.zeros(vector_width(encoder, layers)), 0, layers_read(layers, frames=False)
    whole = ((window.vector(layers), window.steps) for window in encode(encoder, blocks, device, layers=read))
    parts = ((s.vector, len(s.times)) for s in stretches(encoder, blocks, device, layers, context))
    for vector, steps in parts if context else whole:
        total += vector * steps
        weight += steps
    return (total / weight).astype(np.float32)
