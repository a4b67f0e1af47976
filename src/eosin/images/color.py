"""Colour operations on uint8 RGB images, with the meaning that torchvision gives them on floats.

All operations of a view are done in one compiled pass in float32 and rounded once, at the end.
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

from eosin.images.compiling import compiled

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Jitter = Sequence[tuple[str, float]]

JITTER = ("brightness", "contrast", "saturation", "hue")
"""The operations of colour jitter, in torchvision's order of arguments."""
NO_SOLARIZE = 256
"""A threshold that no level reaches."""

_CODES = {name: code for code, name in enumerate(JITTER)}
_Codes = tuple[int, ...]
_Factors = tuple[float, ...]
_NONE = (-1, -1, -1, -1)
_NEUTRAL = (1.0, 1.0, 1.0, 1.0)
_BAND_PX = 2048  # three planes of floats that stay in the innermost cache
_BAND_ROWS = 8


def recolor(
    image: Image,
    jitter: Jitter = (),
    grayscale: bool = False,
    blur_sigma_px: float | None = None,
    solarize_threshold: int | None = None,
    into: Image | None = None,
) -> Image:
    """Applies jitter, grayscale, blur and solarise, in this order.

    The blur is a true Gaussian, cut beyond three sigma, borders mirrored. The recipes' own kernels
    differ only in where they cut: torchvision's at a fixed 23 pixels, Pillow's is three box filters
    of the same variance.

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
    sigma_px = 0.0 if blur_sigma_px is None else blur_sigma_px
    radius_px = math.ceil(3 * sigma_px)
    codes = tuple(_CODES[name] for name, _ in jitter)
    factors = tuple(factor for _, factor in jitter)
    levels, rows = _scratch(size_px, radius_px)
    _recolor(
        image.reshape(-1),
        (codes + _NONE)[:4],
        (factors + _NEUTRAL)[:4],
        grayscale,
        sigma_px,
        radius_px,
        NO_SOLARIZE if solarize_threshold is None else solarize_threshold,
        levels,
        rows,
        planes,
    )
    return planes


_of_thread = threading.local()


def _scratch(size_px: int, radius_px: int) -> tuple[Floats, Floats]:
    """Levels [3, (S + 2R)^2] and a band of blurred rows; each thread keeps its own."""
    key = size_px, radius_px
    kept: dict[tuple[int, int], tuple[Floats, Floats]]
    kept = _of_thread.__dict__.setdefault("by_size", {})
    if key not in kept:
        pitch = size_px + 2 * radius_px
        kept[key] = (
            np.empty((3, size_px * size_px), np.float32),
            # Numbers from the start: the first sums are multiplied by zero.
            np.zeros(pitch * pitch + 2 * _BAND_ROWS * pitch, np.float32),
        )
    return kept[key]


@compiled
def _recolor(
    image: Image,
    codes: _Codes,
    factors: _Factors,
    grayscale: bool,
    sigma_px: float,
    radius_px: int,
    threshold: int,
    levels: Floats,
    padded: Floats,
    planes: Image,
) -> None:
    size_px = planes.shape[1]
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
    drawn = 1 if grayscale else 3
    for channel in range(drawn):
        if sigma_px > 0:
            source = levels[channel].reshape(size_px, size_px)
            _blur(source, sigma_px, radius_px, padded, threshold, planes[channel])
        else:
            _round(levels[channel], threshold, planes[channel].reshape(-1))
    for channel in range(drawn, 3):
        copy, first = planes[channel].reshape(-1), planes[0].reshape(-1)
        for x in range(first.size):
            copy[x] = first[x]


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
def _round(source: Floats, threshold: int, result: Image) -> None:
    limit = np.float32(threshold)
    for x in range(source.size):
        level = source[x]
        level = np.float32(255) - level if level >= limit else level
        # Nothing is out of range, but clipped integers become 8 bits in one instruction.
        whole = np.int32(level + np.float32(0.5))
        result[x] = np.uint8(min(max(whole, np.int32(0)), np.int32(255)))


@compiled
def _blur(
    source: Floats, sigma_px: float, radius_px: int, scratch: Floats, threshold: int, result: Image
) -> None:
    """Convolves rows and columns in bands, with the picture lying in a mirrored frame."""
    size_px = source.shape[0]
    pitch = size_px + 2 * radius_px
    framed = scratch[: pitch * pitch].reshape(pitch, pitch)
    _frame(source, radius_px, framed)
    weights = _gaussian(sigma_px, radius_px)
    flat = scratch[: pitch * pitch]
    columns = scratch[pitch * pitch : pitch * pitch + _BAND_ROWS * pitch]
    both = scratch[pitch * pitch + _BAND_ROWS * pitch :]
    for top in range(0, size_px, _BAND_ROWS):
        rows = min(_BAND_ROWS, size_px - top)
        band = columns[: rows * pitch]
        _convolve(flat, (top + radius_px) * pitch, pitch, weights, band)
        # Values between the rows mix both ends of two rows, and are not used.
        _convolve(columns, radius_px, 1, weights, both[: rows * pitch - 2 * radius_px])
        for row in range(rows):
            blurred = both[row * pitch : row * pitch + size_px]
            _round(blurred, threshold, result[top + row])


@compiled
def _gaussian(sigma_px: float, radius_px: int) -> Floats:
    """Half of the kernel, from its centre outwards; the whole sums to 1."""
    weights = np.empty(radius_px + 1, np.float32)
    total = 0.0
    for distance in range(radius_px + 1):
        weight = math.exp(-0.5 * (distance / sigma_px) ** 2)
        weights[distance] = weight
        total += weight if distance == 0 else 2 * weight
    for distance in range(radius_px + 1):
        weights[distance] /= total
    return weights


@compiled
def _frame(source: Floats, radius_px: int, framed: Floats) -> None:
    size_px = source.shape[0]
    for row in range(framed.shape[0]):
        line = source[_mirror(row - radius_px, size_px)]
        target = framed[row]
        middle = target[radius_px : radius_px + size_px]
        for x in range(size_px):
            middle[x] = line[x]
        for x in range(radius_px):
            target[x] = line[_mirror(x - radius_px, size_px)]
            target[radius_px + size_px + x] = line[_mirror(size_px + x, size_px)]


@compiled
def _mirror(place: int, size_px: int) -> int:
    if size_px == 1:
        return 0
    place = abs(place) % (2 * size_px - 2)
    return place if place < size_px else 2 * size_px - 2 - place


@compiled
def _convolve(source: Floats, start: int, step: int, weights: Floats, result: Floats) -> None:
    """Sums, for each place from `start` on, neighbours at distances of `step`, two at a time."""
    n, last = result.size, weights.size - 1
    centre, wc = source[start : start + n], weights[0]
    keep = np.float32(0)
    for distance in range(1, last + 1, 2):
        near, wn = distance * step, weights[distance]
        a, b = source[start - near : start - near + n], source[start + near : start + near + n]
        if distance == last:
            for x in range(n):
                result[x] = keep * result[x] + wc * centre[x] + wn * (a[x] + b[x])
        else:
            far, wf = near + step, weights[distance + 1]
            c, d = source[start - far : start - far + n], source[start + far : start + far + n]
            for x in range(n):
                pairs = wn * (a[x] + b[x]) + wf * (c[x] + d[x])
                result[x] = keep * result[x] + wc * centre[x] + pairs
        keep, wc = np.float32(1), np.float32(0)
