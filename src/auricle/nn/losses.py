"""Losses that more than one method shares, each a small function that can be tested against a paper's code.

B batch, M masked tokens, K values of a target or prototypes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SoftmaxOver = Literal["predictions", "targets"]


def single(x: Tensor) -> Tensor:
    """x in fp32 where autocast made it half; in double precision it stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def info_nce(predictions: Tensor, targets: Tensor, valid: Tensor, softmax_over: SoftmaxOver) -> tuple[Tensor, Tensor]:
    """Contrast every masked token with the other masked tokens of its clip (SSAST Eq. 1; no temperature).

    `softmax_over="predictions"` is what the official code computes: for each target, which prediction is its own. With
    it a vector added to all predictions cancels, so the last bias of the predictor gets no gradient.
    `"targets"` is what the paper's Eq. 1 says.

    Args:
        predictions: [B, M, K].
        targets: [B, M, K], detached by the caller.
        valid: [B, M], False where a clip has fewer masked tokens than the longest of the batch.

    Returns:
        The mean loss over valid tokens, and the official accuracy: the arg-max over targets of the softmax over
        predictions. That equals neither the row nor the column arg-max of the similarities; it is only logged.
    """
    # Similarities of raw patches reach hundreds: autocast would choose half precision and round away what differs.
    with torch.autocast(predictions.device.type, enabled=False):
        # [B, target j, prediction i]
        similarity = targets @ predictions.transpose(1, 2)
    pairs = valid[:, None, :] & valid[:, :, None]
    similarity = similarity.masked_fill(~pairs, torch.finfo(similarity.dtype).min)
    axis = 2 if softmax_over == "predictions" else 1
    log_probability = similarity.log_softmax(axis)
    loss = -log_probability.diagonal(dim1=1, dim2=2)[valid].mean()
    with torch.no_grad():
        probability = similarity.softmax(2).masked_fill(~pairs, -1)
        right = probability.argmax(1) == torch.arange(valid.shape[1], device=valid.device)
        accuracy = right[valid].float().mean()
    return loss, accuracy


def masked_mse(predictions: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Mean squared error over the values of valid tokens; predictions, targets [B, M, K], valid [B, M]."""
    return (predictions - targets)[valid].square().mean()


def cosine_regression(predictions: Tensor, targets: Tensor) -> Tensor:
    """BYOL's loss: the mean of 2 - 2 cos between predictions and targets [..., K], which the caller detached."""
    return 2 - 2 * F.cosine_similarity(predictions.float(), targets.float(), dim=-1).mean()


def distillation(logits: Tensor, probabilities: Tensor, temperature: float, shares: Tensor | None = None) -> Tensor:
    """DINO's loss: mean cross-entropy of softmax(logits / temperature) [..., K] against a teacher's probabilities.

    `shares` [...] is what each row counts in the mean, 1 in all; equal, if None.
    """
    rows = -(probabilities * (single(logits) / temperature).log_softmax(-1)).sum(-1)
    return rows.mean() if shares is None else (rows * shares).sum()
