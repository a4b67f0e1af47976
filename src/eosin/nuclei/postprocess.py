"""From the maps of HoVer-Net to nuclei: gradients of the distance maps separate those that touch.

The algorithm is that of Graham et al. (2019) and, at 0.25 micrometres a pixel, bit by bit what the
authors' code computes. Distance maps jump where one nucleus ends and the next begins, so that
their gradients make walls; what lies between walls marks a nucleus, and markers grow from the
middle outwards until they meet.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.errors import Diverged, InputError
from eosin.images.compiling import compiled
from eosin.nuclei.flooding import flood

Floats = NDArray[np.float32]
Mask = NDArray[np.uint8]

PUBLISHED_MPP = 0.25
_MPP = (0.05, 2.0)


@dataclass(frozen=True, kw_only=True)
class PostProcessing:
    """Constants of the post-processing; pixels are those of 0.25 micrometres."""

    foreground: float = 0.5
    """Probability from which a pixel is of a nucleus."""
    energy: float = 0.4
    """Height from which a gradient is a wall."""
    gradient_px: int = 21
    """Taps of the Sobel filter."""
    opening_px: int = 5
    """Diameter of the disc that a marker must hold."""
    smoothing_px: int = 3
    """Taps of the Gaussian that smooths the levels."""
    smallest_px: int = 10
    """Foreground in pieces with fewer pixels is left out."""
    smallest_marker_px: int = 10
    """So are markers."""

    def at(self, mpp: float) -> "PostProcessing":
        """Gives the constants in pixels of `mpp` micrometres.

        Filters keep an odd number of taps, those of Sobel and Gauss at least 3; areas go with the
        square, rounded up.

        Raises:
            InputError: `mpp` is not between 0.05 and 2.
        """
        if not _MPP[0] <= mpp <= _MPP[1]:
            raise InputError(
                f"Nuclei cannot be told apart at {mpp:g} micrometres a pixel; give images between "
                f"{_MPP[0]:g} and {_MPP[1]:g}."
            )
        scale = PUBLISHED_MPP / mpp
        return PostProcessing(
            foreground=self.foreground,
            energy=self.energy,
            gradient_px=_odd(self.gradient_px * scale, 3),
            opening_px=_odd(self.opening_px * scale, 1),
            smoothing_px=_odd(self.smoothing_px * scale, 3),
            smallest_px=math.ceil(self.smallest_px * scale**2),
            smallest_marker_px=math.ceil(self.smallest_marker_px * scale**2),
        )


@dataclass(frozen=True, eq=False)
class Segmented:
    """The nuclei of an image.

    Attributes:
        instances: int32 [H, W], 0 background, nuclei numbered from 1 to n without gaps.
        types: int64 [n], index into the classes of nucleus k + 1 at place k.
        type_probability: float32 [n], share of the nucleus's pixels that are of its type; 1 where
            there are no types.
    """

    instances: NDArray[np.int32]
    types: NDArray[np.int64]
    type_probability: Floats

    def __len__(self) -> int:
        return len(self.types)

    def keep(self, wanted: NDArray[np.bool_]) -> "Segmented":
        """Gives the wanted nuclei [n], numbered anew."""
        numbers = np.zeros(len(self) + 1, np.int32)
        numbers[1:][wanted] = np.arange(1, np.count_nonzero(wanted) + 1)
        return Segmented(numbers[self.instances], self.types[wanted], self.type_probability[wanted])


def separate(
    foreground: Floats,
    hv: Floats,
    type_scores: Floats | None,
    *,
    mpp: float = PUBLISHED_MPP,
    settings: PostProcessing | None = None,
) -> Segmented:
    """Finds nuclei in the maps of an image.

    A nucleus is of the type that most of its pixels are of, background aside; where all of its
    pixels are background, of the type with the highest scores, with probability 0.

    Args:
        foreground: probability that a pixel is of a nucleus, [H, W].
        hv: horizontal and vertical distances to the centre, [2, H, W].
        type_scores: scores of background and of each class, [C + 1, H, W]; None: all are of type 0.
        mpp: micrometres a pixel.
        settings: constants; default: the published ones.

    Raises:
        Diverged: a distance or probability is not finite.
        InputError: `mpp` is not between 0.05 and 2.
        ValueError: the maps are not of one size.
    """
    constants = (settings or PostProcessing()).at(mpp)
    size = foreground.shape
    if hv.shape != (2, *size) or (type_scores is not None and type_scores.shape[1:] != size):
        raise ValueError(f"the maps of {size} pixels are not of one size")
    _check_finite(foreground, hv)
    if not foreground.size:
        return Segmented(np.zeros(size, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    instances, count = _instances(foreground, hv, constants)
    if type_scores is None:
        return Segmented(instances, np.zeros(count, np.int64), np.ones(count, np.float32))
    return Segmented(instances, *_types(instances, count, type_scores))


def _odd(taps: float, fewest: int) -> int:
    return max(fewest, 2 * round((taps - 1) / 2) + 1)


def _check_finite(*maps: Floats) -> None:
    # A sum is finite only if all terms are, and needs no second image.
    if not all(np.isfinite(each.sum(dtype=np.float64)) for each in maps):
        raise Diverged(
            "The network's maps hold values that are not finite; its training diverged, or its "
            "weights are damaged."
        )


def _instances(
    foreground: Floats, hv: Floats, constants: PostProcessing
) -> tuple[NDArray[np.int32], int]:
    """Numbers nuclei without gaps, and counts them."""
    pieces = _pieces(foreground >= constants.foreground, constants.smallest_px)
    mask = (pieces > 0).view(np.uint8)
    energy = _energy(hv, constants.gradient_px)
    levels = (1 - energy.astype(np.float64)) * mask
    taps = (constants.smoothing_px, constants.smoothing_px)
    levels = -np.asarray(cv2.GaussianBlur(levels, taps, 0), np.float64)
    markers = _fill_holes(mask & (energy < constants.energy))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (constants.opening_px,) * 2)
    markers = np.asarray(cv2.morphologyEx(markers, cv2.MORPH_OPEN, disc), np.uint8)
    markers = _pieces(markers, constants.smallest_marker_px)
    return _without_gaps(*flood(levels, markers, pieces))


def _energy(hv: Floats, taps: int) -> Floats:
    """Gives the height of the walls, [H, W] from 0 to 1: each map rises but for its jumps."""
    smooth, slope = _sobel(taps)
    horizontal, vertical = (
        np.asarray(cv2.sepFilter2D(_stretched(each), cv2.CV_64F, *kernels), np.float64)
        for each, kernels in zip(hv, ((slope, smooth), (smooth, slope)), strict=True)
    )
    energy = 1 - np.minimum(_stretched(horizontal), _stretched(vertical))
    return np.maximum(energy, 0, out=energy)


def _sobel(taps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gives the kernels that smooth and that differentiate; OpenCV's own end at 31 taps."""
    binomial = np.ones(1)
    for _ in range(taps - 2):
        binomial = np.convolve(binomial, (1.0, 1.0))
    return np.convolve(binomial, (1.0, 1.0)), np.convolve(binomial, (-1.0, 1.0))


