"""Any format that OpenSlide knows; also the judge of what a slide is and what its pixels are."""

import functools
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
from PIL import Image

from eosin.errors import InputError
from eosin.slides.encoding import JpegEncoding
from eosin.slides.pixels import RGB
from eosin.slides.resolution import MPP_TOLERANCE, is_plausible_mpp

_CACHE_BYTES = 32 * 2**20
_MOST_TILE_BYTES = 2**30
_EDGES = ("width", "height")


class OpenSlidePixels:
    """A slide read through OpenSlide.

    The handle belongs to one process: after a fork, the child opens its own at its first read.
    All handles of a process share one tile cache, so memory does not grow with the slides opened.

    Raises:
        InputError: OpenSlide does not open the file; the message holds its reason.
    """

    name = "openslide"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = os.getpid()
        self._handle = _open_handle(path)
        properties = self._handle.properties
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.level_dimensions = self._handle.level_dimensions
        self.level_downsamples = self._handle.level_downsamples
        self.scales = ((1,),) * len(self.level_dimensions)
        self.mpp = mean_mpp(
            properties.get(openslide.PROPERTY_NAME_MPP_X),
            properties.get(openslide.PROPERTY_NAME_MPP_Y),
        )

    def read_level(
        self, level: int, x_px: int, y_px: int, width_px: int, height_px: int, scale: int = 1
    ) -> RGB:
        """See `Pixels.read_level`; `scale` is always 1."""
        if self._process != os.getpid():
            self._reopen()
        downsample = self.level_downsamples[level]
        corner = round(x_px * downsample), round(y_px * downsample)
        try:
            region = self._handle.read_region(corner, level, (width_px, height_px))
        except openslide.OpenSlideError:
            region = self._read_afresh(corner, level, (width_px, height_px))
        return _on_white(np.asarray(region))

    def encoding(self, level: int) -> JpegEncoding | None:
        """OpenSlide does not tell."""
        del level
        return None

    def close(self) -> None:
        """Releases the handle."""
        self._handle.close()

    def _read_afresh(
        self, corner: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Image.Image:
        """Reads with a new handle, since OpenSlide refuses everything after its first error.

        That error may have been another thread's, or of another box.
        """
        handle = _open_handle(self._path)
        try:
            region = handle.read_region(corner, level, size)
        except openslide.OpenSlideError as error:
            self._reopen()
            raise InputError(
                f"{self._path} is damaged: no pixels at x {corner[0]}, y {corner[1]} of level"
                f" {level} ({error}); get a whole copy of it."
            ) from error
        self._handle = handle
        return region

    def _reopen(self) -> None:
        self._handle, self._process = _open_handle(self._path), os.getpid()


def detect_vendor(path: Path) -> str | None:
    """Names the format of a file as OpenSlide sees it; None if it knows none."""
    try:
        return openslide.OpenSlide.detect_format(path)
    except (openslide.OpenSlideError, OSError):
        return None


def mean_mpp(mpp_x: str | float | None, mpp_y: str | float | None) -> float | None:
    """The mean of both axes, or None where they are missing, unequal or no microscope's."""
    try:
        x, y = float(mpp_x or "nan"), float(mpp_y or "nan")
    except ValueError:
        return None
    mean = (x + y) / 2
    # A TIFF without a scanner behind it often says 72 dots per inch, which is 353 mpp.
    return mean if is_plausible_mpp(mean) and abs(x - y) <= MPP_TOLERANCE * mean else None


def _open_handle(path: Path) -> openslide.OpenSlide:
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise InputError(
            f"{path} is not a slide that OpenSlide knows, or its header is damaged."
        ) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise InputError(
            f"{path} cannot be opened as a slide ({error}); get a whole copy of it, or leave it"
            " out."
        ) from error
    for level in range(handle.level_count):
        edges = [handle.properties.get(f"openslide.level[{level}].tile-{edge}") for edge in _EDGES]
        # OpenSlide ends the process where it cannot allocate a tile, which a header may forge.
        if 4 * int(edges[0] or 0) * int(edges[1] or 0) > _MOST_TILE_BYTES:
            raise InputError(
                f"{path} has tiles of {edges[0]} x {edges[1]} px, which OpenSlide cannot read; its"
                " header is damaged, get a whole copy of it."
            )
    handle.set_cache(_cache_of_process(os.getpid()))
    return handle


@functools.lru_cache(maxsize=1)
def _cache_of_process(process: int) -> openslide.OpenSlideCache:
    del process  # Only the key: a forked child must not share its parent's cache.
    return openslide.OpenSlideCache(_CACHE_BYTES)


def _on_white(rgba: npt.NDArray[np.uint8]) -> RGB:
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgb)
    weight = alpha.astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
