"""What a loader hands to a model: named streams with valid lengths.

B batch, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from auricle.data.items import Event
from auricle.data.randomness import Draw


@dataclass(frozen=True)
class Stream:
    """One modality of a batch: `data` [B, S, ...] zero-padded, `lengths` [B] valid steps, `rate` steps per second."""

    data: Tensor
    lengths: Tensor
    rate: float

    def to(self, device: torch.device) -> Stream:
        return replace(self, data=self.data.to(device), lengths=self.lengths.to(device))


@dataclass(frozen=True)
class Batch:
    """Streams of B items, their targets [B, C] where there are labels, and who they are.

    For detection, `events` holds those of each row, in seconds from its start, or None where they are not known; a row
    of targets is NaN where nothing is known. Frames are a model's own, so a batch holds none.
    `replaced` lists (path, reason) of unreadable files for which another sample stands in. `partners` are batches of as
    many other clips, drawn for each row to be mixed into it.
    """

    streams: Mapping[str, Stream]
    draw: Draw
    ids: tuple[str, ...]
    targets: Tensor | None = None
    events: tuple[tuple[Event, ...] | None, ...] | None = None
    replaced: tuple[tuple[str, str], ...] = field(default=())
    partners: tuple[Batch, ...] = ()

    @property
    def audio(self) -> Stream:
        return self.streams["audio"]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, start: int, stop: int) -> Batch:
        """A micro-batch; a row keeps its own randomness."""
        part = slice(start, stop)
        return replace(
            self,
            streams={n: replace(s, data=s.data[part], lengths=s.lengths[part]) for n, s in self.streams.items()},
            draw=replace(self.draw, epochs=self.draw.epochs[part], indices=self.draw.indices[part]),
            ids=self.ids[part],
            targets=None if self.targets is None else self.targets[part],
            partners=tuple(partner.rows(start, stop) for partner in self.partners),
            events=None if self.events is None else self.events[part],
        )

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            streams={name: stream.to(device) for name, stream in self.streams.items()},
            targets=None if self.targets is None else self.targets.to(device),
            partners=tuple(partner.to(device) for partner in self.partners),
        )
