"""Colour operations on uint8 RGB images, with the meaning that torchvision gives them on floats.

All operations of a view are done in float32, in compiled passes, and rounded once, at the end.
Grey is the luma of ITU-R 601 (0.299, 0.587, 0.114), as in Pillow and torchvision.

`brightness` scales all levels by its factor, `contrast` blends with the mean grey level of the
image as it is when the turn comes, `saturation` blends each pixel with its own grey level, `hue`
turns the hue of HSV by a share of a full turn. Each clips to the range of levels.
"""

import math
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eosin.images.blurring import blur
from eosin.images.compiling import compiled

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Jitter = Sequence[tuple[str, float]]

JITTER = ("brightness", "contrast", "saturation", "hue")
"""The operations of colour jitter, in torchvision's order of arguments."""

_CODES = {name: code for code, name in enumerate(JITTER)}
_Codes = tuple[int, ...]
_Factors = tuple[float, ...]
_NONE = (-1, -1, -1, -1)
_NEUTRAL = (1.0, 1.0, 1.0, 1.0)
_NO_SOLARIZE = 256  # a threshold that no level reaches
_BAND_PX = 2048  # three planes of floats that stay in the innermost cache


def recolor(
    image: Image,
    jitter: Jitter = (),
    grayscale: bool = False,
    blur_sigma_px: float | None = None,
    solarize_threshold: int | None = None,
    into: Image | None = None,
) -> Image:
    """Applies jitter, grayscale, blur and solarise, in this order.

    Args:
        image: square, `uint8[S, S, 3]`, contiguous.
        jitter: at most four operations in the order to apply them, each a name of `JITTER` and its
            factor (for hue its shift in turns).
        grayscale: replaces all three channels by the grey level.
        blur_sigma_px: standard deviation of the Gaussian in pixels; `None` for no blur.
        solarize_threshold: inverts the levels from here upwards; `None` for none.
        into: where to write, `uint8[3, S, S]`, contiguous.

    Returns:
        `into`, or a new array: the planes of red, green and blue, `uint8[3, S, S]`.
    """
    size_px = image.shape[0]
    planes = np.empty((3, size_px, size_px), np.uint8) if into is None else into
    codes = tuple(_CODES[name] for name, _ in jitter)
    factors = tuple(factor for _, factor in jitter)
    levels = _scratch(size_px)
    _change(image.reshape(-1), (codes + _NONE)[:4], (factors + _NEUTRAL)[:4], grayscale, levels)
    drawn = levels[:1] if grayscale else levels
    if blur_sigma_px is not None:
        blur(drawn, size_px, blur_sigma_px)
    threshold = _NO_SOLARIZE if solarize_threshold is None else solarize_threshold
    _round(drawn, threshold, planes.reshape(3, -1))
    return planes


_of_thread = threading.local()


def _scratch(size_px: int) -> Floats:
    """Levels [3, S * S]; each thread keeps its own."""
    kept: dict[int, Floats] = _of_thread.__dict__.setdefault("by_size", {})
    if size_px not in kept:
        kept[size_px] = np.empty((3, size_px * size_px), np.float32)
    return kept[size_px]


@compiled
def _change(
    image: Image, codes: _Codes, factors: _Factors, grayscale: bool, levels: Floats
) -> None:
    contrast = 4  # its place among the operations: what precedes must be done everywhere before
    for place in range(4):
        if codes[place] == 1:
            contrast = place
    mean_grey = _begin(image, codes, factors, contrast, levels)
    for start in range(0, levels.shape[1], _BAND_PX):
        r, g, b = _band(levels, start)
        _operate(r, g, b, codes, factors, contrast, 4, mean_grey)
        if grayscale:
            _blend_with_grey(r, g, b, np.float32(0))


@compiled
def _begin(
    image: Image, codes: _Codes, factors: _Factors, contrast: int, levels: Floats
) -> np.float32:
    """Does the operations before contrast; gives the mean grey level after them."""
    grey = 0.0
    for start in range(0, levels.shape[1], _BAND_PX):
        r, g, b = _band(levels, start)
        pixels = image[3 * start : 3 * (start + r.size)]
        for x in range(r.size):
            r[x], g[x], b[x] = pixels[3 * x], pixels[3 * x + 1], pixels[3 * x + 2]
        _operate(r, g, b, codes, factors, 0, contrast, np.float32(0))
        if contrast < 4:
            grey += _sum_of_grey(r, g, b)
    return np.float32(grey / levels.shape[1])


