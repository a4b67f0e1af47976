"""Large slides for the benchmarks, laid out as Aperio's scanners do, kept between the runs.

A disc of tissue on glass: fields of 1000 px, each turned at random, cut from real images of CoNSeP
where they are at hand and from synthetic slides where not. 40x, JPEG of quality 80 in tiles with
shared tables, levels 1, 4 and 16 (none of 2, as usual with Aperio).
"""

import argparse
import functools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile

from eosin import atomic
from eosin.slides.reader import open_slide
from eosin.synthetic import SlideSpec, render_slide
from eosin.tiling.config import Config
from eosin.tiling.slide_tiles import lay_out

RGB = npt.NDArray[np.uint8]

MPP = 0.25
_FIELD_PX = 1000
_QUALITY = 80
_SYNTHETIC_FIELDS = 12
_TABLES, _FRAME_OF_JFIF, _SCAN = (0xDB, 0xC4), 0xE0, 0xDA
_JPEG_TABLES_TAG = 347
# Slides of an older layout must not be taken for what is written now.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Which slide to write."""

    tile_px: int = 256
    edge_px: int = 24_576
    seed: int = 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose the slides."""
    beside_checkout = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("EOSIN_TEST_DATA", beside_checkout)),
        help="folder with consep/ in it; synthetic tissue is taken if it has none",
    )
    parser.add_argument("--edge-px", type=int, default=24_576, help="edge of the slides")


def write_mosaic(mosaic: Mosaic, data: Path) -> Path:
    """Writes a slide unless an earlier run has, and says where it is."""
    images = sorted((data / "consep").glob("*/Images/*.png"))
    name = (
        f"mosaic{_VERSION}_{'consep' if images else 'synthetic'}_{mosaic.edge_px}px"
        f"_tiles{mosaic.tile_px}_seed{mosaic.seed}.svs"
    )
    path = Path(tempfile.gettempdir()) / "eosin-bench" / name
    if path.is_file():
        return path
    fields = [_read_field(image) for image in images] or _draw_fields()
    with atomic.replacing(path) as temporary:
        _write(temporary, mosaic, fields)
    return path


def tissue_tiles(path: Path, tile_px: int, mpp: float) -> list[tuple[int, int]]:
    """Where `eosin tile` finds tissue: left and upper edges in level-0 pixels, row by row."""
    config = Config(slides=(path,), out=path.parent, tile_px=tile_px, mpp=(mpp,))
    with open_slide(path) as slide:
        grid = lay_out(slide, config, path.stem).parts[0].grid
    return list(zip(grid.x_px.tolist(), grid.y_px.tolist(), strict=True))


def choose_tiles(
    tiles: list[tuple[int, int]], count: int, *, at_random: bool
) -> list[tuple[int, int]]:
    """Chooses whole rows from the middle of the slide, or tiles from all over it."""
    count = min(count, len(tiles))
    if at_random:
        chosen = np.random.default_rng(0).choice(len(tiles), count, replace=False)
        return [tiles[number] for number in chosen]
    first = (len(tiles) - count) // 2
    return tiles[first : first + count]


def _read_field(path: Path) -> RGB:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None or image.shape != (_FIELD_PX, _FIELD_PX, 3):
        raise SystemExit(f"{path} is no image of {_FIELD_PX} x {_FIELD_PX} px.")
    return np.asarray(image, np.uint8)


@functools.cache
def _draw_fields() -> list[RGB]:
    """Centres of synthetic slides, whose edges are glass."""
    edge = 2 * _FIELD_PX
    inner = slice(edge // 4, edge // 4 + _FIELD_PX)
    specs = (
        SlideSpec(seed=seed, width_px=edge, height_px=edge, mpp=MPP)
        for seed in range(_SYNTHETIC_FIELDS)
    )
    return [render_slide(spec).rgb[inner, inner] for spec in specs]


def _write(path: Path, mosaic: Mosaic, fields: list[RGB]) -> None:
    edge, tile_px = mosaic.edge_px, mosaic.tile_px
    rows = _arrange(mosaic, fields)
    quarter = np.concatenate([np.concatenate([_quartered(f) for f in row], 1) for row in rows])
    quarter = np.ascontiguousarray(quarter[: edge // 4, : edge // 4])
    blank = np.zeros((tile_px, tile_px, 3), np.uint8)
    tables = _split(_encode(blank))[0]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, tiles in enumerate(
            (
                _tiles(_bands(rows, edge, tile_px), tile_px),
                _tiles(_bands_of(quarter, tile_px), tile_px),
                _tiles(_bands_of(_quartered(quarter), tile_px), tile_px),
            )
        ):
            size = edge // 4**number
            tags: dict[str, Any] = {
                "photometric": "ycbcr",
                "subsampling": (2, 2),
                "compression": "jpeg",
                "tile": (tile_px, tile_px),
                "description": _describe(mosaic, size),
                "metadata": None,
                "extratags": [(_JPEG_TABLES_TAG, 7, len(tables), tables, True)],
            }
            tiff.write(tiles, shape=(size, size, 3), dtype=np.uint8, **tags)


def _arrange(mosaic: Mosaic, fields: list[RGB]) -> list[list[RGB]]:
    """Says which field lies where: tissue within a circle that takes half of the slide."""
    rng = np.random.default_rng(mosaic.seed)
    glass = np.clip(rng.normal(242, 1.5, (_FIELD_PX, _FIELD_PX, 3)), 0, 255).astype(np.uint8)
    count = -(-mosaic.edge_px // _FIELD_PX)
    centre = (count - 1) / 2
    rows: list[list[RGB]] = []
    for y in range(count):
        row: list[RGB] = []
        for x in range(count):
            field = np.rot90(fields[rng.integers(len(fields))], int(rng.integers(4)))
            field = field[:, ::-1] if rng.integers(2) else field
            is_tissue = np.hypot(x - centre, y - centre) < 0.39 * count
            row.append(np.ascontiguousarray(field) if is_tissue else glass)
        rows.append(row)
    return rows


def _bands(rows: list[list[RGB]], edge: int, tile_px: int) -> Iterator[RGB]:
    """Cuts level 0 into rows of tiles; the whole of it would not fit into every memory."""
    for top in range(0, edge, tile_px):
        bottom = min(top + tile_px, edge)
        parts: list[RGB] = []
        for number in range(top // _FIELD_PX, -(-bottom // _FIELD_PX)):
            start = number * _FIELD_PX
            inside = slice(max(top - start, 0), min(bottom - start, _FIELD_PX))
            parts.append(np.concatenate([field[inside] for field in rows[number]], 1))
        yield np.concatenate(parts)[:, :edge]


def _bands_of(image: RGB, tile_px: int) -> Iterator[RGB]:
    for top in range(0, len(image), tile_px):
        yield image[top : top + tile_px]


def _tiles(bands: Iterator[RGB], tile_px: int) -> Iterator[bytes]:
    """Encodes tiles without the tables that they share; what lies over the edge is repeated."""
    for band in bands:
        for left in range(0, band.shape[1], tile_px):
            tile = band[:, left : left + tile_px]
            height, width = tile.shape[:2]
            if (height, width) != (tile_px, tile_px):
                around = ((0, tile_px - height), (0, tile_px - width), (0, 0))
                tile = np.pad(tile, around, mode="edge")
            yield _split(_encode(tile))[1]


def _quartered(image: RGB) -> RGB:
    size = (image.shape[1] // 4, image.shape[0] // 4)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _encode(tile: RGB) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(tile), _QUALITY, "RGB", "420")


def _split(jpeg: bytes) -> tuple[bytes, bytes]:
    """Divides a JPEG into a stream of its tables and one of the rest."""
    tables, rest, at = b"", b"", 2
    while True:
        kind = jpeg[at + 1]
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if kind in _TABLES:
            tables += jpeg[at:end]
        elif kind != _FRAME_OF_JFIF:
            rest += jpeg[at:end]
        at = end
        if kind == _SCAN:
            return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + jpeg[at:]


def _describe(mosaic: Mosaic, size: int) -> str:
    edge, tile_px = mosaic.edge_px, mosaic.tile_px
    head = "Aperio Image Library v12.0.15\r\n"
    if size == edge:
        box = f"{edge}x{edge} [0,0 {edge}x{edge}] ({tile_px}x{tile_px})"
        return f"{head}{box} JPEG/RGB Q={_QUALITY}|AppMag = 40|MPP = {MPP:.4f}"
    box = f"{edge}x{edge} [0,0 {edge}x{edge}] ({tile_px}x{tile_px}) -> {size}x{size}"
    return f"{head}{box} JPEG/RGB Q={_QUALITY}"
