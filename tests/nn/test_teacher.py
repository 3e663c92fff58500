"""Teachers, centres, heads and losses of self-distillation, beside torch's own parts and values worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from auricle.nn.batchnorm import BatchNorm, batch_statistics
from auricle.nn.collapse import unit_spread
from auricle.nn.heads import BatchNormHead, Bottleneck, ProjectionMLP, Prototypes
from auricle.nn.losses import cosine_regression, distillation
from auricle.nn.schedules import cosine, linear
from auricle.nn.teacher import Centre, follow, teacher_of


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3 + 1


# Teachers ---------------------------------------------------------------------------------------------------------


def test_a_teacher_takes_no_gradient_and_follows_in_its_parameters_only() -> None:
    student = nn.Sequential(nn.Linear(3, 4), BatchNorm(4))
    teacher = teacher_of(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    before = copy.deepcopy(teacher.state_dict())
    student(rows(5, 3)).sum().backward()
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1)
    follow(teacher, student, 0.75)
    torch.testing.assert_close(teacher[0].weight, before["0.weight"] + 0.25)
    assert torch.equal(teacher[1].running_mean, before["1.running_mean"])
    assert not torch.equal(student[1].running_mean, before["1.running_mean"])


def test_a_teacher_may_be_a_part_of_its_student_but_not_more() -> None:
    student = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    follow(nn.ModuleDict({"a": nn.Linear(2, 2)}), student, 0.5)
    with pytest.raises(ValueError, match=r"lacks 2 parameters of its teacher, such as 'c.bias'"):
        follow(nn.ModuleDict({"c": nn.Linear(2, 2)}), student, 0.5)


def test_schedules_begin_and_end_where_they_should() -> None:
    assert cosine(0.99, 1.0, 0) == pytest.approx(0.99)
    assert cosine(0.99, 1.0, 0.5) == pytest.approx(0.995)
    assert cosine(0.99, 1.0, 1) == 1.0
    assert cosine(0.0, 1.0, 0.25) == pytest.approx(0.5 - math.sqrt(0.5) / 2)
    assert [linear(0.04, 0.07, share) for share in (0, 0.5, 1, 2)] == pytest.approx([0.04, 0.055, 0.07, 0.07])


# Centres ----------------------------------------------------------------------------------------------------------


def test_a_centre_moves_after_the_step_by_all_rows_of_all_micro_batches() -> None:
    centre = Centre(4, momentum=0.9)
    first, second = rows(3, 4), rows(1, 4, seed=1)
    want = (first / 0.1).softmax(-1)
    assert torch.equal(centre.probabilities(first, 0.1), want)
    assert torch.equal(centre.probabilities(first, 0.1), want)
    centre.noted.zero_()
    centre.probabilities(first.view(3, 1, 4), 0.1)
    centre.probabilities(second, 0.1)
    centre.after_step()
    moved = 0.1 * torch.cat([first, second]).mean(0)
    torch.testing.assert_close(centre.mean[0], moved)
    torch.testing.assert_close(centre.probabilities(first, 0.5), ((first - moved) / 0.5).softmax(-1))


def test_a_centre_stays_in_evaluation_and_without_rows() -> None:
    centre = Centre(4).eval()
    centre.probabilities(rows(3, 4), 0.1)
    centre.after_step()
    assert not centre.mean.any()
    assert list(centre.state_dict()) == ["mean"]


# Batch normalisation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_is_torchs(affine: bool) -> None:
    ours, torchs = BatchNorm(4, affine=affine), nn.BatchNorm1d(4, affine=affine)
    torchs.load_state_dict(ours.state_dict())
    for seed in range(3):
        torch.testing.assert_close(ours(rows(6, 4, seed)), torchs(rows(6, 4, seed)))
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(rows(2, 4)), torchs.eval()(rows(2, 4)))


def test_a_single_row_becomes_the_bias() -> None:
    norm = BatchNorm(4)
    with torch.no_grad():
        norm.bias.copy_(torch.arange(4.0))
    assert torch.equal(norm(rows(1, 4)), torch.arange(4.0)[None])
    assert norm.running_var is not None
    assert norm.running_var.isfinite().all()


def test_batch_normalisation_computes_in_single_precision() -> None:
    x = rows(64, 4) + 300
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = BatchNorm(4)(x)
    torch.testing.assert_close(got, BatchNorm(4)(x))


def test_statistics_are_those_of_the_rows() -> None:
    x = rows(7, 4)
    mean, variance, count = batch_statistics(x)
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(variance, x.var(0, correction=0))
    assert count == 7


# Heads and losses -------------------------------------------------------------------------------------------------


def test_the_projector_has_the_official_layers() -> None:
    names = [name for name, _ in ProjectionMLP(6, 8, 4).named_parameters()]
    assert names == ["0.weight", "1.weight", "1.bias", "3.weight"]


def test_prototypes_see_directions_only() -> None:
    head, last = Bottleneck(6, 8, 4), Prototypes(4, 5)
    unit = head(rows(3, 6))
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(3))
    logits = last(unit)
    assert logits.shape == (3, 5)
    assert logits.abs().max() <= 1
    with torch.no_grad():
        last.weight_v.mul_(7)
    torch.testing.assert_close(last(unit), logits)
    # Lengths, which are 1 until a file says otherwise, are not learned; a teacher follows them.
    assert not last.weight_g.requires_grad
    student, teacher = Prototypes(4, 5), teacher_of(last)
    with torch.no_grad():
        student.weight_g.fill_(3)
    follow(teacher, student, 0.5)
    assert torch.equal(teacher.weight_g, torch.full((5, 1), 2.0))
    torch.testing.assert_close(teacher(unit), 2 * unit @ nn.functional.normalize(teacher.weight_v, dim=-1).T)


def test_the_probe_head_normalises_before_it_maps() -> None:
    head = BatchNormHead(4, 3).eval()
    x = rows(5, 4)
    torch.testing.assert_close(head(x), head.linear(x / math.sqrt(1 + 1e-5)))


def test_cosine_regression_by_hand() -> None:
    predictions, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[5.0, 0.0], [0.0, -3.0]])
    assert float(cosine_regression(predictions, targets)) == pytest.approx((0 + 4) / 2)


def test_distillation_is_least_where_both_agree() -> None:
    logits = rows(6, 5)
    probabilities = (logits / 0.2).softmax(-1)
    least = distillation(logits, probabilities, 0.2)
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()
    torch.testing.assert_close(least, entropy)
    assert distillation(logits, probabilities, 0.4) > least
    assert distillation(logits.flip(0), probabilities, 0.2) > least
    shares = torch.tensor([0.5, 0.5, 0, 0, 0, 0])
    torch.testing.assert_close(
        distillation(logits, probabilities, 0.4, shares), distillation(logits[:2], probabilities[:2], 0.4)
    )


def test_features_that_agree_have_no_spread() -> None:
    assert float(unit_spread(torch.ones(8, 16))) == pytest.approx(1e-3, rel=1e-3)
    assert float(unit_spread(torch.randn(4000, 16))) == pytest.approx(16**-0.5, rel=0.05)
