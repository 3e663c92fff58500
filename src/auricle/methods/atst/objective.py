"""ATST's pretext tasks: a student predicts what its teacher, a moving average of it, makes of another view.

B clips, T frames, F mel bins, t time steps, N tokens, M masked tokens of a batch, D width, K values of a projection.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from auricle.audio.augment import FREQUENCY_ONLY, ResizeCrop
from auricle.data.batch import Batch
from auricle.data.views import random_crop
from auricle.methods.atst.config import ATSTConfig, ClipConfig, FrameConfig
from auricle.methods.atst.model import ATSTEncoder, ClipEncoder, FrameEncoder
from auricle.methods.atst.views import View, changed, view_of
from auricle.methods.base import AudioEncoder, Objective
from auricle.nn.collapse import unit_spread
from auricle.nn.heads import ProjectionMLP
from auricle.nn.losses import cosine_regression
from auricle.nn.masking import span_mask
from auricle.nn.schedules import cosine
from auricle.nn.teacher import follow, teacher_of


@dataclass(frozen=True)
class Compared:
    """What both networks make of the same things: encoder outputs [M, D] and what is compared of them [M, K].

    `terms` pairs predictions of the student with targets of the teacher, each a slice of the M.
    """

    teacher_encoded: Tensor
    teacher: Tensor
    student_encoded: Tensor
    student: Tensor
    terms: tuple[tuple[slice, slice], ...]

    def losses(self, together: bool) -> dict[str, Tensor]:
        """`loss`, and how far apart the outputs of each network lie: near 0, it has collapsed.

        `together`: over the outputs of all processes, which all must call it then, and their batches be whole.
        """
        terms = [cosine_regression(self.student[own], self.teacher[its]) for own, its in self.terms]
        return {
            "loss": torch.stack(terms).mean(),
            "spread_student": unit_spread(self.student, together),
            "spread_teacher": unit_spread(self.teacher, together),
        }


class MaskToken(nn.Module):
    """What stands in a masked token's place, before positions are added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """tokens [B, N, D], masked [B, N]."""
        return torch.where(masked.unsqueeze(-1), self.weight.to(tokens.dtype), tokens)


class Student(nn.Module):
    """The network that learns: all that its teacher follows, and a predictor of its own."""

    def __init__(self, encoder: ATSTEncoder, config: ATSTConfig) -> None:
        super().__init__()
        hidden, out = config.projector_hidden, config.projector_out
        self.encoder = encoder
        self.projector = ProjectionMLP(config.width, hidden, out)
        self.predictor = ProjectionMLP(out, hidden, out)


class FrameStudent(Student):
    """ATST-Frame's, with what it sees where a time step is masked."""

    def __init__(self, encoder: ATSTEncoder, config: ATSTConfig) -> None:
        super().__init__(encoder, config)
        self.mask_token = MaskToken(config.width)


class ATSTObjective(Objective):
    """Bootstrapping with a teacher in training mode (BYOL).

    `encoder` is the teacher's: it is what the papers evaluate. It begins as the student's copy and follows it after
    each step, its momentum going from `config.momentum` to 1 on a cosine. Its own batch normalisation uses the
    statistics of its batch, and its drop path is active.

    Batch normalisation runs over all clips of a batch, so the batch is not cut into micro-batches.
    """

    FOLLOWS: tuple[str, ...] = ("encoder", "projector")
    whole_batch = True
    encoder: ATSTEncoder
    student: Student

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.config: ATSTConfig = student.encoder.config
        self.config.check_pretraining()
        self.student = student
        self.encoder = teacher_of(student.encoder)
        self.projector = teacher_of(student.projector)

    @property
    def encoders(self) -> tuple[AudioEncoder, ...]:
        return self.encoder, self.student.encoder

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        self.follow(cosine(self.config.momentum, 1.0, progress))

    def follow(self, momentum: float) -> None:
        """Move the teacher by 1 - momentum of the way to the student."""
        for name in self.FOLLOWS:
            follow(self.get_submodule(name), self.student.get_submodule(name), momentum)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, its `weight`, and the spread of both networks' outputs."""
        compared, weight = self.compare_views(batch)
        # The first process validates alone.
        losses = compared.losses(together=self.training)
        return losses | {"weight": torch.tensor(float(weight), device=compared.student.device)}

    def crop_view(self, batch: Batch, purpose: str) -> View:
        """A random crop of each clip, as it is; its floor is its own."""
        return view_of(self.encoder, random_crop(batch.audio, self.config.view_seconds, batch.draw, purpose))

    def change_view(self, view: View, batch: Batch, number: int, partner: int, resize: ResizeCrop) -> View:
        """View number `number` with `batch.partners[partner]` mixed in, if there is one, and a resized crop of it."""
        others = None
        if self.config.view_mixup and partner < len(batch.partners):
            other = batch.partners[partner].audio
            heard = random_crop(other, self.config.view_seconds, batch.draw, f"partner-{number}")
            others = view_of(self.encoder, heard)
        return changed(view, others, self.config.view_mixup, resize, batch, f"change-{number}")

    @abstractmethod
    def compare_views(self, batch: Batch) -> tuple[Compared, int]:
        """What both networks make of views of a batch, and how many things the loss is a mean over."""