def _stretched(values: NDArray[np.floating]) -> Floats:
    """Shifts and scales values to [0, 1]; equal ones become 0."""
    empty = np.empty(values.shape, np.float32)
    cv2.normalize(values, empty, 0.0, 1.0, cv2.NORM_MINMAX, cv2.CV_32F)
    return empty


def _pieces(mask: NDArray[np.bool_] | Mask, smallest: int) -> NDArray[np.int32]:
    """Numbers what hangs together side by side; 0 where a piece is too small."""
    _, found = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    labels = np.asarray(found, np.int32)
    return _without_gaps(labels, np.bincount(labels.ravel()) >= smallest)[0]


def _fill_holes(mask: Mask) -> Mask:
    """Adds what cannot be reached side by side from beyond the border."""
    framed = np.pad(mask, 1)
    cv2.floodFill(framed, None, (0, 0), (2,))
    return (framed[1:-1, 1:-1] != 2).astype(np.uint8)


def _without_gaps(
    numbers: NDArray[np.int32], is_kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], int]:
    """Numbers anew what is kept, from 1, and counts it; all else becomes 0."""
    kept = np.flatnonzero(is_kept[1:]) + 1
    if len(kept) == len(is_kept) - 1:
        return numbers, len(kept)
    anew = np.zeros(len(is_kept), np.int32)
    anew[kept] = np.arange(1, len(kept) + 1)
    return anew[numbers], len(kept)


def _types(
    instances: NDArray[np.int32], count: int, scores: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Gives each nucleus its type, and the share of its pixels that are of it."""
    flat = instances.ravel()
    of_pixels = scores.reshape(len(scores), -1)
    votes = np.zeros((count + 1, len(scores)), np.int64)
    _vote(flat, of_pixels, votes)
    votes = votes[1:]
    types = votes[:, 1:].argmax(1)
    probability = votes[np.arange(count), 1 + types] / np.maximum(votes.sum(1), 1)
    undecided = np.flatnonzero(votes[:, 1:].sum(1) == 0)
    if len(undecided):
        totals = [np.bincount(flat, each, count + 1)[1 + undecided] for each in of_pixels[1:]]
        types[undecided] = np.argmax(totals, axis=0)
    return types, probability.astype(np.float32)


@compiled
def _vote(instances: NDArray[np.int32], scores: Floats, votes: NDArray[np.int64]) -> None:
    """Counts of each nucleus the pixels by what they score highest, of equals the first."""
    for pixel in range(instances.size):
        nucleus = instances[pixel]
        if nucleus != 0:
            best = 0
            for kind in range(1, scores.shape[0]):
                if scores[kind, pixel] > scores[best, pixel]:
                    best = kind
            votes[nucleus, best] += 1
