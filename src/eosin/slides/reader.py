"""Whole slides behind one interface: any region, at any resolution that the slide holds."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from eosin.errors import InputError
from eosin.slides import dicom, jpeg_tiff
from eosin.slides.encoding import JpegEncoding
from eosin.slides.jpeg_layout import JpegLayout
from eosin.slides.jpeg_tiles import JpegTilesPixels
from eosin.slides.openslide_pixels import OpenSlidePixels
from eosin.slides.pixels import RGB, Pixels
from eosin.slides.resolution import Reading, choose_reading

SUFFIXES = frozenset(
    {".bif", ".czi", ".dcm", ".mrxs", ".ndpi", ".scn", ".svs"}
    | {".svslide", ".tif", ".tiff", ".vms", ".vmu"}
)
"""Suffixes, in lower case, of the files in a folder that are taken for slides."""

_BLOCK_PX = 2048
_LEAST_BLOCK_PX = 32
_CACHE_BYTES = 64 * 2**20


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
        self.back_end = pixels.name
        self.file_mpp = pixels.mpp
        self.level_dimensions = pixels.level_dimensions
        self.level_downsamples = pixels.level_downsamples
        self.pixels = pixels
        self._mpp = mpp
        self._state = _state_of(path)

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height in level-0 pixels."""
        return self.level_dimensions[0]

    @property
    def file_bytes(self) -> int:
        """Size of the file when it was opened."""
        return self._state[0]

    @property
    def layout(self) -> JpegLayout | None:
        """Where the JPEG tiles of the slide lie, if they are read directly."""
        return self.pixels.layout if isinstance(self.pixels, JpegTilesPixels) else None

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
        reading = choose_reading(self.mpp, self.level_downsamples, self.pixels.scales, mpp)
        if reading is None:
            raise InputError(
                f"{self.path} was scanned at {self.mpp:.4g} mpp, which is coarser than the"
                f" {mpp:.4g} mpp asked for; Eosin never enlarges pixels, so give a larger --mpp."
            )
        return reading

    def encoding(self, reading: Reading) -> JpegEncoding | None:
        """How the slide encodes the level that is read; None if not as JPEG, or not known."""
        return self.pixels.encoding(reading.level)

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
        reading, (left, top, edge_px) = self.source_box(x_px, y_px, size_px, mpp)
        square = self.pixels.read_level(reading.level, left, top, edge_px, edge_px, reading.scale)
        return _reduce(square, size_px, size_px)

    def source_box(
        self, x_px: int, y_px: int, size_px: int, mpp: float
    ) -> tuple[Reading, tuple[int, int, int]]:
        """Says which pixels make a square: their left and upper edge and how many along an edge.

        They are counted in the level that is read, after it was reduced while decoding.

        Raises:
            InputError: the slide has no such resolution.
        """
        reading = self.reading(mpp)
        source_px = self.level_downsamples[reading.level] * reading.scale
        # Rounded down, so that neighbours share no more than the pixel that they are rounded to.
        edge_px = math.floor(size_px * reading.reduction + 1e-6)
        return reading, (round(x_px / source_px), round(y_px / source_px), edge_px)

    def thumbnail(self, mpp: float, damaged: list[tuple[int, int, int, int]] | None = None) -> RGB:
        """Reads the whole slide as uint8 [height, width, 3], block by block in bounded memory.

        Args:
            mpp: resolution of the output.
            damaged: if given, parts that cannot be read are white, and their boxes (left, upper,
                right and lower edge in pixels of the output) are appended here.

        Raises:
            InputError: the slide has no such resolution, or is damaged somewhere and `damaged` is
                not given.
        """
        reading = self.reading(mpp)
        level_width, level_height = self.level_dimensions[reading.level]
        reduction = reading.scale * reading.reduction
        width, height = (max(1, round(edge / reduction)) for edge in (level_width, level_height))
        out = np.empty((height, width, 3), np.uint8)
        step = max(1, int(_BLOCK_PX / reading.reduction))
        for top in range(0, height, step):
            for left in range(0, width, step):
                box = (left, top, min(left + step, width), min(top + step, height))
                self._read_box(reading, box, out, damaged)
        return out

    def _read_box(
        self,
        reading: Reading,
        box: tuple[int, int, int, int],
        out: RGB,
        damaged: list[tuple[int, int, int, int]] | None,
    ) -> None:
        """Reads a box of the output; its source edges are rounded to whole pixels."""
        left, top, right, bottom = box
        x0, y0, x1, y1 = (round(edge * reading.reduction) for edge in box)
        # Beyond the slide all is white, which must not be averaged into its last pixels.
        end_x, end_y = (-(-edge // reading.scale) for edge in self.level_dimensions[reading.level])
        width, height = max(1, min(x1, end_x) - x0), max(1, min(y1, end_y) - y0)
        try:
            pixels = self.pixels.read_level(reading.level, x0, y0, width, height, reading.scale)
        except InputError:
            if damaged is None:
                raise
            if max(right - left, bottom - top) <= _LEAST_BLOCK_PX:
                out[top:bottom, left:right] = 255
                damaged.append(box)
                return
            # Halved until what is lost is small.
            for part in _quarters(box):
                self._read_box(reading, part, out, damaged)
            return
        out[top:bottom, left:right] = _reduce(pixels, right - left, bottom - top)

    def check_unchanged(self) -> None:
        """Refuses a file that was written to since it was opened.

        Raises:
            InputError: its size or time has changed.
        """
        if _state_of(self.path) != self._state:
            raise InputError(
                f"{self.path} was changed while it was read; wait until its copy is complete, and"
                " run the same command again."
            )

    def close(self) -> None:
        """Releases the file."""
        self.pixels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _quarters(box: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    left, top, right, bottom = box
    x, y = (left + right + 1) // 2, (top + bottom + 1) // 2
    parts = [(left, top, x, y), (x, top, right, y), (left, y, x, bottom), (x, y, right, bottom)]
    return [part for part in parts if part[0] < part[2] and part[1] < part[3]]


def _reduce(image: RGB, width_px: int, height_px: int) -> RGB:
    if image.shape[:2] == (height_px, width_px):
        return image
    return np.asarray(
        cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA), np.uint8
    )


def _state_of(path: Path) -> tuple[int, int]:
    try:
        state = os.stat(path)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}.") from error
    return state.st_size, state.st_mtime_ns


LAYOUTS: tuple[Callable[[Path], JpegLayout | None], ...] = (
    jpeg_tiff.read_layout,
    dicom.read_layout,
)
"""Asked in order for where a slide's JPEG tiles lie; OpenSlide reads what none of them knows."""


def open_slide(
    path: Path | str,
    mpp: float | None = None,
    mpp_if_missing: float | None = None,
    *,
    layout: Path | None = None,
    in_order: bool = False,
) -> Slide:
    """Opens a slide for reading.

    Args:
        path: the slide, or the file of it that its format opens by (`.mrxs`, `.vms`).
        mpp: micrometres per level-0 pixel, where the file's own is not to be believed.
        mpp_if_missing: the same for a file that has none of its own.
        layout: where an earlier run kept the table of the slide's JPEG tiles; used if it fits.
        in_order: whether neighbours will be read one after another, for which decoded tiles that
            lie on an edge are kept.

    Raises:
        InputError: there is no such file, or no back end can read it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no slide at {path}.")
    try:
        pixels = _open_pixels(path, layout, _CACHE_BYTES if in_order else 0)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    known = (mpp, pixels.mpp, mpp_if_missing)
    return Slide(path, pixels, next((one for one in known if one is not None), None))


def _open_pixels(path: Path, layout_path: Path | None, cache_bytes: int) -> Pixels:
    layout = JpegLayout.load(layout_path, path) if layout_path is not None else None
    for read_layout in LAYOUTS:
        layout = layout or read_layout(path)
    if layout is not None:
        return JpegTilesPixels(path, layout, cache_bytes)
    return OpenSlidePixels(path)
