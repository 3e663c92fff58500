"""Views of a clip: crops, mixed with other clips and resized, each a function of the row's own draws.

B clips, S samples, T frames, F mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from auricle.audio.augment import ResizeCrop, mix_aligned
from auricle.data.batch import Batch, Stream
from auricle.methods.atst.model import ATSTEncoder


@dataclass(frozen=True)
class View:
    """Normalised features [B, T, F], of which `frames` [B] are a clip's own."""

    features: Tensor
    frames: Tensor

    def __add__(self, other: View) -> View:
        """The clips of both, in one batch of 2 B."""
        longest = max(self.features.shape[1], other.features.shape[1])
        padded = [
            torch.nn.functional.pad(view.features, (0, 0, 0, longest - view.features.shape[1]))
            for view in (self, other)
        ]
        return View(torch.cat(padded), torch.cat([self.frames, other.frames]))


@torch.no_grad()
def view_of(encoder: ATSTEncoder, audio: Stream) -> View:
    """The features of what is heard as it is; their floor is that of each crop."""
    return View(*encoder.features(audio.data, audio.lengths))


@torch.no_grad()
def changed(view: View, others: View | None, most: float, resize: ResizeCrop, batch: Batch, purpose: str) -> View:
    """Each clip with a share of up to `most` of another one mixed in, if there are others, and a crop of it resized."""
    result = torch.zeros_like(view.features)
    for row, frames in enumerate(view.frames.tolist()):
        rng = batch.draw.rng(purpose, row)
        own, share = view.features[row, :frames], most * float(rng.random())
        if others is not None:
            own = mix_aligned(own, others.features[row, : int(others.frames[row])], share, rng)
        result[row, :frames] = resize.apply(own, resize.draw(frames, own.shape[1], rng))
    return View(result, view.frames)
