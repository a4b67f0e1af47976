"""Tissue on a thumbnail: which of its pixels are worth cutting into tiles."""

import importlib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from eosin.errors import InputError, UsageError

Mask = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]
Method = Callable[[RGB, float], Mask]

MASK_MPP = 8.0
"""Resolution at which tissue is looked for: a tile of 256 µm is 32 pixels wide."""

# Purple, pink and red in OpenCV's HSV (hue in steps of 2 degrees), not grey and not black: the
# ranges that hs2p publishes, the best of the simple methods on difficult thumbnails.
_HSV_LOWEST = (90, 8, 103)
_HSV_HIGHEST = (180, 255, 255)
_LEAST_CONTRAST = 12.0
_LEAST_SPECK_UM2 = 4_000.0
_LARGEST_HOLE_UM2 = 20_000.0

_OPTICAL_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def find_tissue(rgb: RGB, mpp: float, method: str = "hsv") -> Mask:
    """Finds the tissue of a thumbnail.

    Args:
        rgb: the thumbnail, uint8 [height, width, 3].
        mpp: its resolution in micrometres per pixel.
        method: one of `METHODS`, or `module:function` for the user's own `(rgb, mpp) -> mask`.

    Returns:
        The mask, bool [height, width].

    Raises:
        UsageError: there is no such method.
        InputError: the user's own method fails, or gives no mask of the thumbnail's shape.
    """
    find = load_method(method)
    try:
        mask = find(rgb, mpp)
    except Exception as error:
        # The method may be anybody's code; a slide that it cannot stand must not end the run.
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"The tissue method {method!r} failed ({reason}).") from error
    if getattr(mask, "shape", None) != rgb.shape[:2]:
        raise InputError(
            f"The tissue method {method!r} must return a mask of shape {rgb.shape[:2]}, not"
            f" {getattr(mask, 'shape', type(mask).__name__)}."
        )
    return mask.astype(bool)


def load_method(name: str) -> Method:
    """Gives the method of that name.

    Raises:
        UsageError: there is none; the message lists those that exist.
    """
    if name in METHODS:
        return METHODS[name]
    module, _, function = name.partition(":")
    if module and function:
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"The tissue method {name!r} cannot be imported: {error}.") from error
    raise UsageError(
        f"There is no tissue method {name!r}; choose one of {', '.join(METHODS)}, or give your own"
        " as module:function."
    )


def is_ink(rgb: RGB) -> Mask:
    """Tells marker ink from stained tissue, pixel by pixel, as bool [height, width].

    Haematoxylin and eosin absorb green light most. Blue and green ink absorb red more than green,
    red and yellow ink absorb blue at least as much, and black ink absorbs all alike and strongly.
    """
    red, green, blue = cv2.split(_OPTICAL_DENSITY[rgb])
    lowest = np.minimum(np.minimum(red, green), blue)
    highest = np.maximum(np.maximum(red, green), blue)
    blue_or_green = (red > 1.3 * green + 0.05) | ((red > 1.05 * green) & (red > 1.6))
    red_or_yellow = (blue > 0.8 * green + 0.05) & (red < 0.15 * blue)
    black = (lowest > 0.9) & (highest < 1.4 * lowest)
    return (highest > 0.2) & (blue_or_green | red_or_yellow | black)


def _find_by_hsv(rgb: RGB, mpp: float) -> Mask:
    """Hue of the stains, some saturation, some brightness; and no ink, nor what an ink's rim is."""
    smooth = _smooth(rgb)
    hsv = cv2.cvtColor(smooth, cv2.COLOR_RGB2HSV)
    stained = cv2.inRange(hsv, np.array(_HSV_LOWEST), np.array(_HSV_HIGHEST)).astype(bool)
    return _tidy(stained & ~_ink_with_rim(smooth, mpp), mpp)


def _find_by_otsu(rgb: RGB, mpp: float) -> Mask:
    """Darker than Otsu's threshold of the grey image; keeps ink."""
    grey = np.asarray(cv2.cvtColor(_smooth(rgb), cv2.COLOR_RGB2GRAY), np.uint8)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = grey <= threshold
    # Otsu splits anything, noise as well; glass alone must not come out as half tissue.
    if dark.all() or not dark.any() or grey[~dark].mean() - grey[dark].mean() < _LEAST_CONTRAST:
        return np.zeros_like(dark)
    return _tidy(dark, mpp)


def _find_by_optical_density(rgb: RGB, mpp: float) -> Mask:
    """Absorbs more than glass does, whose colour is estimated from the slide; and no ink."""
    smooth = _smooth(rgb)
    pixels = smooth.reshape(-1, 3)
    # Pure white was never scanned; glass is a little darker, and its colour is what is wanted.
    scanned = pixels[(pixels < 255).any(axis=1)]
    glass = np.percentile(scanned if len(scanned) else pixels, 95, axis=0)
    density = _OPTICAL_DENSITY[smooth] - _OPTICAL_DENSITY[glass.astype(np.uint8)]
    return _tidy((density.mean(axis=2) > 0.06) & ~_ink_with_rim(smooth, mpp), mpp)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "hsv": _find_by_hsv,
        "optical_density": _find_by_optical_density,
        "otsu": _find_by_otsu,
    }
)
"""The methods that Eosin brings, by name."""


def _smooth(rgb: RGB) -> RGB:
    return np.asarray(cv2.medianBlur(rgb, 3), np.uint8)


def _ink_with_rim(rgb: RGB, mpp: float) -> Mask:
    ink = cv2.morphologyEx(is_ink(rgb).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    rim_px = max(1, round(24 / mpp))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim_px + 1, 2 * rim_px + 1))
    return cv2.dilate(ink, disc).astype(bool)


def _tidy(mask: Mask, mpp: float) -> Mask:
    """Drops specks and fills holes that are too small to matter, such as dust and fat drops."""
    kept = mask & ~_parts_below(mask, _LEAST_SPECK_UM2 / mpp**2)
    # Glass goes on beyond the thumbnail, so a gap at its edge is no hole.
    edge_px = math.ceil(_LARGEST_HOLE_UM2**0.5 / mpp)
    gaps = np.pad(~kept, edge_px, constant_values=True)
    holes = _parts_below(gaps, _LARGEST_HOLE_UM2 / mpp**2)
    return kept | holes[edge_px:-edge_px, edge_px:-edge_px]


def _parts_below(mask: Mask, area_px: float) -> Mask:
    """The connected parts of a mask that have fewer pixels than `area_px`."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4
    )
    is_small = statistics[:, cv2.CC_STAT_AREA] < area_px
    is_small[0] = False
    return is_small[np.asarray(labels, np.int32)]
