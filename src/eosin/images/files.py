"""Images in files of their own: finding and reading them."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from eosin.errors import InputError
from eosin.images.color import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")

_MODES_OF_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_MOST_PX = 64_000_000
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


def read_image(path: Path) -> Image:
    """Reads an image as uint8 RGB [H, W, 3].

    Grey, palette and CMYK become RGB, and an alpha channel is dropped.

    Raises:
        InputError: it is damaged, has more than 8 bits a channel, or is too large for a tile.
    """
    try:
        with PillowImage.open(path) as image:
            if image.width * image.height > _MOST_PX:
                raise InputError(
                    f"{path} has {image.width:,} x {image.height:,} pixels, which is no tile; cut "
                    "it with `eosin tile` first."
                )
            if image.mode not in _MODES_OF_8_BITS:
                raise InputError(
                    f"{path} does not have 8 bits a channel (mode {image.mode}); convert it."
                )
            return np.array(image.convert("RGB"))
    except _DECODING_ERRORS as error:
        raise InputError(f"{path} cannot be read as an image: {error}.") from error


def find_images(root: Path) -> list[str]:
    """Finds the images of a folder and of all folders below it, sorted by relative path.

    Hidden files and folders are passed over; links are followed, but none twice.

    Raises:
        OSError: a folder cannot be listed.
    """
    return sorted(_walk(root), key=os.fsencode)


def _walk(root: Path) -> Iterator[str]:
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
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root)
