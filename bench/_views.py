"""What the benchmarks of views share: decoded tiles of real tissue, and both sides on one core."""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from bench._compare import Contestant, as_line, measure, show, versions_of
from bench._mosaic import MPP, Mosaic, add_options, write_mosaic
from eosin.images.views import Views
from eosin.store import tile_bytes
from eosin.store.tile_store import TileStore
from eosin.tiling.config import Config
from eosin.tiling.run import tile

TILE_PX = 512
DECODE = "decoding alone"


def options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the options of these benchmarks."""
    parser.add_argument("--tiles", type=int, default=24, help="tiles of one timed run")
    add_options(parser)
    return parser.parse_args()


def cut_tiles(folder: Path, edge_px: int, data: Path) -> TileStore:
    """Cuts a slide of real tissue into a tile store."""
    if not list((data / "consep").glob("*/Images/*.png")):
        raise SystemExit(f"{data}/consep is missing; give --data a folder that has CoNSeP.")
    slide = write_mosaic(Mosaic(edge_px=edge_px), data)
    tile(Config(slides=(slide,), out=folder / "store", mpp=(MPP,), tile_px=TILE_PX))
    return TileStore(folder / "store")


def make_views(tiles: Sequence[np.ndarray], views: Views) -> Callable[[], None]:
    """Our side: draws and makes all views of each tile, as the loader does."""
    into = [
        np.empty((len(numbers), 1, 3, size_px, size_px), np.uint8)
        for numbers in views.groups
        for size_px in {views.sizes[number] for number in numbers}
    ]
    rng = np.random.default_rng(0)

    def run() -> None:
        for image in tiles:
            views.make_into(image, rng, into, 0)

    return run


def compare_views(
    name: str,
    given: argparse.Namespace,
    views: Views,
    peers: Mapping[str, Callable[[Image.Image], object]],
) -> None:
    """Times our views against those of each peer in turn, in one thread, and prints.

    Args:
        name: of the benchmark.
        given: the parsed options.
        views: what our side makes of a tile.
        peers: by name, what makes of a tile as a PIL image the same views.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = cut_tiles(Path(folder), given.edge_px, given.data)
        numbers = np.linspace(0, len(store) - 1, given.tiles).astype(int).tolist()
        jpegs = [store.read_bytes(number) for number in numbers]
    tiles = [tile_bytes.decode(jpeg, TILE_PX) for jpeg in jpegs]
    pictures = [Image.fromarray(image) for image in tiles]

    def decode() -> None:
        for jpeg in jpegs:
            tile_bytes.decode(jpeg, TILE_PX)

    def transform(make: Callable[[Image.Image], object]) -> Callable[[], None]:
        def run() -> None:
            for picture in pictures:
                make(picture)

        return run

    sides = [Contestant("eosin", make_views(tiles, views)), Contestant(DECODE, decode)]
    sides += [Contestant(peer, transform(make)) for peer, make in peers.items()]
    times = measure(sides, rounds=given.rounds, clock=time.process_time)
    count = given.tiles * len(views.specs)
    packages = versions_of("numba", "opencv-python-headless", "pillow", "torchvision", "lightly")
    lines: list[dict[str, Any]] = []
    for peer in peers:
        line = as_line(
            name, "eosin", peer, times, count=count, unit="views/s/core", environment=packages
        )
        # With the decoding that training has before: how near it comes to decoding and no views.
        shares = [d / (d + v) for d, v in zip(times[DECODE], times["eosin"], strict=True)]
        line["share_of_decode_limit"] = float(np.median(shares))
        lines.append(line)
    show(
        lines,
        as_json=given.json,
        columns={"share of the decode limit": "share_of_decode_limit"},
    )
