"""Embeddings kept on disk, so that a second head, layer choice or seed does not embed again.

An entry is one safetensors file, named by the SHA-256 of its key: everything that decides the embeddings. It appears
whole or not at all, holds a checksum, and is computed again where it is damaged. The folder keeps the entries used
last, up to 4 GiB; it may be deleted at any time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import auricle
from auricle.data.items import Manifest
from auricle.errors import in_words
from auricle.files import atomic_path
from auricle.inference.model import Model

Array = NDArray[np.float32]
LIMIT = 4 * 2**30
# What lies between a file and its embedding: a change there makes old entries worthless.
_CODE = ("audio", "data", "kernels", "nn", "methods", "tasks", "inference")
_MORE_CODE = ("training/precision.py", "kernels/libauricle_kernels.so")


class CacheWarning(UserWarning):
    """The cache cannot be used as it should; results are the same without it."""


def default_folder() -> Path:
    """`AURICLE_CACHE`, else `auricle` in the platform's folder for caches."""
    if own := os.environ.get("AURICLE_CACHE"):
        return Path(own)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "auricle"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "auricle"


@dataclass(frozen=True)
class Cache:
    """A folder of embeddings of at most `limit` bytes."""

    folder: Path = field(default_factory=default_folder)
    limit: int = LIMIT

    def get(self, key: Mapping[str, Any], compute: Callable[[], Array]) -> Array:
        """The entry of `key`, or what `compute` returns, which is then kept.

        Warns:
            CacheWarning: the entry is damaged, or the folder cannot be written.
        """
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = self.folder / "embeddings" / f"{name}.safetensors"
        if path.exists():
            try:
                return _read(path)
            except (OSError, SafetensorError, KeyError, ValueError) as error:
                warnings.warn(f"{path} is damaged ({in_words(error)}); embedding again.", CacheWarning, stacklevel=2)
        values = compute()
        try:
            with atomic_path(path) as partial:
                save_file({"embeddings": values}, partial, {"sha256": _digest(values)})
            self._shrink(path)
        except (OSError, SafetensorError) as error:
            warnings.warn(
                f"embeddings could not be kept in {self.folder} ({in_words(error)}); set AURICLE_CACHE to a folder "
                f"that can be written, or give --no-cache.",
                CacheWarning,
                stacklevel=2,
            )
        return values

    def _shrink(self, newest: Path) -> None:
        """Remove the entries that were not used for longest, until the rest fits; the newest stays."""
        found = []
        for path in newest.parent.iterdir():
            # Another process may remove the same entries.
            with suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
        size = sum(entry[1] for entry in found)
        for _, bytes_, path in sorted(found):
            if size <= self.limit:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                size -= bytes_


def embedding_key(model: Model, manifest: Manifest, layers: tuple[int, ...], pooling: str) -> dict[str, Any]:
    """Everything that decides the embeddings of a data set; labels, names and places of files are not among it.

    `Model.hash` is the SHA-256 of the weights, or the seed of random ones, which with the settings gives the weights.
    """
    return {
        "weights": model.hash,
        "method": model.config["method"],
        "settings": model.config["model"],
        "audio": manifest.audio_hash,
        "layers": layers,
        "pooling": pooling,
        "precision": model.precision,
        "device": model.device.type,
        "code": _code_hash(),
    }


def _read(path: Path) -> Array:
    with safe_open(path, "numpy") as file:
        values: Array = file.get_tensor("embeddings")
        if (file.metadata() or {})["sha256"] != _digest(values):
            raise ValueError("its checksum differs")
    # When it was used last decides what stays; in a folder that is only readable nothing is removed either.
    with suppress(OSError):
        os.utime(path)
    return values


def _digest(values: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


@functools.cache
def _code_hash() -> str:
    digest = hashlib.sha256(auricle.__version__.encode())
    for path in _code_files():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _code_files() -> list[Path]:
    package = Path(auricle.__file__).parent
    files = {path for folder in _CODE for path in (package / folder).rglob("*.py")}
    # The compiled kernels are there only where they were built.
    return sorted(files | {package / name for name in _MORE_CODE if (package / name).exists()})