class ClipObjective(ATSTObjective):
    """ATST-Clip: two crops of a clip, of which each network sees both; each predicts the other one's class token.

    Loss: 2 - 2 cos between the student's prediction of one view and the teacher's projection of the other.
    """

    partners = 2
    config: ClipConfig

    def __init__(self, encoder: ClipEncoder) -> None:
        super().__init__(Student(encoder, encoder.config))

    def compare_views(self, batch: Batch) -> tuple[Compared, int]:
        views = []
        for number in (0, 1):
            view = self.crop_view(batch, f"view-{number}")
            views.append(self.change_view(view, batch, number, number, ResizeCrop()))
        return self.compare(*views), len(batch)

    def compare(self, first: View, second: View) -> Compared:
        """Both networks on both views, in one batch of 2 B."""
        both, clips = first + second, len(first.frames)
        with torch.no_grad():
            teacher_encoded = self.class_token(self.encoder, both)
            teacher = self.projector(teacher_encoded)
        student_encoded = self.class_token(self.student.encoder, both)
        student = self.student.predictor(self.student.projector(student_encoded))
        one, other = slice(0, clips), slice(clips, 2 * clips)
        return Compared(teacher_encoded, teacher, student_encoded, student, ((other, one), (one, other)))

    def class_token(self, encoder: ATSTEncoder, view: View) -> Tensor:
        """The normed class token [B, D] of each clip of a view."""
        return encoder.norm(encoder.blocks_of(*encoder.embed_view(view.features, view.frames), (-1,))[-1][:, 0])


class FrameObjective(ATSTObjective):
    """ATST-Frame: the student predicts, for each masked time step, what the teacher makes of it unmasked.

    Both views are of one crop and keep its time axis: in the second, mixing and a crop of frequencies change the
    features. Masked embeddings are replaced before positions are added. Only masked steps are projected and compared.
    """

    FOLLOWS = ("encoder", "projector", "mask_token")
    config: FrameConfig
    student: FrameStudent

    def __init__(self, encoder: FrameEncoder) -> None:
        super().__init__(FrameStudent(encoder, encoder.config))
        self.mask_token = teacher_of(self.student.mask_token)
        self.partners = int(self.config.augment_teacher) + int(self.config.augment_student)

    def compare_views(self, batch: Batch) -> tuple[Compared, int]:
        view = self.crop_view(batch, "view")
        first = second = view
        if self.config.augment_teacher:
            first = self.change_view(view, batch, 0, self.partners - 1, FREQUENCY_ONLY)
        if self.config.augment_student:
            second = self.change_view(view, batch, 1, 0, FREQUENCY_ONLY)
        masked = self.draw_masks(view, batch)
        return self.compare(first, second, masked), int(masked.sum())

    def draw_masks(self, view: View, batch: Batch) -> Tensor:
        """[B, t]: True where a time step is masked, of each clip's own steps only."""
        own = [self.config.columns_of(frames) for frames in view.frames.tolist()]
        masked = np.zeros((len(own), max(own)), dtype=bool)
        for row, steps in enumerate(own):
            rng = batch.draw.rng("mask", row)
            masked[row, span_mask(steps, self.config.mask_ratio, self.config.mask_length, rng)] = True
        return torch.from_numpy(masked).to(view.frames.device)

    def compare(self, first: View, second: View, masked: Tensor) -> Compared:
        """Both networks on both views, or each on its own, at the masked time steps, clip by clip."""
        if not self.config.symmetric:
            with torch.no_grad():
                teacher_encoded = self.at_masks(self.encoder, first, masked)
                teacher = self.projector(teacher_encoded)
            student_encoded = self.at_masks(self.student.encoder, second, masked, self.student.mask_token)
            student = self.student.predictor(self.student.projector(student_encoded))
            every = slice(0, len(student))
            return Compared(teacher_encoded, teacher, student_encoded, student, ((every, every),))
        both, twice = first + second, masked.repeat(2, 1)
        with torch.no_grad():
            teacher_encoded = self.at_masks(self.encoder, both, twice)
            teacher = self.projector(teacher_encoded)
        student_encoded = self.at_masks(self.student.encoder, both, twice, self.student.mask_token)
        student = self.student.predictor(self.student.projector(student_encoded))
        half = len(student) // 2
        one, other = slice(0, half), slice(half, 2 * half)
        return Compared(teacher_encoded, teacher, student_encoded, student, ((other, one), (one, other)))

    def at_masks(self, encoder: ATSTEncoder, view: View, masked: Tensor, mask_token: nn.Module | None = None) -> Tensor:
        """The normed outputs [M, D] of the masked tokens, which `mask_token` replaces beforehand, if it is given."""
        hidden = masked.repeat(1, self.config.grid[0])
        tokens, valid = encoder.embed_view(view.features, view.frames, masked.shape[1])
        if mask_token is not None:
            tokens = mask_token(tokens, hidden)
        return encoder.norm(encoder.blocks_of(tokens, valid, (-1,))[-1][hidden])


__all__ = ["ClipObjective", "Compared", "FrameObjective", "MaskToken"]
