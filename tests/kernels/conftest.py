"""Every instruction set that the C++ kernels have for this kind of processor."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

from auricle.errors import ConfigError
from auricle.kernels import native

KINDS = ("neon",) if platform.machine().lower() in ("aarch64", "arm64") else ("portable", "avx2", "avx512")


@pytest.fixture(params=KINDS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    if native.kernels() is None:
        pytest.fail("the C++ kernels are not built: pip install -e . where there is a compiler")
    try:
        native.set_instruction_set(request.param)
    except ConfigError as lacking:
        pytest.skip(str(lacking))
    assert native.instruction_set() == request.param
    yield request.param
    native.set_instruction_set("")
