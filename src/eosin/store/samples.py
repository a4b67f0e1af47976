"""What an export says of each tile: its slide, its place and its scores."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eosin.store.conditions import NAMES
from eosin.store.exported import ExportedStore
from eosin.store.tile_store import TileStore

Store = TileStore | ExportedStore
"""What tiles may be taken from."""

ADDRESS = ("offset", "length", "crc32")
"""Columns of a tile's place in its shard."""

_OF_SLIDE = ("slide_id", "patient", "group")


class Samples:
    """The facts of a store's tiles, taken in any order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._columns = {name: store.column(name) for name in NAMES}
        self._slides = store.slide_table.select(_OF_SLIDE)

    def take(self, numbers: npt.NDArray[Any]) -> pa.Table:
        """Gives the facts of these tiles: a row each, with the number of its slide as `slide`."""
        slide = self._store.slide_numbers(numbers)
        of_slide = self._slides.take(pa.array(slide))
        columns = {name: column[numbers] for name, column in self._columns.items()}
        named = {name: of_slide[name].combine_chunks() for name in _OF_SLIDE}
        return pa.table({"slide": slide.astype(np.uint32), **named, **columns})


def described(facts: pa.Table) -> list[dict[str, Any]]:
    """Turns facts into what JSON and CSV show: no slide numbers, no digits that mean nothing."""
    return [
        {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in facts.drop_columns(["slide"]).to_pylist()
    ]
