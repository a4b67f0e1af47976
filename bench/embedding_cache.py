"""Embeddings of 20,000 tiles written and read: our files, one file a tile, one HDF5 dataset a tile.

    python -m bench.embedding_cache --json

Ours is what `eosin embed` leaves: the matrix as safetensors with its hash, Parquet rows and
`embed.json`; reading gives matrix and rows, with the hash compared. The peers are what eva does
(`torch.save` of a list of one tensor a tile, and `manifest.csv`; read back one by one as its
dataset of embeddings does) and what THUNDER does (a dataset a tile in `embeddings.h5` and in
`labels.h5`; read back by number and joined). eva reads its files again in each epoch.

Durability: ours waits until each of its files and their folder are on the disk (fsync), in the
figures too; the peers never wait, and leave that to the system. `write, nobody waits` leaves it out
of ours as well. Everything is read from the page cache.
"""

import csv
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

import eosin.embeddings
from bench._compare import Contestant, arguments, as_line, measure, show
from eosin import atomic
from eosin.embeddings import matrix_file
from eosin.embeddings.matrix_run import ABOUT, MATRIX, ROWS, write_rows
from eosin.embeddings.rows import rows_of

Matrix = NDArray[np.float32]

_OURS, _EVA, _THUNDER = "ours", "eva: a file a tile", "THUNDER: a dataset a tile"
_QUICK = "ours, not waiting for the disk"


def main() -> None:
    """Writes and reads the same matrix in each way, in turn."""
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    matrix = np.random.default_rng(0).normal(size=(options.tiles, options.dim))
    case = _Case(matrix.astype(np.float32))
    with tempfile.TemporaryDirectory(prefix="eosin-bench-") as temporary:
        writing, reading = case.contestants(Path(temporary))
        written = measure(writing, rounds=options.rounds)
        read = measure(reading, rounds=options.rounds)
    lines = [
        as_line("embedding_cache, write", _OURS, _EVA, written),
        as_line("embedding_cache, read", _OURS, _EVA, read),
        as_line("embedding_cache, write", _OURS, _THUNDER, written),
        as_line("embedding_cache, read", _OURS, _THUNDER, read),
        as_line("write, nobody waits", _QUICK, _EVA, written),
        as_line("write, nobody waits", _QUICK, _THUNDER, written),
    ]
    show(lines, as_json=options.json)


class _Case:
    """One matrix, and each way to keep it."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.labels = (np.arange(len(matrix)) % 9).astype(np.int64)
        self.names = [f"slide_{n // 1000:03d}/tile_{n:06d}" for n in range(len(matrix))]

    def contestants(self, root: Path) -> tuple[list[Contestant], list[Contestant]]:
        """Those that write, each into a folder that is emptied before, and those that read."""
        ways: Sequence[tuple[str, Callable[[Path], None], Callable[[Path], Matrix]]] = (
            (_OURS, self.write_ours, read_ours),
            (_QUICK, self.write_quickly, read_ours),
            (_EVA, self.write_eva, read_eva),
            (_THUNDER, self.write_thunder, read_thunder),
        )
        writing: list[Contestant] = []
        reading: list[Contestant] = []
        for number, (name, write, read) in enumerate(ways):
            folder = root / str(number)
            writing.append(
                Contestant(
                    name,
                    lambda write=write, folder=folder: write(folder),
                    lambda folder=folder: _empty(folder),
                )
            )
            reading.append(
                Contestant(name, lambda read=read, folder=folder: self._check(read(folder)))
            )
        return writing, reading

    def _check(self, found: Matrix) -> None:
        assert found.shape == self.matrix.shape and found[-1, -1] == self.matrix[-1, -1]

    def write_ours(self, folder: Path) -> None:
        """As `eosin embed` does at its end."""
        rows = rows_of(
            len(self.matrix),
            id=self.names,
            source="tiles",
            path=self.names,
            label=[str(label) for label in self.labels.tolist()],
        )
        write_rows(folder / ROWS, [rows], np.ones(len(self.matrix), np.bool_))
        with matrix_file.writing(folder / MATRIX, self.matrix.shape, "float32", {}) as matrix:
            matrix.put(0, self.matrix)
        atomic.write_json(folder / ABOUT, {"embeddings": len(self.matrix)})

    def write_quickly(self, folder: Path) -> None:
        """The same without waiting."""
        with _without_sync():
            self.write_ours(folder)

    def write_eva(self, folder: Path) -> None:
        """A list of one tensor in each file, and the manifest."""
        with open(folder / "manifest.csv", "w", newline="") as handle:
            manifest = csv.writer(handle)
            manifest.writerow(["origin", "embeddings", "target", "split"])
            rows = zip(self.names, torch.from_numpy(self.matrix), self.labels, strict=True)
            for name, row, label in rows:
                path = folder / f"{name}.pt"
                if not path.parent.is_dir():
                    path.parent.mkdir()
                # A view would be saved with the whole matrix behind it.
                torch.save([row.clone()], path)
                manifest.writerow([f"{name}.png", f"{name}.pt", label, "train"])

    def write_thunder(self, folder: Path) -> None:
        """A dataset a tile in each of two files."""
        with (
            h5py.File(folder / "embeddings.h5", "a", libver="latest") as embeddings,
            h5py.File(folder / "labels.h5", "a", libver="latest") as labels,
        ):
            for number, (row, label) in enumerate(zip(self.matrix, self.labels, strict=True)):
                embeddings.create_dataset(str(number), data=row, dtype="float32")
                labels.create_dataset(str(number), data=label, dtype="int64")


def read_ours(folder: Path) -> Matrix:
    """Matrix and rows, as anybody reads them."""
    return eosin.embeddings.read(folder).matrix.astype(np.float32, copy=False)


def read_eva(folder: Path) -> Matrix:
    """Each file of the manifest, as eva's dataset does, joined as a probe needs them."""
    with open(folder / "manifest.csv", newline="") as handle:
        lines = list(csv.DictReader(handle))
    rows = [torch.load(folder / line["embeddings"], map_location="cpu")[0] for line in lines]
    labels = torch.tensor([int(line["target"]) for line in lines])
    assert len(labels) == len(rows)
    return torch.stack([row.squeeze(0) for row in rows]).numpy()


def read_thunder(folder: Path) -> Matrix:
    """Each dataset by its number, of both files."""
    joined: list[np.ndarray] = []
    for name in ("embeddings.h5", "labels.h5"):
        with h5py.File(folder / name) as file:
            joined.append(np.concatenate([np.array(file[str(n)])[None] for n in range(len(file))]))
    return joined[0]


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


@contextmanager
def _without_sync():
    with mock.patch.object(atomic, "_sync"):
        yield


if __name__ == "__main__":
    main()
