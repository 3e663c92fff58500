"""Networks of one size over one length of the same features, each as somebody would run it.

B batch, T frames, N patch tokens of 16 x 16, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from benchmarks.official_scan import loop
from torch import Tensor, nn

from auricle.kernels import causal_conv1d, reference
from auricle.methods import ssamba, ssast
from auricle.methods.spectrogram.encoder import PatchEncoder
from auricle.nn.mamba import Mamba
from auricle.nn.patches import patchify
from auricle.nn.transformer import Attention

ROWS = 8
MEL_BINS = 16 * ROWS
CLASSES = 50


@dataclass(frozen=True)
class Size:
    """The sizes of the papers, which SSAST and SSAMBA share but for the depth."""

    name: str
    width: int
    heads: int


SIZES = {s.name: s for s in (Size("tiny", 192, 3), Size("small", 384, 6), Size("base", 768, 12), Size("test", 48, 3))}


def frames(tokens: int) -> int:
    """Frames of a clip that has so many tokens, in eight rows of patches."""
    if tokens % ROWS:
        raise ValueError(f"tokens come in rows of {ROWS}, so {tokens} cannot be had")
    return tokens // ROWS * 16


class Pooled(nn.Module):
    """One of our encoders from features [B, T, 128] to [B, D]."""

    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor:
        length = torch.full((len(features),), features.shape[1], device=features.device)
        return self.encoder.forward_features(features, length, layers=()).pooled


def our_ssamba(size: Size, tokens: int) -> nn.Module:
    """SSAMBA as released, with our kernels."""
    return Pooled(ssamba.build_encoder(ssamba.SSAMBAConfig(width=size.width, window_frames=frames(tokens))))


def looped_ssamba(size: Size, tokens: int) -> nn.Module:
    """The same network, its scans operation by operation and its convolutions in plain torch, as the official functions
    for CPUs compute them."""
    return with_kernels(our_ssamba(size, tokens), either_way(loop), reference.causal_conv1d)


def mamba_ssm_ssamba(size: Size, tokens: int) -> nn.Module:
    """The same network with the scan of the package mamba_ssm, which needs a GPU of NVIDIA, and our convolutions."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def scan(*tensors: Tensor) -> Tensor:
        # Its steps have to be neighbours in memory.
        y: Tensor = selective_scan_fn(*(x.contiguous() for x in tensors), True)
        return y

    return with_kernels(our_ssamba(size, tokens), either_way(scan), causal_conv1d)


def either_way(scan: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A scan that knows one direction, of u, delta, A, B, C, D, z and the bias of the step size, in both: for the other
    one, its input and output are turned round."""

    def turned(*tensors: Tensor, reverse: bool) -> Tensor:
        y = scan(*(x.flip(-1) if reverse and x.ndim == 3 else x for x in tensors))
        return y.flip(-1) if reverse else y

    return turned


class OfficialMixer(Mamba):
    """A mixer of two directions over the whole sequence, step by step as the official code has it."""

    scan: Callable[..., Tensor]
    convolution: Callable[..., Tensor]

    def forward(self, x: Tensor, lengths: Tensor | None = None, reverse: bool = False) -> Tensor:
        """x [B, L, D] to [B, L, D]; no clip is padded."""
        inner, z = (half.transpose(1, 2) for half in self.in_proj(x).chunk(2, dim=2))
        said = []
        for side, way in ((self.forward_direction, reverse), (self.backward_direction, not reverse)):
            u = self.convolution(inner, side.conv.weight[:, 0], side.conv.bias, True, reverse=way)
            r, b, c = side.x_proj(u.transpose(1, 2)).split([side.rank, side.states, side.states], dim=2)
            delta = nn.functional.linear(r, side.dt_proj.weight)
            delta, b, c = (part.transpose(1, 2) for part in (delta, b, c))
            rates = -torch.exp(side.A_log)
            said.append(self.scan(u, delta, rates, b, c, side.D, z, side.dt_proj.bias, reverse=way))
        mixed: Tensor = self.out_proj((said[0] + said[1]).transpose(1, 2))
        return 0.5 * mixed


def with_kernels(network: nn.Module, scan: Callable[..., Tensor], convolution: Callable[..., Tensor]) -> nn.Module:
    """A network of ours whose mixers use these kernels. `scan` takes u, delta, A, B, C, D, z, the bias of the step size
    and the direction; `convolution` is called as `auricle.kernels.causal_conv1d`."""
    for module in network.modules():
        if type(module) is Mamba:
            module.__class__ = OfficialMixer
            module.scan, module.convolution = scan, convolution
    return network


def our_ssast(size: Size, tokens: int) -> nn.Module:
    """SSAST with torch's fused attention, whose memory is linear."""
    config = ssast.SSASTConfig(width=size.width, heads=size.heads, window_frames=frames(tokens))
    return Pooled(ssast.build_encoder(config))


class StoredAttention(Attention):
    """Attention that keeps its matrix [B, H, N, N] in memory, as the paper's baseline does."""

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """x [B, N, D]; everything is attended to."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        shares = (q @ k.transpose(-2, -1) * (D // self.heads) ** -0.5).softmax(-1)
        projected: Tensor = self.proj((shares @ v).transpose(1, 2).reshape(B, N, D))
        return projected


def stored_ssast(size: Size, tokens: int) -> nn.Module:
    """SSAST as timm 0.4.5 computes it."""
    network = our_ssast(size, tokens)
    for module in network.modules():
        if type(module) is Attention:
            module.__class__ = StoredAttention
    return network


def transformers_ast(size: Size, tokens: int, attention: str) -> nn.Module:
    """transformers' AST on as many tokens."""
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(
        hidden_size=size.width,
        num_hidden_layers=12,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        frequency_stride=16,
        time_stride=16,
        max_length=frames(tokens),
        attn_implementation=attention,
    )
    return Output(ASTModel(config), "pooler_output")


class Output(nn.Module):
    """One field of what a network of transformers returns."""

    def __init__(self, network: nn.Module, field: str) -> None:
        super().__init__()
        self.network, self.field = network, field

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.network(x), self.field)


