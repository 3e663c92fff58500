"""SSAST's encoder: a log-mel spectrogram, cut into patches, through a transformer.

B batch, S samples, T frames, F mel bins, (f, t) grid of patches, N = f * t tokens, D width.
Token order is frequency-major: token = row * t + column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auricle.audio.frontends import KaldiFbank
from auricle.methods.base import Encoded
from auricle.methods.ssast.config import SSASTConfig
from auricle.nn.patches import columns_for, grid_size, patchify, resize_positions, sincos_positions
from auricle.nn.transformer import Block

# A class and a distillation token, as in DeiT; both go first.
PREFIX = 2


@dataclass(frozen=True)
class Tokens:
    """Patch embeddings [B, N, D] without positions, their grid, and the columns [B, t] that are attended to."""

    embeddings: Tensor
    grid: tuple[int, int]
    valid: Tensor

    def token_valid(self) -> Tensor:
        """[B, N]: the columns' validity for every row."""
        return self.valid.repeat(1, self.grid[0])


class SSASTEncoder(nn.Module):
    """The audio spectrogram transformer.

    A clip shorter than one window of 25 ms is zero-padded to one. Clips up to `window_frames` use the first columns of
    the table of positions; longer ones, in `forward`, a table that is stretched in time for that clip. `embed` of a
    loaded model cuts long audio into windows instead.
    """

    def __init__(self, config: SSASTConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = KaldiFbank(config.sample_rate, config.mel_bins)
        self.patch = nn.Conv2d(1, config.width, kernel_size=config.kernel, stride=config.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, config.width))
        rows, columns = config.grid
        self.positions = nn.Parameter(torch.zeros(1, PREFIX + rows * columns, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.reset_parameters()

        self.sample_rate = config.sample_rate
        self.channel = config.channel
        self.dim = config.width
        self.num_layers = config.depth
        hop = self.frontend.hop_samples
        self.frame_rate = config.sample_rate / (hop * config.stride_time)
        self.min_samples = self.frontend.window_samples
        self.window_hop = columns * config.stride_time * hop
        # All that the table's columns see, so that a window never needs a longer table.
        seen = max(config.window_frames, (columns - 1) * config.stride_time + config.patch_time)
        self.window_samples = self.frontend.window_samples + hop * (seen - 1)

    def reset_parameters(self) -> None:
        """Truncated normal linear weights and tokens, zero biases; the patch embedding keeps PyTorch's default."""
        std = self.config.init_std
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        for token in (self.cls_token, self.dist_token, self.positions):
            nn.init.trunc_normal_(token, std=0.02)
        if self.config.position_init == "sincos":
            with torch.no_grad():
                self.positions[:, PREFIX:] = 0.3 * sincos_positions(self.config.grid, self.config.width)

    @property
    def pad_value(self) -> float:
        """What SSAST's loader pads with: a log-mel of 0, normalised (section 1.2: padding comes before normalising)."""
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

    def embed_patches(self, features: Tensor, frames: Tensor) -> tuple[Tokens, Tensor]:
        """features [B, T, F] to patch embeddings, and the features cut or padded to what the patches cover."""
        c = self.config
        if c.attend_padding:
            # The official code knows no lengths: it drops the frames after the last whole patch of a long input.
            whole = (features.shape[1] - c.patch_time) // c.stride_time + 1
            columns = torch.full_like(frames, max(whole, c.grid[1]))
        else:
            columns = columns_for(frames, c.patch_time, c.stride_time)
        most = int(columns.max())
        covered = (most - 1) * c.stride_time + c.patch_time
        features = nn.functional.pad(features, (0, 0, 0, max(0, covered - features.shape[1])), value=self.pad_value)
        features = features[:, :covered]
        valid = torch.arange(most, device=features.device) < columns[:, None]
        grid = grid_size((features.shape[2], features.shape[1]), c.kernel, c.stride)
        if c.stride == c.kernel:
            # The convolution as a matrix product, which is faster where patches do not overlap.
            patches = patchify(features, c.kernel, c.stride)
            embeddings = nn.functional.linear(patches, self.patch.weight.flatten(1), self.patch.bias)
        else:
            embeddings = self.patch(features.transpose(1, 2).unsqueeze(1)).flatten(2).transpose(1, 2)
        return Tokens(embeddings, grid, valid), features

    def positions_for(self, grid: tuple[int, int], valid: Tensor) -> Tensor:
        """Positions [1 or B, N, D] of a grid: a clip's own columns decide, never those of its neighbours."""
        rows, table_columns = self.config.grid
        table = self.positions[:, PREFIX:]
        if grid == (rows, table_columns):
            return table
        if grid[1] < table_columns:
            return table.unflatten(1, (rows, table_columns))[:, :, : grid[1]].flatten(1, 2)
        per_clip = []
        for columns in valid.sum(1).tolist():
            own = max(columns, table_columns)
            stretched = resize_positions(table, (rows, table_columns), (rows, own)).unflatten(1, (rows, own))
            padded = nn.functional.pad(stretched, (0, 0, 0, max(0, grid[1] - own)))
            per_clip.append(padded[:, :, : grid[1]].flatten(1, 2))
        return torch.cat(per_clip)

    def with_prefix(self, tokens: Tokens) -> Tensor:
        """[cls, dist, patches] plus positions: [B, 2 + N, D]."""
        x = tokens.embeddings + self.positions_for(tokens.grid, tokens.valid)
        prefix = torch.cat([self.cls_token, self.dist_token], dim=1) + self.positions[:, :PREFIX]
        return torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)

    def transform(self, tokens: Tokens) -> list[Tensor]:
        """Every block's output [B, 2 + N, D], and after them the final norm's."""
        x = self.with_prefix(tokens)
        keep = None
        if not bool(tokens.valid.all()):
            keep = nn.functional.pad(tokens.token_valid(), (PREFIX, 0), value=True)[:, None, None, :]
        outputs = []
        for block in self.blocks:
            x = block(x, keep)
            outputs.append(x)
        outputs.append(self.norm(x))
        return outputs

    def pool(self, normed: Tensor, tokens: Tokens) -> Tensor:
        """[B, D]: the mean over a clip's own patch tokens, or over the two prefix tokens (section 3)."""
        if self.config.pooling == "prefix":
            return normed[:, :PREFIX].mean(1)
        weight = tokens.token_valid().unsqueeze(-1).to(normed.dtype)
        return (normed[:, PREFIX:] * weight).sum(1) / weight.sum(1)

    def forward_features(self, features: Tensor, frames: Tensor) -> Encoded:
        """features [B, T, F] of `features()`, frames [B]."""
        tokens, _ = self.embed_patches(features, frames)
        *blocks, normed = self.transform(tokens)
        layers = [*blocks[:-1], normed]
        # Where padding is attended to, it is still padding.
        real = columns_for(frames, self.config.patch_time, self.config.stride_time)
        return Encoded(
            layers=tuple(x[:, PREFIX:] for x in layers),
            prefix=tuple(x[:, :PREFIX] for x in layers),
            grid=tokens.grid,
            times=self.times(tokens.grid[1], features.device),
            valid=torch.arange(tokens.grid[1], device=features.device) < real[:, None],
            pooled=self.pool(normed, tokens),
        )

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Encoded:
        """waves [B, S] float32 at `sample_rate` in [-1, 1], lengths [B] valid samples (all, if None)."""
        return self.forward_features(*self.features(waves, lengths))

    def times(self, columns: int, device: torch.device | None = None) -> Tensor:
        """Centre [t] of each column in seconds."""
        start = torch.arange(columns, device=device) * (self.config.stride_time * self.frontend.hop_samples)
        span = (self.config.patch_time - 1) * self.frontend.hop_samples + self.frontend.window_samples
        return (start + span / 2) / self.config.sample_rate


def adapt_encoder(encoder: SSASTEncoder, config: SSASTConfig) -> SSASTEncoder:
    """A new encoder with other strides or length, and the weights of `encoder`.

    Positions are cut or interpolated to the new grid. As in the official code they are not rescaled to new strides.
    """
    old = encoder.config
    adapted = SSASTEncoder(config)
    state = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    prefix, table = state["positions"][:, :PREFIX], state["positions"][:, PREFIX:]
    state["positions"] = torch.cat([prefix, resize_positions(table, old.grid, config.grid)], dim=1)
    adapted.load_state_dict(state)
    return adapted
