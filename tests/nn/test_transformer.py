"""The transformer block against its definition, and tokens that must not be seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from auricle.nn.heads import ClassifierHead, Predictor
from auricle.nn.transformer import MLP, Attention, Block, attend


def keep_first(lengths: list[int], tokens: int) -> Tensor:
    return (torch.arange(tokens) < torch.tensor(lengths)[:, None])[:, None, None, :]


def test_attention_is_softmax_attention_with_scale_by_head_width() -> None:
    torch.manual_seed(0)
    attention, x = Attention(12, 3).double(), torch.randn(2, 5, 12).double()
    q, k, v = (part.view(2, 5, 3, 4).transpose(1, 2) for part in attention.qkv(x).split(12, dim=-1))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(4)).softmax(-1)
    want = attention.proj((weights @ v).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(x), want)


def test_a_block_is_pre_norm_with_two_residuals() -> None:
    torch.manual_seed(0)
    block, x = Block(12, 3).double(), torch.randn(2, 5, 12).double()
    middle = x + block.attn(torch.nn.functional.layer_norm(x, (12,), eps=1e-6))
    want = middle + block.mlp(torch.nn.functional.layer_norm(middle, (12,), eps=1e-6))
    torch.testing.assert_close(block(x), want)


def test_the_mlp_uses_the_exact_gelu() -> None:
    mlp, x = MLP(4, 8).double(), torch.randn(3, 4).double()
    hidden = mlp.fc1(x)
    want = mlp.fc2(0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))))
    torch.testing.assert_close(mlp(x), want)


def test_masked_tokens_do_not_influence_the_others() -> None:
    torch.manual_seed(0)
    blocks = [Block(12, 3) for _ in range(3)]
    x, keep = torch.randn(2, 7, 12), keep_first([7, 4], 7)
    changed = x.clone()
    changed[1, 4:] = 1e3 * torch.randn(3, 12)
    for block in blocks:
        x, changed = block(x, keep), block(changed, keep)
    assert torch.equal(x[0], changed[0])
    assert torch.equal(x[1, :4], changed[1, :4])


def test_masked_tokens_are_as_good_as_absent() -> None:
    torch.manual_seed(0)
    block, x = Block(12, 3), torch.randn(1, 7, 12)
    torch.testing.assert_close(block(x, keep_first([4], 7))[:, :4], block(x[:, :4]), atol=1e-6, rtol=1e-5)


def test_without_a_mask_every_token_counts() -> None:
    torch.manual_seed(0)
    block, x = Block(12, 3), torch.randn(1, 7, 12)
    changed = x.clone()
    changed[0, 6] += 1
    assert (block(x) - block(changed)).abs().amax(-1).min() > 0


def test_no_gradient_flows_from_masked_tokens() -> None:
    block, x = Block(12, 3), torch.randn(1, 6, 12, requires_grad=True)
    block(x, keep_first([4], 6))[:, :4].sum().backward()
    assert x.grad is not None
    assert not x.grad[:, 4:].any()
    assert x.grad[:, :4].any()


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width \(10\) must be a multiple of heads \(3\)"):
        Attention(10, 3)


def test_heads_have_the_official_layers() -> None:
    predictor, classifier = Predictor(6, 20), ClassifierHead(6, 4)
    assert [type(layer).__name__ for layer in predictor] == ["Linear", "ReLU", "Linear"]
    assert predictor(torch.randn(2, 3, 6)).shape == (2, 3, 20)
    assert classifier.norm.eps == 1e-5
    assert classifier(torch.randn(2, 6)).shape == (2, 4)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_for_training_in_bf16_on_a_cpu_is_that_of_the_fused_kernel(masked: bool) -> None:
    torch.manual_seed(0)
    keep = keep_first([7, 12], 12) if masked else None
    exact = [torch.randn(2, 3, 12, 8, requires_grad=True) for _ in range(3)]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    want, got = F.scaled_dot_product_attention(*exact, attn_mask=keep), attend(half[0], half[1], half[2], keep)
    (want * torch.arange(8)).sum().backward()
    (got * torch.arange(8)).sum().backward()
    for one, other in ((want.detach(), got.detach()), *((a.grad, b.grad) for a, b in zip(exact, half, strict=True))):
        assert one is not None
        assert other is not None
        assert float((one - other.float()).norm() / one.norm()) < 0.02
    # Without gradients it is the fused kernel itself.
    with torch.no_grad():
        fused = F.scaled_dot_product_attention(*half, attn_mask=keep)
        assert torch.equal(attend(half[0], half[1], half[2], keep), fused)