@compiled
def _band(levels: Floats, start: int) -> tuple[Floats, Floats, Floats]:
    stop = min(start + _BAND_PX, levels.shape[1])
    return levels[0, start:stop], levels[1, start:stop], levels[2, start:stop]


@compiled
def _operate(
    r: Floats,
    g: Floats,
    b: Floats,
    codes: _Codes,
    factors: _Factors,
    first: int,
    last: int,
    mean_grey: np.float32,
) -> None:
    for place in range(first, last):
        code, factor = codes[place], np.float32(factors[place])
        if code == 0:
            _scale(r, g, b, factor, np.float32(0))
        elif code == 1:
            _scale(r, g, b, factor, (np.float32(1) - factor) * mean_grey)
        elif code == 2:
            _blend_with_grey(r, g, b, factor)
        elif code == 3:
            sixths = factors[place] * 6
            _turn_hue(r, g, b, np.float32(sixths - 6 * math.floor(sixths / 6)))


@compiled
def _grey(r: np.float32, g: np.float32, b: np.float32) -> np.float32:
    return np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b


@compiled
def _clip(level: np.float32) -> np.float32:
    return min(max(level, np.float32(0)), np.float32(255))


@compiled
def _sum_of_grey(r: Floats, g: Floats, b: Floats) -> np.float32:
    total = np.float32(0)
    for x in range(r.size):
        total += _grey(r[x], g[x], b[x])
    return total


@compiled
def _scale(r: Floats, g: Floats, b: Floats, factor: np.float32, offset: np.float32) -> None:
    for x in range(r.size):
        r[x] = _clip(r[x] * factor + offset)
        g[x] = _clip(g[x] * factor + offset)
        b[x] = _clip(b[x] * factor + offset)


@compiled
def _blend_with_grey(r: Floats, g: Floats, b: Floats, factor: np.float32) -> None:
    rest = np.float32(1) - factor
    for x in range(r.size):
        grey = rest * _grey(r[x], g[x], b[x])
        r[x] = _clip(r[x] * factor + grey)
        g[x] = _clip(g[x] * factor + grey)
        b[x] = _clip(b[x] * factor + grey)


@compiled
def _turn_hue(r: Floats, g: Floats, b: Floats, sixths: np.float32) -> None:
    """Adds to the hue, counted in sixths of a turn from 0 to 6; value and saturation stay."""
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    three, four, six = np.float32(3), np.float32(4), np.float32(6)
    for x in range(r.size):
        red, green, blue = r[x], g[x], b[x]
        most, least = max(red, max(green, blue)), min(red, min(green, blue))
        chroma = most - least
        share = one / max(chroma, np.float32(1e-12))  # a grey pixel has any hue
        if most == red:
            hue = (green - blue) * share
        elif most == green:
            hue = two + (blue - red) * share
        else:
            hue = four + (red - green) * share
        hue += sixths
        hue = hue + six if hue < zero else hue
        hue = hue - six if hue >= six else hue
        # Each channel is a trapezium over the hue: full for two sixths, a slope of one either side.
        r[x] = least + chroma * min(max(abs(hue - three) - one, zero), one)
        g[x] = least + chroma * min(max(two - abs(hue - two), zero), one)
        b[x] = least + chroma * min(max(two - abs(hue - four), zero), one)


@compiled
def _round(levels: Floats, threshold: int, planes: Image) -> None:
    """Solarises and rounds; the last plane that there is stands for the missing ones."""
    limit = np.float32(threshold)
    for channel in range(3):
        source, result = levels[min(channel, levels.shape[0] - 1)], planes[channel]
        for x in range(source.size):
            level = source[x]
            level = np.float32(255) - level if level >= limit else level
            # Nothing is out of range, but clipped integers become 8 bits in one instruction.
            whole = np.int32(level + np.float32(0.5))
            result[x] = np.uint8(min(max(whole, np.int32(0)), np.int32(255)))
