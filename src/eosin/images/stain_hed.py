"""Haematoxylin, eosin and DAB as RandStainNA changes them: scikit-image's HED space, faster.

The stains of a pixel are its optical densities log(rgb) / log(1e-6), with rgb in [1e-6, 1],
multiplied by the inverse of the stain vectors of Ruifrok & Johnston 2001 (Anal Quant Cytol Histol
23:291-299), and none is below 0. The way back is exp, clipped to [0, 1], and then stretched: the
least value of the image becomes 0, the greatest 255.

Float32 is enough for the whole way, within one grey level, unless the stretch magnifies its
rounding; such images are done again in float64.
"""

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from eosin.images.stain_buffers import Buffers

Image = npt.NDArray[np.uint8]
Row = npt.NDArray[np.float64]

STD_RANGE = (1e-4, 255.0)
"""What the standard deviation of a channel is clipped to before anything is divided by it."""

_LOG_OF_DARKEST = np.log(1e-6)
_RGB_OF_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_TO_STAINS = np.linalg.inv(_RGB_OF_STAINS).T.copy()
_TO_LOG_RGB = _LOG_OF_DARKEST * _RGB_OF_STAINS.T
_DENSITY = np.log(np.maximum(np.arange(256) / 255, 1e-6)) / _LOG_OF_DARKEST
_DENSITY_32 = _DENSITY.astype(np.float32)
# A range of intensities (of 0 to 1) that is rounding alone: the image has one colour, a grey.
_NO_RANGE = 1e-9
# Float32 is used where its rounding stays below half a level; about twice its epsilon a term.
_ROUNDING_32 = 2e-7
# White is 1. What is above this would overflow the integers that OpenCV rounds by.
_FAR_TOO_BRIGHT = 100.0
# `convertScaleAbs` rounds; half a level less truncates. The last digit keeps whole levels whole.
_TRUNCATING = 0.4999

_buffers = Buffers()


def measure(image: Image) -> tuple[Row, Row]:
    """Gives the means [3] and standard deviations [3] of an image's three stains."""
    return _mean_and_std(_stains(image, np.float64))


def restain(
    image: Image, target: tuple[Row, Row], statistics: tuple[Row, Row] | None = None
) -> Image:
    """Gives an image's stains other means and standard deviations.

    Args:
        image: RGB, `uint8[H, W, 3]`.
        target: means [3] and standard deviations [3] to reach.
        statistics: those to normalise by; the image's own by default.

    Returns:
        A new image, within one level of float64's; a copy of `image` if the result has no range to
        stretch.
    """
    stains = _stains(image, np.float32)
    gain, offset = _gain_and_offset(target, statistics or _mean_and_std(stains))
    affine = np.column_stack([_TO_LOG_RGB * gain, _TO_LOG_RGB @ offset])
    rgb = cv2.transform(stains, affine, dst=_buffers.get("rgb", image.shape, np.float32))
    rgb = cv2.exp(rgb, dst=rgb)
    low, highest, _, _ = cv2.minMaxLoc(rgb.reshape(-1))
    low, high = min(low, 1.0), min(highest, 1.0)
    terms = 1 - _LOG_OF_DARKEST * (2 * np.abs(gain).max() + np.abs(target[0]).max())
    if highest > _FAR_TOO_BRIGHT or 255 * _ROUNDING_32 * terms >= 0.5 * (high - low):
        return _restain_in_float64(image, target, statistics)
    return _stretched(rgb, low, high)


def _restain_in_float64(
    image: Image, target: tuple[Row, Row], statistics: tuple[Row, Row] | None
) -> Image:
    stains = _stains(image, np.float64)
    means, stds = statistics or _mean_and_std(stains)
    scaled = (stains - means) * (target[1] / np.clip(stds, *STD_RANGE)) + target[0]
    rgb = np.exp(np.minimum(scaled @ _TO_LOG_RGB.T, 0))
    low, high = float(rgb.min()), float(rgb.max())
    if high - low <= _NO_RANGE:
        return image.copy()
    return (255 * (rgb - low) / (high - low)).astype(np.uint8)


def _stains(image: Image, dtype: type[np.float32] | type[np.float64]) -> npt.NDArray[Any]:
    """The stains `dtype[H, W, 3]` of an image, in a buffer."""
    table = _DENSITY_32 if dtype is np.float32 else _DENSITY
    bits = np.dtype(dtype).itemsize * 8
    density = cv2.LUT(image, table, dst=_buffers.get(f"density {bits}", image.shape, dtype))
    stains = _buffers.get(f"stains {bits}", image.shape, dtype)
    stains = cv2.transform(density, _TO_STAINS, dst=stains)
    return cv2.threshold(stains, 0, 0, cv2.THRESH_TOZERO, dst=stains)[1]


def _mean_and_std(stains: npt.NDArray[Any]) -> tuple[Row, Row]:
    means, stds = cv2.meanStdDev(stains)
    return cast(Row, means[:, 0]), cast(Row, stds[:, 0])


def _gain_and_offset(target: tuple[Row, Row], statistics: tuple[Row, Row]) -> tuple[Row, Row]:
    gain = target[1] / np.clip(statistics[1], *STD_RANGE)
    return gain, target[0] - gain * statistics[0]


def _stretched(rgb: npt.NDArray[Any], low: float, high: float) -> Image:
    scale = 255 / (high - low)
    return cast(Image, cv2.convertScaleAbs(rgb, alpha=scale, beta=-low * scale - _TRUNCATING))
