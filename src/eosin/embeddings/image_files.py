"""Images that lie in files of their own, or in an HDF5 file as PatchCamelyon has them."""

import csv
import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import pyarrow as pa

from eosin.embeddings.rows import rows_of
from eosin.errors import InputError
from eosin.images.color import Image
from eosin.images.files import read_image
from eosin.images.hdf5 import HDF5Array
from eosin.provenance import available_cores, sha256_of, sha256_of_file

_PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")
_MOST_LIST_BYTES = 2**31


class ImageFiles:
    """Images in files of their own.

    Args:
        root: what their paths are relative to.
        paths: in the order of the embeddings.
        kind: what the user gave.
    """

    def __init__(self, root: Path, paths: Sequence[str], kind: str) -> None:
        self.kind = kind
        self._root = root
        # One array of bytes holds millions of paths without a Python object for each.
        self._paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def manifest_sha256(self) -> str:
        """Hash of all paths and of the bytes of all files."""
        return self._manifest_sha256

    @functools.cached_property
    def _manifest_sha256(self) -> str:
        digest = hashlib.sha256()
        with ThreadPoolExecutor(available_cores()) as pool:
            for index, content in enumerate(pool.map(self._hash, range(len(self)))):
                digest.update(f"{len(self._paths[index])} ".encode() + self._paths[index])
                digest.update(content.encode())
        return digest.hexdigest()

    def _hash(self, index: int) -> str:
        try:
            return sha256_of_file(self._root / self.name(index))
        except OSError as error:
            # An image that cannot be read is told of when it should be embedded.
            return f"cannot be read: {error.strerror}"

    def name(self, index: int) -> str:
        """The path of an image, as it was found or given."""
        return os.fsdecode(self._paths[index])

    def read(self, index: int) -> Image:
        """Reads one image; grey, palette and CMYK become RGB, and an alpha channel is dropped."""
        return read_image(self._root / self.name(index))

    def rows(self, start: int, stop: int) -> pa.Table:
        """The paths of some images."""
        names = [_as_text(self.name(index)) for index in range(start, stop)]
        return rows_of(stop - start, id=names, path=names)


def _as_text(name: str) -> str:
    """A path as Parquet can hold it, also where its bytes are no UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def read_list(path: Path) -> list[str]:
    """Reads a list of images: a path a line, or a CSV with a column of paths.

    Paths are relative to the list's folder, or absolute.

    Raises:
        InputError: it is no such list, is empty, or names an image twice.
    """
    columns = ", ".join(_PATH_COLUMNS)
    try:
        if path.stat().st_size > _MOST_LIST_BYTES:
            raise InputError(f"{path} is too large for a list of images; give a folder.")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is neither an HDF5 file nor a list of images (text, a path a line)."
        ) from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if path.suffix.lower() in (".csv", ".tsv") and lines:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        table = list(csv.DictReader(lines, delimiter=delimiter))
        names = lines[0].split(delimiter)
        column = next((name for name in names if name.strip('" ').lower() in _PATH_COLUMNS), None)
        if column is None:
            raise InputError(f"{path} has no column of images; call it one of {columns}.")
        lines = [(row.get(column.strip('" ')) or "").strip() for row in table]
    if not lines or not all(lines):
        raise InputError(f"{path} names no images, or not in every row.")
    if len(set(lines)) < len(lines):
        twice = next(line for line in lines if lines.count(line) > 1)
        raise InputError(f"{path} names {twice} twice; name each image once.")
    missing = next((line for line in lines if not (path.parent / line).is_file()), None)
    if missing is not None:
        raise InputError(f"{path} names {missing}, which is no file in {path.parent}.")
    return lines


class HDF5Images:
    """The images of an HDF5 file; beside `NAME_x.h5` the labels of `NAME_y.h5` are read too.

    Raises:
        InputError: the file has no images, or not as many as labels, or cannot be read.
    """

    kind = "HDF5 file"

    def __init__(self, path: Path) -> None:
        self._images = HDF5Array(path)
        self._labels = _labels_beside(path, len(self._images))

    def __len__(self) -> int:
        return len(self._images)

    @property
    def manifest_sha256(self) -> str:
        """Hash of the file's bytes and of the labels."""
        return self._manifest_sha256

    @functools.cached_property
    def _manifest_sha256(self) -> str:
        return sha256_of([sha256_of_file(self._images.path), self._images.key, self._labels])

    def name(self, index: int) -> str:
        """The number of the image in the file."""
        return f"{self._images.path.stem}/{index:07d}"

    def read(self, index: int) -> Image:
        """Reads one image."""
        return self._images.read(index)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Numbers of some images, and their labels where they are known."""
        names = [self.name(index) for index in range(start, stop)]
        labels = None if self._labels is None else self._labels[start:stop]
        path = _as_text(str(self._images.path))
        return rows_of(stop - start, id=names, path=path, label=labels)


def _labels_beside(path: Path, count: int) -> list[str] | None:
    beside = path.with_name(f"{path.stem.removesuffix('_x')}_y{path.suffix}")
    if not path.stem.endswith("_x") or not beside.is_file():
        return None
    try:
        with h5py.File(beside) as file:
            labels = np.asarray(cast(h5py.Dataset, file["y"])[:]).reshape(-1)
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{beside}, the labels of {path.name}, cannot be read: {error}.") from None
    if len(labels) != count:
        raise InputError(f"{beside} has {len(labels):,} labels for {count:,} images.")
    return [str(label) for label in labels.tolist()]
