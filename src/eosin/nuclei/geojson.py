"""Outlines of nuclei as GeoJSON, as QuPath opens them: one detection a nucleus, with its class.

Coordinates are pixels of level 0, from the upper left corner of the image: the first pixel reaches
from 0 to 1. Outlines run along the edges of pixels, across inner corners.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from eosin.atomic import replacing
from eosin.nuclei.overlay import Colour, colours
from eosin.nuclei.postprocess import Segmented
from eosin.nuclei.stitching import Part

Ring = list[list[float]]

_SQUARE = np.ones((3, 3), np.uint8)


def write(
    path: Path,
    instances: NDArray[np.int32],
    types: NDArray[np.int64],
    classes: Sequence[str],
    *,
    type_probability: NDArray[np.float32] | None = None,
    offset: tuple[int, int] = (0, 0),
    scale: float = 1.0,
) -> int:
    """Writes the nuclei of one image, atomically.

    Args:
        path: the file.
        instances: int32 [H, W], 0 background, nuclei numbered from 1 to n.
        types: index into the classes of nucleus k + 1 at place k, [n].
        classes: names of the types.
        type_probability: share of a nucleus's pixels that are of its type, [n]; a measurement.
        offset: x and y of the map's corner, in pixels of the map.
        scale: pixels of level 0 to a pixel of the map.

    Returns:
        How many nuclei were written.
    """
    is_given = type_probability is not None
    shares = type_probability if is_given else np.ones(len(types), np.float32)
    part = Part(offset[0], offset[1], Segmented(instances, types, shares))
    return write_parts(path, [part], classes, scale=scale, has_probability=is_given)


def write_parts(
    path: Path,
    parts: Iterable[Part],
    classes: Sequence[str],
    *,
    scale: float = 1.0,
    has_probability: bool = True,
) -> int:
    """Writes the nuclei of a slide part by part, as they come, and atomically.

    Args:
        path: the file.
        parts: nuclei, and where their maps lie.
        classes: names of the types.
        scale: pixels of level 0 to a pixel of the maps.
        has_probability: whether to write the share of a nucleus's pixels that are of its type.

    Returns:
        How many nuclei were written.
    """
    kinds = list(colours(classes).items())
    count = 0
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for part in parts:
            for number, rings in outline(part.found.instances, (part.x, part.y), scale):
                kind = kinds[int(part.found.types[number - 1])]
                share = float(part.found.type_probability[number - 1]) if has_probability else None
                feature = _feature(rings, kind, share)
                file.write(",\n" if count else "\n")
                file.write(json.dumps(feature, ensure_ascii=False, separators=(",", ":")))
                count += 1
        file.write("\n]}\n")
    return count


def outline(
    instances: NDArray[np.int32], offset: tuple[int, int] = (0, 0), scale: float = 1.0
) -> Iterator[tuple[int, list[Ring]]]:
    """Yields each nucleus's number and its outer outlines, one for each of its pieces.

    An outline is a closed ring of [x, y], of five points or more, that does not meet itself; holes
    are left out.

    Args:
        instances: int32 [H, W], 0 background.
        offset: x and y of the map's corner, in pixels of the map.
        scale: by which all is multiplied then.
    """
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if box is None:
            continue
        corner = (box[1].start + offset[0], box[0].start + offset[1])
        mask = (instances[box] == number).astype(np.uint8)
        yield number, [_ring(each, corner, scale) for each in _contours(mask)]


def _contours(mask: NDArray[np.uint8]) -> Iterator[NDArray[np.int32]]:
    """Yields the outlines of what hangs together side by side, in half pixels from the corner."""
    pieces, labels = cv2.connectedComponents(mask, connectivity=4)
    for piece in range(1, pieces):
        one = mask if pieces == 2 else (labels == piece).astype(np.uint8)
        # Pixel k becomes points 2k to 2k + 2, so that a contour through points runs along edges.
        wide = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
        wide[1::2, 1::2] = one
        cv2.dilate(wide, _SQUARE, wide)
        contours, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        yield np.asarray(contours[0], np.int32)[:, 0]


def _ring(contour: NDArray[np.int32], corner: tuple[int, int], scale: float) -> Ring:
    points = np.round((contour / 2 + np.array(corner)) * scale, 2)
    return [*points.tolist(), points[0].tolist()]


def _feature(rings: list[Ring], kind: tuple[str, Colour], share: float | None) -> dict[str, Any]:
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": rings}
    if len(rings) > 1:
        geometry = {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}
    properties: dict[str, Any] = {
        "objectType": "detection",
        "classification": {"name": kind[0], "color": list(kind[1])},
    }
    if share is not None:
        properties["measurements"] = {"Type probability": round(share, 4)}
    return {"type": "Feature", "geometry": geometry, "properties": properties}
