"""What every method promises, checked for every method there is.

The methods come from the registry and are tested in their smallest preset, by what they say they can do: a new method
is covered without adding a line here. What a method is excused from is listed in `EXCUSED`, with the reason.
"""

from __future__ import annotations

import dataclasses
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auricle.config import TrainConfig, from_dict, to_dict
from auricle.data.batch import Batch, Stream
from auricle.data.randomness import Draw
from auricle.errors import ConfigError
from auricle.methods import get_method, get_preset, method_names, preset_names
from auricle.methods.base import AudioEncoder, Encoded
from auricle.tasks.classification import Classifier

# Parameters of an objective that no gradient needs to reach: (method, name) to reason.
EXCUSED = {
    ("ssast", "discriminative.2.bias"): "cancels in the official softmax over predictions (issue 13 of its repository)",
}
CAPABILITIES = {"pretrain", "embed", "finetune", "decode"}


def able(capability: str) -> pytest.MarkDecorator:
    names = [name for name in method_names() if capability in get_method(name).CAPABILITIES]
    return pytest.mark.parametrize("name", names)


every_method = pytest.mark.parametrize("name", method_names())
every_preset = pytest.mark.parametrize("full_name", preset_names())


def parameters(name: str, preset: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in get_method(name).build_encoder(get_preset(name, preset).model).parameters())


@cache
def smallest(name: str) -> Any:
    """The settings of the method's preset with the fewest parameters."""
    return get_preset(name, min(get_method(name).PRESETS, key=lambda preset: parameters(name, preset))).model


def encoder(name: str) -> Any:
    torch.manual_seed(0)
    return get_method(name).build_encoder(smallest(name)).eval()


def objective(name: str) -> Any:
    torch.manual_seed(0)
    return get_method(name).build_objective(smallest(name)).train()


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
    return Batch({"audio": stream}, Draw(seed, (0,) * clips, tuple(range(clips))), tuple(map(str, range(clips))))


def tensors(encoded: Encoded) -> list[Tensor]:
    return [*encoded.layers, *encoded.prefix, encoded.times, encoded.valid, encoded.pooled]


# The module and its presets ---------------------------------------------------------------------------------------


@every_method
def test_the_module_has_what_the_registry_needs(name: str) -> None:
    method = get_method(name)
    assert method.CAPABILITIES
    assert method.CAPABILITIES <= CAPABILITIES
    assert method.DEFAULT_PRESET in method.PRESETS
    assert dataclasses.is_dataclass(method.CONFIG)
    for attribute in ("build_encoder", "build_objective", "for_finetuning", "recognises", "import_state"):
        assert callable(getattr(method, attribute)), attribute
    assert not method.recognises({})
    assert not method.recognises({"fc.weight": torch.zeros(1)})


@every_preset
def test_a_preset_builds_and_its_settings_survive_a_file(full_name: str) -> None:
    name = next(n for n in method_names() if full_name.startswith(f"{n}-"))
    method, preset = get_method(name), get_preset(name, full_name)
    assert isinstance(preset.model, method.CONFIG)
    assert isinstance(preset.pretrain, TrainConfig)
    assert isinstance(preset.finetune, TrainConfig)
    assert from_dict(method.CONFIG, to_dict(preset.model)) == preset.model
    with torch.device("meta"):
        if "pretrain" in method.CAPABILITIES:
            assert sum(p.numel() for p in method.build_objective(preset.model).parameters()) > 0
        else:
            method.build_encoder(preset.model)


@every_preset
def test_the_crops_of_a_preset_fit_its_window(full_name: str) -> None:
    name = next(n for n in method_names() if full_name.startswith(f"{n}-"))
    preset = get_preset(name, full_name)
    with torch.device("meta"):
        network = get_method(name).build_encoder(preset.model)
    assert network.min_samples <= preset.pretrain.crop_seconds * network.sample_rate <= network.window_samples


