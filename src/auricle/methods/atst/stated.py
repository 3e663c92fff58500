"""What ATST's files say about their network in plain values beside the tensors, in our settings."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from auricle.errors import CheckpointError

# Names of Lightning's hyper_parameters, and of the arguments in DINO's layout.
_NUMBERS = {
    "win_length": "fft_window",
    "n_mels": "mel_bins",
    "patch_h": "patch_freq",
    "patch_w": "patch_time",
    "patch_height": "patch_freq",
    "patch_width": "patch_time",
}
# ATST-Clip's files call the length of a view train_len, all others anchor_len.
_LENGTHS = ("train_len", "anchor_len")


@dataclass(frozen=True)
class Stated:
    """`settings` of ours, the length of a view in `seconds` (None: not said), and the words they were read from."""

    settings: Mapping[str, int]
    seconds: float | None
    words: str


def read_stated(values: Mapping[str, Any], given: Container[str]) -> Stated:
    """The settings among a file's plain values, but for those of ours that are `given`.

    Raises:
        CheckpointError: one of them is not a positive number.
    """
    settings: dict[str, int] = {}
    words = []
    for theirs, ours in _NUMBERS.items():
        if values.get(theirs) is not None and ours not in given:
            number = _positive(theirs, values[theirs])
            if number != int(number):
                raise CheckpointError(f"the file says {theirs}={values[theirs]!r}, but it must be a whole number.")
            settings[ours] = int(number)
            words.append(f"{theirs}={settings[ours]} ({ours})")
    name = next((n for n in _LENGTHS if values.get(n) is not None), None)
    if name is None or ("chunk_frames" in given and "view_seconds" in given):
        return Stated(settings, None, ", ".join(words))
    length = values[name]
    # DINO's layout has one length per view.
    seconds = _positive(name, length[0] if isinstance(length, list | tuple) and length else length)
    return Stated(settings, seconds, ", ".join([*words, f"{name}={seconds:g} s"]))


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise CheckpointError(
            f"the file says {name}={value!r}, expected a positive number; give the setting with --set to import it all "
            "the same."
        )
    return float(value)
