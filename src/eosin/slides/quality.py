"""Scores that tell a sharp tile of tissue from glass, dirt and ink; kept for a later threshold."""

import math
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from eosin.slides.optical_density import RGB, is_ink

BLUR_MPP = 1.0
"""Resolution at which blur is measured, so that slides of 20x and 40x share one threshold."""

_COLOUR_MPP = 2.0
_WHITE_ABOVE = 220
_BLACK_BELOW = 40


class Quality(NamedTuple):
    """Four scores of one tile; nothing is dropped for them while tiling."""

    blur: float
    """Variance of the Laplacian of green light near 1 µm per pixel: the lower, the less sharp."""
    white: float
    """Fraction of the tile that is as bright as glass, 0 to 1."""
    black: float
    """Fraction of the tile that is black: a fold, a scan border, a marker; 0 to 1."""
    ink: float
    """Fraction of the tile that has the colour of marker ink, 0 to 1."""


def score(tile: RGB, mpp: float) -> Quality:
    """Scores a tile.

    Blur is measured near `BLUR_MPP`: a finer tile is halved to between 0.71 and 1.41 µm per pixel,
    where the score depends on the resolution by some 25%, while resampling to 1 would change it by
    up to half. A coarser tile is measured as it is; compare its blur with its own kind only. Green
    light is what both stains absorb. The fractions are counted near 2 µm per pixel, in like manner.

    Args:
        tile: uint8 [height, width, 3].
        mpp: its resolution in micrometres per pixel.
    """
    sharp, sharp_mpp = _halve(tile, mpp, BLUR_MPP)
    colours, _ = _halve(sharp, sharp_mpp, _COLOUR_MPP)
    white = cv2.inRange(colours, (_WHITE_ABOVE + 1,) * 3, (255,) * 3)
    black = cv2.inRange(colours, (0,) * 3, (_BLACK_BELOW - 1,) * 3)
    area = float(white.size)
    return Quality(
        blur=_variance_of_laplacian(cv2.extractChannel(sharp, 1)),
        white=cv2.countNonZero(white) / area,
        black=cv2.countNonZero(black) / area,
        ink=int(np.count_nonzero(_look_up_ink(colours))) / area,
    )


def _halve(tile: RGB, mpp: float, wanted_mpp: float) -> tuple[RGB, float]:
    """Halves a tile, which OpenCV does fastest of all reductions, until it is nearest that mpp."""
    while 2 * mpp <= math.sqrt(2) * wanted_mpp and min(tile.shape[:2]) > 1:
        size_px = (tile.shape[1] // 2, tile.shape[0] // 2)
        tile = np.asarray(cv2.resize(tile, size_px, interpolation=cv2.INTER_AREA), np.uint8)
        mpp *= 2
    return tile, mpp


def _variance_of_laplacian(grey: cv2.typing.MatLike) -> float:
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return float(deviation[0, 0]) ** 2


def _look_up_ink(rgb: RGB) -> npt.NDArray[np.bool_]:
    red, green, blue = cv2.split(rgb >> 3)
    index = red.astype(np.uint16) << 10
    index |= green.astype(np.uint16) << 5
    index |= blue.astype(np.uint16)
    return _ink_by_colour().take(index)


@cache
def _ink_by_colour() -> npt.NDArray[np.bool_]:
    """Whether a colour is ink, for all colours of 5 bits a channel: [32768]."""
    levels = np.arange(4, 256, 8, dtype=np.uint8)
    red, green, blue = np.meshgrid(levels, levels, levels, indexing="ij")
    return is_ink(np.stack([red, green, blue], axis=-1).reshape(1, -1, 3)).reshape(-1)
