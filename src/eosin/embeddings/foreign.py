"""The layouts in which other tools keep embeddings.

TRIDENT (`trident/wsi_objects/WSI.py`, `extract_patch_features`; `trident/IO.py`, `save_h5`) and
CLAM: an HDF5 file a slide with `features` [N, D] and `coords` [N, 2] in level-0 pixels.
eva (`core/callbacks/writers/embeddings/classification.py`, `_manifest.py`): `manifest.csv` with the
columns origin, embeddings, target, split and further ones; each file a list of one tensor.
THUNDER (`tasks/pre_computing_patch_embeddings.py`): `embeddings.h5` and `labels.h5`, in each a
dataset an image, named by its number.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from eosin.embeddings.rows import rows_of
from eosin.errors import InputError

EVA_FILE, THUNDER_FILE = "manifest.csv", "embeddings.h5"

_THUNDER_LABELS = "labels.h5"
_THUNDER_SPLITS = ("train", "val", "test")
_EVA_COLUMNS = ("embeddings", "target")

Matrix = NDArray[np.floating[Any]]
Found = tuple[Matrix, pa.Table]


def read_slides(paths: Sequence[Path]) -> Found:
    """Reads the features of slides, one after the other.

    Raises:
        InputError: a file is damaged, lacks `features`, or is of another width than the first.
    """
    matrices: list[Matrix] = []
    tables: list[pa.Table] = []
    for path in paths:
        matrix, table = _read_slide(path)
        _check_width(path, matrix, matrices)
        # A slide without tiles need not say how wide its features would be.
        if len(matrix) or not matrices:
            matrices.append(matrix)
        tables.append(table)
    wide = [matrix for matrix in matrices if len(matrix)] or matrices[:1]
    return np.concatenate(wide), pa.concat_tables(tables)


def _read_slide(path: Path) -> Found:
    try:
        with h5py.File(path) as file:
            features = _dataset(file, "features", path)
            matrix = _as_matrix(features[()], path, "features")
            coords = _dataset(file, "coords", path) if "coords" in file else None
            places = None if coords is None else np.asarray(coords[()])
            attributes: dict[str, Any] = {} if coords is None else dict(coords.attrs)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    if places is not None and places.size == 2 * len(matrix):
        places = places.reshape(-1, 2).astype(np.int64)
    elif places is not None:
        raise InputError(
            f"{path}: coords of shape {list(places.shape)} do not fit {len(matrix):,} features."
        )
    return matrix, _slide_rows(path.stem, len(matrix), places, attributes)


def _slide_rows(
    name: str, count: int, places: NDArray[np.int64] | None, attributes: dict[str, Any]
) -> pa.Table:
    if places is None:
        return rows_of(count, id=[f"{name}/{n}" for n in range(count)], slide_id=name, source=name)
    mpp = attributes.get("mpp")
    return rows_of(
        count,
        id=[f"{name}/{x}_{y}" for x, y in places.tolist()],
        source=name,
        slide_id=name,
        x=places[:, 0],
        y=places[:, 1],
        mpp=None if mpp is None else np.full(count, float(mpp)),
    )


def read_eva(folder: Path) -> Found:
    """Reads what eva's manifest lists; a file with several embeddings has as many rows.

    Raises:
        InputError: the manifest is none, or a file is missing, damaged or of another width.
    """
    manifest = folder / EVA_FILE
    try:
        with open(manifest, encoding="utf-8", newline="") as handle:
            lines = list(csv.DictReader(handle))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{manifest} is no CSV: {error}.") from None
    if not lines or any(column not in lines[0] for column in _EVA_COLUMNS):
        raise InputError(f"{manifest} needs rows with the columns {', '.join(_EVA_COLUMNS)}.")
    root = folder.resolve()
    matrices: list[Matrix] = []
    for number, line in enumerate(lines, start=2):
        name = line["embeddings"] or ""
        path = (root / name).resolve()
        if not name or not path.is_relative_to(root):
            raise InputError(f"{manifest}, line {number}: {name!r} is no file of this folder.")
        matrix = _read_tensors(path)
        _check_width(path, matrix, matrices)
        matrices.append(matrix)
    repeats = [len(matrix) for matrix in matrices]
    return np.concatenate(matrices), _eva_rows(lines, repeats)


def _eva_rows(lines: list[dict[str, str]], repeats: list[int]) -> pa.Table:
    def column(name: str) -> list[str | None]:
        return [line.get(name) or None for line in lines]

    index = np.repeat(np.arange(len(lines)), repeats)
    names = column("origin") if "origin" in lines[0] else column("embeddings")
    counted = [n for count in repeats for n in range(count)]
    ids = [
        f"{names[line]}/{part}" if repeats[line] > 1 else names[line]
        for line, part in zip(index.tolist(), counted, strict=True)
    ]
    taken = {
        "path": names,
        "label": column("target"),
        "split": column("split"),
        "slide_id": column("wsi_id"),
    }
    known = {name: [values[n] for n in index.tolist()] for name, values in taken.items()}
    table = rows_of(len(index), id=ids, source=EVA_FILE, **known)
    for name in lines[0]:
        if name and name not in ("origin", "embeddings", "target", "split", "wsi_id"):
            values = column(name)
            label = name if name not in table.column_names else f"{name} (eva)"
            repeated = pa.array([values[n] for n in index.tolist()], pa.string())
            table = table.append_column(label, repeated)
    return table


def _read_tensors(path: Path) -> Matrix:
    if not path.is_file():
        raise InputError(f"{path} is missing, though {EVA_FILE} lists it.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is no file of plain tensors: {type(error).__name__}.") from None
    tensors = content if isinstance(content, list) else [content]
    if not tensors or not all(isinstance(one, torch.Tensor) for one in tensors):
        raise InputError(f"{path} holds no tensor, or something beside tensors.")
    parts = [_as_matrix(one.to(torch.float32).numpy(), path, "the tensor") for one in tensors]
    if any(part.shape[1] != parts[0].shape[1] for part in parts):
        raise InputError(f"{path} holds tensors of several widths.")
    return np.concatenate(parts)


def is_thunder(path: Path) -> bool:
    """Whether an HDF5 file has a dataset named 0, or nothing."""
    with h5py.File(path) as file:
        return "0" in file or len(file) == 0


def find_thunder(folder: Path) -> list[tuple[str, Path]]:
    """Lists the splits of a dataset, or the one that the folder is of, with their files."""
    own = folder / THUNDER_FILE
    if own.is_file():
        return [(folder.name if folder.name in _THUNDER_SPLITS else "", own)]
    files = [(split, folder / split / THUNDER_FILE) for split in _THUNDER_SPLITS]
    return [(split, path) for split, path in files if path.is_file()]


def read_thunder(splits: Sequence[tuple[str, Path]]) -> Found:
    """Reads THUNDER's splits, one after the other, with the labels beside them.

    Raises:
        InputError: a file is damaged, a number is missing, or widths or counts differ.
    """
    matrices: list[Matrix] = []
    tables: list[pa.Table] = []
    for split, path in splits:
        matrix = _as_matrix(np.stack(_numbered(path)), path, "the embeddings")
        _check_width(path, matrix, matrices)
        matrices.append(matrix)
        tables.append(_thunder_rows(split, path, len(matrix)))
    return np.concatenate(matrices), pa.concat_tables(tables)


def _numbered(path: Path) -> list[NDArray[Any]]:
    """Reads the datasets 0, 1, 2 … of a file."""
    try:
        with h5py.File(path) as file:
            values = [np.asarray(_dataset(file, str(n), path)[()]) for n in range(len(file))]
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    if not values or any(value.shape != values[0].shape for value in values):
        raise InputError(f"{path} holds nothing, or datasets of several shapes.")
    return values


def _thunder_rows(split: str, path: Path, count: int) -> pa.Table:
    beside = path.with_name(_THUNDER_LABELS)
    labels: list[str] | None = None
    if beside.is_file():
        found = _numbered(beside)
        if len(found) != count or found[0].size != 1:
            raise InputError(f"{beside} has {len(found):,} labels for {count:,} embeddings.")
        labels = [str(int(value.reshape(-1)[0])) for value in found]
    return rows_of(
        count,
        id=[f"{split}/{n}" if split else str(n) for n in range(count)],
        source=THUNDER_FILE,
        label=labels,
        split=split or None,
    )


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{path} has no dataset {name!r}; it has {', '.join(list(file)[:5])}.")
    return found


def _as_matrix(values: Any, path: Path, what: str) -> Matrix:
    """Gives [N, D] of an array [N, D], [1, N, D] or [D]."""
    array = np.asarray(values)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 1:
        array = array[None] if len(array) else np.empty((0, 0), np.float32)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(
            f"{path}: {what} must be numbers [N, D]; they are {array.dtype}{list(array.shape)}."
        )
    return array if array.dtype == np.float16 else array.astype(np.float32, copy=False)


def _check_width(path: Path, matrix: Matrix, before: Sequence[Matrix]) -> None:
    first = next((one for one in before if len(one)), None)
    if first is not None and len(matrix) and matrix.shape[1] != first.shape[1]:
        raise InputError(
            f"{path} has embeddings of {matrix.shape[1]:,} values, and the first ones have "
            f"{first.shape[1]:,}; they are of different encoders."
        )
