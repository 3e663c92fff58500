"""ASiT's encoder: the patches of a log-mel spectrogram through a ViT, whose class token stands for the clip.

B batch, S samples, T frames, F mel bins, (f, t) grid of patches, N = f * t tokens, D width.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from auricle.methods.asit.config import ASiTConfig
from auricle.methods.spectrogram.encoder import for_finetuning as adapt_for_finetuning
from auricle.methods.spectrogram.transformer import TransformerEncoder
from auricle.nn.patches import frequency_major, time_major
from auricle.nn.transformer import DropPath


class ASiTEncoder(TransformerEncoder):
    """The audio spectrogram vision transformer; a class token goes first.

    Features are [B, T, F] as everywhere in this library; the official network sees them as [time, mel] images too, but
    numbers its tokens along the frequency axis first. Here token = row * t + column, and the importer turns weights and
    positions over.
    """

    PREFIX_TOKENS = ("cls_token",)
    config: ASiTConfig

    def __init__(self, config: ASiTConfig) -> None:
        super().__init__(config)
        if config.position_layout == "swapped":
            hop, columns = self.frontend.hop_samples, (config.heard_frames or config.window_frames) // config.patch_time
            self.window_hop = columns * config.patch_time * hop
            self.window_samples = self.frontend.window_samples + hop * (columns * config.patch_time - 1)

    def columns_of(self, features: Tensor, frames: Tensor) -> Tensor:
        if self.config.position_layout == "learned":
            return super().columns_of(features, frames)
        # Only whole patches, as in PretrainedSED, but never none.
        return torch.div(frames, self.config.patch_time, rounding_mode="floor").clamp(min=1)

    def positions_for(self, grid: tuple[int, int], valid: Tensor) -> Tensor:
        if self.config.position_layout == "learned":
            return super().positions_for(grid, valid)
        own = valid.sum(1).tolist()
        tables = {columns: self.swapped_positions(columns) for columns in set(own)}
        return self.side_by_side([tables[columns] for columns in own], grid)

    def swapped_positions(self, columns: int) -> Tensor:
        """Positions [1, f * columns, D] as PretrainedSED reads the table.

        Symptom: its weights give noise with the positions that they were pretrained with. Cause: it takes the table,
        which holds t rows of f patches, for f rows of t, and stretches that to `columns` rows of f. Its detectors were
        trained so.
        """
        rows, table_columns = self.config.grid
        table = time_major(self.positions[:, self.prefix :], (rows, table_columns))
        image = table.transpose(1, 2).unflatten(2, (rows, table_columns))
        stretched = nn.functional.interpolate(image, size=(columns, rows), mode="bicubic", align_corners=False)
        return frequency_major(stretched.flatten(2).transpose(1, 2), (rows, columns))

    def drop_paths(self, last: float) -> None:
        """Leave out what blocks add in training, from never in the first to the probability `last` in the last one."""
        for number, block in enumerate(self.blocks):
            block.drop_path = DropPath(last * number / max(1, len(self.blocks) - 1))


def for_finetuning(encoder: ASiTEncoder, seconds: float) -> ASiTEncoder:
    """The encoder with its fine-tuning strides and positions for clips of `seconds`.

    With swapped positions it keeps its strides and its table, which is stretched for every length.
    """
    if encoder.config.position_layout == "learned":
        return adapt_for_finetuning(encoder, seconds)
    frames = int(encoder.frontend.num_frames(torch.tensor(round(seconds * encoder.sample_rate))))
    steps = max(1, round(seconds * encoder.frame_rate)) if encoder.config.sequence_steps else 0
    heard = max(frames, encoder.config.patch_time)
    adapted = type(encoder)(dataclasses.replace(encoder.config, heard_frames=heard, sequence_steps=steps))
    adapted.load_state_dict(encoder.state_dict())
    return adapted
