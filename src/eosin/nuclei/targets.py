"""HoVer-Net's targets: of nucleus or not, signed distances to the centre of mass, and types.

Graham et al. 2019, arXiv 1812.06499. The authors' code (vqdang/hover_net at 67e2ce5,
models/hovernet/targets.py) counts pixels from one and rounds the centre of mass, so that its maps
are zero a pixel to the left of and above the centre, and it leaves out nuclei within two pixels of
the window's upper and left border. Here distances are those to the centre of mass itself: the map
of a mirrored nucleus is the mirrored map, to the last bit. `official` gives the authors' maps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosin.images.compiling import compiled

MIN_PX = 30
"""Nuclei with fewer pixels in the output have no distance maps, in the authors' code and here."""

Counts = NDArray[np.int64]

_OFFICIAL_MARGIN = 2  # pixels by which the authors' code widens the box of a nucleus


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """What a network of output side o should say.

    Attributes:
        foreground: 1 within nuclei, uint8 [o, o].
        hv: distance to the centre of mass of the nucleus, to the right and downwards, each side
            scaled to [-1, 0) and (0, 1]; 0 on background, float32 [2, o, o].
        types: 0 for background, 1 + type within nuclei, int64 [o, o].
    """

    foreground: NDArray[np.uint8]
    hv: NDArray[np.float32]
    types: NDArray[np.int64]


def make_targets(
    instances: NDArray[np.integer],
    types: NDArray[np.integer],
    out_px: int,
    *,
    min_px: int = MIN_PX,
    official: bool = False,
) -> Targets:
    """Makes the targets of the middle of a window.

    Centre and extent of a nucleus are those of all of it that the window shows. Pixels with the
    same number that do not touch side by side, as where a window was mirrored, are nuclei of their
    own.

    Args:
        instances: numbers of the nuclei, whole numbers [H, W], 0 background.
        types: type of nucleus k + 1 at place k, [n].
        out_px: side of the output, at most that of the window.
        min_px: a nucleus with fewer pixels within the output has no distance maps, but is
            foreground and has its type.
        official: distance maps as the authors' code has them, bit for bit. (Undefined there and
            left out here: a nucleus that reaches from the upper border to the lower one, or from
            the left border to the right one.)

    Raises:
        ValueError: the window is smaller than the output, or a nucleus has no type.
    """
    if instances.ndim != 2 or instances.dtype.kind not in "biu":
        raise ValueError(f"a map of instances is not {instances.dtype} {instances.shape}")
    if not 0 < out_px <= min(instances.shape):
        raise ValueError(f"a window of {instances.shape} has no output of {out_px} pixels")
    window = np.ascontiguousarray(instances, dtype=np.int32)
    top, left = ((side - out_px) // 2 for side in window.shape)
    output = window[top : top + out_px, left : left + out_px]
    if output.min() < 0 or output.max() > len(types):
        raise ValueError(
            f"instances {output.min()} to {output.max()} are in a window of {len(types)} types"
        )
    of_instance = np.concatenate([np.zeros(1, np.int64), types.astype(np.int64) + 1])
    return Targets(
        foreground=(output > 0).astype(np.uint8),
        hv=_distances(window, top, left, out_px, min_px, official),
        types=of_instance[output],
    )


def _distances(
    window: NDArray[np.int32], top: int, left: int, out_px: int, min_px: int, official: bool
) -> NDArray[np.float32]:
    """Computes the maps of distances, [2, o, o]."""
    part, measured = _trace(window, top, left, out_px)
    pixels, within, sum_y, sum_x, first_y, last_y, first_x, last_x = measured.T
    has_maps = within >= min_px
    if official:
        has_maps &= (first_y >= _OFFICIAL_MARGIN) & (first_x >= _OFFICIAL_MARGIN)
        scale = np.ones_like(pixels)
        centre_y = _official_centre(sum_y, pixels, first_y)
        centre_x = _official_centre(sum_x, pixels, first_x)
    else:
        # All lengths are multiplied by the number of pixels, to stay whole numbers.
        scale, centre_y, centre_x = pixels, sum_y, sum_x
    down, start_y = _scaled(first_y, last_y, centre_y, scale, has_maps)
    right, start_x = _scaled(first_x, last_x, centre_x, scale, has_maps)
    return _fill(part, top, left, out_px, right, start_x, down, start_y)


def _official_centre(total: Counts, pixels: Counts, first: Counts) -> Counts:
    """Rounds the centre of mass as the authors' code does, which then counts pixels from one."""
    corner = first - _OFFICIAL_MARGIN
    rounded = ((total - corner * pixels) / np.maximum(pixels, 1) + 0.5).astype(np.int64)
    return corner + rounded - 1


def _scaled(
    first: Counts, last: Counts, centre: Counts, scale: Counts, has_maps: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], Counts]:
    """Tabulates the distances of the rows, or of the columns, of all parts.

    Args:
        first: first row of each part.
        last: its last row.
        centre: its centre, times `scale`.
        scale: what lengths of the part are multiplied by.
        has_maps: whether it has distances other than 0.

    Returns:
        The distances of all rows of all parts, and what is to be added to a row of each part for
        its place among them.
    """
    lengths = last - first + 1
    start = np.cumsum(lengths) - lengths - first
    of = np.repeat(np.arange(len(first)), lengths)
    distance = (np.arange(len(of)) - start[of]) * scale[of] - centre[of]
    before = (centre - first * scale)[of]
    after = (last * scale - centre)[of]
    # A distance other than 0 has a reach on its side; the quotient of float64, rounded once more,
    # is that of float32.
    reach = np.where(distance < 0, before, after)
    values = np.where(has_maps[of], distance, 0) / np.maximum(reach, 1)
    return values.astype(np.float32), start


