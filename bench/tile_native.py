"""Tiles read as a slide holds them, against OpenSlide and against the bare JPEG decoder.

    python -m bench.tile_native --json

A slide of 24,576 x 24,576 px (see `bench._mosaic`), once in tiles of 256 and once of 240 px; tiles
of tissue of 512 and 256 px at level 0, row by row and at random. OpenSlide is used as TRIDENT and
CLAM do: one handle, `read_region`, PIL to RGB, NumPy. The limit is libjpeg-turbo decoding the same
JPEGs from memory, with no file, no cutting and no joining: each JPEG once where tiles are read row
by row, else once for each tile that it is part of; through simplejpeg or imagecodecs, whichever is
faster. Figures are tiles per CPU second, which is per core. Before anything is timed, all tiles are
compared: equal pixels, or the benchmark fails. The last row reads from a cold page cache, by the
clock on the wall.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import openslide
import simplejpeg

from bench._compare import Contestant, arguments, as_line, measure, ratios, show, versions_of
from bench._mosaic import MPP, Mosaic, add_options, choose_tiles, tissue_tiles, write_mosaic
from eosin.slides.jpeg_layout import JpegLayout
from eosin.slides.reader import open_slide

RGB = npt.NDArray[np.uint8]
Places = list[tuple[int, int]]

OURS = "eosin"
LIMITS = ("simplejpeg", "imagecodecs")


@dataclass(frozen=True, slots=True)
class Variant:
    """What is read."""

    slide_tile_px: int
    tile_px: int
    in_order: bool

    def __str__(self) -> str:
        order = "row by row" if self.in_order else "at random"
        return f"{self.tile_px} px {order}, slide in {self.slide_tile_px}"


VARIANTS = tuple(
    Variant(slide_tile_px, tile_px, in_order)
    for slide_tile_px in (256, 240)
    for tile_px in (512, 256)
    for in_order in (True, False)
)


class Ours:
    """Reads tiles as Eosin does; `reopen` forgets what it has kept of earlier tiles."""

    def __init__(self, path: Path, variant: Variant, places: Places) -> None:
        self._path, self._variant, self._places = path, variant, places
        self.reopen()

    def reopen(self) -> None:
        """Opens the slide anew."""
        self._slide = open_slide(self._path, in_order=self._variant.in_order)

    def read(self, place: tuple[int, int]) -> RGB:
        """Reads one tile."""
        return self._slide.read(*place, self._variant.tile_px, MPP)

    def run(self) -> None:
        """Reads all tiles."""
        for place in self._places:
            self.read(place)


class Peer:
    """Reads tiles through OpenSlide as TRIDENT and CLAM do."""

    def __init__(self, path: Path, variant: Variant, places: Places) -> None:
        self._path, self._places = path, places
        self._size = (variant.tile_px, variant.tile_px)
        self.reopen()

    def reopen(self) -> None:
        """Opens the slide anew."""
        self._slide = openslide.OpenSlide(self._path)

    def read(self, place: tuple[int, int]) -> RGB:
        """Reads one tile."""
        return np.asarray(self._slide.read_region(place, 0, self._size).convert("RGB"))

    def run(self) -> None:
        """Reads all tiles."""
        for place in self._places:
            self.read(place)


def read_jpegs(path: Path, variant: Variant, places: Places) -> list[bytes]:
    """Reads the JPEGs that tiles consist of, each with the tables that a decoder needs."""
    with open_slide(path) as slide:
        layout = slide.layout
    if layout is None:
        raise SystemExit(f"{path} is not read by its JPEG tiles.")
    cells = [cell for place in places for cell in _cells(layout, place, variant.tile_px)]
    if variant.in_order:
        cells = list(dict.fromkeys(cells))
    level = layout.levels[0]
    with open(path, "rb") as file:
        jpegs: list[bytes] = []
        for row, column in cells:
            file.seek(int(level.offsets[row, column]))
            stream = file.read(int(level.lengths[row, column]))
            jpegs.append(b"\xff\xd8" + level.head + stream[2:])
    return jpegs


def _cells(layout: JpegLayout, place: tuple[int, int], tile_px: int) -> list[tuple[int, int]]:
    level = layout.levels[0]
    columns = range(
        place[0] // level.tile_width_px, -(-(place[0] + tile_px) // level.tile_width_px)
    )
    rows = range(place[1] // level.tile_height_px, -(-(place[1] + tile_px) // level.tile_height_px))
    return [(row, column) for row in rows for column in columns]


def limits(jpegs: list[bytes], slide_tile_px: int) -> list[Contestant]:
    """The decoder alone: into one buffer, so that not even memory is asked for."""
    buffer = np.empty((slide_tile_px, slide_tile_px, 3), np.uint8)

    def run_simplejpeg() -> None:
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, buffer=buffer)

    def run_imagecodecs() -> None:
        for jpeg in jpegs:
            imagecodecs.jpeg8_decode(jpeg, out=buffer)

    runs = (run_simplejpeg, run_imagecodecs)
    return [Contestant(name, run) for name, run in zip(LIMITS, runs, strict=True)]


def check_equal(ours: Ours, peer: Peer, places: Places, variant: Variant) -> None:
    """Fails where any pixel of any tile differs."""
    for place in places:
        if not np.array_equal(ours.read(place), peer.read(place)):
            raise SystemExit(f"{variant}: the tile at {place} is not what OpenSlide reads.")


def run_variant(path: Path, variant: Variant, count: int, rounds: int) -> dict[str, Any]:
    """Measures all sides on one kind of tile."""
    places = choose_tiles(
        tissue_tiles(path, variant.tile_px, MPP), count, at_random=not variant.in_order
    )
    ours, peer = Ours(path, variant, places), Peer(path, variant, places)
    check_equal(ours, peer, places, variant)
    jpegs = read_jpegs(path, variant, places)
    sides = [
        Contestant(OURS, ours.run, ours.reopen),
        Contestant(_peer_name(), peer.run, peer.reopen),
        *limits(jpegs, variant.slide_tile_px),
    ]
    times = measure(sides, rounds=rounds, clock=time.process_time)
    line = _line(str(variant), times, len(places), "tiles/CPU-s")
    faster = min(LIMITS, key=lambda name: statistics.median(times[name]))
    of_limit = ratios(times[OURS], times[faster])
    return line | {
        "limit": len(places) / statistics.median(times[faster]),
        "limit_ratio": statistics.median(of_limit),
        "limit_ratio_spread": [min(of_limit), max(of_limit)],
        "limit_name": f"libjpeg-turbo through {faster}",
        "tiles": len(places),
        "jpegs": len(jpegs),
    }


def run_cold(path: Path, variant: Variant, count: int, rounds: int) -> dict[str, Any]:
    """Measures the wall time where the slide must come from the disk."""
    places = choose_tiles(
        tissue_tiles(path, variant.tile_px, MPP), count, at_random=not variant.in_order
    )
    ours, peer = Ours(path, variant, places), Peer(path, variant, places)

    def after_forgetting(reopen: Callable[[], None]) -> Callable[[], None]:
        def prepare() -> None:
            reopen()
            _forget_pages(path)

        return prepare

    sides = [
        Contestant(OURS, ours.run, after_forgetting(ours.reopen)),
        Contestant(_peer_name(), peer.run, after_forgetting(peer.reopen)),
    ]
    times = measure(sides, rounds=rounds)
    return _line(f"{variant}, cold", times, len(places), "tiles/s") | {"tiles": len(places)}


def _forget_pages(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Pages that are not on the disk yet would stay.
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _line(name: str, times: dict[str, list[float]], count: int, unit: str) -> dict[str, Any]:
    environment = {"libraries": versions_of("openslide-bin", "simplejpeg", "imagecodecs")}
    return as_line(
        f"tile_native: {name}",
        OURS,
        _peer_name(),
        times,
        count=count,
        unit=unit,
        environment=environment,
    )


def _peer_name() -> str:
    return f"openslide {openslide.__version__} + PIL"


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    add_options(parser)
    parser.add_argument("--tiles", type=int, default=256, help="tiles of 512 px that are read")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    slides = {
        tile_px: write_mosaic(Mosaic(tile_px=tile_px, edge_px=options.edge_px), options.data)
        for tile_px in (256, 240)
    }
    lines: list[dict[str, Any]] = []
    for variant in VARIANTS:
        count = options.tiles * (512 // variant.tile_px)
        line = run_variant(slides[variant.slide_tile_px], variant, count, options.rounds)
        print(f"{variant}: {line['tiles']} tiles have the pixels that OpenSlide reads")
        lines.append(line)
    if hasattr(os, "posix_fadvise"):
        cold = Variant(256, 512, in_order=False)
        lines.append(run_cold(slides[256], cold, options.tiles, options.rounds))
    lines[0]["name"] = "tile_native"
    show(lines, as_json=options.json, columns={"limit / ours": "limit_ratio"})


if __name__ == "__main__":
    main()
