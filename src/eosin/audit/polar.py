"""Images around their centre in log-polar coordinates, where turning and zooming are shifts.

An image that is turned moves along the angle and one that is zoomed moves along the rings. The
strengths of the angular frequencies of each ring forget the turn and whether the image was
mirrored, which makes a vector to search by; the product of the spectra of two images tells by
which angle, zoom and mirroring they fit best, and how well.
"""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.audit.thumbnails import SIDE_PX, structure

Matrix = NDArray[np.float32]
ScalarT = TypeVar("ScalarT", bound=np.generic)

RINGS, ANGLES = 16, 64
_FREQUENCIES = 24
_SEARCHED_FREQUENCIES = 9
_INNER_PX, _OUTER_PX = 4.0, 31.0
_CENTRE = (SIDE_PX - 1) / 2
# Slower changes than these are left out: little for searching, more for comparing.
_SEARCH_COARSE_PX, _COMPARE_COARSE_PX = 16.0, 8.0
_MOST_SHIFT = 3
_SEARCHED_SHIFTS = range(-2, 3)
_AT_ONCE = 512

_RADII = np.geomspace(_INNER_PX, _OUTER_PX, RINGS).astype(np.float32)
ZOOM_STEP = float(_RADII[1] / _RADII[0])
"""By how much one ring is larger than the one inside it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectra:
    """What is known of N images in log-polar coordinates.

    Attributes:
        queries: vectors of unit length to search by, [N, D] for each zoom searched.
        references: vectors to be found by those of the same zoom.
        spectra: angular frequencies of each ring, complex64 [N, 16, 24].
    """

    queries: tuple[Matrix, ...]
    references: tuple[Matrix, ...]
    spectra: NDArray[np.complex64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fits:
    """How well pairs of images fit at best, and how they then lie.

    Attributes:
        correlation: of the two, within a circle [P].
        turn: of the first against the second, in steps of 360/64 degrees [P].
        mirrored: whether one is the mirror image of the other [P].
        shift: rings by which the first is larger than the second [P].
    """

    correlation: Matrix
    turn: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    shift: NDArray[np.int64]


def describe(grey: NDArray[np.uint8]) -> Spectra:
    """Describes thumbnails [N, 64, 64]."""
    strengths = np.empty((len(grey), RINGS, _SEARCHED_FREQUENCIES), np.float32)
    spectra = np.empty((len(grey), RINGS, _FREQUENCIES), np.complex64)
    for start in range(0, len(grey), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        searched = np.stack(
            [_unrolled(structure(each, _SEARCH_COARSE_PX, 1)) for each in grey[part]]
        )
        strengths[part] = np.abs(np.fft.rfft(searched, axis=2)[:, :, :_SEARCHED_FREQUENCIES])
        # The mean of a ring may be negative, and then says something.
        strengths[part, :, 0] = searched.sum(2)
        compared = [_unrolled(structure(each, _COMPARE_COARSE_PX, 1)) for each in grey[part]]
        spectra[part] = np.fft.rfft(np.stack(compared), axis=2)[:, :, :_FREQUENCIES]
    return Spectra(
        queries=tuple(_vectors(strengths, shift) for shift in _SEARCHED_SHIFTS),
        references=tuple(_vectors(strengths, -shift) for shift in _SEARCHED_SHIFTS),
        spectra=spectra,
    )


def similarity(queries: Spectra, rows: slice, references: Spectra) -> Matrix:
    """Gives the cosine [queries, references] of the search vectors at the best zoom."""
    best: Matrix | None = None
    for ours, theirs in zip(queries.queries, references.references, strict=True):
        cosine = ours[rows] @ theirs.T
        best = cosine if best is None else np.maximum(best, cosine, out=best)
    assert best is not None
    return best


def fit(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> Fits:
    """Turns, mirrors and zooms the images of pairs until they fit best.

    Args:
        first: spectra of the first image of each pair [P, 16, 24].
        second: of the second.
    """
    count = len(first)
    best = np.full(count, -1, np.float32)
    turn, shift = np.zeros(count, np.int64), np.zeros(count, np.int64)
    mirrored = np.zeros(count, np.bool_)
    for rings in range(-_MOST_SHIFT, _MOST_SHIFT + 1):
        ours, theirs = _overlap(first, rings), _overlap(second, -rings)
        # A ring of the first lies on the second's ring, which is smaller: both count by its size.
        weight = _RADII[: ours.shape[1], None]
        ours, theirs = _centred(ours, weight), _centred(theirs, weight)
        energy = np.sqrt(_energy(ours, weight) * _energy(theirs, weight))
        for is_mirrored, other in ((False, theirs.conj()), (True, theirs)):
            product = (ours * other * weight).sum(1)
            # Irfft divides by the number of angles, as Parseval's theorem does for the energies.
            curve = np.fft.irfft(product, ANGLES, axis=1) * ANGLES
            at = curve.argmax(1)
            value = np.take_along_axis(curve, at[:, None], 1)[:, 0] / energy
            better = value > best
            best[better], turn[better], shift[better] = value[better], at[better], rings
            mirrored[better] = is_mirrored
    return Fits(correlation=best, turn=turn, mirrored=mirrored, shift=shift)


def placement(turn: int, mirrored: bool, shift: int) -> Matrix:
    """Gives the affine map [2, 3] from places in the second thumbnail to those in the first."""
    angle, zoom = 2 * np.pi * turn / ANGLES, ZOOM_STEP**shift
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    if mirrored:
        turned = turned @ np.diag([1, -1])
    centre = np.array([_CENTRE, _CENTRE])
    return np.concatenate([turned, (centre - turned @ centre)[:, None]], 1).astype(np.float32)


def _grid() -> tuple[Matrix, Matrix]:
    angles = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    x = _CENTRE + _RADII[:, None] * np.cos(angles)
    y = _CENTRE + _RADII[:, None] * np.sin(angles)
    return x.astype(np.float32), y.astype(np.float32)


_X, _Y = _grid()


def _unrolled(image: Matrix) -> Matrix:
    return np.asarray(cv2.remap(image, _X, _Y, cv2.INTER_LINEAR), np.float32)


def _vectors(strengths: Matrix, shift: int) -> Matrix:
    rings = _overlap(strengths * np.sqrt(_RADII)[:, None], shift).copy()
    rings[:, :, 0] -= rings[:, :, 0].mean(1, keepdims=True)
    flat = rings.reshape(len(rings), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _overlap(rings: NDArray[ScalarT], shift: int) -> NDArray[ScalarT]:
    """The rings [N, up to 16, F] that remain where they are moved inwards by `shift`."""
    return rings[:, max(0, shift) : RINGS + min(0, shift)]


def _centred(rings: NDArray[np.complex64], weight: Matrix) -> NDArray[np.complex64]:
    centred = rings.copy()
    mean = (rings[:, :, 0] * weight[:, 0]).sum(1) / weight.sum()
    centred[:, :, 0] -= mean[:, None]
    return centred


def _energy(rings: NDArray[np.complex64], weight: Matrix) -> Matrix:
    power = (rings.real**2 + rings.imag**2) * weight
    # All frequencies but the lowest stand for a negative one too.
    return 2 * power.sum((1, 2)) - power[:, :, 0].sum(1) + np.float32(1e-6)
