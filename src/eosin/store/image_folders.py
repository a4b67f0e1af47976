"""One folder of JPEG files per slide, for whatever reads nothing else."""

import csv
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from eosin.progress import Bar
from eosin.store.conditions import NAMES
from eosin.store.locations import Location
from eosin.store.samples import Samples, Store, described
from eosin.store.shards import TilePlace, tile_name

TABLE = "tiles.csv"
"""The table of all files with what is known of each; written last."""

_WRITERS = 8
_TILES_AT_ONCE = 4096
_COLUMNS = ("path", "slide_id", "patient", "group", *NAMES)


def write(store: Store, out: Location, numbers: npt.NDArray[np.uint32]) -> None:
    """Copies tiles as they are to `<slide_id>/<place>.jpg`, and lists them in `tiles.csv`.

    Files that an earlier run copied are skipped.

    Raises:
        InputError: a tile of the store is damaged; what was written before stays.
    """
    samples = Samples(store)
    out.remove_leftovers()
    with (
        out.writing(TABLE) as path,
        open(path, "w", newline="", encoding="utf-8") as file,
        ThreadPoolExecutor(_WRITERS) as writers,
        Bar("exporting", len(numbers), "tiles") as bar,
    ):
        table = csv.DictWriter(file, _COLUMNS)
        table.writeheader()
        for slide_id, part in _by_slide(store, numbers):
            out.remove_leftovers(slide_id)
            present = out.sizes(slide_id)
            for start in range(0, len(part), _TILES_AT_ONCE):
                chunk = part[start : start + _TILES_AT_ONCE]
                facts = described(samples.take(chunk))
                named = [{"path": f"{slide_id}/{_file_name(fact)}", **fact} for fact in facts]
                table.writerows(named)
                copy = functools.partial(_copy, store, out, present)
                names = [fact["path"] for fact in named]
                list(writers.map(copy, chunk.tolist(), names))
                bar.advance(len(chunk))


def _copy(store: Store, out: Location, present: dict[str, int], number: int, name: str) -> None:
    if present.get(name.rpartition("/")[2]) != int(store.lengths[number]):
        out.write(name, store.read_bytes(number), durable=False)


def _by_slide(
    store: Store, numbers: npt.NDArray[np.uint32]
) -> Iterator[tuple[str, npt.NDArray[np.uint32]]]:
    slides = store.slide_numbers(numbers)
    order = np.argsort(slides, kind="stable")
    present, starts = np.unique(slides[order], return_index=True)
    for slide, part in zip(present.tolist(), np.split(numbers[order], starts[1:]), strict=True):
        yield store.slide_ids[slide], part


def _file_name(fact: dict[str, Any]) -> str:
    place = TilePlace(fact["x"], fact["y"], fact["target_mpp"], fact["mpp"], fact["tissue"])
    return f"{tile_name(place)}.jpg"
