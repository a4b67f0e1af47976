"""Outlines of nuclei on their image, in a colour for each type."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Nuclei = tuple[NDArray[np.int32], NDArray[np.int64]]
"""An instance map [H, W], numbered from 1 to n without gaps, and the types [n]."""
Colour = tuple[int, int, int]

# Okabe and Ito's, which the colour-blind tell apart; first those that stand out on violet.
_PALETTE: tuple[Colour, ...] = (
    (240, 228, 66),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (230, 159, 0),
    (0, 114, 178),
    (0, 0, 0),
    (204, 121, 167),
)
_DASH_PX = 4


def colours(classes: Sequence[str]) -> dict[str, Colour]:
    """Gives each class its colour, RGB; those after the eighth share one with an earlier class."""
    return {name: _PALETTE[place % len(_PALETTE)] for place, name in enumerate(classes)}


def draw(
    image: Image,
    nuclei: Nuclei,
    classes: Sequence[str],
    *,
    truth: Nuclei | None = None,
    thickness_px: int = 1,
) -> Image:
    """Draws outlines, inside the nuclei, and where both are given dashed ones of the true nuclei.

    Args:
        image: uint8 RGB [H, W, 3]; it stays as it is.
        nuclei: what is outlined.
        classes: names of the types.
        truth: what is outlined with dashes over it.
        thickness_px: of the outlines.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ValueError: the maps are not of the image's size, or a nucleus has no type or no class.
    """
    drawn = image.copy()
    _outline(drawn, nuclei, classes, thickness_px, is_dashed=False)
    if truth is not None:
        _outline(drawn, truth, classes, thickness_px, is_dashed=True)
    return drawn


def outlines(instances: NDArray[np.int32], thickness_px: int = 1) -> NDArray[np.bool_]:
    """Marks pixels of nuclei that lie beside something else, [H, W]; not those at the border."""
    inner = instances.copy()
    for _ in range(thickness_px):
        is_edge = np.zeros(inner.shape, np.bool_)
        for one, other in (
            (np.s_[1:], np.s_[:-1]),
            (np.s_[:, 1:], np.s_[:, :-1]),
        ):
            differs = inner[one] != inner[other]
            is_edge[one] |= differs
            is_edge[other] |= differs
        inner[is_edge] = 0
    return (instances > 0) & (inner == 0)


def _outline(
    drawn: Image, nuclei: Nuclei, classes: Sequence[str], thickness_px: int, *, is_dashed: bool
) -> None:
    instances, types = nuclei
    if instances.shape != drawn.shape[:2]:
        raise ValueError(f"an instance map {instances.shape} on an image {drawn.shape}")
    if instances.max(initial=0) > len(types) or types.max(initial=0) >= len(classes):
        raise ValueError("a nucleus has no type, or a type has no class")
    marked = outlines(instances, thickness_px)
    rows, columns = np.nonzero(marked)
    if is_dashed:
        shown = (rows + columns) // _DASH_PX % 2 == 0
        rows, columns = rows[shown], columns[shown]
    palette = np.array(list(colours(classes).values()), np.uint8)
    drawn[rows, columns] = palette[types[instances[rows, columns] - 1]]
