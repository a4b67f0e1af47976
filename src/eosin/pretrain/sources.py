"""Where the tiles of pre-training come from: stores of tiles, image folders and HDF5 files."""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import h5py
import numpy as np
from PIL import Image as PillowImage

from eosin.errors import InputError
from eosin.images.color import Image
from eosin.provenance import sha256_of
from eosin.store.export_format import is_exported
from eosin.store.exported import ExportedStore
from eosin.store.locations import Location, is_url
from eosin.store.tile_store import TileStore

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
_HDF5_KEYS = ("x", "images", "imgs")
_MODES_OF_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_MOST_PX = 64_000_000
_FINGERPRINT_IMAGES = 16
# What Pillow's decoders raise for damaged files, besides its own errors (which are OSErrors).
_DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    PillowImage.DecompressionBombError,
)


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
        self._paths = np.array(sorted(_find_images(root)), dtype=np.bytes_)
        if len(self._paths) == 0:
            raise InputError(_nothing_found(root))
        sizes = [(root / os.fsdecode(path)).stat().st_size for path in self._paths]
        content = self._paths.tobytes() + np.array(sizes, dtype="<i8").tobytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Image:
        """Reads one image; grey, palette and CMYK become RGB, and an alpha channel is dropped."""
        path = self._root / os.fsdecode(self._paths[index])
        try:
            with PillowImage.open(path) as image:
                _check_pixels(path, image)
                return np.array(image.convert("RGB"))
        except _DECODING_ERRORS as error:
            raise InputError(f"{path} cannot be read as an image: {error}.") from error


def _find_images(root: Path) -> Iterator[bytes]:
    def stop(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:
            # A link that leads back up would go round for ever.
            below.clear()
            continue
        seen.add(real)
        below.sort()
        for name in names:
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                yield os.fsencode(os.path.relpath(os.path.join(folder, name), root))


def _nothing_found(root: Path) -> str:
    message = f"{root} holds no images ({', '.join(_SUFFIXES)}) at any depth"
    files = sorted(path.name for path in root.iterdir() if h5py.is_hdf5(path))
    if files:
        return f"{message}, but HDF5 files; name those to train on, such as {root / files[0]}."
    return f"{message}, and is no tile store; make one of slides with `eosin tile`."


def _check_pixels(path: Path, image: PillowImage.Image) -> None:
    if image.width * image.height > _MOST_PX:
        raise InputError(
            f"{path} has {image.width:,} x {image.height:,} pixels, which is no tile; cut it with "
            "`eosin tile` first."
        )
    if image.mode not in _MODES_OF_8_BITS:
        raise InputError(f"{path} does not have 8 bits a channel (mode {image.mode}); convert it.")


class HDF5Images:
    """The images `uint8[N, H, W, 3]` under the key `x`, `images` or `imgs` of an HDF5 file.

    The fingerprint is a hash of the array's shape, the file's size and some images across it.

    Raises:
        InputError: the file has no such array.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with h5py.File(path) as file:
            self._key = _find_key(path, file)
            images = cast(h5py.Dataset, file[self._key])
            self._length = len(images)
            spread = np.linspace(0, self._length - 1, min(_FINGERPRINT_IMAGES, self._length))
            samples = [images[index].tobytes().hex() for index in spread.astype(int)]
            self.fingerprint = sha256_of([images.shape, path.stat().st_size, samples])
        self._opened: tuple[int, h5py.Dataset] | None = None

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def read(self, index: int) -> Image:
        """Reads one image."""
        try:
            return self._images()[index]
        except OSError as error:
            raise InputError(f"{self._path}, image {index}, cannot be read: {error}.") from error

    def _images(self) -> h5py.Dataset:
        # A forked worker must not share the file handle of its parent.
        if self._opened is None or self._opened[0] != os.getpid():
            images = cast(h5py.Dataset, h5py.File(self._path)[self._key])
            self._opened = (os.getpid(), images)
        return self._opened[1]


def _find_key(path: Path, file: h5py.File) -> str:
    for key in _HDF5_KEYS:
        if isinstance(each := file.get(key), h5py.Dataset) and _is_rgb(each):
            return key
    found = [
        f"{key} {each.dtype}{list(each.shape)}"
        for key, each in file.items()
        if isinstance(each, h5py.Dataset)
    ]
    raise InputError(
        f"{path} needs images uint8[N, H, W, 3] under the key {' or '.join(_HDF5_KEYS)}; "
        f"it has {', '.join(found) or 'no arrays'}."
    )


def _is_rgb(images: h5py.Dataset) -> bool:
    return images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
