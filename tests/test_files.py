"""Arrays that are collected on disk."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from auricle.files import Spool


def test_a_spool_gives_back_what_was_appended() -> None:
    parts = [np.arange(12, dtype=np.float32).reshape(4, 3) * scale for scale in (1, 2)]
    with Spool() as spool:
        for part in parts:
            spool.append(part)
        together = spool.array()
    np.testing.assert_array_equal(together, np.concatenate(parts))
    assert together.dtype == np.float32
    with Spool() as empty, pytest.raises(ValueError, match="nothing was appended"):
        empty.array()


def test_a_spool_is_written_without_being_held_in_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    block = np.ones((1000, 256), dtype=np.float64)
    with Spool() as spool:
        for _ in range(40):
            spool.append(block)
        np.savez(tmp_path / "x.npz", x=spool.array())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x.npz").stat().st_size > 40 * block.nbytes
    assert most < 20 * block.nbytes
