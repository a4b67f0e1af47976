"""Tiles compared with OpenSlide's pixels, so that a fast path can never be silently wrong."""

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

from eosin.errors import InputError
from eosin.slides.encoding import psnr_db
from eosin.slides.openslide_pixels import OpenSlidePixels
from eosin.slides.reader import Slide

# OpenSlide interpolates where its level-0 coordinates meet no whole pixel of a level, and a reduced
# decoding is no area average; a wrong tile, or wrong colours, are far below either bound.
_LEAST_PSNR_BETWEEN_PIXELS_DB = 25.0
_LEAST_PSNR_REDUCED_DB = 20.0


def check_pixels(
    slide: Slide, places: Sequence[tuple[int, int]], size_px: int, mpp: float, count: int, seed: str
) -> None:
    """Compares `count` random tiles with OpenSlide.

    The pixels of the level that is read must be equal; what comes out must be near to their area
    average. Slides that OpenSlide itself reads, or does not see these levels of, are passed over.

    Args:
        slide: the slide.
        places: left and upper edges of its tiles in level-0 pixels.
        size_px: edge of a tile.
        mpp: the resolution asked for.
        count: how many tiles to compare.
        seed: what the choice depends on.

    Raises:
        InputError: they differ.
    """
    if slide.back_end == OpenSlidePixels.name or count == 0:
        return
    try:
        oracle = OpenSlidePixels(slide.path)
    except InputError:
        return
    digest = hashlib.sha256(seed.encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8]))
    chosen = generator.choice(len(places), min(count, len(places)), replace=False)
    try:
        if slide.level_dimensions[slide.reading(mpp).level] in oracle.level_dimensions:
            for number in chosen:
                _check_tile(slide, oracle, places[int(number)], size_px, mpp)
    finally:
        oracle.close()


def _check_tile(
    slide: Slide, oracle: OpenSlidePixels, place: tuple[int, int], size_px: int, mpp: float
) -> None:
    reading, box = slide.source_box(*place, size_px, mpp)
    x_px, y_px, edge_px = (value * reading.scale for value in box)
    level = oracle.level_dimensions.index(slide.level_dimensions[reading.level])
    try:
        theirs = oracle.read_level(level, x_px, y_px, edge_px, edge_px)
        ours = slide.pixels.read_level(reading.level, x_px, y_px, edge_px, edge_px)
        tile = slide.read(*place, size_px, mpp)
    except InputError:
        # Damaged pixels are not wrong pixels: reading such a tile says so itself.
        return
    is_whole = oracle.level_downsamples[level].is_integer()
    similarity = psnr_db(ours, theirs)
    if similarity < (100.0 if is_whole else _LEAST_PSNR_BETWEEN_PIXELS_DB):
        raise _differs(slide, place, f"level {reading.level}", similarity)
    average = cv2.resize(theirs, (size_px, size_px), interpolation=cv2.INTER_AREA)
    similarity = psnr_db(tile, np.asarray(average, np.uint8))
    if similarity < _LEAST_PSNR_REDUCED_DB:
        raise _differs(slide, place, f"{mpp} mpp", similarity)


def _differs(slide: Slide, place: tuple[int, int], where: str, similarity: float) -> InputError:
    return InputError(
        f"{slide.path}: the tile at x {place[0]}, y {place[1]} of {where} is not what OpenSlide"
        f" reads ({similarity:.1f} dB). No tile of this slide is kept; please report its scanner"
        " and file format."
    )
