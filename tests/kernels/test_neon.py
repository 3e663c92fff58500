"""The C++ kernels on 64-bit ARM: compiled by a cross compiler, run by an emulator, equal to the reference."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scan_cases import NAMES, assert_equal, inputs, truth
from torch import Tensor

from auricle.kernels import native, reference

HERE = Path(__file__).parent
SOURCES = Path(native.__file__).parent / "native"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FLAGS = ("-O3", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-static")
BATCH, CHANNELS, STATES, LENGTH, TAPS = 2, 70, 16, 131, 4


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in (COMPILER, EMULATOR):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool} (Debian packages g++-aarch64-linux-gnu and qemu-user)")
    program = tmp_path_factory.mktemp("neon") / "driver"
    files = [str(HERE / "native_driver.cpp"), *(str(SOURCES / f"{name}.cpp") for name in ("portable", "dispatch"))]
    subprocess.run([COMPILER, *FLAGS, f"-I{SOURCES}", *files, "-pthread", "-o", str(program)], check=True)
    return program


def side_by_side(x: Tensor) -> bytes:
    """[B, E, L] as [B, L, E] in memory, everything else as it is."""
    return x.transpose(1, 2).contiguous().numpy().tobytes()


@pytest.mark.parametrize("reverse", [False, True])
def test_neon_equals_the_reference(driver: Path, reverse: bool) -> None:
    given = inputs(BATCH, CHANNELS, STATES, LENGTH)
    rng = torch.Generator().manual_seed(7)
    lengths = torch.tensor([LENGTH, 66])
    # The loss of scan_cases.gradients.
    loss = torch.Generator().manual_seed(99)
    out_grad = torch.randn(BATCH, CHANNELS, LENGTH, generator=loss)
    last_grad = torch.randn(BATCH, CHANNELS, STATES, generator=loss)
    taps = torch.randn(CHANNELS, TAPS, generator=rng)
    sizes = np.array([BATCH, CHANNELS, STATES, LENGTH, TAPS, reverse], dtype=np.int64).tobytes()
    along = ("u", "delta", "B", "C", "z")
    parts = [side_by_side(given[n]) if n in along else given[n].numpy().tobytes() for n in NAMES]
    tail = [side_by_side(out_grad), last_grad.numpy().tobytes(), taps.numpy().tobytes()]
    told = b"".join([sizes, lengths.numpy().tobytes(), *parts, *tail])
    done = subprocess.run([EMULATOR, str(driver)], input=told, capture_output=True, check=True)
    name, _, rest = done.stdout.partition(b"\n")
    assert name == b"neon"
    numbers = torch.from_numpy(np.frombuffer(rest, dtype=np.float32).copy())

    def take(*shape: int) -> Tensor:
        nonlocal numbers
        count = int(np.prod(shape))
        taken, numbers = numbers[:count].view(shape), numbers[count:]
        return taken

    sequence = (BATCH, LENGTH, CHANNELS)
    found = {"out": take(*sequence).transpose(1, 2), "last": take(BATCH, CHANNELS, STATES)}
    found |= {name: take(*sequence).transpose(1, 2) for name in ("u", "delta")}
    found["A"] = take(BATCH, CHANNELS, STATES).sum(0)
    # The gradients of B and C come as parts, one for each block of channels.
    found |= {name: take(2, BATCH, LENGTH, STATES).sum(0).transpose(1, 2) for name in ("B", "C")}
    found["D"] = take(BATCH, CHANNELS).sum(0)
    found["z"] = take(*sequence).transpose(1, 2)
    found["delta_bias"] = take(BATCH, CHANNELS).sum(0)
    found["initial_state"] = take(BATCH, CHANNELS, STATES)
    assert_equal(found, truth(given, lengths=lengths, reverse=reverse))

    leaves = [x.double().requires_grad_() for x in (given["u"], taps, given["delta_bias"])]
    convolved = reference.causal_conv1d(*leaves, True, lengths=lengths, reverse=reverse)
    wanted = [convolved.detach(), *torch.autograd.grad((convolved * out_grad).sum(), leaves)]
    ours = [take(*sequence).transpose(1, 2), take(*sequence).transpose(1, 2)]
    ours += [take(BATCH, CHANNELS, TAPS).sum(0), take(BATCH, CHANNELS).sum(0)]
    assert not len(numbers)
    for value, right in zip(ours, wanted, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=1e-5, atol=1e-5)
