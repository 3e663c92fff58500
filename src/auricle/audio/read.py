"""From a sound file, or an array, to one channel of float32 samples at a known rate.

A reader never invents samples: what is missing, changed, non-finite or beyond the end of a file is an `AudioError`.
"""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

from auricle.audio.source import (
    MAX_RATE,
    MIN_RATE,
    REASONS,
    AudioInfo,
    AudioPath,
    AudioWarning,
    Policy,
    Samples,
    Source,
    open_source,
)
from auricle.errors import AudioError, ConfigError

__all__ = [
    "MAX_SAMPLES",
    "REASONS",
    "AudioInfo",
    "AudioWarning",
    "Channel",
    "as_wave",
    "blocks",
    "decoded",
    "one_channel",
    "probe",
    "read",
]

Channel: TypeAlias = "Literal['mean'] | int"
NonFinite: TypeAlias = Literal["reject", "zero"]

# Two hours of one channel at 48 kHz.
MAX_SAMPLES = 2 * 3600 * 48_000
MAX_LEVEL = 8.0

_QUALITY = "VHQ"
# Energy of the mean of the channels over the mean of their energies: -60 dB.
_SILENT_RATIO = 1e-6
_RESAMPLED_BLOCK = 1 << 20


def probe(path: AudioPath) -> AudioInfo:
    """Read the header of a sound file: rate, channels, length and format.

    Cheap, and not proof that the file decodes: `read` it, or run through its `blocks`, to know.

    Raises:
        AudioError: not a regular file, not a sound file, no samples, or a rate outside 1,000 to 768,000 Hz.
    """
    with open_source(path, check=False) as source:
        return source.info


def read(
    path: AudioPath,
    *,
    rate: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    channel: Channel = "mean",
    max_samples: int = MAX_SAMPLES,
    nonfinite: NonFinite = "reject",
    truncated: Policy = "reject",
) -> tuple[Samples, int]:
    """Read a sound file, or the seconds [start, end) of it, as one channel.

    `rate` resamples to that many Hz (None keeps the rate of the file). A range is cut at the rate of the file and then
    resampled. `channel` is "mean" or the number of a channel, from 0. `max_samples` limits channels x frames, decoded
    and resampled. `nonfinite="zero"` turns NaN and infinity into 0. `truncated="warn"` uses what is left of a cut or
    damaged file. ADPCM and GSM files are a little longer than what was recorded: they hold whole blocks.

    Returns:
        float32 samples of shape (n,), and their rate in Hz.

    Raises:
        AudioError: the file, the range or the samples cannot be used; `reason` is one of `REASONS`.
        ConfigError: an argument has no meaning.

    Warns:
        AudioWarning: the channels cancel in the mean, or `truncated="warn"` met a cut or damaged file.
    """
    _check_arguments(rate, channel, max_samples, nonfinite, truncated)
    with open_source(path, truncated) as source:
        target = source.info.rate if rate is None else rate
        first, last = _span(source, start, end, target)
        _check_size(source, last - first, target, max_samples)
        parts = list(_mono(source, first, last, channel, nonfinite))
        wave = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return _resample(wave, source.info.rate, target, source.name), target


def blocks(
    path: AudioPath,
    *,
    rate: int | None = None,
    seconds: float = 30.0,
    start: float = 0.0,
    end: float | None = None,
    channel: Channel = "mean",
    max_samples: int | None = None,
    nonfinite: NonFinite = "reject",
    truncated: Policy = "reject",
) -> Iterator[Samples]:
    """Read a sound file of any length in constant memory.

    The arguments are those of `read`; `max_samples` is unlimited by default, because memory does not depend on it.

    Returns:
        Consecutive float32 arrays of shape (n,) with n = round(seconds x rate), the last one shorter. Joined, they
        equal a whole `read`.

    Raises:
        AudioError: as `read` does, while iterating: at the end at the latest.
        ConfigError: at once, if an argument has no meaning.
    """
    _check_arguments(rate, channel, max_samples, nonfinite, truncated)
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds is the length of a block and must be above 0, got {seconds}.")

    def iterate() -> Iterator[Samples]:
        with open_source(path, truncated) as source:
            target = source.info.rate if rate is None else rate
            first, last = _span(source, start, end, target)
            _check_size(source, last - first, target, max_samples)
            mono = _mono(source, first, last, channel, nonfinite)
            yield from _regroup(
                _resample_stream(mono, source.info.rate, target, source.name), max(1, round(seconds * target))
            )

    return iterate()


