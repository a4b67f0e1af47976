"""Which files TRIDENT's layout has for the slides of tile stores, and what their attributes are."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from eosin.embeddings.sources import StoreTiles
from eosin.embeddings.work import Work
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of
from eosin.store.header import read_header
from eosin.store.tile_store import TileStore

# Magnifications as TRIDENT tells them from micrometres per pixel: below which mpp is which.
_MAGNIFICATIONS = ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10), (2.4, 5))


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideFile:
    """The tiles of one slide at one resolution, and the file that their embeddings go to."""

    path: Path
    key: str
    """Hash of all that determines the file."""
    images: range
    """Numbers of the tiles among all images of the run."""
    source: int
    attributes: Mapping[str, Any]
    """Those of `coords`."""


def magnification(mpp: float) -> float:
    """Names a slide's own resolution as TRIDENT does: 40 for 0.25 micrometres per pixel."""
    nominal = next((times for most, times in _MAGNIFICATIONS if mpp < most), None)
    return nominal if nominal is not None else _times(mpp)


def _times(mpp: float) -> float:
    """The magnification of a resolution that was asked for: a whole number where it is one."""
    times = 10 / mpp
    return round(times) if abs(times - round(times)) < 0.02 * times else round(times, 2)


def find_files(work: Work) -> Iterator[SlideFile]:
    """Yields a file for each slide and resolution, until `--limit` is reached.

    Raises:
        UsageError: a source is no tile store.
        InputError: two files would have the same name.
    """
    stores = [store_of(work, n) for n in range(len(work.images.sources))]
    stems = Counter(_stem(store, n) for store in stores for n in range(len(store.slide_ids)))
    first, taken = 0, set[Path]()
    most = work.config.limit
    for source, store in enumerate(stores):
        header = read_header(store.folder)
        overlap_px = int(header["config"].get("overlap_px") or 0)
        for slide in range(len(store.slide_ids)):
            if most is not None and first + store.tiles_of(slide).start >= most:
                return
            stem = _stem(store, slide)
            # The name that labels of slides go by, unless several slides have it.
            name = stem if stems[stem] == 1 else store.slide_ids[slide]
            for target, tiles in _resolutions(store, slide):
                images = range(first + tiles.start, first + tiles.stop)
                file = _file(work, store, slide, name, target, tiles, overlap_px, images, source)
                if file.path in taken:
                    raise InputError(f"{file.path} would be that of two slides or resolutions.")
                taken.add(file.path)
                yield file
        first += len(store)


def store_of(work: Work, number: int) -> TileStore:
    """Gives a source of the run as the tile store that it is.

    Raises:
        UsageError: it is none.
    """
    name, source = work.images.names[number], work.images.sources[number]
    if not isinstance(source, StoreTiles) or not isinstance(source.store, TileStore):
        raise UsageError(
            f"--layout trident is for tile stores, which know the places of tiles on slides; {name}"
            f" is a {source.kind}. Use --layout matrix."
        )
    return source.store


def _stem(store: TileStore, slide: int) -> str:
    return PurePosixPath(str(store.slide_table["path"][slide])).stem


def _resolutions(store: TileStore, slide: int) -> Iterator[tuple[float, range]]:
    """Yields the resolutions of a slide with their tiles, which lie one after the other."""
    tiles = store.tiles_of(slide)
    targets = store.column("target_mpp")[tiles.start : tiles.stop]
    edges = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), len(targets)]
    for start, stop in pairwise(edges):
        if start < stop:
            yield float(targets[start]), range(tiles.start + start, tiles.start + stop)


def _file(
    work: Work,
    store: TileStore,
    slide: int,
    name: str,
    target_mpp: float,
    tiles: range,
    overlap_px: int,
    images: range,
    source: int,
) -> SlideFile:
    record = store.record_of(slide)
    mpp = float(store.column("mpp")[tiles.start])
    level0_mpp = record.mpp or mpp
    encoder = re.sub(r"[^\w.+-]", "-", work.encoder.name)
    folder = f"{_times(target_mpp):g}x_{store.tile_px}px_{overlap_px}px_overlap"
    path = work.config.out / folder / f"features_{encoder}" / f"{name}.h5"
    return SlideFile(
        path=path,
        key=sha256_of([work.what, record.rows_sha256, target_mpp, store.tile_px]),
        images=images,
        source=source,
        attributes={
            "patch_size": store.tile_px,
            "patch_size_level0": round(store.tile_px * mpp / level0_mpp),
            "level0_magnification": magnification(level0_mpp),
            "target_magnification": _times(target_mpp),
            "overlap": overlap_px,
            "name": name,
            "savetodir": str(work.config.out / folder),
            "level0_width": record.width_px or 0,
            "level0_height": record.height_px or 0,
            "mpp": mpp,
            "level0_mpp": level0_mpp,
            "slide_id": record.slide_id,
        },
    )
