"""What a thumbnail's optical densities say: how its glass looks, and where marker ink lies.

Stains, ink and tinted glass each multiply the light that gets through. Densities, the logarithms,
therefore add up, and what is on the glass is what exceeds the glass's own.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

_INK_RIM_UM = 24.0
INK_REACH_UM = 80.0
"""How far from certain ink a pixel may lie that is taken for thin ink."""

_SAMPLE_PX = 2**17
# More than the pinkest glass has: what has more is tissue.
_MOST_STAIN_OF_GLASS = 0.06
_OF_VALUE = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


class Density(NamedTuple):
    """Optical densities, natural logarithm, of the channels [height, width], and their extremes."""

    red: Plane
    green: Plane
    blue: Plane
    lowest: Plane
    highest: Plane

    @property
    def stain(self) -> Plane:
        """How much more green light is absorbed than red and blue.

        Haematoxylin and eosin do that. Shadows, grey dirt and scan borders cancel out.
        """
        return np.subtract(self.green, (self.red + self.blue) / 2, dtype=np.float32)


class Glass(NamedTuple):
    """What a slide is where there is nothing on it."""

    density: Plane
    """Optical density of each channel against pure white, [3]."""
    noise: float
    """Standard deviation of a channel, in grey levels."""


def densities(rgb: RGB, glass: Plane | None = None) -> Density:
    """Gives the optical densities of a picture, over those of the glass, and none below 0."""
    offsets = np.zeros(3, np.float32) if glass is None else glass
    red, green, blue = (
        cv2.LUT(np.ascontiguousarray(rgb[..., channel]), np.maximum(_OF_VALUE - offset, 0))
        for channel, offset in enumerate(offsets)
    )
    lowest, highest = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    return Density(
        *(np.asarray(plane, np.float32) for plane in (red, green, blue, lowest, highest))
    )


def estimate_glass(rgb: RGB) -> Glass:
    """Estimates the glass of a slide: the least stained of its light pixels.

    Pixels that are purely white were never scanned. Where nothing looks like glass, as on a picture
    of tissue alone, the lightest of each channel stands for it.
    """
    centre, mean = _sample(rgb)
    if not len(mean):
        return Glass(np.zeros(3, np.float32), 0.0)
    lightest = np.percentile(mean, 99, axis=0)
    is_light = (mean >= lightest / 2).all(axis=1)
    by_lightest = _of_colours(lightest)
    if not is_light.any():
        return Glass(by_lightest, 0.0)
    density = _of_colours(mean[is_light])
    stain = density[:, 1] - (density[:, 0] + density[:, 2]) / 2
    low, high = np.percentile(stain, (5, 30), method="nearest")
    glass = np.median(density[(stain >= low) & (stain <= high)], axis=0)
    if glass[1] - (glass[0] + glass[2]) / 2 > _MOST_STAIN_OF_GLASS:
        glass = by_lightest
    # The mean absolute difference from the mean of five is 0.71 standard deviations.
    noise = np.median(np.abs(centre - mean)[is_light].mean(axis=1)) / 0.71
    return Glass(glass.astype(np.float32), float(noise))


def is_ink(rgb: RGB) -> Mask:
    """Tells marker ink from stained tissue, pixel by pixel, as bool [height, width].

    Haematoxylin and eosin absorb green light most. Blue and green ink absorb red more than green,
    red ink absorbs blue nearly as much as green and both strongly, and black ink absorbs all alike.
    """
    return _has_colour_of_ink(densities(rgb))


def find_ink(density: Density, mpp: float) -> Mask:
    """Finds ink with its rim, and what is near it and might be thin ink."""
    red, green, blue, lowest, highest = density
    certain = cv2.morphologyEx(
        _has_colour_of_ink(density).view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    )
    if not certain.any():
        return np.zeros(certain.shape, bool)
    grey = (lowest > 0.3) & (highest < 1.5 * lowest)
    thin = (red > 1.1 * green + 0.02) | ((green - red > 0.4) & (blue > 0.4 * green)) | grey
    rim = cv2.dilate(certain, disc(to_px(_INK_RIM_UM, mpp))) != 0
    near = cv2.dilate(certain, disc(to_px(INK_REACH_UM, mpp))) != 0
    return rim | (near & thin)


def disc(radius_px: int) -> npt.NDArray[np.uint8]:
    """Gives the structuring element of a disc; OpenCV's own is not the same when it is turned."""
    y, x = np.ogrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    return (x**2 + y**2 <= radius_px * (radius_px + 1)).astype(np.uint8)


def to_px(length_um: float, mpp: float) -> int:
    """Gives a length in pixels, at least one."""
    return max(1, round(length_um / mpp))


def _has_colour_of_ink(density: Density) -> Mask:
    red, green, blue, lowest, highest = density
    blue_or_green = (red > 1.3 * green + 0.05) & (highest > 0.25)
    navy = (red > 1.05 * green) & (red > 1.6)
    # Blood is as orange as ink, but thinner.
    orange = (green - red > 0.9) & (blue > 0.75 * green)
    crimson = (green - red > 1.6) & (blue > 0.4 * green) & (red < 1)
    black = (lowest > 0.9) & (highest < 1.4 * lowest)
    return blue_or_green | navy | orange | crimson | black


def _sample(rgb: RGB) -> tuple[Plane, Plane]:
    """Scanned pixels on a coarse grid, [n, 3], and the means of each with its four neighbours."""
    step = max(1, math.ceil(math.sqrt(rgb.shape[0] * rgb.shape[1] / _SAMPLE_PX)))
    middle, before, after = slice(1, -1, step), slice(None, -2, step), slice(2, None, step)
    places = (
        (middle, middle),
        (before, middle),
        (after, middle),
        (middle, before),
        (middle, after),
    )
    cross = np.stack([rgb[place].reshape(-1, 3) for place in places]).astype(np.float32)
    cross = cross[:, cross[0].min(axis=1) < 255]
    return cross[0], cross.mean(axis=0)


def _of_colours(colours: npt.NDArray[np.floating]) -> Plane:
    return -np.log(np.maximum(colours, 1) / 255).astype(np.float32)
