"""ASiT's pretext task: rebuild what was damaged, and say of each patch and of the clip what the teacher says.

B clips, T frames, F mel bins, N tokens, M attended tokens of a batch, K prototypes or pixels of a patch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auricle.data.batch import Batch, Stream
from auricle.data.views import random_crop, random_roll
from auricle.methods.asit.config import ASiTConfig
from auricle.methods.asit.corruption import Corrupted, corrupt
from auricle.methods.asit.model import ASiTEncoder
from auricle.methods.base import AudioEncoder, Objective, Reconstruction
from auricle.nn.batchnorm import sum_over_processes
from auricle.nn.heads import Bottleneck, Prototypes
from auricle.nn.losses import distillation, single
from auricle.nn.patches import patchify, unpatchify
from auricle.nn.schedules import cosine, linear
from auricle.nn.teacher import Centre, follow, teacher_of
from auricle.nn.transformer import reset_linears


class Projector(nn.Module):
    """What class and patch tokens are compared by: one projection of both, and prototypes of their own."""

    def __init__(self, config: ASiTConfig) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(config.width, config.projector_hidden, config.projector_out)
        self.clip = Prototypes(config.projector_out, config.clip_prototypes)
        self.patch = Prototypes(config.projector_out, config.patch_prototypes)
        reset_linears(self, config.init_std)

    def forward(self, normed: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, 1 + N, D], of which the patches `valid` [B, N] count, to logits [B, K] and [M, K]."""
        clip: Tensor = self.clip(self.bottleneck(normed[:, 0]))
        patch: Tensor = self.patch(self.bottleneck(normed[:, 1:][valid]))
        return clip, patch


