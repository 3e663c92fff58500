"""The stretches of a library that are most like a sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from auricle.errors import ConfigError
from auricle.inference.libraries import identity
from auricle.inference.model import Model, Sound, load
from auricle.inference.table import Library, open_library


@dataclass(frozen=True)
class Hit:
    """A stretch of a file, in seconds, and the cosine of the angle between its vector and the query's."""

    path: str
    start: float
    end: float
    similarity: float


def search(
    library: Library | str | Path,
    query: Sound,
    k: int = 10,
    *,
    rate: int | None = None,
    model: str | Path | Model | None = None,
) -> list[Hit]:
    """The `k` rows of a library whose vectors have the greatest cosine with the query's, the best first.

    The query is embedded as one clip by the model that made the library; all rows are compared. Equal rows come in the
    library's order.

    Args:
        query: a file, or an array (n,) or (1, n) sampled at `rate`.
        model: the model that made the library, where it does not lie any more where it did.

    Raises:
        AudioError: the query cannot be used.
        ConfigError: another model than the library's, a `k` below 1, or an array without `rate`.
        DataError: the library cannot be read.
    """
    if k < 1:
        raise ConfigError(f"k is the number of hits and must be at least 1, got {k}.")
    library = library if isinstance(library, Library) else open_library(library)
    asked = {"layers": library.metadata["layer"], "context": library.metadata.get("context", 0.0)}
    vector = model_of(library, model).embed_clip(query, rate, **asked)
    similarities = np.concatenate([cosines(block, vector) for block in library.vectors()])
    best = np.argsort(-similarities, kind="stable")[:k]
    return [
        Hit(str(library.paths[i]), float(library.starts[i]), float(library.ends[i]), float(similarities[i]))
        for i in best
    ]


def cosines(vectors: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n] cosines of vectors [n, D] with one [D]; a vector of zeros is like nothing."""
    norms = np.linalg.norm(vectors, axis=1).astype(np.float64) * float(np.linalg.norm(vector))
    products = (vectors @ vector).astype(np.float64)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def model_of(library: Library, model: str | Path | Model | None = None) -> Model:
    """The model that made a library.

    Raises:
        ConfigError: another one was given, or none was and it does not lie any more where it did.
        CheckpointError: it cannot be loaded.
    """
    made_by = library.metadata["model"]
    if model is None and not Path(made_by["path"]).exists():
        raise ConfigError(
            f"the model that made {library.path} is not at {made_by['path']} any more; say where it is with --model."
        )
    loaded = model if isinstance(model, Model) else load(model or made_by["path"])
    given = identity(loaded)
    if any(made_by[key] != value for key, value in given.items()):
        raise ConfigError(
            f"{library.path} was made by model {made_by['hash'][:12]} ({made_by['path']}), and {loaded.source} is "
            f"{given['hash'][:12]}: their vectors cannot be compared; give the first one with --model, or embed the "
            "library again."
        )
    return loaded