@contextmanager
def decoded(
    path: AudioPath, *, start: float = 0.0, end: float | None = None
) -> Iterator[tuple[AudioInfo, Iterator[Samples]]]:
    """A sound file of any length as it is, while it is open: all channels, at its own rate, checked as `read` does.

    Yields:
        What its header says, and consecutive float32 arrays of shape (frames, channels).

    Raises:
        AudioError: as `read` does, while iterating.
    """

    def iterate() -> Iterator[Samples]:
        first, last = _span(source, start, end, source.info.rate)
        position = first
        for block in source.decode(first, last):
            _check_level(block, position, source.name)
            position += len(block)
            yield block
        if position == first:
            raise AudioError(source.name, "0 samples", "nothing could be decoded")

    with open_source(path) as source:
        yield source.info, iterate()


def as_wave(array: Any, rate: int, target_rate: int | None = None) -> tuple[Samples, int]:
    """Check an array of samples as `read` checks a file, and resample it to `target_rate`.

    `array` is a numpy array or torch tensor of shape (n,) or (1, n) at `rate` Hz. Floats are meant to lie in [-1, 1];
    int16 and int32 are divided by 2^15 and 2^31. The result may share memory with a float32 array.

    Returns:
        float32 samples of shape (n,), and their rate in Hz.

    Raises:
        AudioError: with path "<array>": another shape or type, no samples, NaN, infinity, or samples outside [-8, 8].
        ConfigError: `target_rate` is no sample rate.
    """
    rate = _as_rate(rate)
    if target_rate is not None:
        _check_target(target_rate)
    samples = _as_numpy(array)
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        expected = "expected one channel of shape (n,) or (1, n)"
        raise AudioError("<array>", "array", f"{expected}, got {samples.shape}; pass one channel or the mean of them")
    if not len(samples):
        raise AudioError("<array>", "0 samples", "the array is empty")
    scale = {"int16": 2.0**-15, "int32": 2.0**-31}.get(samples.dtype.name)
    if scale is not None:
        wave = (samples * np.float64(scale)).astype(np.float32)
    elif samples.dtype.kind == "f":
        _check_level(samples, 0, "<array>")
        wave = np.ascontiguousarray(samples, dtype=np.float32)
    else:
        expected = "expected float, int16 or int32 samples"
        raise AudioError("<array>", "array", f"{expected}, got {samples.dtype}; convert them to float in [-1, 1]")
    return _resample(wave, rate, rate if target_rate is None else target_rate, "<array>"), target_rate or rate


def _check_arguments(
    rate: int | None, channel: Channel, max_samples: int | None, nonfinite: NonFinite, truncated: Policy
) -> None:
    if rate is not None:
        _check_target(rate)
    if channel != "mean" and (not _is_whole(channel) or operator.index(channel) < 0):
        raise ConfigError(f"channel must be 'mean' or the number of a channel, from 0, got {channel!r}.")
    if max_samples is not None and (not _is_whole(max_samples) or max_samples < 1):
        raise ConfigError(f"max_samples must be a whole number above 0, got {max_samples!r}.")
    if nonfinite not in ("reject", "zero"):
        raise ConfigError(f"nonfinite must be 'reject' or 'zero', got {nonfinite!r}.")
    if truncated not in ("reject", "warn"):
        raise ConfigError(f"truncated must be 'reject' or 'warn', got {truncated!r}.")


