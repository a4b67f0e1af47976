"""The bytes of one tile: read from a place in a file, checked, and decoded."""

import functools
import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg


class OpenFiles:
    """Reads from any place of many files, and keeps the last used ones open.

    Safe to use from threads and from forked processes.

    Args:
        most: how many files may be open at once.
    """

    def __init__(self, most: int) -> None:
        self._open = functools.lru_cache(maxsize=most)(_OpenFile)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Reads `length` bytes from `offset`, or fewer where the file ends before."""
        # Held by a name, or another thread's read might drop it from the cache and close it.
        file = self._open(path)
        return os.pread(file.descriptor, length, offset)


class _OpenFile:
    """A file descriptor that lives while a thread reads from it, even if the cache drops it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def check(jpeg: bytes, length: int, crc32: int) -> None:
    """Compares a tile with what the index says of it.

    Raises:
        ValueError: it is not that tile; the message says why.
    """
    if len(jpeg) != length:
        raise ValueError("the shard is truncated")
    if zlib.crc32(jpeg) != crc32:
        raise ValueError("its checksum is wrong")


def decode(jpeg: bytes, tile_px: int) -> npt.NDArray[np.uint8]:
    """Decodes a tile as uint8 RGB [tile_px, tile_px, 3].

    Raises:
        ValueError: it is no JPEG, damaged, or of another size.
    """
    # The size comes first, so that a forged header cannot ask for gigabytes.
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if (height, width) != (tile_px, tile_px):
        raise ValueError(f"it is {width} x {height} px")
    return simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
