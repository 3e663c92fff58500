"""What every method promises, checked for every method there is: its module, its presets and its encoder.

The methods come from the registry and are tested in their smallest preset, by what they say they can do: a new method
is covered without adding a line here.
"""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from subjects import (
    CAPABILITIES,
    able,
    encoder,
    every_method,
    every_preset,
    lengths_for,
    noise,
    padded,
    random_state,
    same_state,
    smallest,
    tensors,
)
from torch import nn

from auricle.audio.frontends import Frontend
from auricle.config import TrainConfig, from_dict, to_dict
from auricle.errors import ConfigError
from auricle.methods import get_method, get_preset, method_names
from auricle.methods.base import AudioEncoder, MethodConfig, SpectrogramEncoder

# The module and its presets ---------------------------------------------------------------------------------------


@every_method
def test_the_module_has_what_the_registry_needs(name: str) -> None:
    method = get_method(name)
    assert method.CAPABILITIES
    assert method.CAPABILITIES <= CAPABILITIES
    assert method.DEFAULT_PRESET in method.PRESETS
    assert dataclasses.is_dataclass(method.CONFIG)
    functions = ("build_frontend", "build_encoder", "build_objective", "for_finetuning", "recognises", "import_state")
    for attribute in functions:
        assert callable(getattr(method, attribute)), attribute
    assert not method.recognises({})
    assert not method.recognises({"fc.weight": torch.zeros(1)})


@every_preset
def test_a_preset_builds_and_its_settings_survive_a_file(full_name: str) -> None:
    name = next(n for n in method_names() if full_name.startswith(f"{n}-"))
    method, preset = get_method(name), get_preset(name, full_name)
    assert isinstance(preset.model, method.CONFIG)
    assert isinstance(preset.model, MethodConfig)
    assert isinstance(method.CONFIG(), MethodConfig)
    fields = {f.name for f in dataclasses.fields(method.CONFIG)}
    assert getattr(method.CONFIG, "PRETEXT", frozenset()) <= fields
    for settings in getattr(method.CONFIG, "COMPAT", {}).values():
        assert settings.keys() <= fields
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
    # Of a longer crop, methods with views hear a part.
    heard = min(preset.pretrain.crop_seconds, getattr(preset.model, "view_seconds", float("inf")))
    assert network.min_samples <= heard * network.sample_rate <= network.window_samples


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
    assert network.config == smallest(name)
    assert network.channel == smallest(name).channel
    for attribute in ("sample_rate", "dim", "num_layers", "min_samples", "window_samples", "window_hop"):
        value = getattr(network, attribute)
        assert isinstance(value, int), attribute
        assert value > 0, attribute
    assert network.frame_rate > 0
    assert network.min_samples <= network.window_samples
    assert network.window_hop <= network.window_samples


@able("embed")
def test_the_two_halves_of_a_spectrogram_encoder_make_the_whole(name: str) -> None:
    network = encoder(name)
    if not isinstance(network, SpectrogramEncoder):
        return
    lengths = lengths_for(network)
    waves, given = padded(lengths)
    with torch.inference_mode():
        features, frames = network.features(waves, given)
        halves, whole = network.forward_features(features, frames), network(waves, given)
    assert frames.tolist() == network.frontend.num_frames(given).tolist()
    assert features.shape[:2] == (len(lengths), int(frames.max()))
    for row, own in enumerate(frames.tolist()):
        assert (features[row, own:] == network.pad_value).all()
    assert all(torch.equal(a, b) for a, b in zip(tensors(halves), tensors(whole), strict=True))


@able("embed")
def test_statistics_are_those_of_the_front_end_of_the_encoder(name: str) -> None:
    config, wave = smallest(name), noise(48000)[None]
    frontend = get_method(name).build_frontend(config)
    if frontend is None:
        return
    assert isinstance(frontend, Frontend)
    assert not list(frontend.parameters())
    values = frontend(wave - wave.mean())
    assert values.shape[1] == int(frontend.num_frames(torch.tensor(48000)))
    mean, std = float(values.mean()), float(values.std())
    torch.manual_seed(0)
    network = get_method(name).build_encoder(dataclasses.replace(config, norm_mean=mean, norm_std=std)).eval()
    assert isinstance(network, SpectrogramEncoder)
    with torch.inference_mode():
        features = network.features(wave)[0]
    # Normalised by the measured statistics, whatever the method's scale is.
    assert abs(float(features.mean())) < 0.05
    assert 0.1 < float(features.std()) < 2


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


@able("embed")
def test_sounds_of_a_wrong_shape_are_refused_in_a_sentence(name: str) -> None:
    network, wave = encoder(name), noise(encoder(name).window_samples)
    with pytest.raises(ConfigError, match=r"waves must be \[B, S\], a row for each clip, got the shape \[\d+\];"):
        network(wave)
    with pytest.raises(ConfigError, match=r"a number of samples for each of 1 clip, got the shape \[2\]"):
        network(wave[None], torch.tensor([100, 100]))


@able("embed")
def test_only_the_layers_that_are_asked_for_are_kept(name: str) -> None:
    network = encoder(name)
    given = padded(lengths_for(network))
    with torch.inference_mode():
        everything = network(*given)
        last = network.num_layers - 1
        for asked in ((), (0,), (-1,), (last, 0)):
            encoded = network(*given, layers=asked)
            assert torch.equal(encoded.pooled, everything.pooled)
            numbers = {number % network.num_layers for number in asked}
            for some, every in (
                (encoded.layers, everything.layers),
                (encoded.prefix, everything.prefix),
                (encoded.summaries, everything.summaries),
            ):
                assert len(some) == len(every)
                assert set(some.kept) == (numbers if every else set())
                assert all(torch.equal(x, every[number]) for number, x in some.kept.items())
        with pytest.raises(LookupError, match="was not asked for"):
            network(*given, layers=[0]).frames(last)
        with pytest.raises(IndexError, match=rf"no layer {last + 1} in a network of {last + 1}: layers= counts from 0"):
            network(*given, layers=[last + 1])
