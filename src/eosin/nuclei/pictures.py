"""What to look at of a segmentation: the best and the worst image, and errors by nucleus size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.atomic import replacing, write_json
from eosin.nuclei.overlay import colours, draw
from eosin.nuclei.predicting import Compared
from eosin.results.instance_counts import InstanceCounts
from eosin.results.instance_scores import image_scores

EXTREMES = ("best", "worst")
DIAMETERS_UM = (0.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0)
"""Lower ends of the classes of size, by the diameter of the circle of the same area."""

_PICTURE_PX = 700
_LEGEND_PX = 28
_MATCH = 0.5


def draw_extremes(
    compared: Sequence[Compared], counts: InstanceCounts, classes: Sequence[str], folder: Path
) -> None:
    """Draws the images of the highest and the lowest PQ, truth and prediction side by side.

    Writes `best.jpg`, `worst.jpg` and `pictures.json`, which says which images they are.
    """
    quality = image_scores(counts)["pq"]
    defined = np.flatnonzero(np.isfinite(quality))
    if not len(defined):
        return
    order = defined[np.argsort(quality[defined], kind="stable")]
    chosen = {"best": int(order[-1]), "worst": int(order[0])}
    facts: dict[str, Any] = {}
    for name, number in chosen.items():
        each = compared[number]
        truth = (each.labelled.instances, each.labelled.types)
        predicted = (each.predicted.instances, each.predicted.types)
        image = each.labelled.image
        pictures = [draw(image, truth, classes), draw(image, predicted, classes)]
        gap = np.full((image.shape[0], max(4, image.shape[1] // 50), 3), 255, np.uint8)
        beside = np.concatenate([pictures[0], gap, pictures[1]], axis=1)
        _write(folder / f"{name}.jpg", _with_legend(_reduced(beside), classes))
        facts[name] = {"image": each.id, "pq": float(quality[number])}
    write_json(folder / "pictures.json", {"classes": list(classes), **facts})


def by_size(compared: Sequence[Compared], mpp: float) -> list[dict[str, float]]:
    """Counts, by their size, true nuclei and those that were found, and predictions without one.

    Args:
        compared: images with true and predicted nuclei.
        mpp: micrometres a pixel.

    Returns:
        For each class of size `from_um`, `to_um` (the last has none), `true`, `found`,
        `predicted` and `false`; found is what a prediction covers with an IoU above 0.5.
    """
    sizes = len(DIAMETERS_UM)
    totals = {name: np.zeros(sizes, np.int64) for name in ("true", "found", "predicted", "false")}
    for each in compared:
        truth, predicted = each.labelled.instances, each.predicted.instances
        areas, found_areas, pairs, common = _overlaps(truth, predicted)
        union = areas[pairs[:, 0]] + found_areas[pairs[:, 1]] - common
        matched = pairs[common > _MATCH * union]
        is_found, is_true = np.zeros(len(areas), bool), np.zeros(len(found_areas), bool)
        is_found[matched[:, 0]], is_true[matched[:, 1]] = True, True
        for name, of_area, counted in (
            ("true", areas, areas > 0),
            ("found", areas, is_found),
            ("predicted", found_areas, found_areas > 0),
            ("false", found_areas, (found_areas > 0) & ~is_true),
        ):
            places = _size_class(of_area[counted], mpp)
            totals[name] += np.bincount(places, minlength=sizes)
    ends: list[float | None] = [*DIAMETERS_UM[1:], None]
    return [
        {
            "from_um": DIAMETERS_UM[place],
            **({} if ends[place] is None else {"to_um": float(ends[place] or 0)}),
            **{name: int(counts[place]) for name, counts in totals.items()},
        }
        for place in range(sizes)
    ]


def _overlaps(
    truth: NDArray[np.int32], predicted: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Areas of both (of background none), the pairs that overlap, and by how many pixels."""
    width = int(predicted.max()) + 1
    joint = np.bincount(
        truth.ravel().astype(np.int64) * width + predicted.ravel(),
        minlength=(int(truth.max()) + 1) * width,
    ).reshape(-1, width)
    areas, found_areas = joint.sum(1), joint.sum(0)
    areas[0] = found_areas[0] = 0
    joint[0], joint[:, 0] = 0, 0
    pairs = np.argwhere(joint)
    return areas, found_areas, pairs, joint[pairs[:, 0], pairs[:, 1]]


def _size_class(areas: NDArray[np.int64], mpp: float) -> NDArray[np.int64]:
    diameters = 2 * np.sqrt(areas / np.pi) * mpp
    return np.searchsorted(np.array(DIAMETERS_UM), diameters, side="right") - 1


def _reduced(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    scale = min(1.0, 2 * _PICTURE_PX / width)
    if scale == 1:
        return picture
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _with_legend(picture: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Adds a strip that says which colour is which type."""
    strip = np.full((_LEGEND_PX, picture.shape[1], 3), 255, np.uint8)
    x, middle = _LEGEND_PX // 2, _LEGEND_PX // 2
    for name, colour in colours(classes).items():
        cv2.rectangle(strip, (x, middle - 6), (x + 12, middle + 6), colour, thickness=-1)
        cv2.putText(
            strip,
            name,
            (x + 18, middle + 5),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.5,
            (40, 40, 40),
            1,
            cv2.LINE_AA,
        )
        x += 18 + 10 * len(name) + _LEGEND_PX
    return np.concatenate([picture, strip], axis=0)


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
