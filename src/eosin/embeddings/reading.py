"""Embeddings that lie on disk, ours or those of TRIDENT, CLAM, eva and THUNDER, as one matrix."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eosin.embeddings import foreign, matrix_file
from eosin.embeddings.matrix_run import ABOUT, MATRIX, ROWS
from eosin.errors import InputError

Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadEmbeddings:
    """Embeddings and what is known of each.

    Attributes:
        matrix: [N, D], float32, or float16 where they were stored so.
        rows: N rows in the same order, with the columns of `rows.ROW_SCHEMA` (what is not known is
            null) and whatever else the files say.
        layout: `eosin`, `trident`, `eva` or `thunder`.
        about: what the files say of the encoder and the data; empty where they say nothing.
    """

    matrix: Matrix
    rows: pa.Table
    layout: str
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.matrix)


def read(path: str | Path) -> ReadEmbeddings:
    """Reads embeddings, told apart by what lies at the path.

    Args:
        path: a folder that `eosin embed` wrote; an HDF5 file with `features` and `coords` as
            TRIDENT and CLAM write it, or a folder with one for each slide; a folder with eva's
            `manifest.csv` and a `.pt` file a tile; or a folder with THUNDER's `embeddings.h5`, or
            with one such folder for each of `train`, `val` and `test`.

    Raises:
        InputError: there are no embeddings at `path`, or they are damaged; one message says what.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a folder or file of embeddings.")
    try:
        return _read(path)
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path} asks for more memory than there is; it may be damaged.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from None


def _read(path: Path) -> ReadEmbeddings:
    if path.is_file() and path.name in (MATRIX, ROWS, ABOUT):
        path = path.parent
    if path.is_file():
        if not h5py.is_hdf5(path):
            raise InputError(f"{path} is no HDF5 file; give a folder or HDF5 file of embeddings.")
        if path.name == foreign.THUNDER_FILE and foreign.is_thunder(path):
            return _as_read(foreign.read_thunder([("", path)]), "thunder")
        return _as_read(foreign.read_slides([path]), "trident")
    if (path / ABOUT).is_file() and (path / MATRIX).is_file():
        return _read_ours(path)
    if (path / foreign.EVA_FILE).is_file():
        return _as_read(foreign.read_eva(path), "eva")
    splits = foreign.find_thunder(path)
    if splits:
        return _as_read(foreign.read_thunder(splits), "thunder")
    slides = sorted(each for each in path.glob("*.h5") if each.name[0] != ".")
    if slides:
        return _as_read(foreign.read_slides(slides), "trident", _about_beside(path))
    raise InputError(
        f"{path} holds no embeddings that are known: neither {ABOUT} and {MATRIX}, nor *.h5 files "
        f"of slides, nor {foreign.EVA_FILE}, nor {foreign.THUNDER_FILE}."
    )


def _as_read(
    found: tuple[Matrix, pa.Table], layout: str, about: dict[str, Any] | None = None
) -> ReadEmbeddings:
    return ReadEmbeddings(matrix=found[0], rows=found[1], layout=layout, about=about or {})


def _about_beside(folder: Path) -> dict[str, Any]:
    """What `eosin embed` says of the slides' files beside which it lies."""
    try:
        about = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _read_ours(folder: Path) -> ReadEmbeddings:
    again = "delete the folder, and run the same `eosin embed` again"
    about = _about_beside(folder)
    if not about:
        raise InputError(f"{folder / ABOUT} is damaged; {again}.")
    found = matrix_file.read_matrix(folder / MATRIX)
    if found is None:
        raise InputError(f"{folder / MATRIX} is damaged: it is not what its hash says; {again}.")
    try:
        rows = pq.read_table(folder / ROWS)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{folder / ROWS} cannot be read ({error}); {again}.") from None
    if len(rows) != len(found[0]):
        raise InputError(
            f"{folder} has {len(found[0]):,} embeddings and {len(rows):,} rows; {again}."
        )
    return ReadEmbeddings(matrix=found[0], rows=rows, layout="eosin", about=about)
