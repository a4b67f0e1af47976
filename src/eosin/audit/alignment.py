"""Two thumbnails laid exactly upon each other, and how well they agree in what is small.

Chance likeness of large shapes does not survive this: after the best affine alignment, images of
different tissue agree in their nuclei no better than noise, and copies agree almost fully.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.audit.thumbnails import SIDE_PX, structure

Matrix = NDArray[np.float32]

_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)
_SMOOTHING_PX = 5
_FINE_COARSE_PX = 4.0
_LEAST_SHARED_PX = 600
_LEAST_CONTRAST = 1.0
# Beyond these the alignment has collapsed onto a detail, or sheared one image into another.
_LARGEST_ZOOM, _LARGEST_STRETCH = 2.5, 2.0
_EVERYWHERE = np.ones((SIDE_PX, SIDE_PX), np.uint8)
_HOW = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True, kw_only=True, slots=True)
class Aligned:
    """How two images agree when they lie upon each other.

    Attributes:
        correlation: of their fine structure where they overlap, -1 to 1.
        turned_degrees: how far one is turned against the other, -180 to 180.
        mirrored: whether one is the mirror image of the other.
        zoom: by how much the second image is enlarged against the first.
    """

    correlation: float
    turned_degrees: float
    mirrored: bool
    zoom: float


def align(first: NDArray[np.uint8], second: NDArray[np.uint8], start: Matrix) -> Aligned:
    """Aligns two thumbnails [64, 64], from an affine map [2, 3] that nearly does."""
    best, place = _agreement(first, second, start), start
    try:
        _, refined = cv2.findTransformECC(
            second.astype(np.float32),
            first.astype(np.float32),
            start.copy(),
            cv2.MOTION_AFFINE,
            _STEPS,
            _EVERYWHERE,
            _SMOOTHING_PX,
        )
        refined = np.asarray(refined, np.float32)
    except cv2.error:
        # It does not converge for images that have nothing in common.
        refined = start
    if _is_plausible(refined):
        agreement = _agreement(first, second, refined)
        if agreement > best:
            best, place = agreement, refined
    linear = place[:, :2].astype(np.float64)
    determinant = float(np.linalg.det(linear))
    zoom = 1 / math.sqrt(max(abs(determinant), 1e-9))
    angle = math.degrees(math.atan2(linear[1, 0], linear[0, 0]))
    return Aligned(correlation=best, turned_degrees=angle, mirrored=determinant < 0, zoom=zoom)


def _is_plausible(place: Matrix) -> bool:
    if not np.isfinite(place).all():
        return False
    large, small = np.linalg.svd(place[:, :2].astype(np.float64), compute_uv=False)
    return large < _LARGEST_ZOOM and small > 1 / _LARGEST_ZOOM and large < _LARGEST_STRETCH * small


def _agreement(first: NDArray[np.uint8], second: NDArray[np.uint8], place: Matrix) -> float:
    size = (SIDE_PX, SIDE_PX)
    inside = cv2.warpAffine(np.ones(size, np.float32), place, size, flags=_HOW) > 0.99
    if inside.sum() < _LEAST_SHARED_PX:
        return 0.0
    ours = cv2.warpAffine(structure(first, _FINE_COARSE_PX), place, size, flags=_HOW)[inside]
    theirs = structure(second, _FINE_COARSE_PX)[inside]
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    spread = float(ours.std() * theirs.std())
    if min(ours.std(), theirs.std()) < _LEAST_CONTRAST:
        return 0.0
    return float((ours * theirs).mean()) / spread
