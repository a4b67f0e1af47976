"""Tile stores of a few drawn tiles, made without slides, for the tests of what uses stores."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from eosin.slides.quality import Quality
from eosin.store import shards
from eosin.store import tile_store as store
from eosin.store.records import QUARANTINED, SlideRecord
from eosin.store.shards import TilePlace

TILE_PX = 32


def draw_tile(seed: int) -> np.ndarray:
    """A tile of smooth noise, a different one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return coarse.repeat(TILE_PX // 4, axis=0).repeat(TILE_PX // 4, axis=1)


def encode(tile: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(tile), 95, "RGB", "444")


def add_slide(folder: Path, slide_id: str, tiles: int, seed: int = 0) -> None:
    """A slide of tiles in a column; a tile's blur is its row, its tissue falls from 1."""
    with shards.writing_shard(folder, slide_id) as shard:
        for row in range(tiles):
            place = TilePlace(0, TILE_PX * row, 0.5, 0.5, 1 - row / 32)
            quality = Quality(float(row), 0.25, 0.0, 0.1)
            shard.add(place, quality, encode(draw_tile(1000 * seed + row)))
    shards.write_mask(folder, slide_id, np.ones((4, 4), np.bool_))
    rows = shard.rows()
    record = SlideRecord(
        slide_id=slide_id,
        path=f"{slide_id}.svs",
        patient=f"patient of {slide_id}",
        tiles=tiles,
        bytes=shards.shard_path(folder, slide_id).stat().st_size,
        rows_sha256=shards.hash_rows(rows),
    )
    shards.commit(folder, record, rows)


def quarantine(folder: Path, slide_id: str) -> None:
    record = SlideRecord(
        slide_id=slide_id, path=f"{slide_id}.svs", status=QUARANTINED, reason="damaged"
    )
    shards.commit(folder, record)


def make_store(folder: Path, slides: dict[str, int], settings: dict[str, object] | None = None):
    """A finished store of slides with so many tiles; the seeds are their places in the order."""
    store.create(folder, TILE_PX, [0.5], settings if settings is not None else {"mpp": [0.5]})
    for seed, (slide_id, tiles) in enumerate(slides.items()):
        add_slide(folder, slide_id, tiles, seed)
    store.finish(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder; of `store.json` all but the stamp, which holds the time."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    if "store.json" in found:
        header = json.loads(found["store.json"])
        del header["provenance"]
        found["store.json"] = json.dumps(header).encode()
    return found


def dies_at(step: int, run: Callable[[], object]) -> bool:
    """Runs something in a forked process that kills itself before its n-th renaming of a file.

    Returns:
        Whether it came so far; otherwise it ended well before.
    """
    child = os.fork()
    if child == 0:
        left, replace = [step], os.replace

        def counted(*paths: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)  # pyright: ignore[reportArgumentType]

        os.replace = counted
        try:
            run()
        finally:
            os._exit(0 if left[0] > 0 else 1)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or os.WEXITSTATUS(status) == 0, status
    return killed
