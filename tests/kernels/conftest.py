"""Every instruction set of the C++ kernels that this processor has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from auricle.errors import ConfigError
from auricle.kernels import native


@pytest.fixture(params=("portable", "avx2", "avx512"))
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    if native.kernels() is None:
        pytest.fail("the C++ kernels are not built: pip install -e . where there is a compiler")
    try:
        native.set_instruction_set(request.param)
    except ConfigError:
        # What the processor lacks runs as the best that it has: the test is then one that ran already.
        native.set_instruction_set("")
    yield request.param
    native.set_instruction_set("")
