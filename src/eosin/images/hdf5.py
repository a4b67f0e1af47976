"""Images in an array of an HDF5 file, as PatchCamelyon has them."""

import os
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from eosin.errors import InputError
from eosin.images.color import Image

_KEYS = ("x", "images", "imgs")


class HDF5Array:
    """The images `uint8[N, H, W, 3]` under the key `x`, `images` or `imgs` of an HDF5 file.

    Raises:
        InputError: the file has no such array, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with h5py.File(path) as file:
                self.key = _find_key(path, file)
                self.shape: tuple[int, ...] = cast(h5py.Dataset, file[self.key]).shape
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path} cannot be read: {error}.") from None
        self._opened: tuple[int, h5py.Dataset] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def read(self, index: int) -> Image:
        """Reads one image.

        Raises:
            InputError: it cannot be read.
        """
        try:
            return self._images()[index]
        except (OSError, RuntimeError) as error:
            raise InputError(f"{self.path}, image {index}, cannot be read: {error}.") from error

    def _images(self) -> h5py.Dataset:
        # A forked worker must not share the file handle of its parent.
        if self._opened is None or self._opened[0] != os.getpid():
            images = cast(h5py.Dataset, h5py.File(self.path)[self.key])
            self._opened = (os.getpid(), images)
        return self._opened[1]


def _find_key(path: Path, file: h5py.File) -> str:
    for key in _KEYS:
        if isinstance(each := file.get(key), h5py.Dataset) and _is_rgb(each):
            return key
    found = [
        f"{key} {each.dtype}{list(each.shape)}"
        for key, each in file.items()
        if isinstance(each, h5py.Dataset)
    ]
    raise InputError(
        f"{path} needs images uint8[N, H, W, 3] under the key {' or '.join(_KEYS)}; "
        f"it has {', '.join(found[:5]) or 'no arrays'}."
    )


def _is_rgb(images: h5py.Dataset) -> bool:
    return images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