@every_method
def test_an_unknown_preset_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no preset 'nonsense'") as raised:
        get_preset(name, "nonsense")
    assert all(preset in str(raised.value) for preset in get_method(name).PRESETS)


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no method 'nonsense'") as raised:
        get_method("nonsense")
    assert all(name in str(raised.value) for name in method_names())


# Encoders ---------------------------------------------------------------------------------------------------------


@able("embed")
def test_the_encoder_follows_the_protocol(name: str) -> None:
    network = encoder(name)
    assert isinstance(network, AudioEncoder)
    assert isinstance(network, nn.Module)
    for attribute in ("sample_rate", "dim", "num_layers", "min_samples", "window_samples", "window_hop"):
        value = getattr(network, attribute)
        assert isinstance(value, int), attribute
        assert value > 0, attribute
    assert network.frame_rate > 0
    assert network.min_samples <= network.window_samples
    assert network.window_hop <= network.window_samples


@able("embed")
def test_what_is_encoded_keeps_its_invariants(name: str) -> None:
    network = encoder(name)
    lengths = lengths_for(network)
    with torch.inference_mode():
        encoded = network(*padded(lengths))
    rows, columns = encoded.grid
    assert len(encoded.layers) == network.num_layers
    assert all(x.shape == (len(lengths), rows * columns, network.dim) for x in encoded.layers)
    if encoded.prefix:
        assert len(encoded.prefix) == network.num_layers
        assert {x.shape[::2] for x in encoded.prefix} == {(len(lengths), network.dim)}
    assert encoded.pooled.shape == (len(lengths), network.dim)
    assert encoded.frames().shape[:2] == (len(lengths), columns)
    assert encoded.frames().shape[2] == rows * network.dim
    assert torch.equal(encoded.frames(), encoded.frames(network.num_layers - 1))
    assert all(x.dtype == torch.float32 for x in (*encoded.layers, *encoded.prefix, encoded.pooled))
    assert all(x.isfinite().all() for x in tensors(encoded))


@able("embed")
def test_time_steps_are_regular_and_lie_in_the_sound(name: str) -> None:
    network = encoder(name)
    lengths = lengths_for(network)
    with torch.inference_mode():
        encoded = network(*padded(lengths))
    columns = encoded.grid[1]
    assert encoded.times.shape == (columns,)
    assert encoded.times[0] >= 0
    torch.testing.assert_close(
        encoded.times.diff(), torch.full((columns - 1,), 1 / network.frame_rate), atol=1e-4, rtol=0
    )
    # The real steps come first, at least one, and more of them in a longer clip.
    steps = encoded.valid.sum(1)
    assert torch.equal(encoded.valid, torch.arange(columns) < steps[:, None])
    assert steps.min() >= 1
    assert steps.tolist() == sorted(steps.tolist())
    assert int(steps[-1]) == columns
    for length, last in zip(lengths, encoded.times[steps - 1].tolist(), strict=True):
        # A step is counted from its centre, so the last one may reach beyond a short clip by half of what it sees.
        assert last < length / network.sample_rate + float(encoded.times[0]) + 1 / network.frame_rate


@able("embed")
def test_windows_continue_evenly(name: str) -> None:
    network = encoder(name)
    with torch.inference_mode():
        times = network(torch.zeros(1, network.window_samples)).times
    gap = network.window_hop / network.sample_rate + float(times[0]) - float(times[-1])
    assert gap == pytest.approx(1 / network.frame_rate, rel=1e-3)


@able("embed")
def test_a_clip_gives_alone_what_it_gives_among_others(name: str) -> None:
    network = encoder(name)
    lengths = lengths_for(network)
    waves, given = padded(lengths)
    with torch.inference_mode():
        together = network(waves, given)
        for row, length in enumerate(lengths):
            alone = network(waves[row : row + 1, :length])
            steps = int(together.valid[row].sum())
            assert alone.grid[1] == steps
            torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=0)
            for layer in range(network.num_layers):
                got = together.frames(layer)[row, :steps]
                torch.testing.assert_close(got, alone.frames(layer)[0], atol=1e-5, rtol=0)


