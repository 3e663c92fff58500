"""A clip of any length in chunks that fit the table of positions, and what was made of them as a clip again.

B clips, K chunks of a clip, R chunks that go through the network together, T frames, F mel bins, f rows, t columns, D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from auricle.methods.atst.config import ATSTConfig


@dataclass(frozen=True)
class Group:
    """Chunks of equal width, of all clips: their numbers, which of [B, numbers] there are, their features [R, w, F]."""

    numbers: list[int]
    there: Tensor
    features: Tensor

    def placed(self, part: Tensor) -> Tensor:
        """What the chunks became, [R, ...], as [B, numbers, ...]; 0 where a clip has no such chunk."""
        result = part.new_zeros(*self.there.shape, *part.shape[1:])
        result[self.there] = part
        return result


class Chunks:
    """features [B, T, F] with `frames` [B] valid ones each, cut as `config.chunking` says.

    Whole chunks of all clips go through the network together, and then the rests, so that little is padded. A chunk
    beyond a clip's end is left out.

    Attributes:
        columns: t, of all chunks of the longest clip together.
        valid: [B, t], False beyond a clip's own time steps.
    """

    def __init__(self, config: ATSTConfig, features: Tensor, frames: Tensor) -> None:
        self.config, self.frames = config, frames
        patch, device = config.patch_time, features.device
        whole = config.of_whole_patches
        # Of whole patches: the last may reach into padding. Else what does not fill a patch is dropped.
        total = max(config.columns_of(features.shape[1]) * patch if whole else features.shape[1], patch)
        features = nn.functional.pad(features, (0, 0, 0, max(0, total - features.shape[1])))
        edges = [*range(0, total, config.chunk), total]
        self.starts = torch.tensor(edges[:-1], device=device)
        self.sizes = torch.tensor([end - start for start, end in pairwise(edges)], device=device)
        # Frames [B, K] of each clip from the beginning of a chunk on; below 0 beyond its end.
        self.left = frames[:, None] - self.starts
        if whole:
            steps = torch.tensor([config.columns_of(count) for count in frames.tolist()], device=device)
            own = steps[:, None] - self.starts // patch
        else:
            own = self.left // patch
        # Time steps [B, K] of each clip in each chunk. The shortest clip has one.
        self.own = torch.minimum(own.clamp(min=0), self.sizes // patch)
        self.own[:, 0].clamp_(min=1)
        widths = (self.sizes // patch).tolist()
        self.columns = sum(widths)
        self.valid = torch.cat(
            [torch.arange(width, device=device) < self.own[:, k, None] for k, width in enumerate(widths)], dim=1
        )
        self.groups = []
        for width in dict.fromkeys(widths):
            numbers = [k for k, other in enumerate(widths) if other == width]
            there = self.own[:, numbers] > 0
            if bool(there.any()):
                cut = torch.stack([features[:, edges[k] : edges[k] + width * patch] for k in numbers], dim=1)
                self.groups.append(Group(numbers, there, cut[there]))

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What goes through the network together: features [R, w, F], and which columns [R, t] are valid."""
        for group in self.groups:
            columns = torch.arange(group.features.shape[1] // self.config.patch_time, device=group.there.device)
            yield group.features, columns < self._of(self.own, group)[:, None]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """What the groups became, [R, f, t', D] each, as one tensor [B, f, t, D] of the clips; 0 where nothing was."""
        pieces: dict[int, Tensor] = {}
        for group, part in zip(self.groups, parts, strict=True):
            pieces |= dict(zip(group.numbers, group.placed(part).unbind(1), strict=True))
        present = torch.cat([pieces[number] for number in sorted(pieces)], dim=2)
        # Chunks that no clip has come last.
        return nn.functional.pad(present, (0, 0, 0, self.columns - present.shape[2]))

    def token_means(self, parts: Sequence[Tensor]) -> Tensor:
        """What the groups became, [R, f, t', D] each, averaged over each clip's own tokens: [B, D]."""
        means = []
        for group, part in zip(self.groups, parts, strict=True):
            valid = torch.arange(part.shape[2], device=part.device) < self._of(self.own, group)[:, None]
            summed = (part * valid[:, None, :, None]).sum((1, 2))
            counted = self._of(self._divisors(), group) * part.shape[1]
            means.append(summed / counted[:, None])
        return self.mean(means)

    def mean(self, parts: Sequence[Tensor]) -> Tensor:
        """What the groups became, [R, D] each, averaged over the chunks of each clip: [B, D]."""
        weights = self.weights()
        weighted = [
            (group.placed(part) * weights[:, group.numbers, None].to(part.dtype)).sum(1)
            for group, part in zip(self.groups, parts, strict=True)
        ]
        total = weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum(0)
        return total / weights.sum(1, keepdim=True).to(total.dtype)

    def weights(self) -> Tensor:
        """[B, K]: how much each chunk counts in the mean over a clip."""
        if self.config.of_whole_patches:
            return self.own
        if self.config.chunking == "scene":
            # A rest counts as much as a whole chunk, even one too short for a token, which adds nothing.
            return (self.left > 0).long()
        counts = (self.left > self.config.chunk // 2) & (self.sizes > self.config.OFFICIAL_LEAST)
        counts[:, 0] = True
        return counts.long()

    def _divisors(self) -> Tensor:
        """[B, K]: by how many time steps a chunk's sum of tokens is divided.

        The official code of ATST-Clip counts all of the clip from the chunk on, beyond the chunk's end too, and
        classifiers were trained so.
        """
        if self.config.chunking == "downstream" and self.config.OFFICIAL_REST:
            return (self.left // self.config.patch_time).clamp(min=1)
        return self.own

    def _of(self, values: Tensor, group: Group) -> Tensor:
        """Of values [B, K] those [R] of a group's chunks."""
        return values[:, group.numbers][group.there]
