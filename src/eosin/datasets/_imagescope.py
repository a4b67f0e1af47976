"""Outlines that were drawn in Aperio's ImageScope: XML files of polygons."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon as pixels_of_polygon

from eosin.errors import InputError

Outline = NDArray[np.float64]

_MOST_BYTES = 64_000_000


def read_outlines(path: Path) -> list[Outline]:
    """Reads the outline of each region, float64 [V, 2] of x and y in pixels, in the file's order.

    Raises:
        InputError: it is no such file; the message names it.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is too large for the outlines of one image.")
        content = path.read_bytes()
        # ImageScope writes no document type, and entities are how XML is made to explode.
        if re.search(rb"<!(DOCTYPE|ENTITY)", content.replace(b"\0", b"")):
            raise InputError(f"{path} has a document type, which ImageScope's files have not.")
        tree = ElementTree.fromstring(content)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is no XML: {error}.") from None
    if tree.tag != "Annotations":
        raise InputError(f"{path} holds no outlines of ImageScope: it begins with <{tree.tag}>.")
    return [_outline(region, path) for region in tree.iter("Region")]


def rasterise(outlines: Sequence[Outline], height: int, width: int) -> NDArray[np.int32]:
    """Draws outlines into an instance map, int32 [H, W], numbered from 1 in their order.

    A pixel belongs to an outline if its centre lies in it, where the pixel at the upper left goes
    from 0 to 1 in both directions. Where outlines overlap, the first keeps its pixels; one that has
    none left is not in the map.
    """
    drawn = np.zeros((height, width), dtype=np.int32)
    for number, outline in enumerate(outlines, start=1):
        if len(outline) < 3:
            continue
        rows, columns = pixels_of_polygon(outline[:, 1] - 0.5, outline[:, 0] - 0.5, drawn.shape)
        is_free = drawn[rows, columns] == 0
        drawn[rows[is_free], columns[is_free]] = number
    return drawn


def _outline(region: ElementTree.Element, path: Path) -> Outline:
    try:
        vertices = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
    except (KeyError, ValueError):
        vertices = [(float("nan"), 0.0)]
    outline = np.array(vertices, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(outline).all():
        name = region.get("Id", "without a number")
        raise InputError(f"{path}: region {name} has a vertex without a place.")
    return outline