@able("embed")
def test_encoding_twice_gives_the_same_bits_and_draws_nothing(name: str) -> None:
    network, wave = encoder(name), noise(encoder(name).window_samples)[None]
    before = random_state()
    with torch.inference_mode():
        first, second = network(wave), network(wave)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert same_state(before, random_state())


@able("embed")
def test_inference_mode_changes_no_bit(name: str) -> None:
    network, wave = encoder(name), noise(encoder(name).window_samples)[None]
    with torch.inference_mode():
        inferred = network(wave)
    tracked = network(wave)
    assert tracked.pooled.requires_grad
    assert torch.equal(inferred.pooled, tracked.pooled.detach())


@able("embed")
def test_half_precision_stays_near(name: str) -> None:
    network, wave = encoder(name), noise(encoder(name).window_samples)[None]
    with torch.inference_mode():
        exact = network(wave).pooled
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = network(wave).pooled.float()
    assert float(nn.functional.cosine_similarity(exact, cast)) > 0.99


@able("embed")
def test_different_sounds_give_different_embeddings(name: str) -> None:
    network = encoder(name)
    t = torch.arange(network.window_samples) / network.sample_rate
    waves = torch.stack([0.3 * (2 * np.pi * hz * t).sin() for hz in (200.0, 2000.0)])
    with torch.inference_mode():
        low, high = network(waves).pooled
    assert (low - high).abs().max() > 1e-3


