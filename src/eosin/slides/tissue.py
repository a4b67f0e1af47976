"""Tissue on a thumbnail: which of its pixels are worth cutting into tiles.

The built-in methods work block by block, so that a thumbnail of 8 megapixels takes no more than
some 100 MB beyond its own pixels. `optical_density` and `hsv` expect haematoxylin and eosin; take
`otsu` or a method of your own for other stains. How the default was chosen: docs/decisions/0012.
"""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from eosin.errors import InputError, UsageError
from eosin.slides.optical_density import (
    INK_REACH_UM,
    Density,
    Glass,
    densities,
    disc,
    estimate_glass,
    find_ink,
    to_px,
)

Mask = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]
Marks = npt.NDArray[np.uint8]
Method = Callable[[RGB, float], Mask]

MASK_MPP = 8.0
"""Resolution at which tissue is looked for: a tile of 256 µm is 32 pixels wide."""

# Tuned on half of the thumbnails of tests/slides/difficult_thumbnails.py; µm, µm² and densities.
_LEAST_STAIN = 0.015
_LEAST_SPECK_UM2 = 4_000.0
_LARGEST_HOLE_UM2 = 20_000.0
_LEAST_FAT_UM2 = 40_000.0
_GAP_UM = 24.0
_FAT_REACH_UM = 64.0

# Purple, pink and red in OpenCV's HSV (hue in steps of 2 degrees), not grey and not black: the
# ranges that hs2p publishes.
_HSV_LOWEST = (90, 8, 103)
_HSV_HIGHEST = (180, 255, 255)

_BLOCK_PX = 768
_TISSUE, _FAT, _INK = 1, 2, 4


def find_tissue(rgb: RGB, mpp: float, method: str = "optical_density") -> Mask:
    """Finds the tissue of a thumbnail.

    Args:
        rgb: the thumbnail, uint8 [height, width, 3].
        mpp: its resolution in micrometres per pixel; what is finer than 4 is reduced to 8 first,
            except for your own method.
        method: one of `METHODS`, or `module:function` for the user's own `(rgb, mpp) -> mask`.

    Returns:
        The mask, bool [height, width].

    Raises:
        UsageError: there is no such method.
        InputError: the user's own method fails, or gives no mask of the thumbnail's shape.
    """
    find = load_method(method)
    if find in METHODS.values() and mpp < MASK_MPP / 2:
        return _find_reduced(rgb, mpp, find)
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
    return mask.astype(bool, copy=False)


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


def _find_reduced(rgb: RGB, mpp: float, find: Method) -> Mask:
    height, width = (max(1, round(length * mpp / MASK_MPP)) for length in rgb.shape[:2])
    reduced = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    mask = find(reduced, MASK_MPP).view(np.uint8)
    size_px = (rgb.shape[1], rgb.shape[0])
    return np.asarray(cv2.resize(mask, size_px, interpolation=cv2.INTER_NEAREST)).view(bool)


def _find_by_optical_density(rgb: RGB, mpp: float) -> Mask:
    """Absorbs green light more than red and blue, as both stains do; or is a net of fat; no ink."""
    glass = estimate_glass(rgb)
    marks = _mark_by_blocks(rgb, mpp, lambda block: _mark_stain(block, mpp, glass))
    small_fat = _parts_below((marks & _FAT) != 0, _LEAST_FAT_UM2 / mpp**2)
    marks[small_fat] &= 0xFF - _FAT
    del small_fat
    return _tidy(marks, mpp)


def _find_by_hsv(rgb: RGB, mpp: float) -> Mask:
    """Hue of the stains, some saturation, some brightness against the glass; and no ink."""
    glass = estimate_glass(rgb)
    as_white = np.arange(256)[:, None] * np.exp(glass.density)
    whiten = np.rint(np.minimum(as_white, 255)).astype(np.uint8)[None]

    def mark(block: RGB) -> Marks:
        smooth = _smooth(block)
        hsv = cv2.cvtColor(cv2.LUT(smooth, whiten), cv2.COLOR_RGB2HSV)
        stained = cv2.inRange(hsv, np.array(_HSV_LOWEST), np.array(_HSV_HIGHEST)) != 0
        ink = find_ink(densities(smooth, glass.density), mpp)
        return np.where(ink, _INK, stained * _TISSUE).astype(np.uint8)

    return _tidy(_mark_by_blocks(rgb, mpp, mark), mpp)


def _find_by_otsu(rgb: RGB, mpp: float) -> Mask:
    """Darker than Otsu's threshold of the grey image; keeps ink."""
    grey = _mark_by_blocks(rgb, mpp, _to_smooth_grey)
    counts = np.bincount(grey.reshape(-1), minlength=256)
    threshold, marks = cv2.threshold(grey, 0, _TISSUE, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    del grey
    # Otsu splits anything, noise as well; glass alone must not come out as half tissue.
    dark, light = np.split(counts, [int(threshold) + 1])
    least = 4 + estimate_glass(rgb).noise
    if not dark.any() or not light.any() or _mean_grey(light, len(dark)) - _mean_grey(dark) < least:
        return np.zeros(marks.shape, bool)
    return _tidy(np.asarray(marks, np.uint8), mpp)


def _to_smooth_grey(rgb: RGB) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(_smooth(rgb), cv2.COLOR_RGB2GRAY), np.uint8)


