"""Features that need no learning: what any representation has to beat.

S samples, T frames, F mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auricle.audio.frontends import KaldiFbank
from auricle.data.items import Item
from auricle.data.loader import read_item
from auricle.errors import ConfigError

RATE = 16000
MFCC_COEFFICIENTS = 20
MFCC_MELS = 64


def mfcc_statistics(items: Sequence[Item]) -> NDArray[np.float32]:
    """Mean and standard deviation over time of 20 mel cepstral coefficients: [items, 40]."""
    frontend = KaldiFbank(RATE, MFCC_MELS)
    order = torch.arange(MFCC_COEFFICIENTS)[:, None]
    # Orthonormal DCT-II.
    dct = math.sqrt(2 / MFCC_MELS) * torch.cos(math.pi / MFCC_MELS * (torch.arange(MFCC_MELS) + 0.5) * order)
    dct[0] /= math.sqrt(2)
    return _statistics(items, lambda wave: frontend(wave) @ dct.T)


def log_mel_statistics(items: Sequence[Item]) -> NDArray[np.float32]:
    """Mean and standard deviation over time of 128 log-mel bands: [items, 256]."""
    return _statistics(items, KaldiFbank(RATE, 128))


def _statistics(items: Sequence[Item], features: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
    rows = []
    for item in items:
        wave = torch.from_numpy(read_item(item, RATE))
        x = features((wave - wave.mean())[None])[0]
        rows.append(torch.cat([x.mean(0), x.std(0, correction=0)]).numpy())
    return np.stack(rows)


BASELINES: dict[str, Callable[[Sequence[Item]], NDArray[np.float32]]] = {
    "mfcc": mfcc_statistics,
    "logmel": log_mel_statistics,
}


def baseline(name: str) -> Callable[[Sequence[Item]], NDArray[np.float32]]:
    """The baseline called `name`: items to features.

    Raises:
        ConfigError: no such baseline.
    """
    if name not in BASELINES:
        raise ConfigError(f"no baseline '{name}'; the baselines are {', '.join(BASELINES)} and random.")
    return BASELINES[name]
