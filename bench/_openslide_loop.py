"""The usual script: tiles of given places through OpenSlide, reduced, as JPEGs in folders.

    python -m bench._openslide_loop JOB.json

Two processes share the slides. The places of the tiles are given to it, so that it need not look
for tissue; it makes the thumbnail that it would look at. It imports nothing that it does not use.
The job says `out`, `workers`, `tile_px`, `source_px`, `quality`, `reduce_with` and `slides`: for
each its path and the places of its tiles in level-0 pixels.
"""

import json
import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
from PIL import Image

THUMBNAIL_PX = 1024


def reduce_with_pillow(image: Image.Image, tile_px: int) -> Image.Image:
    """Averages with Pillow; by whole numbers, which is its fastest way."""
    return image if image.width == tile_px else image.reduce(image.width // tile_px)


def reduce_with_opencv(image: Image.Image, tile_px: int) -> Image.Image:
    """Averages with OpenCV."""
    if image.width == tile_px:
        return image
    size = (tile_px, tile_px)
    return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA))


REDUCTIONS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "Pillow": reduce_with_pillow,
    "OpenCV": reduce_with_opencv,
}


def tile_slide(job: dict[str, Any], slide: dict[str, Any]) -> int:
    """Writes the tiles of one slide and tells how many there are."""
    cv2.setNumThreads(1)
    path = Path(slide["path"])
    folder = Path(job["out"]) / path.stem
    folder.mkdir(parents=True)
    edge, tile_px = job["source_px"], job["tile_px"]
    reduce = REDUCTIONS[job["reduce_with"]]
    with openslide.OpenSlide(path) as handle:
        handle.get_thumbnail((THUMBNAIL_PX, THUMBNAIL_PX)).save(folder / "thumbnail.png")
        for x, y in slide["places"]:
            region = handle.read_region((x, y), 0, (edge, edge)).convert("RGB")
            reduce(region, tile_px).save(folder / f"{x}_{y}.jpg", quality=job["quality"])
    return len(slide["places"])


def main() -> None:
    """Does the job that a file describes, and prints how many tiles there are."""
    job = json.loads(Path(sys.argv[1]).read_text())
    slides = job.pop("slides")
    with multiprocessing.get_context("spawn").Pool(job["workers"]) as pool:
        print(sum(pool.imap_unordered(partial(tile_slide, job), slides)))


if __name__ == "__main__":
    main()