def _check_target(rate: int) -> None:
    if not _is_whole(rate) or not MIN_RATE <= rate <= MAX_RATE:
        raise ConfigError(f"the rate must be a whole number from {MIN_RATE:,} to {MAX_RATE:,} Hz, got {rate!r}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _as_rate(rate: int) -> int:
    if not _is_whole(rate) or not MIN_RATE <= rate <= MAX_RATE:
        expected = f"expected a whole number from {MIN_RATE:,} to {MAX_RATE:,} Hz"
        raise AudioError("<array>", "rate", f"{expected}, got {rate!r}; pass the rate of the samples")
    return int(rate)


def _span(source: Source, start: float, end: float | None, target: int) -> tuple[int, int]:
    """The frames [first, last) of the seconds [start, end)."""
    info = source.info
    has = f"the file has {info.duration:.6g} s"
    if not (math.isfinite(start) and start >= 0) or (end is not None and not start < end < math.inf):
        raise AudioError(source.name, "range", f"expected 0 <= start < end in seconds, got start {start}, end {end}")
    first = round(start * info.rate)
    if first >= info.frames:
        raise AudioError(source.name, "range", f"it starts at {start:.6g} s but {has}")
    if end is None:
        return first, info.frames
    excess = end - info.frames / info.rate
    if excess * target >= 1:
        raise AudioError(source.name, "range", f"it ends at {end:.6g} s but {has}")
    last = min(round(end * info.rate), info.frames)
    if last <= first:
        raise AudioError(source.name, "range", f"from {start} to {end} s there is no sample at {info.rate} Hz")
    return first, last


def _check_size(source: Source, frames: int, target: int, max_samples: int | None) -> None:
    info = source.info
    samples = max(frames * info.channels, frames * target // info.rate)
    if max_samples is not None and samples > max_samples:
        got = f"{samples:,} decoded samples ({frames / info.rate:.6g} s, {info.channels} channels) are declared"
        advice = "cut it into shorter files (auricle.audio.read takes a range, or a higher max_samples)"
        raise AudioError(source.name, "too long", f"{got}, the limit is {max_samples:,}; {advice}")


def _mono(source: Source, first: int, last: int, channel: Channel, nonfinite: NonFinite) -> Iterator[Samples]:
    """Checked blocks of one channel, each of shape (frames,)."""
    channels = source.info.channels
    if channel != "mean" and channel >= channels:
        raise AudioError(source.name, "channel", f"expected 0 to {channels - 1}, got {channel}")
    position, energy, mean_energy = first, 0.0, 0.0
    for block in source.decode(first, last):
        if nonfinite == "zero":
            block = _zero_nonfinite(block)
        try:
            _check_level(block, position, source.name)
        except AudioError:
            # Who reads block by block hears what comes before.
            if usable := _usable(block):
                yield one_channel(block[:usable], channel)
            raise
        position += len(block)
        mono = one_channel(block, channel)
        if channels > 1 and channel == "mean":
            energy += float(np.vdot(block, block)) / channels
            mean_energy += float(np.vdot(mono, mono))
        yield mono
    if position == first:
        raise AudioError(source.name, "0 samples", "nothing could be decoded")
    if energy > 0 and mean_energy <= _SILENT_RATIO * energy:
        # Every command reads files here, and not every one can be told which channel to hear.
        advice = (
            "its channels cancel each other; write one of them to a file of its own (pretrain and finetune hear one "
            "with --set channel=0, auricle.audio.read with channel=0)"
        )
        warnings.warn(f"{source.name}: silent after downmix: {advice}", AudioWarning, stacklevel=2)


def one_channel(block: Samples, channel: Channel = "mean") -> Samples:
    """Samples (frames, channels) to (frames,): one of the channels, or their mean."""
    if channel != "mean":
        return np.ascontiguousarray(block[:, channel])
    if block.shape[1] == 1:
        return block[:, 0]
    # A sum over columns is several times faster than numpy's mean over a short last axis.
    total = block[:, 0].copy()
    for index in range(1, block.shape[1]):
        total += block[:, index]
    total /= np.float32(block.shape[1])
    return total


def _zero_nonfinite(block: Samples) -> Samples:
    finite = np.isfinite(block)
    return block if finite.all() else np.where(finite, block, np.float32(0))


def _usable(block: Samples) -> int:
    """How many frames come before the first that `_check_level` refuses."""
    with np.errstate(invalid="ignore"):
        return int((~(np.abs(block) <= MAX_LEVEL).all(1)).argmax())


def _check_level(samples: npt.NDArray[np.floating], position: int, name: str) -> None:
    """Refuse NaN, infinity and levels that only a scaling mistake makes; `position` is the index of `samples[0]`."""
    with np.errstate(invalid="ignore"):
        if samples.min() >= -MAX_LEVEL and samples.max() <= MAX_LEVEL:
            return
    rows = samples.reshape(len(samples), -1)
    bad = ~np.isfinite(rows)
    if bad.any():
        index, channel = (int(i) for i in np.argwhere(bad)[0])
        where = f"sample {position + index:,} of channel {channel} is {rows[index, channel]}"
        raise AudioError(
            name,
            "non-finite",
            f"{where}; write the sound anew without it (in Python, auricle.audio.read with nonfinite='zero' reads "
            "silence there)",
        )
    index, channel = (int(i) for i in np.argwhere(np.abs(rows) > MAX_LEVEL)[0])
    where = f"sample {position + index:,} of channel {channel} is {rows[index, channel]:.6g}"
    raise AudioError(name, "level", f"{where}, expected -1 to 1 (at most {MAX_LEVEL:g}); scale the samples")


def _resample(wave: Samples, rate: int, target: int, name: str) -> Samples:
    if rate == target:
        return wave
    resampled: Samples = soxr.resample(wave, rate, target, quality=_QUALITY)
    if not len(resampled):
        raise AudioError(name, "0 samples", f"{len(wave)} samples at {rate} Hz are less than one at {target} Hz")
    return resampled


def _resample_stream(pieces: Iterator[Samples], rate: int, target: int, name: str) -> Iterator[Samples]:
    if rate == target:
        yield from pieces
        return
    stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality=_QUALITY)
    step = max(1, _RESAMPLED_BLOCK * rate // target)
    total = 0
    for piece in pieces:
        for at in range(0, len(piece), step):
            resampled = stream.resample_chunk(piece[at : at + step])
            total += len(resampled)
            yield resampled
    resampled = stream.resample_chunk(np.empty(0, np.float32), last=True)
    if not total + len(resampled):
        raise AudioError(name, "0 samples", f"the sound is shorter than one sample at {target} Hz")
    yield resampled


def _regroup(pieces: Iterator[Samples], size: int) -> Iterator[Samples]:
    """The same samples in arrays of `size`, the last one shorter."""
    pending: list[Samples] = []
    missing = size
    for piece in pieces:
        while len(piece) >= missing:
            yield np.concatenate([*pending, piece[:missing]])
            piece = piece[missing:]
            pending, missing = [], size
        if len(piece):
            pending.append(piece)
            missing -= len(piece)
    if pending:
        yield np.concatenate(pending)


def _as_numpy(array: Any) -> npt.NDArray[Any]:
    if isinstance(array, np.ndarray):
        return np.asarray(array)
    # Whoever holds a tensor has imported torch; nobody else has to wait for it.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        try:
            tensor = array.detach().cpu()
            return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
        except (TypeError, RuntimeError) as error:
            what = f"a {array.dtype} tensor on {array.device} has no numpy form ({error})"
            raise AudioError("<array>", "array", what) from None
    raise AudioError("<array>", "array", f"expected a numpy array or torch tensor, got {type(array).__name__}")
