"""A matrix of embeddings in one safetensors file that carries its own hash.

Written row by row in any order, since the embeddings of a large cohort are larger than memory.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from eosin import atomic

TENSOR = "embeddings"
DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
}

_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}
_NO_HASH = "0" * 64
_BYTES_AT_ONCE = 2**24

Matrix = NDArray[np.floating[Any]]


class MatrixWriter:
    """Takes the rows of a matrix in any order; in their order they are hashed as they come."""

    def __init__(self, descriptor: int, start: int, shape: tuple[int, int], dtype: str) -> None:
        self.dtype = DTYPES[dtype]
        self._descriptor, self._start, self._shape = descriptor, start, shape
        self._digest, self._hashed = hashlib.sha256(), 0

    def put(self, first: int, rows: NDArray[Any]) -> None:
        """Writes rows [n, D] from row `first` on.

        Raises:
            ValueError: they do not fit into the matrix.
        """
        if first + len(rows) > self._shape[0] or rows.shape[1:] != self._shape[1:]:
            raise ValueError(f"{rows.shape} from {first} on does not fit into {self._shape}")
        if not rows.size:
            return
        row_bytes = self._shape[1] * self.dtype.itemsize
        content = np.ascontiguousarray(rows, self.dtype).data.cast("B")
        if first == self._hashed:
            self._digest.update(content)
            self._hashed += len(rows)
        place = self._start + first * row_bytes
        while content:
            count = os.pwrite(self._descriptor, content[:_BYTES_AT_ONCE], place)
            content, place = content[count:], place + count

    def sha256(self) -> str:
        """The hash of the whole matrix; what came out of order is read again for it."""
        size = self._shape[0] * self._shape[1] * self.dtype.itemsize
        place = self._hashed * self._shape[1] * self.dtype.itemsize
        while place < size:
            content = os.pread(self._descriptor, _BYTES_AT_ONCE, self._start + place)
            if not content:
                raise OSError("a file became shorter while it was written")
            self._digest.update(content)
            place += len(content)
        return self._digest.hexdigest()


@contextlib.contextmanager
def writing(
    path: Path, shape: tuple[int, int], dtype: str, metadata: Mapping[str, str]
) -> Generator[MatrixWriter]:
    """Gives what takes the rows of `path`'s tensor `embeddings`, if the block ends without error.

    Args:
        path: the safetensors file.
        shape: [N, D]; all rows must be put.
        dtype: a key of `DTYPES`.
        metadata: what goes into the header; `sha256`, that of the matrix, is added.
    """
    header = _header(shape, DTYPES[dtype], metadata)
    with atomic.replacing(path) as temporary, open(temporary, "w+b", buffering=0) as file:
        file.write(header)
        file.truncate(len(header) + DTYPES[dtype].itemsize * shape[0] * shape[1])
        writer = MatrixWriter(file.fileno(), len(header), shape, dtype)
        yield writer
        os.pwrite(file.fileno(), writer.sha256().encode(), header.index(_NO_HASH.encode()))


def _header(shape: tuple[int, int], dtype: np.dtype[Any], metadata: Mapping[str, str]) -> bytes:
    """The start of a safetensors file of one tensor: length, JSON, spaces up to 8 bytes."""
    size = dtype.itemsize * shape[0] * shape[1]
    tensor = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [0, size]}
    # The hash comes first, so that nothing else can be taken for its place.
    content = {"__metadata__": {"sha256": _NO_HASH, **metadata}, TENSOR: tensor}
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def map_matrix(path: Path) -> tuple[Matrix, dict[str, str]] | None:
    """Maps a matrix into memory, read only, with its metadata; its hash is not looked at.

    Returns:
        None if the file is absent, truncated, or holds something else.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            about = file.get_slice(TENSOR)
            shape, name = tuple(about.get_shape()), str(about.get_dtype())
        dtype = next((dtype for dtype, known in _NAMES.items() if known == name), None)
        if dtype is None or len(shape) != 2:
            return None
        if 0 in shape:
            return np.empty(shape, dtype), metadata
        # safetensors refuses files that do not end with their last tensor, which is this one.
        offset = path.stat().st_size - dtype.itemsize * shape[0] * shape[1]
        return np.memmap(path, dtype, "r", offset, shape), metadata
    except (safetensors.SafetensorError, OSError, ValueError):
        return None


def read_matrix(path: Path) -> tuple[Matrix, dict[str, str]] | None:
    """Reads a matrix and its metadata; None if it is absent, damaged, or not what was written."""
    found = map_matrix(path)
    if found is None:
        return None
    matrix, metadata = np.array(found[0]), found[1]
    return (matrix, metadata) if metadata.get("sha256") == hash_matrix(matrix) else None


def is_whole(path: Path) -> bool:
    """Whether a matrix is what its hash says; little memory is needed for it."""
    found = map_matrix(path)
    return found is not None and found[1].get("sha256") == hash_matrix(found[0])


def hash_matrix(matrix: NDArray[Any]) -> str:
    """Hashes the bytes of a matrix [N, D], some rows at a time."""
    digest = hashlib.sha256()
    rows = max(1, _BYTES_AT_ONCE // max(1, matrix.itemsize * matrix.shape[1]))
    for start in range(0, len(matrix), rows):
        digest.update(np.ascontiguousarray(matrix[start : start + rows]).data)
    return digest.hexdigest()
