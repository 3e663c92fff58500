"""InfoNCE and masked reconstruction against values worked out by hand, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from auricle.nn.losses import SoftmaxOver, info_nce, masked_mse

AXES: tuple[SoftmaxOver, ...] = ("predictions", "targets")


def everything(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


def test_two_tokens_by_hand() -> None:
    # Targets are the axes, so the similarity of target j and prediction i is component j of prediction i:
    #   L = [[2, 1],
    #        [0, 3]]   rows: targets, columns: predictions
    targets = torch.eye(2)[None]
    predictions = torch.tensor([[[2.0, 0.0], [1.0, 3.0]]])
    over_predictions, accuracy = info_nce(predictions, targets, everything(targets), "predictions")
    over_targets, _ = info_nce(predictions, targets, everything(targets), "targets")
    # -log(e^2 / (e^2 + e^1)) and -log(e^3 / (e^0 + e^3)); over targets: columns (2, 0) and (1, 3).
    assert over_predictions.item() == pytest.approx(
        (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2, rel=1e-6
    )
    assert over_targets.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))) / 2, rel=1e-6)
    assert accuracy.item() == 1.0


def test_the_accuracy_is_the_official_mixture_of_row_softmax_and_column_argmax() -> None:
    # Rows normalise to [.88, .12], [.73, .27]: both columns' maxima lie in rows 0 and 1, though in L column 0's and
    # column 1's maxima both lie in row 1.
    similarity = torch.tensor([[2.0, 0.0], [5.0, 4.0]])
    targets, predictions = torch.eye(2)[None], similarity.T[None]
    loss, accuracy = info_nce(predictions, targets, everything(targets), "predictions")
    assert similarity.argmax(0).tolist() == [1, 1]
    assert similarity.argmax(1).tolist() == [0, 0]
    assert accuracy.item() == 1.0
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2, rel=1e-6)


@pytest.mark.parametrize("axis", AXES)
def test_equal_predictions_and_targets_are_at_chance(axis: SoftmaxOver) -> None:
    same = torch.ones(2, 7, 5)
    loss, _ = info_nce(same, same, everything(same), axis)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("axis", AXES)
def test_a_single_token_has_nothing_to_be_told_apart_from(axis: SoftmaxOver) -> None:
    predictions = torch.randn(1, 1, 5, requires_grad=True)
    loss, accuracy = info_nce(predictions, torch.randn(1, 1, 5), torch.ones(1, 1, dtype=torch.bool), axis)
    loss.backward()
    assert loss.item() == 0.0
    assert accuracy.item() == 1.0
    assert predictions.grad is not None
    assert not predictions.grad.any()


def test_a_vector_added_to_all_predictions_cancels_over_predictions_only() -> None:
    torch.manual_seed(0)
    predictor = torch.nn.Linear(6, 10).double()
    tokens, targets = torch.randn(2, 9, 6).double(), torch.randn(2, 9, 10).double()
    gradients = {}
    for axis in AXES:
        predictor.zero_grad()
        info_nce(predictor(tokens), targets, everything(targets), axis)[0].backward()
        assert predictor.bias.grad is not None
        gradients[axis] = float(predictor.bias.grad.abs().max())
    assert gradients["predictions"] < 1e-15
    assert gradients["targets"] > 1e-3


@pytest.mark.parametrize("axis", AXES)
def test_padding_changes_neither_value_nor_gradient(axis: SoftmaxOver) -> None:
    torch.manual_seed(1)
    predictions, targets = torch.randn(2, 6, 8).double(), torch.randn(2, 6, 8).double()
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 4:] = False
    results = []
    for extra, junk in ((0, 0.0), (3, 0.0), (3, 1e6)):
        p, t = (
            torch.cat([x, torch.full((2, extra, 8), junk, dtype=torch.float64)], 1).masked_fill(
                ~torch.nn.functional.pad(valid, (0, extra))[..., None], junk
            )
            for x in (predictions, targets)
        )
        p.requires_grad_()
        mask = torch.nn.functional.pad(valid, (0, extra))
        loss, accuracy = info_nce(p, t, mask, axis)
        total = loss + masked_mse(p, t, mask)
        total.backward()
        assert p.grad is not None
        assert not p.grad[~mask].any()
        results.append((total.detach(), accuracy, p.grad[:, :6]))
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("axis", AXES)
def test_negatives_come_from_the_same_clip_only(axis: SoftmaxOver) -> None:
    torch.manual_seed(2)
    predictions, targets = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    together, _ = info_nce(predictions, targets, everything(targets), axis)
    alone = [info_nce(predictions[i : i + 1], targets[i : i + 1], everything(targets)[:1], axis)[0] for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.mark.parametrize("axis", AXES)
def test_autocast_does_not_round_similarities(axis: SoftmaxOver) -> None:
    torch.manual_seed(3)
    predictions, targets = 5 * torch.randn(2, 20, 256), 5 * torch.randn(2, 20, 256)
    exact, _ = info_nce(predictions, targets, everything(targets), axis)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = info_nce(predictions, targets, everything(targets), axis)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, exact)


@pytest.mark.parametrize("axis", AXES)
def test_gradients_are_those_of_finite_differences(axis: SoftmaxOver) -> None:
    torch.manual_seed(4)
    predictions = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(2, 4, 3, dtype=torch.float64)
    valid = torch.tensor([[True, True, True, True], [True, True, False, False]])
    assert torch.autograd.gradcheck(lambda p: info_nce(p, targets, valid, axis)[0], (predictions,))
    assert torch.autograd.gradcheck(lambda p: masked_mse(p, targets, valid), (predictions,))


def test_masked_mse_is_the_mean_over_valid_values() -> None:
    predictions = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [9.0, 9.0]]])
    targets = torch.zeros(2, 2, 2)
    valid = torch.tensor([[True, True], [True, False]])
    assert masked_mse(predictions, targets, valid).item() == pytest.approx((1 + 4 + 9 + 25 + 0 + 0) / 6)
