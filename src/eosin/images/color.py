"""Colour operations on uint8 RGB images, with the meaning that torchvision gives them on floats.

Each takes and returns a contiguous `uint8[H, W, 3]` and rounds once. Grey is the luma of ITU-R 601
(0.299, 0.587, 0.114), as in Pillow and torchvision.
"""

import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114])
_LEVELS = np.arange(256, dtype=np.float64)
_HUE_BAND_PX = 8192


def adjust_brightness(image: Image, factor: float) -> Image:
    """Scales all levels by `factor`; 0 gives black, 1 the image itself."""
    return _through_table(image, _LEVELS * factor)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Blends with the image's mean grey level; 0 gives that grey, 1 the image itself."""
    # Grey is linear in the channels, so its mean needs no grey image.
    mean_grey = float(np.dot(_LUMA, cv2.mean(image)[:3]))
    return _through_table(image, factor * _LEVELS + (1 - factor) * mean_grey)


def adjust_saturation(image: Image, factor: float) -> Image:
    """Blends each pixel with its grey level; 0 gives grey, 1 the image itself."""
    blend = factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))
    return cast(Image, cv2.transform(image, blend))


def adjust_hue(image: Image, shift: float) -> Image:
    """Turns the hue of HSV by `shift` full turns (-0.5 to 0.5); value and saturation stay."""
    # HSV of 8 bits would cost up to three grey levels, so it is done in floats, in bands of rows
    # that stay in the processor's cache.
    turned = np.empty_like(image)
    rows = max(1, _HUE_BAND_PX // image.shape[1])
    for top in range(0, image.shape[0], rows):
        band = image[top : top + rows].astype(np.float32)
        hsv = cv2.cvtColor(band, cv2.COLOR_RGB2HSV, dst=band)
        # OpenCV takes a hue past the full turn, but none below zero.
        hsv[..., 0] += np.float32(360 * (shift % 1))
        turned[top : top + rows] = cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return turned


def to_grayscale(image: Image) -> Image:
    """Replaces all three channels by the grey level."""
    return cast(Image, cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def blur(image: Image, sigma_px: float) -> Image:
    """Convolves with a true Gaussian of `sigma_px`, cut at four sigma, borders mirrored.

    The recipes' own kernels differ only in where they cut: torchvision's at a fixed 23 pixels,
    Pillow's is three box filters of the same variance.
    """
    size_px = 2 * math.ceil(4 * sigma_px) + 1
    return cast(Image, cv2.GaussianBlur(image, (size_px, size_px), sigma_px))


def solarize(image: Image, threshold: int) -> Image:
    """Inverts the levels from `threshold` upwards."""
    return _through_table(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


JITTER: dict[str, Callable[[Image, float], Image]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
"""The four operations of colour jitter by name, in torchvision's order of arguments."""


def _through_table(image: Image, levels: npt.NDArray[np.float64]) -> Image:
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return cast(Image, cv2.LUT(image, table))
