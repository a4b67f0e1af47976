"""Whole slides behind one interface: any region, at any resolution that the slide holds."""

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import cv2
import numpy as np
import numpy.typing as npt
import openslide

from eosin.errors import InputError

RGB = npt.NDArray[np.uint8]

SUFFIXES = frozenset(
    {".bif", ".czi", ".dcm", ".mrxs", ".ndpi", ".scn", ".svs"}
    | {".svslide", ".tif", ".tiff", ".vms", ".vmu"}
)
"""Suffixes, in lower case, of the files in a folder that are taken for slides."""

MPP_TOLERANCE = 0.02
"""A level whose mpp is within this fraction of the target is used as it is."""

_OPENSLIDE_CACHE_BYTES = 32 * 2**20
_THUMBNAIL_BLOCK_PX = 2048


def is_plausible_mpp(mpp: float) -> bool:
    """Tells whether a microscope may have made pixels of so many micrometres."""
    return 0.02 <= mpp <= 50


class Pixels(Protocol):
    """What a back end offers: the levels of one file and the pixels in them."""

    vendor: str
    mpp: float | None
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]

    def read_level(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> RGB:
        """Reads a box of one level: corner in level-0 pixels, size in pixels of that level.

        What lies outside the slide, or was never scanned, is white.

        Raises:
            InputError: the file is damaged there.
        """
        ...

    def close(self) -> None:
        """Releases the file."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How a slide gives pixels of a wanted resolution."""

    level: int
    """The level to read."""
    reduction: float
    """How many pixels of that level make one output pixel, along an edge; 1 for all of them."""
    downsample: float
    """How many level-0 pixels make one output pixel, along an edge."""
    mpp: float
    """The resolution that comes out, in micrometres per pixel."""


def choose_reading(
    slide_mpp: float, level_downsamples: Sequence[float], mpp: float
) -> Reading | None:
    """Chooses the level to read for a resolution of `mpp`, or None if the slide is coarser.

    A level within `MPP_TOLERANCE` is taken as it is; else the next finer level is to be reduced.
    """
    level_mpps = [slide_mpp * downsample for downsample in level_downsamples]
    nearest = min(range(len(level_mpps)), key=lambda level: abs(level_mpps[level] - mpp))
    if abs(level_mpps[nearest] - mpp) <= MPP_TOLERANCE * mpp:
        return Reading(nearest, 1.0, level_downsamples[nearest], level_mpps[nearest])
    finer = [level for level, level_mpp in enumerate(level_mpps) if level_mpp < mpp]
    if not finer:
        return None
    level = max(finer, key=lambda level: level_mpps[level])
    return Reading(level, mpp / level_mpps[level], mpp / slide_mpp, mpp)


class Slide:
    """A slide whose pixels are asked for by place and resolution, whatever levels its file has.

    It may be read from several threads, and in processes forked from the one that opened it.

    Args:
        path: the file.
        pixels: the back end that reads it.
        mpp: micrometres per level-0 pixel; the file's own is kept beside it as `file_mpp`.
    """

    def __init__(self, path: Path, pixels: Pixels, mpp: float | None = None) -> None:
        self.path = path
        self.vendor = pixels.vendor
        self.file_mpp = pixels.mpp
        self.level_dimensions = pixels.level_dimensions
        self.level_downsamples = pixels.level_downsamples
        self._pixels = pixels
        self._mpp = mpp

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height in level-0 pixels."""
        return self.level_dimensions[0]

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel.

        Raises:
            InputError: neither the file nor the user gives it.
        """
        if self._mpp is None:
            raise InputError(
                f"{self.path} has no usable mpp (micrometres per pixel): it is missing, implausible"
                " or unequal along x and y. Give it with --slide-mpp for all such slides, or slide"
                " by slide with --mpp-csv."
            )
        return self._mpp

    def reading(self, mpp: float) -> Reading:
        """Says which level serves a resolution, and by how much it is reduced.

        Raises:
            InputError: the slide has no mpp, or is coarser than `mpp` by more than 2 %.
        """
        reading = choose_reading(self.mpp, self.level_downsamples, mpp)
        if reading is None:
            raise InputError(
                f"{self.path} was scanned at {self.mpp:.4g} mpp, which is coarser than the"
                f" {mpp:.4g} mpp asked for; Eosin never enlarges pixels, so give a larger --mpp."
            )
        return reading

    def read(self, x_px: int, y_px: int, size_px: int, mpp: float) -> RGB:
        """Reads a square as uint8 [size_px, size_px, 3].

        Args:
            x_px: left edge in level-0 pixels.
            y_px: upper edge in level-0 pixels.
            size_px: edge of the output.
            mpp: resolution of the output; see `reading` for how it is reached.

        Raises:
            InputError: the slide has no such resolution, or is damaged there.
        """
        reading = self.reading(mpp)
        # Rounded down, so that neighbours never share a pixel.
        level_px = math.floor(size_px * reading.reduction + 1e-6)
        square = self._pixels.read_level(reading.level, x_px, y_px, level_px, level_px)
        if level_px == size_px:
            return square
        return _reduce(square, size_px, size_px)

    def thumbnail(self, mpp: float) -> RGB:
        """Reads the whole slide as uint8 [height, width, 3], block by block in bounded memory.

        Raises:
            InputError: the slide has no such resolution, or is damaged somewhere.
        """
        reading = self.reading(mpp)
        level_width, level_height = self.level_dimensions[reading.level]
        width = max(1, round(level_width / reading.reduction))
        height = max(1, round(level_height / reading.reduction))
        out = np.empty((height, width, 3), np.uint8)
        step = max(1, int(_THUMBNAIL_BLOCK_PX / reading.reduction))
        for top in range(0, height, step):
            for left in range(0, width, step):
                block = out[top : top + step, left : left + step]
                block[:] = self._read_block(reading, left, top, block.shape[1], block.shape[0])
        return out

    def _read_block(self, reading: Reading, left: int, top: int, width: int, height: int) -> RGB:
        """Reads a box given in output pixels; its source edges are rounded to whole pixels."""
        x0, x1 = round(left * reading.reduction), round((left + width) * reading.reduction)
        y0, y1 = round(top * reading.reduction), round((top + height) * reading.reduction)
        downsample = self.level_downsamples[reading.level]
        box = self._pixels.read_level(
            reading.level, round(x0 * downsample), round(y0 * downsample), x1 - x0, y1 - y0
        )
        return _reduce(box, width, height)

    def close(self) -> None:
        """Releases the file."""
        self._pixels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _reduce(image: RGB, width_px: int, height_px: int) -> RGB:
    return np.asarray(
        cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA), np.uint8
    )


