"""`stain-shift-v1`: test images as another laboratory would have stained them, always the same way.

An encoder, or a probe, that leans on colour loses accuracy on images shifted so; one that reads
tissue keeps it. The shift is part of a benchmark and therefore fixed: other constants would be
another version with another name. It shares nothing with the stain augmentations of pre-training,
so that no encoder is tested on what it was trained to ignore.

The model is Beer and Lambert's: with I the intensity of a channel in [0, 255], its optical density
-ln(I / 255) is a sum of stain vectors weighted by stain concentrations. Ruifrok & Johnston 2001
(Anal Quant Cytol Histol 23:291-299) give the vectors of haematoxylin and eosin; what is neither
(glass, pigment, shadow) is taken as grey. Concentrations are read with these three vectors and
written with those of a bluer haematoxylin (turned by 11 degrees), weaker by a quarter, of a redder
eosin (turned by 20 degrees), stronger by three tenths, and the same grey; published estimates
of the stains differ by as much. White, black and every grey stay what they are.
"""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

NAME = "stain-shift-v1"

_HAEMATOXYLIN = (0.650, 0.704, 0.286)
_EOSIN = (0.072, 0.990, 0.105)
_GREY = (1.0, 1.0, 1.0)
_OTHER_HAEMATOXYLIN = (0.780, 0.580, 0.220)
_OTHER_EOSIN = (0.040, 0.900, 0.430)
_HAEMATOXYLIN_STRENGTH = 0.75
_EOSIN_STRENGTH = 1.3

_STEPS_PER_DENSITY = 1024
_HIGHEST_DENSITY = 8.0

Vector = tuple[float, float, float]
Image = NDArray[np.uint8]


def shift_stain(image: Image) -> Image:
    """Gives an image [H, W, 3], uint8 RGB, with its stains shifted by `stain-shift-v1`."""
    return transform_density(image, _shift_matrix())


def density_matrix(
    haematoxylin: Vector, eosin: Vector, haematoxylin_strength: float, eosin_strength: float
) -> NDArray[np.float64]:
    """Builds the 3 x 3 matrix that exchanges the stains of optical densities (as row vectors).

    Args:
        haematoxylin: vector to write haematoxylin with; any length.
        eosin: vector to write eosin with; any length.
        haematoxylin_strength: factor of its concentration.
        eosin_strength: factor of its concentration.
    """
    read = np.linalg.inv(_basis(_HAEMATOXYLIN, _EOSIN))
    strengths = np.diag([haematoxylin_strength, eosin_strength, 1.0])
    return read @ strengths @ _basis(haematoxylin, eosin)


def transform_density(image: Image, matrix: NDArray[np.float64]) -> Image:
    """Multiplies the optical densities of an image [H, W, 3], uint8 RGB, by a 3 x 3 matrix.

    Intensity 0 has no density and is taken as 1. The result is rounded to the nearest level.
    """
    to_density, to_intensity = _tables()
    density = cv2.transform(to_density[image], matrix.T.astype(np.float32))
    step = np.clip(density, 0, _HIGHEST_DENSITY) * np.float32(_STEPS_PER_DENSITY)
    return to_intensity[np.rint(step).astype(np.int32)]


def _basis(haematoxylin: Vector, eosin: Vector) -> NDArray[np.float64]:
    rows = [np.array(vector) for vector in (haematoxylin, eosin, _GREY)]
    return np.stack([row / np.linalg.norm(row) for row in rows])


@functools.cache
def _shift_matrix() -> NDArray[np.float64]:
    return density_matrix(
        _OTHER_HAEMATOXYLIN, _OTHER_EOSIN, _HAEMATOXYLIN_STRENGTH, _EOSIN_STRENGTH
    )


@functools.cache
def _tables() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    intensity = np.maximum(np.arange(256), 1)
    to_density = -np.log(intensity / 255)
    steps = np.arange(int(_HIGHEST_DENSITY * _STEPS_PER_DENSITY) + 1) / _STEPS_PER_DENSITY
    to_intensity = np.rint(255 * np.exp(-steps))
    return to_density.astype(np.float32), to_intensity.astype(np.uint8)