class OverPatches(nn.Module):
    """transformers' Mamba, which scans forward only, of as many layers over the same patches; the mean over them."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        from transformers import MambaConfig, MambaModel

        self.patch = nn.Linear(16 * 16, size.width)
        config = MambaConfig(hidden_size=size.width, num_hidden_layers=24, state_size=16, vocab_size=8)
        self.network = MambaModel(config)

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.patch(patchify(features, (16, 16), (16, 16)))
        return self.network(inputs_embeds=tokens, use_cache=False).last_hidden_state.mean(1)


@dataclass(frozen=True)
class Contestant:
    """Who does the work, of which sizes, and which package it needs."""

    name: str
    build: Callable[[Size, int], nn.Module]
    sizes: tuple[str, ...] = ("tiny", "small", "base", "test")
    package: str = ""
    gpu: bool = False

    def there(self, device: torch.device) -> bool:
        """Whether it can run here."""
        return (not self.package or find_spec(self.package) is not None) and (not self.gpu or device.type == "cuda")


SSAMBA, SSAST, STORED, LOOPED = "SSAMBA", "SSAST", "SSAST, stored matrix", "SSAMBA, operation by operation"
CONTESTANTS = (
    Contestant(SSAMBA, our_ssamba),
    Contestant(SSAST, our_ssast),
    Contestant(STORED, stored_ssast),
    Contestant(LOOPED, looped_ssamba, ("tiny", "test")),
    Contestant("SSAMBA, mamba_ssm", mamba_ssm_ssamba, package="mamba_ssm", gpu=True),
    Contestant("transformers AST, sdpa", lambda s, n: transformers_ast(s, n, "sdpa"), package="transformers"),
    Contestant("transformers AST, eager", lambda s, n: transformers_ast(s, n, "eager"), package="transformers"),
    Contestant("transformers Mamba", lambda s, n: OverPatches(s), ("tiny", "test"), package="transformers"),
)


def contestant(name: str) -> Contestant:
    return next(c for c in CONTESTANTS if c.name == name)


def work_of(
    name: str, size: Size, tokens: int, batch: int, training: bool, device: torch.device
) -> Callable[[], object]:
    """The work of one contestant on noise: embeddings without gradients, or a forward and a backward pass with a head
    of 50 classes."""
    torch.manual_seed(0)
    network = contestant(name).build(size, tokens).to(device).train(training)
    features = torch.randn(batch, frames(tokens), MEL_BINS, device=device)
    if not training:

        def embed() -> Tensor:
            with torch.no_grad():
                return network(features)

        return embed
    head = nn.Linear(size.width, CLASSES).to(device)
    targets = torch.arange(batch, device=device) % CLASSES

    def step() -> None:
        network.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(head(network(features)), targets).backward()

    return step
