"""Which tiles a store holds and where each of them is, as arrays derived from its tables."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eosin.errors import InputError
from eosin.store import derived, records, shards
from eosin.store.records import DONE

Numbers = npt.NDArray[np.int64]

IN_SHARDS = np.dtype([("offset", "<i8"), ("length", "<u4"), ("crc32", "<u4")])
"""A tile of a store that holds its pixels: where its JPEG is in the slide's shard."""
IN_SLIDES = np.dtype([("x", "<i4"), ("y", "<i4"), ("target", "u1")])
"""A tile whose pixels stay in its slide: its place, and the number of its resolution."""

_SLIDE_COLUMNS = [
    *("slide_id", "path", "patient", "group", "mpp", "file_bytes"),
    *("status", "tiles", "rows_sha256"),
]
_SLIDES_AT_ONCE = 4096


class Index:
    """The tiles of a store by number, sorted by slide and then as its rows are.

    Nothing here is an object per tile: slides are rows of an Arrow table, tiles are those of arrays
    on disk that all processes map.

    Args:
        folder: the store.
        version: of the store's format; part of the fingerprint.
        tile_px: edge of the tiles; likewise.
        mpps: the resolutions that rows may aim at.
        in_slides: whether the pixels stay in the slides.

    Raises:
        InputError: the store's tables are damaged or contradict each other.
    """

    def __init__(
        self, folder: Path, version: int, tile_px: int, mpps: tuple[float, ...], in_slides: bool
    ) -> None:
        self._folder, self._mpps, self._in_slides = folder, np.array(mpps), in_slides
        self.slides = read_done(folder)
        counts = self.slides["tiles"].to_numpy()
        # Where the tiles of each slide start; the last element is the number of all tiles.
        self.starts: Numbers = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=self.starts[1:])
        self.fingerprint = self._hash_content([version, tile_px, mpps, in_slides])
        self.path = folder / "index" / f"{self.fingerprint[:16]}.npy"
        dtype = IN_SLIDES if in_slides else IN_SHARDS
        self.rows = derived.open_array(self.path, (len(self),), dtype, self._fill)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @functools.cached_property
    def slide_ids(self) -> list[str]:
        """Names of the slides that have tiles."""
        return self.slides["slide_id"].to_pylist()

    def row(self, number: int) -> Any:
        """Where one tile is."""
        if not 0 <= number < len(self.rows):
            raise IndexError(f"tile {number} of {len(self.rows)}")
        return self.rows[number]

    def slide_numbers(self, numbers: npt.ArrayLike) -> Numbers:
        """The slide of each of these tiles."""
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the rows, for all tiles."""
        if name not in shards.ROW_SCHEMA.names:
            known = ", ".join(shards.ROW_SCHEMA.names)
            raise InputError(f"Tiles have no {name!r}; they have {known}.")

        def fill(array: npt.NDArray[Any]) -> None:
            for slide, slide_id in enumerate(self.slide_ids):
                rows = self._read_rows(slide_id, slide, [name])
                array[self.starts[slide] : self.starts[slide + 1]] = rows[name].to_numpy()

        dtype = np.dtype(shards.ROW_SCHEMA.field(name).type.to_pandas_dtype())
        path = self.path.with_name(f"{self.path.stem}-{name}.npy")
        return derived.open_array(path, (len(self),), dtype, fill)

    def address(self, rows: pa.Table) -> npt.NDArray[Any]:
        """Derives a slide's part of the index from its rows.

        Raises:
            InputError: they aim at a resolution that the store does not have.
        """
        part = np.empty(len(rows), IN_SLIDES if self._in_slides else IN_SHARDS)
        if not self._in_slides:
            for name in IN_SHARDS.names or ():
                part[name] = rows[name].to_numpy()
            return part
        part["x"], part["y"] = rows["x"].to_numpy(), rows["y"].to_numpy()
        is_target = rows["target_mpp"].to_numpy()[:, None] == self._mpps
        if not is_target.any(axis=1).all():
            raise InputError(f"{self._folder} has tiles of an mpp that its store.json lacks.")
        part["target"] = is_target.argmax(axis=1)
        return part

    def _hash_content(self, about: list[Any]) -> str:
        """Hashes what the tiles are, by a few slides at a time: names cost memory as objects."""
        columns = ["slide_id", "rows_sha256", *(["file_bytes"] if self._in_slides else [])]
        digest = hashlib.sha256(json.dumps(about).encode())
        for start in range(0, len(self.slides), _SLIDES_AT_ONCE):
            part = self.slides.select(columns).slice(start, _SLIDES_AT_ONCE)
            digest.update(json.dumps([part[name].to_pylist() for name in columns]).encode())
        return digest.hexdigest()

    def _fill(self, index: npt.NDArray[Any]) -> None:
        digests = self.slides["rows_sha256"].to_pylist()
        for slide, slide_id in enumerate(self.slide_ids):
            rows = self._read_rows(slide_id, slide, None)
            if shards.hash_rows(rows) != digests[slide]:
                raise self._changed(slide_id)
            index[self.starts[slide] : self.starts[slide + 1]] = self.address(rows)

    def _read_rows(self, slide_id: str, slide: int, columns: list[str] | None) -> pa.Table:
        path = shards.rows_path(self._folder, slide_id)
        rows = records.reading_parquet(functools.partial(pq.read_table, columns=columns), path)
        if len(rows) != self.starts[slide + 1] - self.starts[slide]:
            raise self._changed(slide_id)
        return rows

    def _changed(self, slide_id: str) -> InputError:
        path = shards.rows_path(self._folder, slide_id)
        return InputError(
            f"{path} is not what slides.parquet says; run the same `eosin tile` again."
        )


def read_done(folder: Path) -> pa.Table:
    """Reads which slides have tiles, sorted by name; only what every process needs of them.

    Raises:
        InputError: `slides.parquet` is damaged, or a name in it would leave the store's folder.
    """
    path = folder / "slides.parquet"
    read = functools.partial(pq.read_table, columns=_SLIDE_COLUMNS)
    table: pa.Table = records.reading_parquet(read, path)
    if table.schema.names != _SLIDE_COLUMNS:
        raise InputError(f"{path} lacks columns; run the same `eosin tile` again.")
    is_done = np.asarray(table["status"].to_numpy() == DONE, bool)
    table = table.filter(pa.array(is_done)).drop_columns(["status"])
    table = table.sort_by("slide_id").combine_chunks()
    for start in range(0, len(table), _SLIDES_AT_ONCE):
        for slide_id in table["slide_id"].slice(start, _SLIDES_AT_ONCE).to_pylist():
            if not slide_id or "/" in slide_id or "\0" in slide_id or slide_id in (".", ".."):
                raise InputError(f"{path} names a slide {slide_id!r}, which is not a plain name.")
    # Arrow keeps what reading and sorting took, which every worker would pay for.
    pa.default_memory_pool().release_unused()
    return table