@able("embed")
@pytest.mark.parametrize("kind", ["silence", "constant", "full-scale square", "one sample", "one loud sample"])
@pytest.mark.parametrize("length", ["least", "window"])
def test_degenerate_sounds_give_finite_numbers(name: str, kind: str, length: str) -> None:
    network = encoder(name)
    size = 1 if kind == "one sample" else (network.min_samples if length == "least" else network.window_samples)
    wave = torch.zeros(1, size)
    if kind == "full-scale square":
        wave = 1.0 - 2.0 * (torch.arange(size) // 40 % 2)[None]
    elif kind != "silence":
        wave[:, :: size if kind == "one loud sample" else 1] = 1.0
    with torch.inference_mode():
        assert all(x.isfinite().all() for x in tensors(network(wave)))


@able("embed")
def test_weights_survive_a_state_dict(name: str) -> None:
    network, wave = encoder(name), noise(encoder(name).window_samples)[None]
    torch.manual_seed(1)
    other = get_method(name).build_encoder(smallest(name)).eval()
    with torch.inference_mode():
        assert not torch.equal(other(wave).pooled, network(wave).pooled)
        other.load_state_dict(network.state_dict())
        assert torch.equal(other(wave).pooled, network(wave).pooled)


@able("embed")
def test_an_encoder_can_be_pickled(name: str) -> None:
    network, wave = encoder(name), noise(encoder(name).window_samples)[None]
    again = pickle.loads(pickle.dumps(network))
    with torch.inference_mode():
        assert torch.equal(again(wave).pooled, network(wave).pooled)


# Pretraining ------------------------------------------------------------------------------------------------------


@able("pretrain")
def test_an_objective_returns_a_loss_its_weight_and_scalars(name: str) -> None:
    task = objective(name)
    result = task(batch(task.encoder), 0.0)
    assert {"loss", "weight"} <= set(result)
    assert all(value.ndim == 0 and value.isfinite() for value in result.values())
    assert result["loss"].requires_grad
    assert result["weight"] > 0
    assert not result["weight"].requires_grad
    task.after_step(0.5)


@able("pretrain")
def test_an_objective_is_a_function_of_the_batch_and_leaves_global_generators_alone(name: str) -> None:
    task = objective(name)
    given = batch(task.encoder)
    torch.manual_seed(1)
    before = random_state()
    first = task(given, 0.0)["loss"]
    first.backward()
    assert same_state(before, random_state())
    torch.manual_seed(2)
    assert torch.equal(task(given, 0.0)["loss"], first)
    assert not torch.equal(task(batch(task.encoder, seed=5), 0.0)["loss"], first)


@able("pretrain")
def test_the_loss_does_not_depend_on_padding_or_neighbours(name: str) -> None:
    task = objective(name)
    given = batch(task.encoder)
    audio = given.audio
    wider = dataclasses.replace(audio, data=nn.functional.pad(audio.data, (0, 3000)))
    want = task(given, 0.0)
    got = task(dataclasses.replace(given, streams={"audio": wider}), 0.0)
    torch.testing.assert_close(got["loss"], want["loss"], atol=1e-5, rtol=1e-5)
    # Micro-batches, weighted as they ask to be, add up to the batch.
    parts = [task(given.rows(i, i + 2), 0.0) for i in (0, 2)]
    mean = sum(p["loss"] * p["weight"] for p in parts) / sum(p["weight"] for p in parts)
    torch.testing.assert_close(mean, want["loss"], atol=1e-5, rtol=1e-5)


@able("pretrain")
def test_gradients_reach_every_parameter(name: str) -> None:
    task = objective(name)
    task(batch(task.encoder), 0.0)["loss"].backward()
    unreached = [
        parameter_name
        for parameter_name, p in task.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert [n for n in unreached if (name, n) not in EXCUSED] == []
    assert all(p.grad.isfinite().all() for p in task.parameters() if p.grad is not None)


@able("pretrain")
def test_a_few_steps_lower_the_loss(name: str) -> None:
    task = objective(name)
    given = batch(task.encoder)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    losses = []
    for step in range(15):
        loss = task(given, step / 15)["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        task.after_step((step + 1) / 15)
    assert losses[-1] < 0.95 * losses[0]


@able("pretrain")
def test_an_objective_survives_a_state_dict_and_pickling(name: str) -> None:
    task = objective(name)
    given = batch(task.encoder)
    torch.manual_seed(1)
    other = get_method(name).build_objective(smallest(name)).train()
    assert not torch.equal(other(given, 0.0)["loss"], task(given, 0.0)["loss"])
    other.load_state_dict(task.state_dict())
    again = pickle.loads(pickle.dumps(task))
    assert torch.equal(other(given, 0.0)["loss"], task(given, 0.0)["loss"])
    assert torch.equal(again(given, 0.0)["loss"], task(given, 0.0)["loss"])


@able("pretrain")
@pytest.mark.parametrize("length", [1, 400])
def test_pretraining_on_the_shortest_clips_gives_a_finite_loss(name: str, length: int) -> None:
    task = objective(name)
    stream = Stream(*padded([length, length]), task.encoder.sample_rate)
    loss = task(Batch({"audio": stream}, Draw(0, (0, 0), (0, 1)), ("a", "b")), 0.0)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in task.parameters() if p.grad is not None)


# Fine-tuning ------------------------------------------------------------------------------------------------------


@able("finetune")
@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
def test_an_encoder_is_fine_tuned_at_any_length(name: str, seconds: float) -> None:
    network = get_method(name).for_finetuning(encoder(name), seconds)
    assert isinstance(network, AudioEncoder)
    torch.manual_seed(0)
    model = Classifier(network, ("a", "b", "c"), mask_freq=8, mask_time=8, noise=True)
    waves = torch.stack([noise(round(seconds * network.sample_rate), seed) for seed in range(3)])
    stream = Stream(waves, torch.full((3,), waves.shape[1]), network.sample_rate)
    given = Batch({"audio": stream}, Draw(0, (0, 0, 0), (0, 1, 2)), ("a", "b", "c"), torch.eye(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = model(given, 0.0)["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    unreached = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


def random_state() -> tuple[Tensor, Any]:
    return torch.random.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002 - it must stay untouched


def same_state(first: tuple[Tensor, Any], second: tuple[Tensor, Any]) -> bool:
    return torch.equal(first[0], second[0]) and bool(first[1] == second[1])
