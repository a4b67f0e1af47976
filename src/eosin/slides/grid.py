"""Where the tiles of a slide lie: a plain grid over its tissue."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles in reading order: row by row, each from the left."""

    x_px: npt.NDArray[np.int64]
    """Left edges in level-0 pixels, [n]."""
    y_px: npt.NDArray[np.int64]
    """Upper edges in level-0 pixels, [n]."""
    tissue: npt.NDArray[np.float64]
    """Fraction of each tile that is tissue, 0 to 1, [n]."""

    def __len__(self) -> int:
        return len(self.x_px)


MCU_PX = 16
"""Edge of the blocks that JPEG codes as one, where colour is subsampled; else it is 8."""


def step_px(tile_px: int, overlap_px: int, is_native: bool) -> int:
    """The distance of neighbouring tiles in output pixels.

    On the pixels of a level itself, tiles start where JPEG blocks start: re-encoded with the tables
    of the slide they then lose next to nothing. Where `tile_px` less `overlap_px` is not a multiple
    of such a block, the next one is taken, so that tiles overlap by no more than was asked for.
    """
    step = tile_px - overlap_px
    return math.ceil(step / MCU_PX) * MCU_PX if is_native else step


def lay_grid(
    mask: npt.NDArray[np.bool_],
    dimensions: tuple[int, int],
    footprint_px: float,
    step_px: float,
    min_tissue: float,
) -> Grid:
    """Lays a grid from the upper left corner and keeps the tiles that hold enough tissue.

    Tiles do not reach beyond the slide; what is left at the right and lower edge is narrower than a
    tile and is left out.

    Args:
        mask: tissue over the whole slide, [height, width], of any resolution.
        dimensions: width and height of the slide in level-0 pixels.
        footprint_px: edge of a tile in level-0 pixels, `tile_px` times the mpp of the tiles over
            that of the slide; a fraction is honoured, so that the grid does not drift.
        step_px: distance of neighbouring tiles in level-0 pixels; less than `footprint_px` makes
            them overlap.
        min_tissue: least fraction of a tile that must be tissue.
    """
    columns = _starts(dimensions[0], footprint_px, step_px)
    rows = _starts(dimensions[1], footprint_px, step_px)
    tissue = _fractions(mask, dimensions, columns, rows, footprint_px)
    kept_rows, kept_columns = np.nonzero(tissue >= min_tissue)
    x_px = np.round(columns).astype(np.int64)
    y_px = np.round(rows).astype(np.int64)
    return Grid(x_px[kept_columns], y_px[kept_rows], tissue[kept_rows, kept_columns])


def _starts(length_px: int, footprint_px: float, step_px: float) -> npt.NDArray[np.float64]:
    # A grid that fits exactly must not lose its last tile to the last bit of a division.
    count = math.floor((length_px - footprint_px) / step_px + 1e-9) + 1
    return np.arange(max(count, 0), dtype=np.float64) * step_px


def _fractions(
    mask: npt.NDArray[np.bool_],
    dimensions: tuple[int, int],
    columns: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float64],
    footprint_px: float,
) -> npt.NDArray[np.float64]:
    """Tissue fraction of every cell, [rows, columns], from an exact area integral of the mask."""
    height, width = mask.shape
    to_mask_x, to_mask_y = width / dimensions[0], height / dimensions[1]
    integral = np.asarray(cv2.integral(mask.view(np.uint8), sdepth=cv2.CV_32S), np.int32)
    below = _between_lines(integral, (rows + footprint_px) * to_mask_y)
    above = _between_lines(integral, rows * to_mask_y)
    bands = (below - above).T
    right = _between_lines(bands, (columns + footprint_px) * to_mask_x)
    left = _between_lines(bands, columns * to_mask_x)
    area = footprint_px**2 * to_mask_x * to_mask_y
    # Rounded, so that a cell that is all tissue counts as 1 whatever the order of the sums.
    return np.clip(np.round((right - left).T / area, 6), 0.0, 1.0)


def _between_lines(
    lines: npt.NDArray[np.int32] | npt.NDArray[np.float64], positions: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Values at fractional positions along the first axis, interpolated linearly."""
    positions = np.clip(positions, 0, len(lines) - 1)
    first = np.minimum(positions.astype(np.int64), len(lines) - 2)
    weight = (positions - first)[:, None]
    return lines[first] * (1 - weight) + lines[first + 1] * weight
