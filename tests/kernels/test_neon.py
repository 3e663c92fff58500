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
    """[B, E, L] as [B, L, E] in memory."""
    return x.transpose(1, 2).contiguous().view(torch.uint8).numpy().tobytes()


# Half precision is off by the rounding of what comes out.
@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float32, 3e-6), (torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)]
)
@pytest.mark.parametrize("reverse", [False, True])
def test_neon_equals_the_reference(driver: Path, reverse: bool, dtype: torch.dtype, share: float) -> None:
    along = ("u", "delta", "B", "C", "z")
    given = {n: x.to(dtype) if n in along else x for n, x in inputs(BATCH, CHANNELS, STATES, LENGTH).items()}
    rng = torch.Generator().manual_seed(7)
    lengths = torch.tensor([LENGTH, 66])
    # The loss of scan_cases.gradients.
    loss = torch.Generator().manual_seed(99)
    out_grad = torch.randn(BATCH, CHANNELS, LENGTH, generator=loss).bfloat16().to(dtype)
    last_grad = torch.randn(BATCH, CHANNELS, STATES, generator=loss).bfloat16().float()
    taps = torch.randn(CHANNELS, TAPS, generator=rng)
    sizes = np.array([BATCH, CHANNELS, STATES, LENGTH, TAPS, reverse, native.TYPES[dtype]], dtype=np.int64).tobytes()
    parts = [side_by_side(given[n]) if n in along else given[n].numpy().tobytes() for n in NAMES]
    tail = [side_by_side(out_grad), last_grad.numpy().tobytes(), taps.numpy().tobytes()]
    told = b"".join([sizes, lengths.numpy().tobytes(), *parts, *tail])
    done = subprocess.run([EMULATOR, str(driver)], input=told, capture_output=True, check=True)
    name, _, rest = done.stdout.partition(b"\n")
    assert name == b"neon"
    results = torch.from_numpy(np.frombuffer(rest, dtype=np.uint8).copy())

    def take(*shape: int, of: torch.dtype = torch.float32) -> Tensor:
        nonlocal results
        count = int(np.prod(shape)) * of.itemsize
        taken, results = results[:count].view(of).view(shape), results[count:]
        return taken

    def sequence() -> Tensor:
        return take(BATCH, LENGTH, CHANNELS, of=dtype).transpose(1, 2)

    found = {name: sequence() for name in ("out", "u", "delta", "z")}
    found["last"] = take(BATCH, CHANNELS, STATES)
    found["A"] = take(BATCH, CHANNELS, STATES).sum(0)
    # The gradients of B and C come as parts, one for each block of channels.
    found |= {name: take(2, BATCH, LENGTH, STATES).sum(0).transpose(1, 2) for name in ("B", "C")}
    found |= {name: take(BATCH, CHANNELS).sum(0) for name in ("D", "delta_bias")}
    found["initial_state"] = take(BATCH, CHANNELS, STATES)
    assert_equal(found, truth(given, lengths=lengths, reverse=reverse), share)

    leaves = [x.double().requires_grad_() for x in (given["u"], taps, given["delta_bias"])]
    convolved = reference.causal_conv1d(*leaves, True, lengths=lengths, reverse=reverse)
    wanted = [convolved.detach(), *torch.autograd.grad((convolved * out_grad).sum(), leaves)]
    ours = [sequence(), sequence(), take(BATCH, CHANNELS, TAPS).sum(0), take(BATCH, CHANNELS).sum(0)]
    assert not len(results)
    for value, right in zip(ours, wanted, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=max(1e-5, share), atol=max(1e-5, share))
