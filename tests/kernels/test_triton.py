"""Triton's kernels, on a GPU or by Triton's interpreter: values and gradients equal the reference; they compile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scan_cases import NAMES, assert_equal, assert_padding_is_not_seen, gradients, inputs, truth
from torch import Tensor

from auricle.kernels import backends, bidirectional_conv1d, bidirectional_scan, causal_conv1d, reference, selective_scan

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
# A GPU's exponential is exact to 22 bits, and a state that decays slowly adds up what each step is off by.
SHARE = 3e-6 if DEVICE == "cpu" else 1e-5
pytest.importorskip("triton", reason="needs triton (extra 'gpu')")


@pytest.fixture(autouse=True)
def triton_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the sizes of short scans: two chunks and several segments in 20 steps."""
    from auricle.kernels import scan_triton

    for name, steps in (("CHUNK", 16), ("PART", 8), ("LEAST_SEGMENT", 8)):
        monkeypatch.setattr(scan_triton, name, steps)
    with backends.use("triton"):
        yield


def on_device(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """The front door, with tensors moved to the device and back."""
    moved = [x.to(DEVICE) if isinstance(x, Tensor) else x for x in args]
    options = {name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in options.items()}
    out, last = selective_scan(*moved, return_last_state=True, **options)
    return out.cpu(), last.cpu()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 3, 35), (1, 2, 4, 16), (3, 3, 2, 1), (1, 3, 1, 18), (1, 2, 20, 9)])
def test_the_scan_equals_the_reference(shape: tuple[int, ...], reverse: bool) -> None:
    given = inputs(*shape, side_by_side=shape[3] % 2 == 1)
    lengths = torch.arange(shape[0]).mul(29).remainder(shape[3]).add(1).flip(0)
    wanted = truth(given, lengths=lengths, reverse=reverse)
    assert_equal(gradients(on_device, given, lengths=lengths, reverse=reverse), wanted, SHARE)


@pytest.mark.parametrize("absent", [("z",), ("D",), ("delta_bias",), ("initial_state",), NAMES[5:]])
def test_optional_arguments(absent: tuple[str, ...]) -> None:
    given = {name: x for name, x in inputs(1, 2, 2, 20).items() if name not in absent}
    assert_equal(gradients(on_device, given), truth(given), SHARE)


@pytest.mark.parametrize("delta", [-200.0, -20.0, 19.99, 20.01, 200.0])
def test_extreme_delta(delta: float) -> None:
    given = inputs(1, 2, 4, 18)
    given["delta"] = torch.full_like(given["delta"], delta)
    given["delta_bias"] = torch.zeros(2)
    assert_equal(gradients(on_device, given), truth(given), share=1e-5)


def test_a_row_without_steps_passes_its_state_on() -> None:
    given = inputs(2, 2, 4, 20)
    lengths = torch.tensor([0, 20])
    assert_equal(gradients(on_device, given, lengths=lengths), truth(given, lengths=lengths), SHARE)


def test_what_is_in_the_padding_is_not_seen() -> None:
    assert_padding_is_not_seen(on_device, inputs(2, 1, 2, 9), float("nan"), reverse=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_in_and_comes_out(dtype: torch.dtype) -> None:
    given = {name: x.to(dtype) for name, x in inputs(1, 2, 4, 21).items()}
    found = gradients(on_device, given)
    wanted = truth({name: x.float() for name, x in given.items()})
    assert found["out"].dtype == dtype
    assert found["last"].dtype == torch.float32
    # As exact as one rounding to the type; the loss of the gradients is one of rounded outputs.
    assert_equal({"last": found["last"]}, {"last": wanted["last"]}, SHARE)
    for name in ("out", *NAMES):
        assert found[name].dtype == dtype
        assert_equal({name: found[name]}, {name: wanted[name]}, share=0.02)


def test_both_directions_in_one_call() -> None:
    one, two = inputs(2, 3, 2, 19), inputs(2, 3, 2, 19, seed=1)
    given = {name: x if name == "z" else torch.stack([x, two[name]]) for name, x in one.items()}
    del given["initial_state"]
    lengths = torch.tensor([19, 9])

    def scan(*tensors: Any, initial_state: None) -> tuple[Tensor, Tensor]:
        out = bidirectional_scan(*[x.to(DEVICE) for x in tensors[:8]], True, lengths=lengths.to(DEVICE)).cpu()
        return out, out.new_zeros(1)

    found = gradients(scan, given)
    with backends.use("torch"):
        wanted = gradients(scan, {name: x.double() for name, x in given.items()})
    assert_equal(found, wanted, SHARE)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shape", [(2, 37, 131, 4), (3, 5, 1, 3), (1, 8, 66, 1)])
def test_the_convolution_equals_the_reference(shape: tuple[int, ...], silu: bool, reverse: bool) -> None:
    batch, channels, length, taps = shape
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(batch, length, channels, generator=rng).transpose(1, 2)
    weight, bias = torch.randn(channels, taps, generator=rng), torch.randn(channels, generator=rng)
    lengths = torch.arange(batch).mul(29).remainder(length).add(1).flip(0)
    loss = torch.randn(batch, channels, length, generator=rng)
    results = []
    for convolve, dtype, device in (
        (causal_conv1d, torch.float32, DEVICE),
        (reference.causal_conv1d, torch.float64, "cpu"),
    ):
        leaves = [t.detach().to(device, dtype).requires_grad_() for t in (x, weight, bias)]
        out = convolve(*leaves, silu, lengths=lengths.to(device), reverse=reverse)
        results.append([out.detach(), *torch.autograd.grad((out * loss.to(device, dtype)).sum(), leaves)])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found.double().cpu(), wanted, rtol=1e-5, atol=1e-5)


def test_both_directions_of_the_convolution_in_one_call() -> None:
    x, weight, bias = torch.randn(2, 9, 70), torch.randn(2, 9, 4), torch.randn(2, 9)
    found = bidirectional_conv1d(x.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), silu=True).cpu()
    for k, reverse in ((0, False), (1, True)):
        torch.testing.assert_close(found[k], reference.causal_conv1d(x, weight[k], bias[k], True, reverse=reverse))


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_gpus(capability: int, tmp_path: Path) -> None:
    script = Path(__file__).with_name("compile_for_gpus.py")
    settings = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(script), str(capability)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f" {capability} ") == 5
