"""Who is compared, on which events, and what the figures depend on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

REFERENCE = "ssast"
METHODS = (REFERENCE, "asit", "atst-clip", "atst-frame")
NAMES = {"ssast": "SSAST", "asit": "ASiT", "atst-clip": "ATST-Clip", "atst-frame": "ATST-Frame", "c2f": "C2F"}
# ATST-Frame that learns the labels from an ATST-Clip, too.
COMBINED, STUDENT, TEACHER = "c2f", "atst-frame", "atst-clip"
CORPUS = "both"
# What of a network is read on clips: "mean" over all tokens, and "own", the class token that ASiT and ATST-Clip pool.
POOLINGS = {"ssast": ("mean",), "asit": ("mean", "own"), "atst-clip": ("mean", "own"), "atst-frame": ("mean",)}


@dataclass(frozen=True)
class Events:
    """A set with timed events: what it is, and by how many seconds the ends of an event may be off.

    `val_fraction` of the training clips choose thresholds, where the set has no validation part.
    """

    folder: str
    what: str
    collar: float
    val_fraction: float = 0.0


SETS = (
    Events("office_sed", "11 sounds of an office, mixed scenes of 10 s, collar 200 ms", 0.2, 0.2),
    Events("finch_song", "9 syllables of a finch, collar 20 ms", 0.02),
)


@dataclass(frozen=True)
class Settings:
    """What the figures depend on.

    `minutes` are budgets of one core, each continuing the one before; the last is what is compared. One budget alone is
    one schedule from the first step to the last: several restart the learning rate, and teachers with it. A minute is
    `reference_steps` steps of the reference method, and of another as many as take it as long.
    `tune_steps` is the length of the training of a detector.
    """

    minutes: tuple[float, ...] = (10,)
    reference_steps: int = 200
    generated_hours: float = 2.2
    tune_steps: int = 300
    tune: dict[str, Any] = field(
        # What presets differ in is set alike.
        default_factory=lambda: {"batch_size": 8, "lr": 5e-4, "layer_decay": 1.0, "crop_seconds": 4.0, "mixup": 0.5}
    )
    seed: int = 0

    @property
    def budget(self) -> str:
        """The name of the longest run."""
        return f"{CORPUS}-{self.minutes[-1]:g}"
