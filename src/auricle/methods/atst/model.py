"""ATST's encoders: a mel spectrogram in decibels, cut into patches, through a transformer, in chunks of ten seconds.

B clips, S samples, T frames, F mel bins, (f, t) grid of patches, N = f * t tokens, P prefix tokens, D width, L layers.
Token order is frequency-major: token = row * t + column. The published networks have one row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from auricle.audio.frontends import fill_up
from auricle.audio.mel import DecibelMel
from auricle.methods.atst.chunks import Chunks
from auricle.methods.atst.config import ATSTConfig, ClipConfig, FrameConfig
from auricle.methods.base import Encoded
from auricle.methods.layers import LayerOutputs, numbers_of
from auricle.methods.spectrogram.tokens import TokenEncoder, Tokens
from auricle.nn.patches import patchify, reset_positions
from auricle.nn.transformer import Block, reset_linears, run_blocks


def build_frontend(config: ATSTConfig) -> DecibelMel:
    """The mel spectrogram of which `norm_mean` and `norm_std` are statistics."""
    return DecibelMel(
        config.sample_rate,
        config.mel_bins,
        window_samples=config.fft_window,
        hop_samples=config.hop_samples,
        fft_size=config.fft_size,
        lowest_hz=config.lowest_hz,
        highest_hz=config.highest_hz,
        top_db=config.top_db,
        least_db=config.least_db,
    )


class ATSTEncoder(TokenEncoder):
    """A transformer over patches of a clip of any length, chunk by chunk.

    `Encoded.layers` are all after the final norm, as the official probes and fine-tunings read them.

    Attributes:
        PREFIX: P, tokens before the patches.
        positions: [1, 1 + N, D]; the first is the class token's. ATST-Frame stores it too and never uses it.
    """

    PREFIX: ClassVar[int]
    config: ATSTConfig
    frontend: DecibelMel

    def __init__(self, config: ATSTConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = build_frontend(config)
        self.patch = nn.Linear(config.patch_freq * config.patch_time, config.width)
        rows, columns = config.grid
        self.positions = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.width))
        drops = [config.drop_path * layer / max(1, config.depth - 1) for layer in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config.width, config.heads, qkv_bias=False, drop_path=drop) for drop in drops)
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        reset_linears(self, config.init_std)
        reset_positions(self.positions, config.grid, config.position_init)

        self.sample_rate = config.sample_rate
        self.channel = config.channel
        self.dim = config.width
        self.num_layers = config.depth
        step = config.patch_time * config.hop_samples
        self.frame_rate = config.sample_rate / step
        self.min_samples = self.frontend.min_samples
        self.window_samples = max(1, round(config.window_seconds * self.frame_rate)) * step
        self.window_samples = max(self.window_samples, -(-self.min_samples // step) * step)
        self.window_hop = self.window_samples

    @property
    def prefix(self) -> int:
        return self.PREFIX

    @property
    def summary_dim(self) -> int:
        return (self.PREFIX + 1) * self.dim

    @property
    def pad_value(self) -> float:
        """Padding is 0 after normalising: the middle of the range, not silence."""
        return 0.0

    def features(self, waves: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """waves [B, S], lengths [B] to normalised decibels [B, T, F] and frames [B]; 0 beyond what is heard of a clip.

        The floor of the decibels is `top_db` below the loudest value of each clip as it is given here.
        """
        if lengths is None:
            lengths = torch.full((len(waves),), waves.shape[1], device=waves.device)
        frames = self.frontend.num_frames(lengths)
        if self.config.chunking == "filled":
            waves, lengths = fill_up(waves, lengths, self.window_samples)
        normalised = self.normalise(self.frontend(waves, lengths))
        padding = torch.arange(normalised.shape[1], device=waves.device) >= self.heard(frames)[:, None]
        return normalised.masked_fill(padding[..., None], self.pad_value), frames

    def heard(self, frames: Tensor) -> Tensor:
        """How many frames [B] the network hears of clips of `frames` [B]: with the silence that fills them up."""
        if self.config.chunking != "filled":
            return frames
        return frames.clamp(min=1 + self.window_samples // self.frontend.hop_samples)

    def normalise(self, decibels: Tensor) -> Tensor:
        """Decibels to about -1 to 1; not clipped."""
        return (decibels - self.config.norm_mean) / (2 * self.config.norm_std)

    def embed_patches(self, features: Tensor) -> Tensor:
        """features [B, T, F] to the embeddings [B, N, D] of the patches that fit into T frames, without positions."""
        return self.patch(patchify(features, self.config.kernel, self.config.kernel))

    def embed_view(self, features: Tensor, frames: Tensor, steps: int = 0) -> tuple[Tensor, Tensor]:
        """features [B, T, F], frames [B] of clips that fit the table of positions, without cutting them into chunks.

        Returns:
            Patch embeddings [B, N, D] of `steps` time steps (of the longest clip, if 0), and which [B, t] are valid.
        """
        own = torch.tensor([self.config.columns_of(count) for count in frames.tolist()], device=frames.device)
        steps = steps or int(own.max())
        size = steps * self.config.patch_time
        covered = nn.functional.pad(features, (0, 0, 0, max(0, size - features.shape[1])))[:, :size]
        return self.embed_patches(covered), torch.arange(steps, device=own.device) < own[:, None]

    def with_positions(self, tokens: Tensor) -> Tensor:
        """Patch embeddings [B, N, D] with positions; a shorter input has the first columns of the table."""
        rows, columns = self.config.grid
        table = self.positions[:, 1:].unflatten(1, (rows, columns))
        return tokens + table[:, :, : tokens.shape[1] // rows].flatten(1, 2)

    def placed(self, features: Tensor, frames: Tensor) -> Tokens:
        embeddings, valid = self.embed_view(features, frames)
        return Tokens(self.with_positions(embeddings), (self.config.grid[0], valid.shape[1]), valid)

    def with_prefix(self, placed: Tensor) -> Tensor:
        """What goes first, and patch tokens [B, M, D] that have their positions: [B, P + M, D]."""
        return placed

    def encode(self, placed: Tensor, valid: Tensor | None = None, layers: Iterable[int] | None = None) -> list[Tensor]:
        numbers = numbers_of(layers, self.num_layers)
        outputs, last = run_blocks(self.blocks, self.with_prefix(placed), valid, numbers)
        return [*outputs, self.norm(last)]

    def blocks_of(self, tokens: Tensor, valid: Tensor, layers: Iterable[int] | None = None) -> list[Tensor]:
        """Outputs [B, P + N, D] of `layers` (all, if None) for patch embeddings, of which the columns `valid` [B, t]
        are attended to.

        No clip may be without a valid column.
        """
        x = self.with_prefix(self.with_positions(tokens))
        numbers = numbers_of(layers, self.num_layers)
        return run_blocks(self.blocks, x, valid.repeat(1, self.config.grid[0]), numbers)[0]

    def forward_features(self, features: Tensor, frames: Tensor, layers: Iterable[int] | None = None) -> Encoded:
        """features [B, T, F] of `features()`, frames [B]; any length. `layers` as in `forward`."""
        chunks = Chunks(self.config, features, self.heard(frames))
        valid = chunks.valid
        if self.config.chunking == "filled":
            own = torch.tensor([self.config.columns_of(count) for count in frames.tolist()], device=frames.device)
            valid = torch.arange(chunks.columns, device=frames.device) < own[:, None]
        rows, count = self.config.grid[0], self.num_layers
        asked = numbers_of(layers, count)
        # A clip is pooled from the last.
        numbers = sorted({*asked, count - 1})
        # By group of chunks, then by layer.
        outputs = [
            [self.norm(x) for x in self.blocks_of(self.embed_patches(part), valid, numbers)]
            for part, valid in chunks.parts()
        ]
        tokens: dict[int, Tensor] = {}
        prefix: dict[int, Tensor] = {}
        means: dict[int, Tensor] = {}
        for number, *parts in zip(numbers, *outputs, strict=True):
            pieces = [x[:, self.PREFIX :].unflatten(1, (rows, -1)) for x in parts]
            means[number] = chunks.token_means(pieces)
            if self.PREFIX:
                prefix[number] = chunks.mean([x[:, 0] for x in parts])
            if number in asked:
                tokens[number] = chunks.joined(pieces).flatten(1, 2)
        summaries = {n: torch.cat([prefix[n], means[n]], dim=1) for n in asked} if self.PREFIX else means
        return Encoded(
            layers=LayerOutputs(count, tokens),
            prefix=LayerOutputs(count if self.PREFIX else 0, {n: prefix[n].unsqueeze(1) for n in asked if n in prefix}),
            grid=(rows, chunks.columns),
            times=self.times(chunks.columns, features.device),
            valid=valid,
            pooled=(prefix or means)[count - 1],
            summaries=LayerOutputs(count, {n: summaries[n] for n in asked}),
        )

    def times(self, columns: int, device: torch.device | None = None) -> Tensor:
        """Centre [t] of each column in seconds. The official code's, beside its chunking, are 1.5 frames earlier and
        do not count the frame that it loses in each chunk; its detectors learn that a step begins with its first frame.
        """
        patch = self.config.patch_time
        middle = {"whole": (patch - 1) / 2, "filled": patch / 2}.get(self.config.chunking, 0.0)
        step, hop = torch.arange(columns, device=device) * patch, self.config.hop_samples
        return (step + middle) * hop / self.config.sample_rate


class ClipEncoder(ATSTEncoder):
    """ATST-Clip's: a class token goes first, and is what a clip is pooled to.

    A summary of a layer is the class token beside the mean of the tokens: [B, 2 D].
    """

    PREFIX = 1

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def with_prefix(self, placed: Tensor) -> Tensor:
        first = self.cls_token + self.positions[:, :1]
        return torch.cat([first.expand(len(placed), -1, -1), placed], dim=1)


class FrameEncoder(ATSTEncoder):
    """ATST-Frame's: nothing but time steps; a clip is pooled to their mean, which is the summary of a layer too."""

    PREFIX = 0

    def __init__(self, config: FrameConfig) -> None:
        super().__init__(config)


E = TypeVar("E", bound=ATSTEncoder)


def for_finetuning(encoder: E, seconds: float) -> E:
    """The encoder with windows of `seconds`, in chunks as classifiers are trained; its positions fit any length."""
    config = dataclasses.replace(encoder.config, window_seconds=seconds)
    if config.chunking == "scene":
        config = dataclasses.replace(config, chunking="downstream")
    adapted = type(encoder)(config)  # type: ignore[arg-type]
    adapted.load_state_dict(encoder.state_dict())
    return adapted