@compiled
def _trace(
    window: NDArray[np.int32], top: int, left: int, out_px: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbers the connected parts of instances that reach into the output, and measures them.

    Returns:
        The number of each pixel's part from 1, 0 for none, and of each part: pixels, pixels within
        the output, sums of y and x, first and last row, first and last column, [parts, 8].
    """
    height, width = window.shape
    part = np.zeros((height, width), np.int32)
    waiting = np.empty(height * width, np.int32)
    measured = np.empty((out_px * out_px, 8), np.int64)
    count = 0
    for start_y in range(top, top + out_px):
        for start_x in range(left, left + out_px):
            instance = window[start_y, start_x]
            if instance == 0 or part[start_y, start_x] != 0:
                continue
            count += 1
            part[start_y, start_x] = count
            waiting[0] = start_y * width + start_x
            n_waiting = 1
            pixels = within = sum_y = sum_x = 0
            first_y = last_y = start_y
            first_x = last_x = start_x
            while n_waiting > 0:
                n_waiting -= 1
                y = waiting[n_waiting] // width
                x = waiting[n_waiting] - y * width
                pixels += 1
                sum_y += y
                sum_x += x
                if top <= y < top + out_px and left <= x < left + out_px:
                    within += 1
                first_y, last_y = min(first_y, y), max(last_y, y)
                first_x, last_x = min(first_x, x), max(last_x, x)
                for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    next_y, next_x = y + dy, x + dx
                    if not (0 <= next_y < height and 0 <= next_x < width):
                        continue
                    if window[next_y, next_x] == instance and part[next_y, next_x] == 0:
                        part[next_y, next_x] = count
                        waiting[n_waiting] = next_y * width + next_x
                        n_waiting += 1
            row = measured[count - 1]
            row[0], row[1], row[2], row[3] = pixels, within, sum_y, sum_x
            row[4], row[5], row[6], row[7] = first_y, last_y, first_x, last_x
    return part, measured[:count]


@compiled
def _fill(
    part: NDArray[np.int32],
    top: int,
    left: int,
    out_px: int,
    right: NDArray[np.float32],
    start_x: NDArray[np.int64],
    down: NDArray[np.float32],
    start_y: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Looks the distances of each pixel of the output up, [2, o, o]."""
    hv = np.zeros((2, out_px, out_px), np.float32)
    for y in range(top, top + out_px):
        for x in range(left, left + out_px):
            number = part[y, x]
            if number != 0:
                hv[0, y - top, x - left] = right[start_x[number - 1] + x]
                hv[1, y - top, x - left] = down[start_y[number - 1] + y]
    return hv
