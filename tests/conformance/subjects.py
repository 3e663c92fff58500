"""The methods of the registry in their smallest presets, and sounds for them."""

from __future__ import annotations

import dataclasses
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from auricle.data.batch import Batch, Stream
from auricle.data.randomness import Draw
from auricle.methods import get_method, get_preset, method_names, preset_names
from auricle.methods.base import Encoded
from launch import pretext_tasks

CAPABILITIES = {"pretrain", "embed", "finetune", "decode"}


def spelled(name: str, pretext: str) -> str:
    """A pretext task as a test is called by: the method, and the pretext if it is not the default."""
    return name if pretext in ("", getattr(get_method(name).CONFIG(), "pretext", "")) else f"{name} {pretext}"


def method_of(name: str) -> Any:
    """The module of a method, or of one of its pretext tasks."""
    return get_method(name.partition(" ")[0])


def able(capability: str) -> pytest.MarkDecorator:
    names = [name for name in method_names() if capability in get_method(name).CAPABILITIES]
    return pytest.mark.parametrize("name", names)


# Each by its name, and by "name pretext" once more for each pretext task that is not its settings' default.
every_pretext_task = pytest.mark.parametrize("name", sorted({spelled(*task) for task in pretext_tasks()}))
every_method = pytest.mark.parametrize("name", method_names())
every_preset = pytest.mark.parametrize("full_name", preset_names())


def parameters(name: str, preset: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in get_method(name).build_encoder(get_preset(name, preset).model).parameters())


@cache
def smallest(name: str) -> Any:
    """The settings of the method's preset with the fewest parameters, and with the pretext task that is named."""
    name, _, pretext = name.partition(" ")
    config = get_preset(name, min(get_method(name).PRESETS, key=lambda preset: parameters(name, preset))).model
    return dataclasses.replace(config, pretext=pretext) if pretext else config


def encoder(name: str) -> Any:
    torch.manual_seed(0)
    return get_method(name).build_encoder(smallest(name)).eval()


def objective(name: str) -> Any:
    torch.manual_seed(0)
    return method_of(name).build_objective(smallest(name)).train()


def noise(length: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed))


def lengths_for(network: Any) -> list[int]:
    """From one sample to longer than the network's window."""
    least, window = network.min_samples, network.window_samples
    return [1, least, (least + window) // 2, window, window + network.window_hop // 2]


def padded(lengths: list[int]) -> tuple[Tensor, Tensor]:
    waves = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        waves[row, :length] = noise(length, row)
    return waves, torch.tensor(lengths)


def batch(network: Any, clips: int = 4, seed: int = 0) -> Batch:
    window = network.window_samples
    waves, lengths = padded([window - 1000 * (row % 3) if window > 4000 else window for row in range(clips)])
    stream = Stream(waves, lengths, network.sample_rate)
    draw, ids = Draw(seed, (0,) * clips, tuple(range(clips))), tuple(map(str, range(clips)))
    others = [Stream(waves.roll(shift, 0), lengths.roll(shift), network.sample_rate) for shift in (1, 2)]
    return Batch({"audio": stream}, draw, ids, partners=tuple(Batch({"audio": other}, draw, ids) for other in others))


def tensors(encoded: Encoded) -> list[Tensor]:
    return [*encoded.layers, *encoded.prefix, encoded.times, encoded.valid, encoded.pooled]


def random_state() -> tuple[Tensor, Any]:
    return torch.random.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002 - it must stay untouched


def same_state(first: tuple[Tensor, Any], second: tuple[Tensor, Any]) -> bool:
    return torch.equal(first[0], second[0]) and bool(first[1] == second[1])
