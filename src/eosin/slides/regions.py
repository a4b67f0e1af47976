"""Regions of slides that a user has drawn, such as QuPath's annotations, as GeoJSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage.draw

from eosin.errors import InputError

_SUFFIXES = (".geojson", ".json")


def find_regions(regions: Path, slide: Path) -> Path:
    """Finds the file that holds the regions of a slide.

    Args:
        regions: one file for all slides, or a folder with a file of each slide's name.
        slide: path of the slide.

    Raises:
        InputError: there is none.
    """
    if regions.is_file():
        return regions
    for name in (slide.stem, slide.name):
        for suffix in _SUFFIXES:
            if (regions / f"{name}{suffix}").is_file():
                return regions / f"{name}{suffix}"
    raise InputError(
        f"--regions {regions} has no {slide.stem}.geojson, so nothing of {slide} is wanted; draw"
        " regions on it, or leave it out of --slides."
    )


def read_regions(path: Path) -> list[list[npt.NDArray[np.float64]]]:
    """Reads polygons: for each its outline and its holes, as corners [n, 2] in level-0 pixels.

    Raises:
        InputError: the file is no GeoJSON, or holds no polygon.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON: {error}") from error
    try:
        polygons = [
            [_corners(ring) for ring in polygon] for polygon in _polygons(content) if len(polygon)
        ]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} is not GeoJSON: its polygons must be lists of rings of [x, y] in level-0"
            " pixels."
        ) from error
    if not polygons:
        raise InputError(f"{path} holds no Polygon or MultiPolygon; draw a region and export it.")
    return polygons


def _corners(ring: Any) -> npt.NDArray[np.float64]:
    corners = np.array(ring, np.float64)
    # A third number, the height, is allowed.
    if corners.ndim != 2 or corners.shape[1] < 2 or not np.isfinite(corners[:, :2]).all():
        raise ValueError(f"{corners} are no corners")
    return corners[:, :2]


def _polygons(content: Any) -> Iterator[Any]:
    if isinstance(content, list):
        # QuPath writes a bare list of features on request.
        for each in content:
            yield from _polygons(each)
        return
    kind = content["type"]
    if kind == "FeatureCollection":
        yield from _polygons(content["features"])
    elif kind == "Feature" and content["geometry"] is not None:
        yield from _polygons(content["geometry"])
    elif kind == "GeometryCollection":
        yield from _polygons(content["geometries"])
    elif kind == "Polygon":
        yield content["coordinates"]
    elif kind == "MultiPolygon":
        yield from content["coordinates"]


def draw_regions(
    polygons: list[list[npt.NDArray[np.float64]]],
    shape: tuple[int, int],
    dimensions: tuple[int, int],
) -> npt.NDArray[np.bool_]:
    """Draws polygons as a mask.

    Args:
        polygons: see `read_regions`.
        shape: height and width of the mask, which covers the whole slide.
        dimensions: width and height of the slide in level-0 pixels.
    """
    to_mask = np.array([shape[1] / dimensions[0], shape[0] / dimensions[1]])
    mask = np.zeros(shape, bool)
    for outline, *holes in polygons:
        drawn = np.zeros(shape, bool)
        for ring, inside in ((outline, True), *((hole, False) for hole in holes)):
            # A mask pixel belongs to a ring if its centre does.
            x, y = (ring * to_mask - 0.5).T
            drawn[skimage.draw.polygon(y, x, shape)] = inside
        mask |= drawn
    return mask
