"""A store as `eosin store export --format webdataset` writes it, opened by path or by URL."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eosin import atomic, provenance
from eosin.errors import InputError
from eosin.store import checks, derived, index, tile_bytes
from eosin.store.checks import Member
from eosin.store.conditions import NAMES
from eosin.store.export_format import (
    INDEX_ROW,
    is_exported,
    key,
    read_header,
    rows_name,
    shard_name,
)
from eosin.store.locations import Location, cache_folder, is_url
from eosin.store.shards import ROW_SCHEMA
from eosin.store.tile_store import TileStore

_READERS = 8


class ExportedStore:
    """The tiles of an exported store, by number, in the mixed order of the shards.

    Read only. Of a store behind a URL the index is fetched once, into `~/.cache/eosin` or below
    `XDG_CACHE_HOME`; a tile is then one request for its bytes, and checked against its checksum.
    Safe to use from threads, from forked processes, and to send to spawned ones.

    Args:
        location: a path, or a URL that fsspec reads, such as `s3://bucket/tiles`.

    Raises:
        InputError: it is no exported store, is unfinished, or its tables are damaged.
        UsageError: no installed package reads such URLs.
    """

    in_slides: Literal[False] = False

    def __init__(self, location: str | Path) -> None:
        self.location = Location(location)
        header = read_header(self.location)
        self.tile_px: int = header["tile_px"]
        self.mpps: tuple[float, ...] = tuple(header["mpp"])
        self.fingerprint: str = header["fingerprint"]
        # Where the tiles of each shard start; the last element is the number of all tiles.
        self._starts = np.cumsum([0, *header["shards"]], dtype=np.int64)
        self._cache = cache_folder(self.location, self.fingerprint)
        self.folder = self._fetch("slides.parquet", header["slides_sha256"]).parent
        self.slide_table = index.read_done(self.folder)
        self._index = self._open_index(header["index_sha256"])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type["ExportedStore"], tuple[str]]:
        return ExportedStore, (self.location.name,)

    def __str__(self) -> str:
        return self.location.name

    @functools.cached_property
    def slide_ids(self) -> list[str]:
        """Names of the slides, by the slide's number."""
        return self.slide_table["slide_id"].to_pylist()

    def slide_of(self, number: int) -> str:
        """Names the slide of a tile."""
        return self.slide_ids[self._row(number)["slide"]]

    def shard_of(self, number: int) -> int:
        """Numbers the shard of a tile."""
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def slide_numbers(self, numbers: npt.ArrayLike) -> index.Numbers:
        """Gives the slides of many tiles at once, as places in `slide_ids`."""
        return self._index["slide"][np.asarray(numbers)].astype(np.int64)

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        """Bytes of each tile, mapped into memory."""
        return self._index["length"]

    def column(self, name: str) -> npt.NDArray[Any]:
        """Gives a column of the rows for all tiles in order; see `TileStore.column`.

        The first call reads the rows of all shards, and keeps the column in the cache.

        Raises:
            InputError: there is no such column, or rows are damaged.
        """
        if name not in NAMES:
            raise InputError(f"Tiles have no {name!r}; they have {', '.join(NAMES)}.")

        def fill(array: npt.NDArray[Any]) -> None:
            def read(shard: int) -> None:
                rows = self.read_rows(shard, [name])
                array[self._starts[shard] : self._starts[shard + 1]] = rows[name].to_numpy()

            with ThreadPoolExecutor(_READERS) as threads:
                list(threads.map(read, range(self.shards)))

        dtype = np.dtype(ROW_SCHEMA.field(name).type.to_pandas_dtype())
        return derived.open_array(self._cache / f"{name}.npy", (len(self),), dtype, fill)

    def read(self, number: int) -> npt.NDArray[np.uint8]:
        """Decodes a tile as uint8 RGB [tile_px, tile_px, 3].

        Raises:
            InputError: the tile is damaged or out of reach; the message names shard and tile.
        """
        return self._decode_at(self.location, number)

    def read_bytes(self, number: int) -> bytes:
        """Reads a tile as the JPEG that the shard holds, checked against its checksum.

        Raises:
            InputError: the tile is damaged or out of reach; the message names shard and tile.
        """
        return self._read_at(self.location, number)

    def read_rows(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Reads the rows of a shard.

        Raises:
            InputError: they are missing or damaged.
        """
        name = rows_name(shard)
        try:
            rows = pq.read_table(pa.BufferReader(self.location.read_all(name)), columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{name} of {self} cannot be read ({error}); export the store again."
            ) from error
        if len(rows) != self._starts[shard + 1] - self._starts[shard]:
            raise InputError(f"{name} of {self} is not of this export; export the store again.")
        return rows

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self._starts) - 1

    def verify(self, advance: Callable[[], object] = lambda: None) -> list[str]:
        """Checks every shard, place and checksum, decodes every tile, and lists what is wrong.

        Args:
            advance: called when a shard is done.
        """
        problems: list[str] = []
        with ThreadPoolExecutor(provenance.available_cores()) as threads:
            for found in threads.map(self._check_shard, range(self.shards)):
                problems += found
                advance()
        return problems

    def _check_shard(self, shard: int) -> list[str]:
        numbers = range(*self._starts[shard : shard + 2].tolist())
        part = self._index[numbers.start : numbers.stop]
        name = shard_name(shard)
        try:
            rows = self.read_rows(shard)
            with self.location.copy_of(name) as path:
                here = Location(path.parent)
                beside = {f"{key(number)}.json" for number in numbers}
                found = checks.check_tar(path, _members(numbers, part), beside)
                problems = checks.shortened(found, name)
                problems += checks.shortened(
                    checks.check_tiles(lambda number: self._decode_at(here, number), numbers), name
                )
        except (InputError, OSError) as error:
            return [str(error)]
        if any((rows[name].to_numpy() != part[name]).any() for name in INDEX_ROW.names or ()):
            problems.append(f"index.npy is not what {rows_name(shard)} of {self} says.")
        return problems

    def _read_at(self, location: Location, number: int) -> bytes:
        row = self._row(number)
        length = int(row["length"])
        try:
            name = shard_name(self.shard_of(number))
            jpeg = location.read(name, int(row["offset"]), length)
            tile_bytes.check(jpeg, length, int(row["crc32"]))
        except (OSError, ValueError) as error:
            raise self._damaged(number, str(error)) from error
        return jpeg

    def _decode_at(self, location: Location, number: int) -> npt.NDArray[np.uint8]:
        jpeg = self._read_at(location, number)
        try:
            return tile_bytes.decode(jpeg, self.tile_px)
        except ValueError as error:
            raise self._damaged(number, str(error)) from error

    def _row(self, number: int) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(f"tile {number} of {len(self)}")
        return self._index[number]

    def _damaged(self, number: int, reason: str) -> InputError:
        offset = self._row(number)["offset"]
        return InputError(
            f"Tile {number} of {self}, in {shard_name(self.shard_of(number))} at byte {offset},"
            f" cannot be read: {reason}. If it stays so, delete this shard and export again."
        )

    def _open_index(self, sha256: str) -> npt.NDArray[Any]:
        path = self._fetch("index.npy", sha256)
        rows = derived.map_array(path, (len(self),), INDEX_ROW)
        if rows is None:
            raise InputError(f"{path} is damaged; delete it, and export again if it is no copy.")
        return rows

    def _fetch(self, name: str, sha256: str) -> Path:
        """Gives a file of the store on this machine; what is behind a URL is fetched once.

        Raises:
            InputError: it cannot be fetched, or is another one than `store.json` says.
        """
        if self.location.local is not None:
            return self.location.local / name
        path = self._cache / name
        if path.is_file():
            return path
        try:
            with atomic.replacing(path) as temporary:
                self.location.download(name, temporary)
                if provenance.sha256_of_file(temporary) != sha256:
                    raise InputError(f"{name} of {self} is damaged; export the store again.")
        except OSError as error:
            raise InputError(f"{name} of {self} cannot be fetched: {error}.") from error
        return path


def open_store(location: str | Path) -> TileStore | ExportedStore:
    """Opens a tile store, or an exported one by path or URL.

    Raises:
        InputError: it is neither; the message says what to do.
    """
    if is_url(location):
        return ExportedStore(location)
    return ExportedStore(location) if is_exported(Location(location)) else TileStore(Path(location))


def _members(numbers: range, part: npt.NDArray[Any]) -> list[Member]:
    """The tiles that a shard should hold; the JSON of each follows from its rows."""
    places = zip(numbers, part["offset"].tolist(), part["length"].tolist(), strict=True)
    return [Member(f"{key(number)}.jpg", offset, length) for number, offset, length in places]
