"""Tar shards with the tiles of all slides mixed, which WebDataset and Eosin both read.

The order is one permutation of all tiles by a seed, so every stretch of a shard is a fair draw of
the store. Tiles are copied byte by byte, in memory that does not grow with the store but for four
bytes a tile.
"""

import hashlib
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eosin import provenance
from eosin.progress import Bar
from eosin.store import shards
from eosin.store.export_format import FORMAT, FORMAT_VERSION, INDEX_ROW, key, rows_name, shard_name
from eosin.store.locations import Location
from eosin.store.samples import ADDRESS, Samples, Store, described

_BLOCK = 512
_READERS = 8
_TILES_AT_ONCE = 256
_TILES_OF_A_PLAN = 2**20
_SHARD_BYTES_KEY = b"eosin.shard_bytes"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tiles go into which shard."""

    order: npt.NDArray[np.uint32]
    """Tiles of the store in the order of the export."""
    starts: npt.NDArray[np.int64]
    """Where each shard starts in `order`; the last element is its length."""

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.starts) - 1

    def tiles_of(self, shard: int) -> npt.NDArray[np.uint32]:
        """Tiles of a shard, in order."""
        return self.order[self.starts[shard] : self.starts[shard + 1]]


def make_plan(store: Store, numbers: npt.NDArray[np.uint32], seed: int, shard_bytes: int) -> Plan:
    """Shuffles the tiles `numbers` and divides them into shards of about `shard_bytes`."""
    order = numbers.copy()
    np.random.default_rng(seed).shuffle(order)
    starts, before = [np.zeros(1, np.int64)], 0
    for first in range(0, len(order), _TILES_OF_A_PLAN):
        lengths = store.lengths[order[first : first + _TILES_OF_A_PLAN]].astype(np.int64)
        # Two headers, the JPEG, and JSON that fits a block but for slides with very long names.
        ends = before + np.cumsum(3 * _BLOCK + lengths + (-lengths % _BLOCK))
        shard_of_end = np.concatenate([[before], ends]) // shard_bytes
        starts.append(first + 1 + np.flatnonzero(np.diff(shard_of_end)))
        before = int(ends[-1])
    last = np.array([len(order)])
    return Plan(order, np.unique(np.concatenate([*starts, last])))


def write(store: Store, out: Location, plan: Plan, settings: dict[str, Any]) -> None:
    """Writes the shards that are not there yet, and then the index and `store.json`.

    Raises:
        InputError: a tile of the store is damaged; what was written before stays.
    """
    for folder in ("", "rows"):
        out.remove_leftovers(folder)
    with out.writing("index.npy") as path:
        index = np.lib.format.open_memmap(path, "w+", INDEX_ROW, (len(plan.order),))
        _write_shards(store, out, plan, index)
        index.flush()
        index_sha256 = provenance.sha256_of_file(path)
    slides = (store.folder / "slides.parquet").read_bytes()
    out.write("slides.parquet", slides)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tile_px": store.tile_px,
        "mpp": list(store.mpps),
        "tiles": len(plan.order),
        "shards": np.diff(plan.starts).tolist(),
        "fingerprint": provenance.sha256_of([FORMAT_VERSION, store.tile_px, index_sha256]),
        "index_sha256": index_sha256,
        "slides_sha256": hashlib.sha256(slides).hexdigest(),
        "export": settings,
        "provenance": provenance.stamp(),
    }
    out.write("store.json", (json.dumps(header, indent=2) + "\n").encode())


def _write_shards(store: Store, out: Location, plan: Plan, index: npt.NDArray[Any]) -> None:
    present, rows_present = out.sizes(), out.sizes("rows")
    with (
        ThreadPoolExecutor(_READERS) as readers,
        Bar("exporting", len(plan.order), "tiles") as bar,
    ):
        writer = _ShardWriter(store, out, readers)
        for shard in range(plan.shards):
            first, numbers = int(plan.starts[shard]), plan.tiles_of(shard)
            rows = None
            if rows_name(shard).rpartition("/")[2] in rows_present:
                rows = _finished_rows(out, shard, len(numbers), present.get(shard_name(shard)))
            if rows is None:
                rows = writer.write(shard, first, numbers)
            for name in INDEX_ROW.names or ():
                index[name][first : first + len(rows)] = rows[name].to_numpy()
            bar.advance(len(rows), f"{shard + 1} of {plan.shards} shards")


def _finished_rows(out: Location, shard: int, tiles: int, size: int | None) -> pa.Table | None:
    """The rows of a shard that an earlier run finished; None if it is to be written again."""
    try:
        rows = pq.read_table(pa.BufferReader(out.read_all(rows_name(shard))))
        written = int((rows.schema.metadata or {})[_SHARD_BYTES_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return rows if (len(rows), written) == (tiles, size) else None


class _ShardWriter:
    """Writes shards: first the tar, then its rows, from which on it counts as finished."""

    def __init__(self, store: Store, out: Location, readers: ThreadPoolExecutor) -> None:
        self._store, self._out, self._readers = store, out, readers
        self._samples = Samples(store)

    def write(self, shard: int, first: int, numbers: npt.NDArray[np.uint32]) -> pa.Table:
        """Writes a shard of the tiles `numbers`, whose keys count from `first`."""
        parts: list[pa.Table] = []
        with self._out.writing(shard_name(shard)) as path, open(path, "wb") as file:
            for start in range(0, len(numbers), _TILES_AT_ONCE):
                chunk = numbers[start : start + _TILES_AT_ONCE]
                parts.append(self._append(file, first + start, chunk))
            shards.end_tar(file)
            size = file.tell()
        rows = pa.concat_tables(parts)
        rows = rows.replace_schema_metadata({_SHARD_BYTES_KEY: str(size)})
        with self._out.writing(rows_name(shard)) as path:
            pq.write_table(rows, path)
        return rows

    def _append(self, file: BinaryIO, first: int, numbers: npt.NDArray[np.uint32]) -> pa.Table:
        """Appends tiles to a shard, each a JPEG and the JSON of its facts; returns their rows."""
        facts = self._samples.take(numbers)
        jpegs = self._readers.map(self._store.read_bytes, numbers.tolist())
        places = np.empty(len(numbers), INDEX_ROW)
        for row, (jpeg, fact) in enumerate(zip(jpegs, described(facts), strict=True)):
            shards.write_member(file, f"{key(first + row)}.jpg", jpeg)
            offset = file.tell() - len(jpeg) - (-len(jpeg) % _BLOCK)
            text = json.dumps(fact, ensure_ascii=False)
            shards.write_member(file, f"{key(first + row)}.json", text.encode())
            places[row] = (0, offset, len(jpeg), zlib.crc32(jpeg))
        for name in ADDRESS:
            facts = facts.append_column(name, pa.array(places[name]))
        return facts
