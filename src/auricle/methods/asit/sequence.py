"""ASiT as PretrainedSED's detectors hear it: clips of one length, whose tokens are one sequence of even time steps.

B batch, S samples, T frames, F mel bins, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from auricle.audio.frontends import fill_up
from auricle.errors import ConfigError
from auricle.methods.asit.config import ASiTConfig
from auricle.methods.asit.model import ASiTEncoder
from auricle.methods.base import Encoded
from auricle.methods.layers import LayerOutputs
from auricle.nn.patches import time_major


class SequenceEncoder(ASiTEncoder):
    """An encoder whose time steps are `sequence_steps` equal parts of a window (250 of 40 ms, of ten seconds).

    A clip that is shorter is filled up with silence, which is attended to, as in the clips that the detectors were
    trained on. So a step is at the same place of the sequence whatever a clip's length.
    """

    def __init__(self, config: ASiTConfig) -> None:
        super().__init__(config)
        # A step has a whole number of samples.
        heard = (config.heard_frames or config.window_frames) - 1
        span = self.frontend.window_samples + self.frontend.hop_samples * heard
        self.step_samples = -(-span // config.sequence_steps)
        self.window_samples = self.window_hop = self.step_samples * config.sequence_steps
        self.frame_rate = self.sample_rate / self.step_samples

    def features(self, waves: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """waves [B, S], lengths [B] to normalised log-mel [B, T, F] of a whole window, and the frames [B] of each clip.

        Raises:
            ConfigError: waves that are longer than a window.
        """
        if waves.shape[1] > self.window_samples:
            heard, given = (samples / self.sample_rate for samples in (self.window_samples, waves.shape[1]))
            raise ConfigError(
                f"this network hears {heard:g} s at once, got {given:g} s; embed and detect of a loaded model cut a "
                "longer sound into windows."
            )
        if lengths is None:
            lengths = torch.full((len(waves),), waves.shape[1], device=waves.device)
        features, _ = super().features(*fill_up(waves, lengths, self.window_samples))
        return features, self.frontend.num_frames(lengths)

    def forward_features(self, features: Tensor, frames: Tensor, layers: Iterable[int] | None = None) -> Encoded:
        """features [B, T, F] of `features()`, frames [B]; `layers` as in `forward`."""
        encoded = super().forward_features(features, torch.full_like(frames, features.shape[1]), layers)
        steps = self.config.sequence_steps
        pooled = {layer: pooled_sequence(encoded, steps, layer) for layer in encoded.layers.kept}
        number = torch.arange(steps, device=frames.device)
        heard = self.frontend.window_samples + self.frontend.hop_samples * (frames - 1)
        return dataclasses.replace(
            encoded,
            layers=LayerOutputs(self.num_layers, pooled),
            grid=(1, steps),
            times=(number + 0.5) * self.step_samples / self.sample_rate,
            valid=number * self.step_samples < heard[:, None],
        )


def pooled_sequence(encoded: Encoded, steps: int = 250, layer: int = -1) -> Tensor:
    """What PretrainedSED's detectors read of a batch of clips of one length: [B, steps, D].

    All tokens, the class token first and the frequency rows of a column one after the other, are averaged down to
    `steps`, or interpolated up to them where they are fewer. So a step has some rows of a column only, and its time but
    for the class token that goes first.
    """
    tokens = torch.cat([encoded.prefix[layer], time_major(encoded.layers[layer], encoded.grid)], dim=1).transpose(1, 2)
    if tokens.shape[2] > steps:
        return nn.functional.adaptive_avg_pool1d(tokens, steps).transpose(1, 2)
    return nn.functional.interpolate(tokens, size=steps, mode="linear", align_corners=False).transpose(1, 2)