class OpenSlidePixels:
    """Any format that OpenSlide knows.

    The handle belongs to one process: after a fork, the child opens its own at its first read.
    All handles of a process share one tile cache, so memory does not grow with the slides opened.

    Raises:
        InputError: OpenSlide does not open the file; the message holds its reason.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = os.getpid()
        self._handle = _open_handle(path)
        properties = self._handle.properties
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.level_dimensions = self._handle.level_dimensions
        self.level_downsamples = self._handle.level_downsamples
        self.mpp = _plausible_mpp(
            properties.get(openslide.PROPERTY_NAME_MPP_X),
            properties.get(openslide.PROPERTY_NAME_MPP_Y),
        )

    def read_level(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> RGB:
        """See `Pixels.read_level`."""
        if self._process != os.getpid():
            self._handle, self._process = _open_handle(self._path), os.getpid()
        try:
            region = self._handle.read_region((x_px, y_px), level, (width_px, height_px))
        except openslide.OpenSlideError as error:
            raise InputError(
                f"{self._path} is damaged: no pixels at x {x_px}, y {y_px} of level {level}"
                f" ({error}); get a whole copy of it."
            ) from error
        return _on_white(np.asarray(region))

    def close(self) -> None:
        """Releases the handle."""
        self._handle.close()


def _open_handle(path: Path) -> openslide.OpenSlide:
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise InputError(
            f"{path} is not a slide that OpenSlide knows, or its header is damaged."
        ) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise InputError(f"{path} cannot be opened as a slide: {error}") from error
    handle.set_cache(_cache_of_process(os.getpid()))
    return handle


@functools.lru_cache(maxsize=1)
def _cache_of_process(process: int) -> openslide.OpenSlideCache:
    del process  # Only the key: a forked child must not share its parent's cache.
    return openslide.OpenSlideCache(_OPENSLIDE_CACHE_BYTES)


def _plausible_mpp(mpp_x: str | None, mpp_y: str | None) -> float | None:
    """The mean of both axes, or None where they are missing, unequal or no microscope's."""
    try:
        x, y = float(mpp_x or "nan"), float(mpp_y or "nan")
    except ValueError:
        return None
    mean = (x + y) / 2
    # A TIFF without a scanner behind it often says 72 dots per inch, which is 353 mpp.
    return mean if is_plausible_mpp(mean) and abs(x - y) <= MPP_TOLERANCE * mean else None


def _on_white(rgba: npt.NDArray[np.uint8]) -> RGB:
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgb)
    weight = alpha.astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


BACK_ENDS: tuple[Callable[[Path], Pixels | None], ...] = (OpenSlidePixels,)
"""Asked in order; one that does not know the file returns None, and the last knows or refuses."""


def open_slide(
    path: Path | str, mpp: float | None = None, mpp_if_missing: float | None = None
) -> Slide:
    """Opens a slide for reading.

    Args:
        path: the slide, or the file of it that its format opens by (`.mrxs`, `.vms`).
        mpp: micrometres per level-0 pixel, where the file's own is not to be believed.
        mpp_if_missing: the same for a file that has none of its own.

    Raises:
        InputError: there is no such file, or no back end can read it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no slide at {path}.")
    for back_end in BACK_ENDS:
        pixels = back_end(path)
        if pixels is not None:
            known = (mpp, pixels.mpp, mpp_if_missing)
            return Slide(path, pixels, next((one for one in known if one is not None), None))
    raise InputError(f"{path} is not a slide that Eosin knows.")