def _mean_grey(counts: npt.NDArray[np.intp], first: int = 0) -> float:
    return float(np.average(np.arange(first, first + len(counts)), weights=counts))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "optical_density": _find_by_optical_density,
        "hsv": _find_by_hsv,
        "otsu": _find_by_otsu,
    }
)
"""The methods that Eosin brings, by name; the first is the default."""


def _mark_stain(rgb: RGB, mpp: float, glass: Glass) -> Marks:
    """Marks tissue, nets of fat, and ink; near an edge that cuts tissue, marks may be wrong."""
    smooth = _smooth(rgb)
    density = densities(smooth, glass.density)
    ink = find_ink(density, mpp)
    stain = cv2.GaussianBlur(density.stain, (0, 0), 0.8)
    stain[ink] = 0
    # An edge lies where the stain is half as strong as beside it, however strong that is.
    half = cv2.dilate(stain, disc(2)) / 2
    tissue = (stain > np.maximum(half, _LEAST_STAIN + 0.005 * glass.noise)) & ~ink
    fat = _find_fat(rgb, density, tissue, glass.noise, mpp) & ~ink
    return (tissue * _TISSUE + fat * _FAT + ink * _INK).astype(np.uint8)


def _find_fat(rgb: RGB, density: Density, tissue: Mask, noise: float, mpp: float) -> Mask:
    """Regions full of thin dark lines: the walls of fat cells, too thin at 8 µm to show a hue."""
    green = np.ascontiguousarray(rgb[..., 1])
    lines = cv2.morphologyEx(green, cv2.MORPH_BLACKHAT, disc(to_px(32, mpp)))
    absorbed = (density.red + density.green + density.blue) / 3
    dirt = (absorbed > 0.15) & (density.stain < 0.15 * absorbed)
    solid = cv2.morphologyEx(tissue.view(np.uint8), cv2.MORPH_OPEN, disc(to_px(24, mpp)))
    elsewhere = cv2.dilate(solid, disc(to_px(16, mpp))) != 0
    walls = ((lines > 4 + 3 * noise) & ~_grow(dirt, 1)) | tissue
    window_px = 2 * to_px(48, mpp) + 1
    share_of_walls = cv2.blur((walls & ~elsewhere) * np.uint8(100), (window_px, window_px))
    return (share_of_walls > 20) & ~elsewhere


def _mark_by_blocks(rgb: RGB, mpp: float, mark: Callable[[RGB], Marks]) -> Marks:
    """Runs `mark` on blocks, each with as many pixels around it as its marks depend on."""
    halo_px = 8 + to_px(INK_REACH_UM + 2 * _GAP_UM + _FAT_REACH_UM, mpp)
    marks = np.empty(rgb.shape[:2], np.uint8)
    for y, x in _blocks(marks.shape, 4 * halo_px):
        top, left = max(0, y.start - halo_px), max(0, x.start - halo_px)
        block = np.ascontiguousarray(rgb[top : y.stop + halo_px, left : x.stop + halo_px])
        marks[y, x] = mark(block)[y.start - top : y.stop - top, x.start - left : x.stop - left]
    return marks


def _blocks(shape: tuple[int, ...], least_px: int = 1) -> Iterator[tuple[slice, slice]]:
    size_px = max(least_px, _BLOCK_PX)
    for top in range(0, shape[0], size_px):
        for left in range(0, shape[1], size_px):
            bottom, right = min(top + size_px, shape[0]), min(left + size_px, shape[1])
            yield slice(top, bottom), slice(left, right)


def _tidy(marks: Marks, mpp: float) -> Mask:
    """Closes cracks, drops specks and fills holes that are too small to matter; none with ink."""
    edge_px = max(to_px(_GAP_UM, mpp), math.ceil(_LARGEST_HOLE_UM2**0.5 / mpp))
    inside = (slice(edge_px, -edge_px),) * 2
    found = ((marks & (_TISSUE | _FAT)) != 0) & ((marks & _INK) == 0)
    wide = np.pad(found, edge_px, mode="edge").view(np.uint8)
    found[:] = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, disc(to_px(_GAP_UM, mpp)))[inside] != 0
    del wide
    found &= (marks & _INK) == 0
    found &= ~_parts_below(found, _LEAST_SPECK_UM2 / mpp**2)
    # Glass goes on beyond the thumbnail, so a gap at its edge is no hole.
    gaps = np.pad(~found, edge_px, constant_values=True)
    found |= _parts_below(gaps, _LARGEST_HOLE_UM2 / mpp**2)[inside]
    found &= (marks & _INK) == 0
    return found


def _parts_below(mask: Mask, area_px: float) -> Mask:
    """The connected parts of a mask that have fewer pixels than `area_px`."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    is_small = statistics[:, cv2.CC_STAT_AREA] < area_px
    is_small[0] = False
    small = np.empty(mask.shape, bool)
    # NumPy widens the labels that it looks up with; a block at a time, that is little.
    for block in _blocks(mask.shape):
        small[block] = is_small[np.asarray(labels[block], np.intp)]
    return small


def _grow(mask: Mask, radius_px: int) -> Mask:
    return cv2.dilate(mask.view(np.uint8), disc(radius_px)).view(bool)


def _smooth(rgb: RGB) -> RGB:
    return np.asarray(cv2.medianBlur(rgb, 3), np.uint8)
