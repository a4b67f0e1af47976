"""Finished batches of a matrix on disk, so that a run that is killed goes on where it was.

<folder>/<first batch>-<batches>-<writer>.safetensors, one file every few seconds: the embeddings of
some batches, their numbers, and the hash of both. A file is whole or absent; one that is damaged,
or of another matrix, is deleted and its batches are embedded again. Batches are cut in the same
way by every run, so the matrix has the same bits wherever a run was stopped.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from eosin import atomic
from eosin.embeddings.extract import Batch, Matrix
from eosin.errors import InputError

Numbers = NDArray[np.int64]

_SECONDS_BETWEEN_FILES = 5.0
# So that runs of days do not leave thousands of files.
_SHARE_BETWEEN_FILES = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What the parts are of; parts of anything else are not used."""

    key: str
    """Hash of all that determines the embeddings."""
    images: int
    embed_dim: int
    batch_size: int

    @property
    def batches(self) -> int:
        """Number of batches, of which the last may be smaller."""
        return -(-self.images // self.batch_size)

    def images_of(self, batch: int) -> range:
        """The numbers of a batch's images."""
        start = batch * self.batch_size
        return range(start, min(start + self.batch_size, self.images))


class Parts:
    """The batches that are done, in files and, of the last seconds, in memory.

    Args:
        folder: where the files go; made when the first is written.
        shape: of the matrix.
        writer: number of this process; each of several has its own files.
        looks: takes up what an earlier run has left; one of several processes is enough.
    """

    def __init__(self, folder: Path, shape: Shape, writer: int = 0, *, looks: bool = True) -> None:
        self.folder, self.shape, self._writer = folder, shape, writer
        self.unreadable: dict[int, str] = {}
        self._is_done = np.zeros(shape.batches, np.bool_)
        self._files: dict[Path, Numbers] = {}
        self._waiting: list[Batch] = []
        self._started = self._written = time.monotonic()
        if looks:
            self.look_again()

    def look_again(self) -> None:
        """Takes up what other processes have written meanwhile."""
        for path in sorted(self.folder.glob("[0-9]*.safetensors")):
            if path in self._files:
                continue
            found = _read(path, self.shape)
            if found is None:
                path.unlink(missing_ok=True)
                continue
            numbers, _, unreadable = found
            self._note(path, numbers, unreadable)

    @property
    def left(self) -> Numbers:
        """The batches that are not done, in order."""
        return np.flatnonzero(~self._is_done)

    @property
    def images_done(self) -> int:
        """How many images the finished batches have."""
        lost = len(self.left) * self.shape.batch_size
        if self.shape.batches and not self._is_done[-1]:
            lost -= self.shape.batch_size - len(self.shape.images_of(self.shape.batches - 1))
        return self.shape.images - lost

    def add(self, batch: Batch) -> None:
        """Takes a finished batch, and writes those of the last seconds when it is time."""
        self._waiting.append(batch)
        self._is_done[batch.images.start // self.shape.batch_size] = True
        self.unreadable.update(batch.unreadable)
        now = time.monotonic()
        pause = max(_SECONDS_BETWEEN_FILES, _SHARE_BETWEEN_FILES * (now - self._started))
        if now - self._written >= pause:
            self.flush()

    def flush(self) -> None:
        """Writes what is in memory; from here on it outlives the process and a power cut."""
        if not self._waiting:
            return
        numbers = np.array([one.images.start // self.shape.batch_size for one in self._waiting])
        embeddings = np.concatenate([one.embeddings for one in self._waiting])
        unreadable = {i: reason for one in self._waiting for i, reason in one.unreadable.items()}
        path = self.folder / f"{numbers[0]:010d}-{len(numbers)}-{self._writer}.safetensors"
        _write(path, self.shape, numbers, embeddings, unreadable)
        self._note(path, numbers, unreadable)
        self._waiting, self._written = [], time.monotonic()

    def pieces(self) -> Iterator[tuple[range, Matrix]]:
        """Yields the embeddings of all finished batches, in no order, with their images' numbers.

        Raises:
            InputError: a file was damaged since it was looked at.
        """
        for path, numbers in self._files.items():
            found = _read(path, self.shape)
            if found is None:
                raise InputError(f"{path} was damaged meanwhile; the same command mends it.")
            start = 0
            for batch in numbers.tolist():
                images = self.shape.images_of(batch)
                yield images, found[1][start : start + len(images)]
                start += len(images)
        for batch in self._waiting:
            yield batch.images, batch.embeddings

    def matrix(self) -> Matrix:
        """Gives the whole matrix [N, D]; every batch must be done."""
        matrix = np.empty((self.shape.images, self.shape.embed_dim), np.float32)
        for images, embeddings in self.pieces():
            matrix[images.start : images.stop] = embeddings
        return matrix

    def _note(self, path: Path, numbers: Numbers, unreadable: dict[int, str]) -> None:
        self._files[path] = numbers
        self._is_done[numbers] = True
        self.unreadable.update(unreadable)


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Holds the folder of a matrix's parts, and leaves none behind that is empty.

    Raises:
        InputError: another process holds it.
    """
    with atomic.locked(folder):
        atomic.remove_leftovers(folder)
        try:
            yield
        finally:
            if not any(folder.glob("[0-9]*.safetensors")):
                remove(folder)


def remove(folder: Path) -> None:
    """Removes the parts of a matrix; another run may be about to look into the folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _write(
    path: Path, shape: Shape, numbers: Numbers, embeddings: Matrix, unreadable: dict[int, str]
) -> None:
    reasons = json.dumps({str(index): reason for index, reason in unreadable.items()})
    metadata = {"unreadable": reasons, "sha256": _digest(shape, numbers, embeddings, reasons)}
    with atomic.replacing(path) as temporary:
        tensors: dict[str, Any] = {"batches": numbers, "embeddings": embeddings}
        safetensors.numpy.save_file(tensors, temporary, metadata=metadata)


def _read(path: Path, shape: Shape) -> tuple[Numbers, Matrix, dict[int, str]] | None:
    """Reads a part if it is whole and of this matrix."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            noted: dict[str, str] = file.metadata() or {}
            numbers: Numbers = file.get_tensor("batches")
            embeddings: Matrix = file.get_tensor("embeddings")
    except (safetensors.SafetensorError, OSError):
        return None
    reasons = noted.get("unreadable", "")
    if noted.get("sha256") != _digest(shape, numbers, embeddings, reasons):
        return None
    return numbers, embeddings, {int(key): reason for key, reason in json.loads(reasons).items()}


def _digest(shape: Shape, numbers: Numbers, embeddings: Matrix, reasons: str) -> str:
    about = [shape.key, shape.images, shape.embed_dim, shape.batch_size, reasons]
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(np.ascontiguousarray(numbers).data)
    digest.update(np.ascontiguousarray(embeddings).data)
    return digest.hexdigest()
