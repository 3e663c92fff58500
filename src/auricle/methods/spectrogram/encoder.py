"""From a spectrogram to tokens, through any layers, to embeddings: the encoder of methods over patches.

B batch, S samples, T frames, F mel bins, (f, t) grid of patches, N = f * t tokens, P prefix tokens, D width.
Token order is frequency-major: token = row * t + column.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from auricle.audio.frontends import KaldiFbank
from auricle.methods.base import Encoded
from auricle.methods.layers import LayerOutputs, numbers_of
from auricle.methods.spectrogram.config import PatchConfig
from auricle.methods.spectrogram.tokens import TokenEncoder, Tokens
from auricle.nn.patches import columns_for, grid_size, patchify, reset_positions, resize_positions

E = TypeVar("E", bound="PatchEncoder")


def build_frontend(config: PatchConfig) -> KaldiFbank:
    """The filterbank of which `norm_mean` and `norm_std` are statistics."""
    return KaldiFbank(config.sample_rate, config.mel_bins)


class PatchEncoder(TokenEncoder):
    """Log-mel patches with positions through the layers of a subclass.

    A clip shorter than one window of 25 ms is zero-padded to one. Clips up to `window_frames` use the first columns of
    the table of positions; longer ones, in `forward`, a table that is stretched in time for that clip. `embed` of a
    loaded model cuts long audio into windows instead.

    A subclass calls `__init__`, makes its layers, sets `num_layers`, and writes `layers_of`.

    Attributes:
        PREFIX_TOKENS: names of the learned tokens [1, 1, D] that stand before the patches, in their order.
        positions: [1, P + N, D], those of the prefix tokens first.
    """

    PREFIX_TOKENS: ClassVar[tuple[str, ...]] = ("cls_token",)
    config: PatchConfig
    frontend: KaldiFbank

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = build_frontend(config)
        self.patch = nn.Conv2d(1, config.width, kernel_size=config.kernel, stride=config.stride)
        for name in self.PREFIX_TOKENS:
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 1, config.width)))
        rows, columns = config.grid
        self.positions = nn.Parameter(torch.zeros(1, self.prefix + rows * columns, config.width))
        self.sample_rate = config.sample_rate
        self.channel = config.channel
        self.dim = config.width
        hop = self.frontend.hop_samples
        self.frame_rate = config.sample_rate / (hop * config.stride_time)
        self.min_samples = self.frontend.window_samples
        self.window_hop = columns * config.stride_time * hop
        # All that the table's columns see, so that a window never needs a longer table.
        seen = max(config.window_frames, (columns - 1) * config.stride_time + config.patch_time)
        self.window_samples = self.frontend.window_samples + hop * (seen - 1)

    @property
    def prefix(self) -> int:
        """P, the number of tokens before the patches."""
        return len(self.PREFIX_TOKENS)

    def reset_positions(self) -> None:
        """Truncated normal tokens and positions, or sine-cosine positions; the patch embedding keeps PyTorch's."""
        for name in self.PREFIX_TOKENS:
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)
        reset_positions(self.positions, self.config.grid, self.config.position_init)

    @abstractmethod
    def layers_of(self, x: Tensor, valid: Tensor | None, layers: Sequence[int]) -> list[Tensor]:
        """The outputs of `layers`, rising, for prefix and patch tokens [B, P + M, D], and after them the final norm's.

        What the patches `valid` [B, M] of a clip become must not depend on the others; None: all are valid.
        """

    def encode(self, placed: Tensor, valid: Tensor | None = None, layers: Iterable[int] | None = None) -> list[Tensor]:
        return self.layers_of(self.with_prefix(placed), valid, numbers_of(layers, self.num_layers))

    def transform(self, tokens: Tokens, layers: Iterable[int] | None = None) -> list[Tensor]:
        """Outputs [B, P + N, D] of `layers` (all, if None) for all tokens, and after them the final norm's."""
        return self.encode(self.with_positions(tokens), tokens.token_valid(), layers)

    @property
    def pad_value(self) -> float:
        """A log-mel of 0, normalised: SSAST's loader pads before it normalises (section 1.2)."""
        if self.config.pad_normalised:
            return 0.0
        return -self.config.norm_mean / (2 * self.config.norm_std)

    def features(self, waves: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """waves [B, S], lengths [B] to normalised log-mel [B, T, F] and frames [B]; `pad_value` beyond a clip's frames.

        The mean of the clip is removed first, and x becomes (x - mean) / (2 std).
        """
        if lengths is None:
            lengths = torch.full((waves.shape[0],), waves.shape[1], device=waves.device)
        real = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        mean = (waves * real).sum(1) / lengths.clamp(min=1)
        log_mel = self.frontend((waves - mean[:, None]) * real)
        frames = self.frontend.num_frames(lengths)
        normalised = (log_mel - self.config.norm_mean) / (2 * self.config.norm_std)
        padding = torch.arange(log_mel.shape[1], device=waves.device) >= frames[:, None]
        return normalised.masked_fill(padding[..., None], self.pad_value), frames

    def columns_of(self, features: Tensor, frames: Tensor) -> Tensor:
        """How many columns of patches [B] are attended to in features [B, T, F] of `frames` [B]."""
        c = self.config
        if c.attend_padding:
            # The official code knows no lengths: it drops the frames after the last whole patch of a long input.
            whole = (features.shape[1] - c.patch_time) // c.stride_time + 1
            return torch.full_like(frames, max(whole, c.grid[1]))
        return columns_for(frames, c.patch_time, c.stride_time)

    def cover(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F] cut or padded to what the patches cover, and the columns [B, t] that are attended to."""
        c = self.config
        columns = self.columns_of(features, frames)
        most = int(columns.max())
        covered = (most - 1) * c.stride_time + c.patch_time
        features = nn.functional.pad(features, (0, 0, 0, max(0, covered - features.shape[1])), value=self.pad_value)
        return features[:, :covered], torch.arange(most, device=features.device) < columns[:, None]

    def embed_covered(self, features: Tensor, valid: Tensor) -> Tokens:
        """features [B, T, F] and valid [B, t], both as `cover` gives them, to patch embeddings."""
        c = self.config
        grid = grid_size((features.shape[2], features.shape[1]), c.kernel, c.stride)
        if c.stride == c.kernel:
            # The convolution as a matrix product, which is faster where patches do not overlap.
            patches = patchify(features, c.kernel, c.stride)
            embeddings = nn.functional.linear(patches, self.patch.weight.flatten(1), self.patch.bias)
        else:
            embeddings = self.patch(features.transpose(1, 2).unsqueeze(1)).flatten(2).transpose(1, 2)
        return Tokens(embeddings, grid, valid)

    def embed_patches(self, features: Tensor, frames: Tensor) -> tuple[Tokens, Tensor]:
        """features [B, T, F] to patch embeddings, and the features cut or padded to what the patches cover."""
        features, valid = self.cover(features, frames)
        return self.embed_covered(features, valid), features

    def positions_for(self, grid: tuple[int, int], valid: Tensor) -> Tensor:
        """Positions [1 or B, N, D] of a grid: a clip's own columns decide, never those of its neighbours."""
        rows, table_columns = self.config.grid
        table = self.positions[:, self.prefix :]
        if grid == (rows, table_columns):
            return table
        if grid[1] < table_columns:
            return table.unflatten(1, (rows, table_columns))[:, :, : grid[1]].flatten(1, 2)
        own = [max(columns, table_columns) for columns in valid.sum(1).tolist()]
        stretched = {columns: resize_positions(table, (rows, table_columns), (rows, columns)) for columns in set(own)}
        return self.side_by_side([stretched[columns] for columns in own], grid)

    def side_by_side(self, tables: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Positions of each clip [1, f * own columns, D], cut or padded to the columns of a batch: [B, N, D]."""
        per_clip = []
        for table in tables:
            own = table.unflatten(1, (grid[0], -1))[:, :, : grid[1]]
            per_clip.append(nn.functional.pad(own, (0, 0, 0, grid[1] - own.shape[2])).flatten(1, 2))
        return torch.cat(per_clip)

    def with_positions(self, tokens: Tokens) -> Tensor:
        """The patches plus positions: [B, N, D]."""
        return tokens.embeddings + self.positions_for(tokens.grid, tokens.valid)

    def placed(self, features: Tensor, frames: Tensor) -> Tokens:
        tokens, _ = self.embed_patches(features, frames)
        return dataclasses.replace(tokens, embeddings=self.with_positions(tokens))

    def with_prefix(self, placed: Tensor) -> Tensor:
        """The prefix tokens with their positions, and patch tokens [B, M, D] that have theirs: [B, P + M, D]."""
        if not self.prefix:
            return placed
        prefix = torch.cat([self.get_parameter(name) for name in self.PREFIX_TOKENS], dim=1)
        prefix = prefix + self.positions[:, : self.prefix]
        return torch.cat([prefix.expand(len(placed), -1, -1), placed], dim=1)

    def pool(self, normed: Tensor, valid: Tensor) -> Tensor:
        """[B, D]: the mean over a clip's own patch tokens, `valid` [B, M], or over the prefix tokens."""
        return normed[:, : self.prefix].mean(1) if self.config.pooling == "prefix" else super().pool(normed, valid)

    def forward_features(self, features: Tensor, frames: Tensor, layers: Iterable[int] | None = None) -> Encoded:
        """features [B, T, F] of `features()`, frames [B]; `layers` as in `forward`."""
        tokens, _ = self.embed_patches(features, frames)
        count, numbers = self.num_layers, numbers_of(layers, self.num_layers)
        # The last one is after the final norm.
        before = [number for number in numbers if number < count - 1]
        *outputs, normed = self.transform(tokens, before)
        kept = dict(zip(numbers, [*outputs, normed], strict=False))
        # Where padding is attended to, it is still padding.
        real = columns_for(frames, self.config.patch_time, self.config.stride_time)
        return Encoded(
            layers=LayerOutputs(count, {n: x[:, self.prefix :] for n, x in kept.items()}),
            prefix=LayerOutputs(count if self.prefix else 0, {n: x[:, : self.prefix] for n, x in kept.items()}),
            grid=tokens.grid,
            times=self.times(tokens.grid[1], features.device),
            valid=torch.arange(tokens.grid[1], device=features.device) < real[:, None],
            pooled=self.pool(normed, tokens.token_valid()),
        )

    def times(self, columns: int, device: torch.device | None = None) -> Tensor:
        """Centre [t] of each column in seconds."""
        start = torch.arange(columns, device=device) * (self.config.stride_time * self.frontend.hop_samples)
        span = (self.config.patch_time - 1) * self.frontend.hop_samples + self.frontend.window_samples
        return (start + span / 2) / self.config.sample_rate


def adapt_encoder(encoder: E, config: PatchConfig) -> E:
    """A new encoder with other strides or length, and the weights of `encoder`.

    Positions are cut or interpolated to the new grid. As in the official code they are not rescaled to new strides.
    """
    old, prefix = encoder.config, encoder.prefix
    adapted = type(encoder)(config)
    state = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    own, table = state["positions"][:, :prefix], state["positions"][:, prefix:]
    state["positions"] = torch.cat([own, resize_positions(table, old.grid, config.grid)], dim=1)
    adapted.load_state_dict(state)
    return adapted


def for_finetuning(encoder: E, seconds: float) -> E:
    """The encoder with its fine-tuning strides and positions for clips of `seconds`."""
    frames = int(encoder.frontend.num_frames(torch.tensor(round(seconds * encoder.sample_rate))))
    return adapt_encoder(encoder, encoder.config.for_finetuning(frames))
