"""The order of the frames of a DICOM file that does not say it, found by how they fit together."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from eosin.errors import InputError
from eosin.slides.jpeg_layout import JpegLevel
from eosin.slides.pixels import RGB

_MOST_FRAMES = 32
_LEAST_PAIRS = 4
_CLEARLY_BETTER = 0.5


def order_frames(path: Path, level: JpegLevel) -> JpegLevel:
    """Lays frames that go on row by row or column by column, whichever fits clearly better.

    Args:
        path: the file.
        level: its frames as if they went on row by row.

    Raises:
        InputError: neither is clear.
    """
    rows, columns = level.offsets.shape
    if min(rows, columns) == 1:
        return level
    by_row = np.arange(rows * columns).reshape(rows, columns)
    by_column = np.arange(rows * columns).reshape(columns, rows).T
    frames = _Frames(path, level)
    costs = [frames.cost(order) for order in (by_row, by_column)]
    for cost, other, order in zip(costs, costs[::-1], (by_row, by_column), strict=True):
        if cost < _CLEARLY_BETTER * other:
            return replace(
                level, offsets=level.offsets.ravel()[order], lengths=level.lengths.ravel()[order]
            )
    raise InputError(
        f"{path} does not say how its frames lie on the slide (DimensionOrganizationType"
        " TILED_FULL, or the place of each), and their edges do not tell it; convert it."
    )


class _Frames:
    """The frames with the most in them, and their neighbours, decoded as they are asked for."""

    def __init__(self, path: Path, level: JpegLevel) -> None:
        self._path = path
        self._level = level
        self._decoded: dict[int, RGB | None] = {}
        # The longest streams hold tissue; glass fits to glass anywhere.
        longest = np.argsort(-level.lengths.ravel(), kind="stable")[:_MOST_FRAMES]
        self._chosen = frozenset(longest.tolist())

    def cost(self, order: npt.NDArray[np.int64]) -> float:
        """How much the edges of neighbours differ, in grey levels; NaN if too few can be seen."""
        pairs = (pair for pair in _neighbours(order) if pair[0] in self._chosen)
        found = [self._difference(*pair) for pair in pairs]
        known = [difference for difference in found if difference is not None]
        return float(np.mean(known)) if len(known) >= _LEAST_PAIRS else float("nan")

    def _difference(self, first: int, second: int, is_beside: bool) -> float | None:
        one, other = self._frame(first), self._frame(second)
        if one is None or other is None:
            return None
        edges = (one[:, -1], other[:, 0]) if is_beside else (one[-1], other[0])
        return float(np.abs(edges[0].astype(int) - edges[1]).mean())

    def _frame(self, number: int) -> RGB | None:
        if number not in self._decoded:
            self._decoded[number] = self._decode(number)
        return self._decoded[number]

    def _decode(self, number: int) -> RGB | None:
        level = self._level
        with open(self._path, "rb") as file:
            file.seek(int(level.offsets.flat[number]))
            stream = file.read(int(level.lengths.flat[number]))
        jpeg = b"\xff\xd8" + level.head + stream[2:]
        try:
            # Before it is decoded, since a forged header may ask for gigabytes.
            size = simplejpeg.decode_jpeg_header(jpeg)[:2]
            is_frame = size == (level.tile_height_px, level.tile_width_px)
            return simplejpeg.decode_jpeg(jpeg) if is_frame else None
        except ValueError:
            return None


def _neighbours(order: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, bool]]:
    """Each frame with the one to its right, and with the one below it."""
    rows: list[list[int]] = order.tolist()
    for row in rows:
        yield from ((first, second, True) for first, second in itertools.pairwise(row))
    for upper, lower in itertools.pairwise(rows):
        yield from ((first, second, False) for first, second in zip(upper, lower, strict=True))
