"""Embeddings as a table on disk: one schema in two formats.

A row is a stretch of a file and its vector. In a `.parquet` file the columns are

path    string; a byte of a name that is not UTF-8 is written as \\udcXX
start   float64, seconds
end     float64, seconds
vector  fixed-size list of D float32

and the schema's metadata has a key `auricle` with JSON. In an `.npz` file these are the arrays `paths` [N], `starts`
[N], `ends` [N] and `embeddings` [N, D]; `metadata` is the same JSON as a string, and `model` repeats the model's hash.
With frames, `frames` [sum t, D'] and `times` [sum t] in seconds hold one vector per time step, and `offsets` [N + 1]
says where those of each row begin. The JSON:

format, version  "auricle-embeddings", 1
auricle          the version that wrote the file
model            hash (SHA-256 of the weights), method, settings, kind, path
layer, pooling   which output of the network a vector is: "last" and "own", as the method's paper pools; or a list of
                 blocks (1 is the first) that stand side by side and "summary", what the method's authors read of each
                 block, or the mean over its tokens where they read none
precision        of the arithmetic
rate, channel    of the sound that the network hears: Hz; "mean" of the channels, or the number of one
dim              D
window, hop      seconds of a window, and from one to the next
context          seconds that a time step has on either side within its window; 0: windows do not overlap
seams            of windows that overlap, how many join another one, and by how much the two differ there, relatively
                 (L2): `count`, `mean`, `largest`; null without context
data             hash (SHA-256 of the files' names and sizes), files, seconds that are embedded
bad_files        path, reason and detail of each file that is left out
rows             "windows" or "clips"
plan             SHA-256 of all that was asked for: files with their times of change, model, settings
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.errors import AudioError, ConfigError, DataError, in_words
from auricle.files import Spool, atomic_path

FORMAT, VERSION = "auricle-embeddings", 1
SUFFIXES = (".parquet", ".npz")
# Rows of a row group, and how many are held while a table is written.
ROW_GROUP = 4096


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a table: `path` [n], `start` and `end` [n] in seconds, `vector` [n, D].

    `steps` [n] says how many time steps a row has. Where they were asked for, `frames` [t, D'] and their `times` [t] in
    seconds are one behind the other those of all rows; they may come before the row that they belong to.
    """

    path: list[str]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    vector: NDArray[np.float32]
    steps: NDArray[np.int64]
    frames: NDArray[np.float32]
    times: NDArray[np.float64]


def check_place(out: Path, frames: bool) -> None:
    """Refuse, before hours of work, a file that could not be written at their end.

    Raises:
        ConfigError: another ending, a folder, `frames` in a Parquet file, or pyarrow is not installed.
    """
    if out.suffix not in SUFFIXES or out.is_dir():
        raise ConfigError(f"--out {out} must be a file that ends in .npz or .parquet.")
    if out.suffix == ".parquet":
        _pyarrow(out)
        if frames:
            raise ConfigError(f"--frames needs --out FILE.npz: a row of {out} has one vector.")


def write_table(out: Path, rows: Iterable[Rows], metadata: Mapping[str, Any], partial_in: Path, frames: bool) -> None:
    """Write all rows to a file that ends in .npz or .parquet, in memory that does not grow with their number."""
    with atomic_path(out, partial_in) as partial:
        if out.suffix == ".parquet":
            _write_parquet(partial, rows, metadata)
        else:
            np.savez_compressed(partial, **collect(rows, metadata, frames))  # type: ignore[arg-type]


def _write_parquet(path: Path, rows: Iterable[Rows], metadata: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    width = metadata["dim"]
    schema = pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("start", pa.float64(), nullable=False),
            pa.field("end", pa.float64(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
        ],
        metadata={"auricle": json.dumps(metadata)},
    )
    held: list[Any] = []
    # Vectors are noise to a dictionary.
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=["path"]) as writer:

        def write_group() -> None:
            writer.write_table(pa.concat_tables(held))
            held.clear()

        for group in rows:
            names = [_to_utf8(name) for name in group.path]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(group.vector.ravel()), width)
            columns = [pa.array(names, pa.string()), pa.array(group.start), pa.array(group.end), vectors]
            held.append(pa.Table.from_arrays(columns, schema=schema))
            if sum(map(len, held)) >= ROW_GROUP:
                write_group()
        if held:
            write_group()


