"""Teachers: networks that follow the one that learns, and what keeps both from agreeing on nothing.

A teacher is a submodule of its objective like any other, so that its weights, its running statistics and its centres
are saved and resumed with all the rest. Its parameters take no gradient. How its momentum and temperature move is in
`nn/schedules.py`, its heads in `nn/heads.py`, what is learned from it in `nn/losses.py`.

B clips, N tokens or rows, D width, K prototypes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.nn.batchnorm import sum_over_processes
from auricle.nn.losses import single

M = TypeVar("M", bound=nn.Module)
EPS = 1e-5


def teacher_of(student: M) -> M:
    """A copy of a network that takes no gradient."""
    teacher = copy.deepcopy(student)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for parameters of the same names.

    Buffers stay: a teacher in training mode has running statistics of its own, and centres are moved by `Centre`.

    Raises:
        ValueError: a parameter of the teacher is not the student's.
    """
    own, theirs = dict(teacher.named_parameters()), dict(student.named_parameters())
    if missing := own.keys() - theirs.keys():
        raise ValueError(f"the student lacks {len(missing)} parameters of its teacher, such as '{min(missing)}'")
    kept: list[Tensor] = list(own.values())
    learned: list[Tensor] = [theirs[name] for name in own]
    torch._foreach_mul_(kept, momentum)
    torch._foreach_add_(kept, learned, alpha=1 - momentum)


@torch.no_grad()
def averaged_layers(layers: Sequence[Tensor], valid: Tensor) -> Tensor:
    """What a student predicts of a teacher's layers, each [B, N, D]: the mean over the layers, [B, N, D] in fp32.

    Before, each channel of each layer is normalised over the clip's own tokens, `valid` [B, N] (instance
    normalisation); after, each token over its channels (data2vec 2.0, Baevski et al. 2023, section 3). A layer of large
    values counts no more than others, and a constant output is no target.
    """
    weight = valid.unsqueeze(-1).float() / valid.sum(1)[:, None, None]
    total = torch.zeros_like(layers[0], dtype=torch.float32)
    for layer in layers:
        x = single(layer)
        centred = x - (x * weight).sum(1, keepdim=True)
        total += centred * ((centred.square() * weight).sum(1, keepdim=True) + EPS).rsqrt()
    return F.layer_norm(total / len(layers), total.shape[-1:])


class Centre(nn.Module):
    """The running mean [1, K] of what a teacher says, taken off its logits so that no prototype wins always (DINO).

    A step's rows are noted in the forward pass, and the mean moves after the optimizer step: what a forward pass gives
    does not depend on whether it was run before. All rows of all processes and micro-batches count alike. What was
    noted for a step that is not taken must be dropped, as the training loop does with all buffers.

    Args:
        prototypes: K.
        momentum: share of the old mean that is kept.
    """

    mean: Tensor
    noted: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(1, prototypes))
        self.register_buffer("noted", torch.zeros(prototypes + 1), persistent=False)

    @torch.no_grad()
    def probabilities(self, logits: Tensor, temperature: float) -> Tensor:
        """softmax((logits - mean) / temperature) of [..., K], in fp32; in training mode the rows are noted."""
        logits = single(logits)
        if self.training:
            rows = logits.reshape(-1, logits.shape[-1])
            self.noted[:-1] += rows.sum(0)
            self.noted[-1] += len(rows)
        return ((logits - self.mean) / temperature).softmax(-1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the mean by the rows noted since the last step; every process must call it."""
        noted = sum_over_processes(self.noted)
        if noted[-1] > 0:
            self.mean.mul_(self.momentum).add_(noted[:-1] / noted[-1], alpha=1 - self.momentum)
        self.noted.zero_()