class Decoder(nn.Module):
    """Three linear layers, each with GELU, and a transposed convolution that paints one patch per token."""

    def __init__(self, config: ASiTConfig) -> None:
        super().__init__()
        hidden, out = config.decoder_hidden, config.decoder_out
        self.mlp = nn.Sequential(
            *(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()),
            *(nn.Linear(hidden, out), nn.GELU()),
        )
        self.patch = nn.ConvTranspose2d(out, 1, kernel_size=config.kernel, stride=config.kernel)
        reset_linears(self, config.init_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Patch tokens [B, N, D] to patches [B, N, K] in the order of `patchify`."""
        # Patches do not overlap, so the convolution is a matrix product.
        painted: Tensor = self.mlp(tokens) @ self.patch.weight.flatten(1) + self.patch.bias
        return painted


class Student(nn.Module):
    """The network that learns; its teacher has all its parts."""

    def __init__(self, encoder: ASiTEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = Projector(encoder.config)
        self.decoder = Decoder(encoder.config)


@dataclass(frozen=True)
class View:
    """Covered features [B, T, F] of clips, of which the columns `valid` [B, t] are attended to."""

    features: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Compared:
    """What both networks make of both views, one below the other: losses, logits, the student's outputs and patches."""

    losses: dict[str, Tensor]
    student_encoded: Tensor
    student: tuple[Tensor, Tensor]
    teacher: tuple[Tensor, Tensor]
    painted: Tensor


class ASiTObjective(Objective):
    """Reconstruction, and self-distillation of the clip across views and of each patch within its view.

    loss = global + local + `reconstruction_weight` * reconstruction. The student sees two damaged views of each clip,
    the teacher sees them whole. Global: cross-entropy between the teacher's class token of one view and the student's
    of the other. Local: of every patch, damaged or not, with the same patch of the same view. Reconstruction: absolute
    error of the hidden pixels.

    `encoder` is the teacher's: it is what is evaluated. It begins as the student's copy and follows it after each step.
    """

    FOLLOWS = ("encoder", "projector", "decoder")
    partners = 1
    loss_note = (
        "It is no measure of progress: as the teacher's temperature and centres change, so do the targets, and the "
        "loss may rise while the network learns. The effective rank and --monitor say more."
    )
    encoder: ASiTEncoder

    def __init__(self, encoder: ASiTEncoder) -> None:
        super().__init__()
        c = encoder.config
        c.check_pretraining()
        self.config = c
        self.whole_batch = c.reconstruct_over == "pixels"
        self.student = Student(encoder)
        self.encoder = teacher_of(encoder)
        self.projector = teacher_of(self.student.projector)
        self.decoder = teacher_of(self.student.decoder)
        self.student.encoder.drop_paths(c.drop_path)
        self.clip_centre = Centre(c.clip_prototypes, c.centre_momentum)
        self.patch_centre = Centre(c.patch_prototypes, c.centre_momentum)

    @property
    def encoders(self) -> tuple[AudioEncoder, ...]:
        return self.encoder, self.student.encoder

    def after_step(self, progress: float) -> None:
        """Move the centres and the teacher."""
        self.clip_centre.after_step()
        self.patch_centre.after_step()
        self.follow(cosine(self.config.momentum, 1.0, progress))

    def follow(self, momentum: float) -> None:
        """Move the teacher by 1 - momentum of the way to the student."""
        for name in self.FOLLOWS:
            follow(self.get_submodule(name), self.student.get_submodule(name), momentum)

    def temperature(self, progress: float) -> float:
        """The teacher's: rising to the final one. The official code moves it in steps of an epoch."""
        c = self.config
        along = progress / c.temperature_warmup if c.temperature_warmup else float(progress > 0)
        return linear(c.teacher_temperature, c.final_teacher_temperature, along)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, its `weight` (clips), and its parts: `global`, `local`, `reconstruction`."""
        clean, damaged = self.views(batch)
        compared = self.compare(clean, damaged, self.temperature(progress))
        return compared.losses | {"weight": torch.tensor(float(len(batch)), device=clean.features.device)}

    @torch.no_grad()
    def views(self, batch: Batch) -> tuple[View, Corrupted]:
        """Both views of a batch, the second below the first, and what became of them."""
        audio = random_roll(batch.audio, self.config.roll, batch.draw, "roll")
        clean, damaged = zip(*(self._view(audio, batch, number) for number in (0, 1)), strict=True)
        return (
            View(torch.cat([v.features for v in clean]), torch.cat([v.valid for v in clean])),
            Corrupted(torch.cat([d.features for d in damaged]), torch.cat([d.hidden for d in damaged])),
        )

    def _view(self, audio: Stream, batch: Batch, number: int) -> tuple[View, Corrupted]:
        c, encoder = self.config, self.encoder
        crop = random_crop(audio, c.view_seconds, batch.draw, f"view-{number}")
        features, frames = encoder.features(crop.data, crop.lengths)
        features, valid = encoder.cover(features, frames)
        if c.attend_padding:
            # The official code damages padding too.
            frames = torch.full_like(frames, features.shape[1])
        others = None
        if batch.partners:
            heard = random_crop(batch.partners[0].audio, c.view_seconds, batch.draw, f"alien-{number}").data
            # As long as the clip: what is missing of it is silence.
            heard = nn.functional.pad(heard, (0, max(0, crop.data.shape[1] - heard.shape[1])))
            others, _ = encoder.cover(*encoder.features(heard[:, : crop.data.shape[1]], crop.lengths))
        return View(features, valid), corrupt(features, frames, others, c, batch.draw, f"damage-{number}")

    def compare(self, clean: View, damaged: Corrupted, temperature: float) -> Compared:
        """Both networks on two views of B clips, one below the other in 2 B rows; the teacher's temperature."""
        c, rows = self.config, self.config.grid[0]
        tokens = clean.valid.repeat(1, rows)
        with torch.no_grad():
            whole = self.encoder.transform(self.encoder.embed_covered(clean.features, clean.valid), ())[-1]
            teacher = self.projector(whole, tokens)
            clip = self.clip_centre.probabilities(teacher[0], temperature)
            patch = self.patch_centre.probabilities(teacher[1], temperature)
        encoder = self.student.encoder
        encoded = encoder.transform(encoder.embed_covered(damaged.features, clean.valid), ())[-1]
        student = self.student.projector(encoded, tokens)
        painted = single(self.student.decoder(encoded[:, 1:]))
        # Each clip counts alike, however many patches it has.
        shares = (tokens / (tokens.sum(1, keepdim=True) * len(tokens)))[tokens]
        losses = {
            "global": distillation(student[0], clip.roll(len(clip) // 2, 0), c.student_temperature),
            "local": distillation(student[1], patch, c.student_temperature, shares),
            "reconstruction": self._reconstruction(painted, clean.features, damaged.hidden),
        }
        total = losses["global"] + losses["local"] + c.reconstruction_weight * losses["reconstruction"]
        return Compared({"loss": total} | losses, encoded, student, teacher, painted)

    def _reconstruction(self, painted: Tensor, clean: Tensor, hidden: Tensor) -> Tensor:
        """Mean absolute error of patches [2 B, N, K] where features [2 B, T, F] are hidden."""
        kernel = self.config.kernel
        gone = patchify(hidden.float(), kernel, kernel)
        errors = ((painted - patchify(clean, kernel, kernel)).abs() * gone).sum((1, 2))
        counts = gone.sum((1, 2))
        if self.config.reconstruct_over == "clips":
            return (errors / counts.clamp(min=1)).mean()
        # Of all processes: each has its own share of the batch, and of what is hidden in it.
        total = torch.stack([counts.sum(), counts.new_tensor(float(len(counts)))])
        pixels, clips = sum_over_processes(total) if self.training else total
        return errors.sum() / len(counts) * clips / pixels.clamp(min=1)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Reconstruction:
        """For pictures: log-mel [B, T, F] of the first view, what was hidden of it, and with that predicted."""
        c, clips = self.config, len(batch)
        clean, damaged = self.views(batch)
        encoder = self.student.encoder
        covered = c.grid[0] * c.patch_freq
        original, hidden = clean.features[:clips, :, :covered], damaged.hidden[:clips, :, :covered]
        seen = encoder.embed_covered(damaged.features[:clips], clean.valid[:clips])
        painted = single(self.student.decoder(encoder.transform(seen, ())[-1][:, 1:]))
        rebuilt = torch.where(hidden, unpatchify(painted, seen.grid, c.kernel), original)
        original, rebuilt = (x * 2 * c.norm_std + c.norm_mean for x in (original, rebuilt))
        frames = encoder.frontend.num_frames(batch.audio.lengths).clamp(max=original.shape[1])
        return Reconstruction(original, hidden, rebuilt, frames)
