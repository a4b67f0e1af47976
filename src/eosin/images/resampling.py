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
Shorts = npt.NDArray[np.int16]
Interpolation = Literal["bicubic", "bilinear"]
Crop = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

SUPPORT = {"bilinear": 1, "bicubic": 2}
"""Reach of each filter in pixels, before it widens."""
# Levels are shifted by 7 bits, weights have 14, and of their products the upper 16 of 32 are kept:
# sums then count thirty-seconds of a level, and a weight may be a little above 1.
_UNIT = 1 << 14
_FRACTION_BITS = 5
_FRACTION = 1 << _FRACTION_BITS
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

    Nothing outside the crop enters the result, as if it had been cut out before. Up to a reduction
    of 16 flat images are exact; at one of 32 they may be a level off, and more beyond.

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
    most_taps = 2 * support * max(width / size_px, height / size_px, 1) + 2
    mine = _scratch(size_px, width, 1 << math.ceil(math.log2(most_taps)))
    first = mine.first[: size_px * width * 3]
    turned = mine.turned[: size_px * width * 3]
    pitch = image.shape[1] * 3
    begin = top * pitch + left * 3
    _resample_rows(
        *(_flat(image), begin, pitch, height, support, vflip),
        *(mine.window, mine.sums, size_px, first),
    )
    cv2.transpose(first.reshape(size_px, width, 3), turned.reshape(width, size_px, 3))
    _resample_rows(
        *(_flat(turned), 0, size_px * 3, width, support, hflip),
        *(mine.window, mine.sums, size_px, mine.second),
    )
    return cv2.transpose(mine.second.reshape(size_px, size_px, 3))  # pyright: ignore[reportReturnType]


def _flat(image: Image) -> Image:
    """All bytes in a row, read-only; writeable ones would be a type to be compiled for again."""
    flat = image.reshape(-1)
    flat.flags.writeable = False
    return flat


class _Scratch:
    """Memory of one thread for one size of view; fresh memory costs more than the work on it."""

    def __init__(self, size_px: int, width: int, rows: int) -> None:
        self.width, self.rows = width, rows
        self.first = np.empty(size_px * width * 3, np.uint8)
        self.turned = np.empty(size_px * width * 3, np.uint8)
        self.second = np.empty(size_px * size_px * 3, np.uint8)
        self.window = np.zeros((rows, 3 * max(width, size_px)), np.int16)
        self.sums = np.zeros(3 * max(width, size_px), np.int16)


_of_thread = threading.local()


def _scratch(size_px: int, width: int, rows: int) -> _Scratch:
    kept: dict[int, _Scratch] = _of_thread.__dict__.setdefault("by_size", {})
    scratch = kept.get(size_px)
    if scratch is None or scratch.width < width or scratch.rows < rows:
        if scratch is not None:
            width, rows = max(width, scratch.width), max(rows, scratch.rows)
        scratch = kept[size_px] = _Scratch(size_px, width, rows)
    return scratch


@compiled
def _resample_rows(
    source: Image,
    begin: int,
    pitch: int,
    rows_in: int,
    support: int,
    mirrored: bool,
    window: Shorts,
    total: Shorts,
    rows_out: int,
    result: Image,
) -> None:
    """Gives `result` its rows as weighted sums of rows of `source`, rounded to 8 bits.

    Row r of the source starts at `begin` + r * `pitch`; it is as long as one of the result. Each is
    widened once, into the `window` of the last rows, whose height is a power of two.
    """
    length = result.size // rows_out
    scale = rows_in / rows_out
    stretch = max(scale, 1.0)
    reach = support * stretch
    weights = np.zeros(2 * math.ceil(reach) + 6, np.int16)
    sums = total[:length]
    widened = 0
    for row in range(rows_out):
        centre = (row + 0.5) * scale
        start = max(int(centre - reach + 0.5), 0)
        count = min(int(centre + reach + 0.5), rows_in) - start
        while widened < start + count:
            place = begin + widened * pitch
            _widen(source[place : place + length], _line(window, widened, length))
            widened += 1
        _weigh(weights, count, start + 0.5 - centre, stretch, support)
        _sum_rows(window, start, count, weights, sums)
        place = rows_out - 1 - row if mirrored else row
        _round(sums, result[place * length : (place + 1) * length])


@compiled
def _line(window: Shorts, row: int, length: int) -> Shorts:
    return window[row & (window.shape[0] - 1)][:length]


@compiled
def _weigh(weights: Shorts, count: int, first: float, stretch: float, support: int) -> None:
    whole = 0.0
    for tap in range(count):
        whole += _filter((tap + first) / stretch, support)
    # The running sum is rounded, not each weight: thousands of small ones still sum to one.
    running, before = 0.0, 0
    for tap in range(count):
        running += _filter((tap + first) / stretch, support)
        after = math.floor(running / whole * _UNIT + 0.5)
        weights[tap] = np.int16(after - before)
        before = after
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
def _widen(source: Image, line: Shorts) -> None:
    for x in range(source.size):
        line[x] = np.int16(np.int16(source[x]) << np.int16(7))


@compiled
def _sum_rows(window: Shorts, start: int, count: int, weights: Shorts, sums: Shorts) -> None:
    # Four rows at a time, since a sum costs as much to load and store as a row. A product is
    # rounded down, and minus that of minus the weight up, so every second one is the latter.
    n, keep = sums.size, np.int16(0)
    for tap in range(0, count, 4):
        a, b = _line(window, start + tap, n), _line(window, start + tap + 1, n)
        c, d = _line(window, start + tap + 2, n), _line(window, start + tap + 3, n)
        wa, wb = weights[tap], np.int16(-weights[tap + 1])
        wc, wd = weights[tap + 2], np.int16(-weights[tap + 3])
        for x in range(n):
            upper = np.int16(_product(a[x], wa) - _product(b[x], wb))
            lower = np.int16(_product(c[x], wc) - _product(d[x], wd))
            sums[x] = np.int16(np.int16(sums[x] & keep) + np.int16(upper + lower))
        keep = np.int16(-1)


@compiled
def _product(level: np.int16, weight: np.int16) -> np.int16:
    # The upper half of a product of 16 bits is one instruction for 16 of them.
    return np.int16((np.int32(level) * np.int32(weight)) >> np.int32(16))


@compiled
def _round(sums: Shorts, line: Image) -> None:
    half = np.int16(_FRACTION // 2)
    for x in range(sums.size):
        level = np.int16(np.int16(sums[x] + half) >> np.int16(_FRACTION_BITS))
        line[x] = np.uint8(min(max(level, np.int16(0)), np.int16(255)))
