"""SSAMBA's encoder: the patches of a log-mel spectrogram through pairs of bidirectional Mamba layers.

B batch, P = 1 prefix token, N patch tokens, L = 1 + N tokens, D width, (f, t) grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError, plural
from auricle.methods.base import check_waves
from auricle.methods.spectrogram.encoder import PatchEncoder
from auricle.methods.ssamba.config import SSAMBAConfig
from auricle.nn.mamba import Mamba
from auricle.nn.steps import Steps, over_stretches

EPS = 1e-5


class Norm(nn.Module):
    """LayerNorm, or RMSNorm without bias, of a sum that is given as 2^-k times what it stands for.

    The norm of s x with s^2 eps is the norm of x with eps: scaling is exact. Computed in float32.
    """

    bias: nn.Parameter | None

    def __init__(self, width: int, rms: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.register_parameter("bias", None if rms else nn.Parameter(torch.zeros(width)))

    def forward(self, x: Tensor, halvings: int = 0) -> Tensor:
        """x [..., D] and k."""
        eps, shape = math.ldexp(EPS, -2 * halvings), self.weight.shape
        with torch.autocast(x.device.type, enabled=False):
            wide, weight = x.float(), self.weight.float()
            if self.bias is None:
                normed = F.rms_norm(wide, shape, weight, eps)
            else:
                normed = F.layer_norm(wide, shape, weight, self.bias.float(), eps)
        return normed.to(x.dtype)


class Layer(nn.Module):
    """Norm and mixer; the sum before them is the encoder's."""

    def __init__(self, config: SSAMBAConfig) -> None:
        super().__init__()
        self.norm = Norm(config.width, config.rms_norm)
        self.mixer = Mamba(
            config.width,
            expand=config.expand,
            states=config.states,
            taps=config.taps,
            kind=config.mixer,
            divide=config.divide,
        )

    def forward(self, x: Tensor, halvings: int, lengths: Tensor | None, reverse: bool) -> Tensor:
        """x [B, L, D], 2^-k times the sum it stands for; `reverse` reads the tokens from the end."""
        mixed: Tensor = self.mixer(self.norm(x, halvings), lengths, reverse)
        return mixed


@dataclass(frozen=True)
class Stage:
    """What a pair of layers (or a single one) reads and says, [B, L, D] in the clip's own order.

    Attributes:
        halvings: k; what the official code adds up is 2^k times `sums`.
        sums: the residual sum that each layer of the pair reads; they differ by drop path only.
        hidden: what each layer makes of it.
    """

    halvings: int
    sums: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...]

    @property
    def carried(self) -> Tensor:
        """The residual sum that goes on to the next stage: the mean over the layers of the pair."""
        first, *others = self.sums
        return first if all(other is first for other in others) else torch.stack(self.sums).mean(0)


@dataclass(frozen=True)
class Stream:
    """What is remembered of the sound so far of B streams.

    Attributes:
        samples: [B, S] that do not yet fill an analysis window, and what the next one overlaps with.
        frames: [B, T, F] normalised log-mel frames that do not yet fill a patch, and what the next one overlaps with.
        columns: time steps so far.
        mixers: of each layer, see `nn.mamba.Mamba.step`; empty before the first time step.
    """

    samples: Tensor
    frames: Tensor
    columns: int
    mixers: tuple[tuple[Tensor, Tensor], ...]


