"""Where the tiles of pre-training come from: stores of tiles, image folders and HDF5 files."""

import hashlib
import os
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from eosin.errors import InputError
from eosin.images.color import Image
from eosin.images.files import SUFFIXES, find_images, read_image
from eosin.images.hdf5 import HDF5Array
from eosin.provenance import sha256_of
from eosin.store.export_format import is_exported
from eosin.store.exported import ExportedStore
from eosin.store.locations import Location, is_url
from eosin.store.tile_store import TileStore

_FINGERPRINT_IMAGES = 16


class TileSource(Protocol):
    """Tiles by number; they are read from several threads at once."""

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Changes when the tiles change, so that a run is never resumed on other data."""
        ...

    def read(self, index: int, /) -> Image:
        """Reads one tile as RGB, `uint8[H, W, 3]`.

        Raises:
            InputError: it cannot be read; the message names it.
        """
        ...


def open_source(path: str | Path) -> TileSource:
    """Opens a tile store, an exported one, a folder of images at any depth, or an HDF5 file.

    Args:
        path: a path, or the URL of an exported store, such as `s3://bucket/tiles`.

    Raises:
        InputError: there is no tile to read at `path`; the message says what to give instead.
    """
    try:
        source = ExportedStore(path) if is_url(path) else _open(Path(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if len(source) == 0:
        raise InputError(f"{path} holds no tiles; fill it, or leave it out.")
    return source


def _open(path: Path) -> TileSource:
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a tile store, a folder of images or an HDF5 file."
        )
    if path.is_file():
        if h5py.is_hdf5(path):
            return HDF5Images(path)
        raise InputError(
            f"{path} is not an HDF5 file; give a tile store (`eosin tile` makes one of "
            "slides), a folder of images or an HDF5 file."
        )
    if TileStore.is_store(path):
        return TileStore(path)
    return ExportedStore(path) if is_exported(Location(path)) else ImageFolder(path)


class ImageFolder:
    """The images of a folder and all folders below it, in the order of their relative paths.

    The fingerprint is a hash of all relative paths and file sizes.

    Raises:
        InputError: there is none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        # One array of bytes holds millions of paths without a Python object for each.
        self._paths = np.array([os.fsencode(each) for each in find_images(root)], dtype=np.bytes_)
        if len(self._paths) == 0:
            raise InputError(_nothing_found(root))
        sizes = [(root / os.fsdecode(path)).stat().st_size for path in self._paths]
        content = self._paths.tobytes() + np.array(sizes, dtype="<i8").tobytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Image:
        """Reads one image; grey, palette and CMYK become RGB, and an alpha channel is dropped."""
        return read_image(self._root / os.fsdecode(self._paths[index]))


def _nothing_found(root: Path) -> str:
    message = f"{root} holds no images ({', '.join(SUFFIXES)}) at any depth"
    files = sorted(path.name for path in root.iterdir() if h5py.is_hdf5(path))
    if files:
        return f"{message}, but HDF5 files; name those to train on, such as {root / files[0]}."
    return f"{message}, and is no tile store; make one of slides with `eosin tile`."


class HDF5Images(HDF5Array):
    """The images of an HDF5 file.

    The fingerprint is a hash of the array's shape, the file's size and some images across it.

    Raises:
        InputError: the file has no array of images, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        spread = np.linspace(0, len(self) - 1, min(_FINGERPRINT_IMAGES, len(self)))
        samples = [self.read(index).tobytes().hex() for index in spread.astype(int)]
        self.fingerprint = sha256_of([self.shape, path.stat().st_size, samples])
