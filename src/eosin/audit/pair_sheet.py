"""A sheet of pairs side by side, for a person to judge whether they are of the same tissue."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosin.audit.duplicates import Pair
from eosin.errors import InputError
from eosin.images import sheet

Image = NDArray[np.uint8]
Read = Callable[[int], Image]
Name = Callable[[int], str]

MOST_PAIRS = 36
_SIDE_PX = 144
_COLUMNS = 3


def choose(pairs: Sequence[Pair], most: int = MOST_PAIRS) -> list[Pair]:
    """Chooses the surest pairs and, for the last third, the least sure; one of each image.

    The pairs come sorted by how sure they are, the surest first.
    """
    best: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: -pair.correlation):
        best.setdefault(pair.query, pair)
    ordered = list(best.values())
    if len(ordered) <= most:
        return ordered
    doubtful = most // 3
    return [*ordered[: most - doubtful], *ordered[-doubtful:]]


def draw(
    pairs: Sequence[Pair], queries: tuple[Read, Name], references: tuple[Read, Name], out: Path
) -> None:
    """Writes a PNG with the images of each pair side by side, each with its name.

    Args:
        pairs: what to show.
        queries: reads and names the image of a pair that should be new, which stands on the left.
        references: reads and names the image that it is like.
        out: the file.
    """
    cells: list[sheet.RGB] = []
    for pair in pairs:
        left, right = _square(queries[0], pair.query), _square(references[0], pair.reference)
        gap = np.full((left.shape[0], sheet.GAP_PX, 3), 255, np.uint8)
        lines = (queries[1](pair.query), references[1](pair.reference), _facts(pair))
        cells.append(sheet.captioned(np.concatenate([left, gap, right], axis=1), lines))
    sheet.write(out, sheet.grid(cells, _COLUMNS))


def _facts(pair: Pair) -> str:
    words = [f"correlation {pair.correlation:.2f}", f"turned {pair.turned_degrees:.0f} deg"]
    words += ["mirrored"] if pair.mirrored else []
    words.append(f"zoom {pair.zoom:.2f}")
    return ", ".join(words)


def _square(read: Read, number: int) -> sheet.RGB:
    try:
        image = read(number)
    except InputError:
        return sheet.framed(sheet.crossed(_SIDE_PX))
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    return sheet.framed(sheet.resized(square, _SIDE_PX, _SIDE_PX))
