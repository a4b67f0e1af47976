"""Scores that tell a sharp tile of tissue from glass, dirt and ink; kept for a later threshold."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from eosin.slides.tissue import is_ink

_COLOUR_PX = 128
_WHITE_ABOVE = 220
_BLACK_BELOW = 40


class Quality(NamedTuple):
    """Four scores of one tile; nothing is dropped for them while tiling."""

    blur: float
    """Variance of the Laplacian of the grey image: the lower, the less sharp."""
    white: float
    """Fraction of the tile that is as bright as glass, 0 to 1."""
    black: float
    """Fraction of the tile that is black: a fold, a scan border, a marker; 0 to 1."""
    ink: float
    """Fraction of the tile that has the colour of marker ink, 0 to 1."""


def score(tile: npt.NDArray[np.uint8]) -> Quality:
    """Scores a tile, uint8 [height, width, 3].

    The fractions are counted on a reduced copy, which costs a tenth and changes them little.
    """
    grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    size_px = (min(tile.shape[1], _COLOUR_PX), min(tile.shape[0], _COLOUR_PX))
    small = cv2.resize(tile, size_px, interpolation=cv2.INTER_AREA)
    return Quality(
        blur=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        white=float((small.min(axis=2) > _WHITE_ABOVE).mean()),
        black=float((small.max(axis=2) < _BLACK_BELOW).mean()),
        ink=float(is_ink(np.asarray(small, np.uint8)).mean()),
    )