def collect(rows: Iterable[Rows], metadata: Mapping[str, Any], frames: bool) -> dict[str, NDArray[Any]]:
    """All rows as the arrays of an .npz file; the large ones lie in temporary files, not in memory."""
    with ExitStack() as stack:
        vectors, inside, times = (stack.enter_context(Spool()) for _ in range(3))
        paths: list[str] = []
        starts, ends, steps = [], [], [np.zeros(1, np.int64)]
        for group in rows:
            paths += group.path
            starts.append(group.start)
            ends.append(group.end)
            vectors.append(group.vector)
            steps.append(group.steps)
            if frames:
                inside.append(group.frames)
                times.append(group.times)
        arrays: dict[str, NDArray[Any]] = {
            "paths": np.array(paths),
            "starts": np.concatenate(starts),
            "ends": np.concatenate(ends),
            "embeddings": vectors.array(),
            "model": np.array(metadata["model"]["hash"]),
            "metadata": np.array(json.dumps(metadata)),
        }
        if frames:
            arrays |= {"frames": inside.array(), "times": times.array(), "offsets": np.cumsum(np.concatenate(steps))}
        return arrays


@dataclass(frozen=True)
class Library:
    """A table of embeddings, open for reading.

    Attributes:
        path: the file.
        metadata: what was embedded, and how; see above.
        paths, starts, ends: [N], where each row comes from, in seconds.
    """

    path: Path
    metadata: Mapping[str, Any]
    paths: NDArray[np.object_]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def bad_files(self) -> list[AudioError]:
        """What could not be embedded."""
        return bad_files(self.metadata)

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """The vectors of all rows in order, some [n, D] at a time.

        Raises:
            DataError: the file is damaged.
        """
        if self.path.suffix == ".npz":
            yield _read_npz(self.path)["embeddings"]
            return
        with _parquet(self.path) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=["vector"]):
                yield batch.column("vector").flatten().to_numpy().reshape(-1, self.metadata["dim"])


def bad_files(metadata: Mapping[str, Any]) -> list[AudioError]:
    """What could not be embedded."""
    return [AudioError(b["path"], b["reason"], b["detail"]) for b in metadata["bad_files"]]


def open_library(path: str | Path) -> Library:
    """Open a table that `auricle embed` wrote.

    Raises:
        DataError: it is missing, damaged, or something else.
        ConfigError: a Parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a file that ends in .parquet or .npz, as auricle embed writes it.")
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with: auricle embed MODEL FOLDER --out {path}")
    if path.suffix == ".npz":
        arrays = _read_npz(path, ("metadata", "paths", "starts", "ends"))
        metadata = _metadata(path, str(arrays["metadata"]))
        return Library(path, metadata, arrays["paths"].astype(object), arrays["starts"], arrays["ends"])
    with _parquet(path) as file:
        metadata = _metadata(path, (file.schema_arrow.metadata or {}).get(b"auricle", b"").decode())
        table = file.read(["path", "start", "end"])
    starts, ends = (table.column(name).to_numpy() for name in ("start", "end"))
    names = [_from_utf8(name) for name in table.column("path").to_pylist()]
    return Library(path, metadata, np.array(names, object), starts, ends)


def _to_utf8(name: str) -> str:
    """A path as a string of Parquet: where a name is not UTF-8, its odd bytes are written as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _from_utf8(name: str) -> str:
    """The reverse of `_to_utf8`. A name that holds such a sequence itself is told apart by what exists."""
    odd = re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda match: chr(int(match[1], 16)), name)
    return name if odd == name or os.path.lexists(name) else odd


def _read_npz(path: Path, names: tuple[str, ...] = ("embeddings",)) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    pyarrow = _pyarrow(path)
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as embeddings of auricle ({in_words(error)}); embed the sounds again.")


def _metadata(path: Path, text: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
        known = metadata["format"] == FORMAT and metadata["version"]
    except (ValueError, KeyError, TypeError):
        known = None
    if known != VERSION:
        what = f"written as version {known}, which this auricle does not read" if known else "not a table of auricle"
        raise DataError(f"{path}: {what}; make it with: auricle embed MODEL FOLDER --out {path}")
    return dict(metadata)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ConfigError(
            f"{path} is a Parquet file, which needs pyarrow (pip install 'auricle[library]'); or take a file that ends "
            "in .npz, which needs nothing."
        ) from None
    return pyarrow