class SSAMBAEncoder(PatchEncoder):
    """24 Mamba layers as 12 pairs, of which the second layer reads the tokens from the end.

    In the official code both layers of a pair add the same residual, and their sums are added: it doubles with every
    pair, up to 2^12, and overflows in half precision. Here S_k = S_{k-1} + h_k / 2^k takes its place, read with
    eps / 4^k, where h_k is what pair k says and S_0 the tokens: the same numbers, as powers of two are exact
    (docs/ssamba.md). `Encoded.layers` are S_1, S_2, ... and, as the last one, the final norm's.

    Where clips differ in length, the patches of each stand side by side for the scans, so that none sees padding.
    """

    # What `per_second` makes of a clip in the official form, however long it is.
    OFFICIAL_SECONDS = 60
    config: SSAMBAConfig

    def __init__(self, config: SSAMBAConfig) -> None:
        super().__init__(config)
        self.num_layers = config.depth // 2 if config.pairs else config.depth
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = Norm(config.width, config.rms_norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Maps out of the mixers are smaller by sqrt(depth); tokens and positions as `reset_positions`."""
        for layer in self.layers:
            assert isinstance(layer, Layer)
            weight = layer.mixer.out_proj.weight
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            with torch.no_grad():
                weight /= math.sqrt(self.config.depth)
        self.reset_positions()

    def layers_of(self, x: Tensor, valid: Tensor | None, layers: Sequence[int]) -> list[Tensor]:
        """The residual sums after `layers`, which are pairs [B, P + M, D], and after them the final norm's."""
        if valid is None:
            valid = x.new_ones(len(x), x.shape[1] - self.prefix, dtype=torch.bool)
        order = self.order(valid)
        lengths = None if bool(valid.all()) else valid.sum(1) + self.prefix
        outputs = []
        for number, last in self.sums(x if order is None else take(x, order), lengths):
            if number in layers:
                outputs.append(last)
            if number == self.num_layers - 1:
                outputs.append(self.final(last)[-1])
            del last
        back = None if order is None else order.argsort(1)
        return outputs if back is None else [take(output, back) for output in outputs]

    def order(self, valid: Tensor) -> Tensor | None:
        """Which token comes at each place of the scans [B, L]; None where they stand in that order already.

        Of the patches, those that are `valid` [B, M] come first; the class token stands before or amid them.
        """
        middle = self.config.cls_position == "middle"
        if not middle and bool(valid.all()):
            return None
        count = valid.sum(1, keepdim=True)
        rank = torch.where(valid, valid.cumsum(1) - 1, valid.shape[1]).float()
        own = (count // 2).float() - 0.5 if middle else torch.full_like(rank[:, :1], -1.0)
        return torch.cat([own, rank], dim=1).argsort(dim=1, stable=True)

    def stages(self, x: Tensor, lengths: Tensor | None = None) -> Iterator[Stage]:
        """The pairs (or layers) one after the other, from x [B, L, D] with `lengths` [B] valid tokens each."""
        size = 2 if self.config.pairs else 1
        sums: tuple[Tensor, ...] = (x,) * size
        halvings = 0
        for first in range(0, self.config.depth, size):
            members = self.layers[first : first + size]
            hidden = tuple(
                layer(read, halvings, lengths, reverse=bool(place))
                for place, (layer, read) in enumerate(zip(members, sums, strict=True))
            )
            stage = Stage(halvings, sums, hidden)
            yield stage
            if first + size < self.config.depth:
                rates = [self._drop_rate(layer) for layer in range(first + size, first + 2 * size)]
                sums = self._add(stage, rates)
                halvings += self._doubles
            # They are as large as all that the next stage needs.
            del stage, hidden

    def sums(self, x: Tensor, lengths: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """Each layer's number, and the residual sum after it, as `stages` takes x; none is held longer than needed."""
        number = -1
        for stage in self.stages(x, lengths):
            if number >= 0:
                yield number, stage.carried
            number += 1
            if number == self.num_layers - 1:
                yield number, self.last_sum(stage)
            del stage

    def last_sum(self, stage: Stage) -> Tensor:
        """What the final norm reads: the sum after the last stage, with drop path of its own."""
        return self._add(stage, [self.config.drop_path])[0]

    def final(self, last: Tensor) -> list[Tensor]:
        """The final norm once, and a second time as the published weights need; all results."""
        normed = [self.norm(last, self._doubles * self.num_layers)]
        for _ in range(self.config.final_norms - 1):
            normed.append(self.norm(normed[-1]))
        return normed

    def step(self, waves: Tensor, state: Stream | None = None) -> tuple[Tensor, Stream]:
        """Some more sound of a stream: the final norm's tokens that it completes, and what is remembered.

        Pieces of any length give, in evaluation mode, the last of `Encoded.layers` for the whole sound, as far as its
        patches are filled. Only networks that never look ahead can do it: `mixer="none"`, `pairs=False`,
        `cls_position="first"`, and patches over all frequencies, so that tokens come in the order of time.

        Args:
            waves: [B, S] at `sample_rate`.
            state: of the call before; None at the beginning. It is not changed.

        Returns:
            [B, l, D], one token for each of l >= 0 time steps, and the new state.

        Raises:
            ConfigError: a network that looks ahead, a stream longer than the table of positions, waves of another
                shape, or for another number of streams than `state`.
        """
        c, hop, span = self.config, self.frontend.hop_samples, self.frontend.window_samples
        self._check_stream()
        check_waves(waves)
        if state is not None and len(state.samples) != len(waves):
            raise ConfigError(
                f"the state is that of {plural(len(state.samples), 'stream')}, got waves for {len(waves)}; give every "
                "stream in each call, or begin with state=None."
            )
        if state is None:
            state = Stream(waves[:, :0], waves.new_zeros(len(waves), 0, c.mel_bins), 0, ())
        samples, frames = torch.cat([state.samples, waves], dim=1), state.frames
        if count := max(0, (samples.shape[1] - span) // hop + 1):
            # The mean of a whole clip need not be known: the filterbank removes that of each window.
            log_mel = self.frontend(samples[:, : (count - 1) * hop + span])
            frames = torch.cat([frames, (log_mel - c.norm_mean) / (2 * c.norm_std)], dim=1)
        samples, first = samples[:, count * hop :], state.columns
        new = max(0, (frames.shape[1] - c.patch_time) // c.stride_time + 1)
        if not new:
            return waves.new_zeros(len(waves), 0, c.width), Stream(samples, frames, first, state.mixers)
        if first + new > c.grid[1]:
            raise ConfigError(
                f"the stream is longer than the {c.grid[1]} time steps ({c.grid[1] / self.frame_rate:g} s) that this "
                "network has positions for; begin a new one with state=None, give the network a longer table "
                "(window_frames, see docs/ssamba.md), or embed windows that overlap with embed(..., context=SECONDS)."
            )
        covered = frames[:, : (new - 1) * c.stride_time + c.patch_time]
        tokens = self.embed_covered(covered, torch.ones(len(waves), new, dtype=torch.bool, device=waves.device))
        x = tokens.embeddings + self.positions[:, self.prefix + first :][:, :new]
        if not first:
            x = self.with_prefix(x)
        mixers = []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            mixed, remembered = layer.mixer.step(layer.norm(x), state.mixers[number] if first else None)
            x = x + mixed
            mixers.append(remembered)
        normed = self.final(x)[-1][:, 0 if first else self.prefix :]
        return normed, Stream(samples, frames[:, new * c.stride_time :], first + new, tuple(mixers))

    def _check_stream(self) -> None:
        c = self.config
        wanted = {"mixer": "none", "pairs": False, "cls_position": "first", "patch_freq": c.mel_bins}
        found = [f"{name}={getattr(c, name)}" for name, value in wanted.items() if getattr(c, name) != value]
        if found:
            raise ConfigError(
                f"a network with {', '.join(found).lower()} cannot stream: it looks ahead, or its tokens are not in "
                "the order of time; train one with mixer=none pairs=false cls_position=first and patches and strides "
                f"over all {c.mel_bins} mel bins, or embed windows that overlap with embed(..., context=SECONDS)."
            )

    def per_second(self, normed: Tensor, grid: tuple[int, int]) -> Tensor:
        """Means [B, seconds, D] of the tokens of every second, from the final norm's output [B, 1 + N, D].

        The official code (`ft_avgtok_1sec`, `seconds="official"`) makes 60 chunks of (1 + N) // 60 neighbours in the
        order of the tokens, the class token among them: since that order goes by frequency first, they are no seconds.

        Raises:
            ValueError: the official form, with fewer than 60 tokens.
        """
        if self.config.seconds == "official":
            size = normed.shape[1] // self.OFFICIAL_SECONDS
            if not size:
                raise ValueError(f"{normed.shape[1]} tokens cannot be cut into {self.OFFICIAL_SECONDS} chunks")
            whole = normed[:, : self.OFFICIAL_SECONDS * size]
            return whole.unflatten(1, (self.OFFICIAL_SECONDS, size)).mean(2)
        columns = normed[:, self.prefix :].unflatten(1, grid).mean(1)
        valid = normed.new_ones(len(normed), grid[1], dtype=torch.bool)
        return over_stretches(Steps(columns, self.times(grid[1], normed.device), valid), 1.0).values

    @property
    def _doubles(self) -> int:
        """Whether the official residual doubles from stage to stage."""
        return int(self.config.pairs)

    def _drop_rate(self, layer: int) -> float:
        """[0] + linspace(0, drop_path, depth): the first two layers have none."""
        return self.config.drop_path * max(0, layer - 1) / max(1, self.config.depth - 1)

    def _add(self, stage: Stage, rates: Sequence[float]) -> tuple[Tensor, ...]:
        """The sum after a stage, once for each of the layers that drop it at these rates, by clips of their own."""
        said = sum(stage.hidden[1:], stage.hidden[0])
        scale = math.ldexp(1.0, -(stage.halvings + self._doubles))
        if not self.training or not any(rates):
            return (torch.add(stage.carried, said, alpha=scale),) * len(rates)
        return tuple(torch.add(stage.carried, drop_path(said, rate), alpha=scale) for rate in rates)


def drop_path(x: Tensor, rate: float) -> Tensor:
    """x [B, ...], of which each row is dropped with probability `rate`, and else divided by 1 - rate."""
    kept = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) >= rate
    return x * (kept / (1 - rate)).to(x.dtype)


def take(x: Tensor, order: Tensor) -> Tensor:
    """x [B, L, D] with its tokens in the order [B, L]."""
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
