"""Crop, antialiased resize and flip in one go, on 8 bits, with Pillow's and torchvision's filters.

Both filters widen with the reduction, so that every pixel of the crop counts (`antialias=True` of
torchvision). The two directions are apart, and what lies between them has 8 bits, as in torchvision
on uint8. Sums over rows become vector instructions and sums along a row do not, so the picture is
turned over for the second direction, which OpenCV does fast.
"""

import math
import threading
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from eosin.images.compiling import compiled

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Interpolation = Literal["bicubic", "bilinear"]
Crop = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

SUPPORT = {"bilinear": 1, "bicubic": 2}
"""Reach of each filter in pixels, before it widens."""
_CUBIC = -0.5  # the free parameter of Keys' cubic convolution, as Pillow and torch's antialias have


def crop_and_resize(
    image: Image,
    crop_px: Crop,
    size_px: int,
    interpolation: Interpolation,
    hflip: bool = False,
    vflip: bool = False,
) -> Image:
    """Resizes a crop of an image to a square, mirrored where asked.

    Nothing outside the crop enters the result, as if it had been cut out before.

    Args:
        image: `uint8[H, W, 3]`; copied first where it is not contiguous.
        crop_px: left, top, width and height of the crop, inside the image.
        size_px: side S of the result.
        interpolation: filter.
        hflip: swaps left and right.
        vflip: swaps top and bottom.

    Returns:
        A new `uint8[S, S, 3]`.
    """
    left, top, width, height = crop_px
    support = SUPPORT[interpolation]
    pitch = image.shape[1] * 3
    scratch = _scratch(size_px, width)
    first = scratch.first[: size_px * width * 3]
    begin = top * pitch + left * 3
    _resample_rows(_flat(image), begin, pitch, height, support, vflip, scratch.sums, size_px, first)
    turned = scratch.turned[: size_px * width * 3]
    cv2.transpose(first.reshape(size_px, width, 3), turned.reshape(width, size_px, 3))
    second, pitch = scratch.second, size_px * 3
    _resample_rows(_flat(turned), 0, pitch, width, support, hflip, scratch.sums, size_px, second)
    return cv2.transpose(second.reshape(size_px, size_px, 3))  # pyright: ignore[reportReturnType]


def _flat(image: Image) -> Image:
    """All bytes in a row, read-only; writeable ones would be a type to be compiled for again."""
    flat = image.reshape(-1)
    flat.flags.writeable = False
    return flat


class _Scratch:
    """Memory of one thread for one size of view; fresh memory costs more than the work on it."""

    def __init__(self, size_px: int, width: int) -> None:
        self.width = width
        self.first = np.empty(size_px * width * 3, np.uint8)
        self.turned = np.empty(size_px * width * 3, np.uint8)
        self.second = np.empty(size_px * size_px * 3, np.uint8)
        # Numbers from the start: the first sums are multiplied by zero.
        self.sums = np.zeros(3 * max(width, size_px), np.float32)


_of_thread = threading.local()


def _scratch(size_px: int, width: int) -> _Scratch:
    kept: dict[int, _Scratch] = _of_thread.__dict__.setdefault("by_size", {})
    scratch = kept.get(size_px)
    if scratch is None or scratch.width < width:
        scratch = kept[size_px] = _Scratch(size_px, width)
    return scratch


@compiled
def _resample_rows(
    source: Image,
    begin: int,
    pitch: int,
    rows_in: int,
    support: int,
    mirrored: bool,
    sums: Floats,
    rows_out: int,
    result: Image,
) -> None:
    """Gives `result` its rows as weighted sums of rows of `source`, rounded to 8 bits.

    Row r of the source starts at `begin` + r * `pitch`; it is as long as one of the result.
    """
    length = result.size // rows_out
    scale = rows_in / rows_out
    stretch = max(scale, 1.0)
    reach = support * stretch
    weights = np.zeros(2 * math.ceil(reach) + 6, np.float32)
    total = sums[:length]
    for row in range(rows_out):
        centre = (row + 0.5) * scale
        start = max(int(centre - reach + 0.5), 0)
        count = min(int(centre + reach + 0.5), rows_in) - start
        _weigh(weights, count, start + 0.5 - centre, stretch, support)
        _add_rows(source, begin + start * pitch, pitch, count, weights, total)
        place = rows_out - 1 - row if mirrored else row
        _round(total, result[place * length : (place + 1) * length])


@compiled
def _weigh(weights: Floats, count: int, first: float, stretch: float, support: int) -> None:
    whole = 0.0
    for tap in range(count):
        weight = _filter((tap + first) / stretch, support)
        weights[tap] = weight
        whole += weight
    for tap in range(count):
        weights[tap] /= whole
    weights[count : count + 3] = 0  # what fills the last group of rows


@compiled
def _filter(distance: float, support: int) -> float:
    x = abs(distance)
    if support == 1:
        return max(1 - x, 0.0)
    if x < 1:
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    if x < 2:
        return (((x - 5) * x + 8) * x - 4) * _CUBIC
    return 0.0


@compiled
def _add_rows(
    source: Image, begin: int, pitch: int, count: int, weights: Floats, total: Floats
) -> None:
    # Several rows at a time, since a sum costs as much to load and store as a row.
    n, last = total.size, begin + (count - 1) * pitch
    keep = np.float32(0)
    for tap in range(0, count, 4):
        first = begin + tap * pitch
        second = min(first + pitch, last)
        a, wa = source[first : first + n], weights[tap]
        b, wb = source[second : second + n], weights[tap + 1]
        if count - tap <= 2:
            for x in range(n):
                total[x] = keep * total[x] + (wa * np.float32(a[x]) + wb * np.float32(b[x]))
        else:
            third = first + 2 * pitch
            fourth = min(third + pitch, last)
            c, wc = source[third : third + n], weights[tap + 2]
            d, wd = source[fourth : fourth + n], weights[tap + 3]
            for x in range(n):
                upper = wa * np.float32(a[x]) + wb * np.float32(b[x])
                lower = wc * np.float32(c[x]) + wd * np.float32(d[x])
                total[x] = keep * total[x] + (upper + lower)
        keep = np.float32(1)


@compiled
def _round(total: Floats, row: Image) -> None:
    for x in range(total.size):
        level = min(max(total[x], np.float32(0)), np.float32(255))
        row[x] = np.uint8(np.int32(level + np.float32(0.5)))
