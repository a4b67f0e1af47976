"""The tile store: a folder of tars of JPEG tiles, opened as one long array of images.

store.json                 format, tile size, resolution, settings, provenance
slides.parquet             a row a slide, quarantined ones with the reason
shards/<slide_id>.tar      the tiles, a plain tar of JPEGs
tiles/<slide_id>.parquet   a row a tile: place, scores, offset and checksum in the tar
masks/<slide_id>.png       the tissue
index/<fingerprint>.npy    derived from the rows, mapped into memory, shared by all workers
"""

import functools
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from eosin import atomic, provenance
from eosin.errors import InputError
from eosin.slides import shards
from eosin.slides.shards import DONE, SlideRecord

FORMAT_VERSION = 1

_FORMAT = "eosin tile store"
_OPEN_SHARDS = 64
_INDEX_ROW = np.dtype([("slide", "<u4"), ("offset", "<i8"), ("length", "<u4"), ("crc32", "<u4")])


def create(folder: Path, tile_px: int, mpp: float, settings: Mapping[str, Any]) -> None:
    """Writes `store.json`, with which a folder becomes a tile store.

    Args:
        folder: the store.
        tile_px: edge of every tile.
        mpp: resolution aimed at; the rows hold what was reached.
        settings: everything that decides what the tiles are, for the comparison on resume.
    """
    atomic.write_json(
        folder / "store.json",
        {
            "format": _FORMAT,
            "format_version": FORMAT_VERSION,
            "tile_px": tile_px,
            "mpp": mpp,
            "pixels": "shards",
            "config": provenance.plain(settings),
            "config_hash": provenance.sha256_of(settings),
            "provenance": provenance.stamp(),
        },
    )


def read_header(folder: Path) -> dict[str, Any]:
    """Reads `store.json`.

    Raises:
        InputError: the folder is no tile store, or one of another format version.
    """
    try:
        header = json.loads((folder / "store.json").read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is not a tile store: it has no store.json; make one with `eosin tile`."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'store.json'} cannot be read: {error}") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InputError(f"{folder / 'store.json'} is not that of a tile store.")
    if header.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder} is a tile store of format {header.get('format_version')}; this Eosin reads"
            f" format {FORMAT_VERSION}. Tile the slides again, or use the Eosin that made it."
        )
    missing = {"tile_px", "mpp", "config"} - set(header)
    if missing:
        raise InputError(f"{folder / 'store.json'} lacks {', '.join(sorted(missing))}.")
    return header


def finish(folder: Path) -> None:
    """Derives `slides.parquet` and the index from the records and rows of the finished slides."""
    shards.write_slides(folder, shards.read_records(folder))
    store = TileStore(folder)
    for path in (folder / "index").glob("*.npy"):
        if path != store.index_path:
            path.unlink()


class TileStore:
    """The tiles of a finished store, by number.

    Tiles are sorted by slide, then by row and column on the slide. Safe to use from threads, from
    forked processes, and to send to spawned ones; the index is shared between all of them.

    Args:
        folder: a folder that `eosin tile` wrote.

    Raises:
        InputError: it is no tile store, is unfinished, or its tables are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        header = read_header(self.folder)
        self.tile_px: int = header["tile_px"]
        self.mpp: float = header["mpp"]
        if not (self.folder / "slides.parquet").is_file():
            raise InputError(f"{folder} is unfinished; run the same `eosin tile` again.")
        self.slides = sorted(shards.read_slides(self.folder), key=lambda slide: slide.slide_id)
        self._done = [slide for slide in self.slides if slide.status == DONE]
        self.slide_ids = [_confined(slide.slide_id) for slide in self._done]
        content = [(slide.slide_id, slide.rows_sha256) for slide in self._done]
        self.fingerprint = provenance.sha256_of([FORMAT_VERSION, self.tile_px, content])
        self._index = self._open_index()
        self._open_shard = functools.lru_cache(maxsize=_OPEN_SHARDS)(_OpenShard)

    @staticmethod
    def is_store(folder: Path) -> bool:
        """Tells whether a folder is a tile store of any version, finished or not."""
        try:
            return json.loads((folder / "store.json").read_text())["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @property
    def index_path(self) -> Path:
        """The index; its name holds what it was derived from, so a stale one is never opened."""
        return self.folder / "index" / f"{self.fingerprint[:16]}.npy"

    def __len__(self) -> int:
        return len(self._index)

    def __reduce__(self) -> tuple[type["TileStore"], tuple[Path]]:
        return TileStore, (self.folder,)

    def slide_of(self, number: int) -> str:
        """Names the slide of a tile."""
        return self.slide_ids[self._row(number)["slide"]]

    def read(self, number: int) -> npt.NDArray[np.uint8]:
        """Decodes a tile as uint8 RGB [tile_px, tile_px, 3].

        Raises:
            InputError: the tile is damaged; the message names shard and tile.
        """
        jpeg = self.read_bytes(number)
        try:
            # The size comes first, so that a forged header cannot ask for gigabytes.
            height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
            if (height, width) != (self.tile_px, self.tile_px):
                raise ValueError(f"it is {width} x {height} px")
            return simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
        except ValueError as error:
            raise self._damaged(number, str(error)) from error

    def read_bytes(self, number: int) -> bytes:
        """Reads a tile as the JPEG that the shard holds, checked against its checksum.

        Raises:
            InputError: the tile is damaged; the message names shard and tile.
        """
        row = self._row(number)
        length = int(row["length"])
        try:
            shard = self._open_shard(shards.shard_path(self.folder, self.slide_of(number)))
            jpeg = os.pread(shard.descriptor, length, int(row["offset"]))
        except OSError as error:
            raise self._damaged(number, str(error)) from error
        if len(jpeg) != length:
            raise self._damaged(number, "the shard is truncated")
        if zlib.crc32(jpeg) != row["crc32"]:
            raise self._damaged(number, "its checksum is wrong")
        return jpeg

    def verify(self) -> list[str]:
        """Checks every offset, checksum and count, and lists what is wrong."""
        problems: list[str] = []
        for slide in self._done:
            try:
                problems += self._verify_slide(slide)
            except InputError as error:
                problems.append(str(error))
        known = {shards.shard_path(self.folder, slide_id) for slide_id in self.slide_ids}
        for path in sorted((self.folder / "shards").glob("*.tar")):
            if path not in known and path.name[0] != ".":
                problems.append(f"{path} belongs to no finished slide; it can be deleted.")
        for number in range(len(self)):
            try:
                self.read(number)
            except InputError as error:
                problems.append(str(error))
        return problems

    def _verify_slide(self, slide: SlideRecord) -> list[str]:
        problems: list[str] = []
        rows = shards.read_rows(self.folder, slide.slide_id)
        if shards.hash_rows(rows) != slide.rows_sha256:
            problems.append(f"The rows of {slide.slide_id} are not those that were written.")
        if len(rows) != slide.tiles:
            problems.append(f"{slide.slide_id} has {len(rows)} rows, but {slide.tiles} tiles.")
        path = shards.shard_path(self.folder, slide.slide_id)
        size = path.stat().st_size if path.is_file() else 0
        if size != slide.bytes:
            problems.append(f"{path} has {size} bytes instead of {slide.bytes}.")
        return problems

    def _row(self, number: int) -> Any:
        if not 0 <= number < len(self._index):
            raise IndexError(f"tile {number} of {len(self._index)}")
        return self._index[number]

    def _damaged(self, number: int, reason: str) -> InputError:
        path = shards.shard_path(self.folder, self.slide_of(number))
        return InputError(
            f"Tile {number} of {self.folder}, in {path.name} at byte {self._row(number)['offset']},"
            f" cannot be read: {reason}. Delete this shard and tiles/{path.stem}.parquet, and run"
            " the same `eosin tile` again."
        )

    def _open_index(self) -> npt.NDArray[Any]:
        index = self._load_index()
        if index is not None:
            return index
        try:
            with atomic.replacing(self.index_path) as temporary:
                self._fill(np.lib.format.open_memmap(temporary, "w+", _INDEX_ROW, self._shape))
            index = self._load_index()
        except OSError:
            # A store on a read-only disk still opens; it only cannot keep its index.
            index = None
        return index if index is not None else self._fill(np.empty(self._shape, _INDEX_ROW))

    def _load_index(self) -> npt.NDArray[Any] | None:
        """Maps the index into memory; None if there is none, or it is damaged."""
        mode = "r" if self._shape[0] else None
        try:
            index = np.load(self.index_path, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return index if (index.shape, index.dtype) == (self._shape, _INDEX_ROW) else None

    @property
    def _shape(self) -> tuple[int]:
        return (sum(slide.tiles for slide in self._done),)

    def _fill(self, index: npt.NDArray[Any]) -> npt.NDArray[Any]:
        start = 0
        for slide_number, slide in enumerate(self._done):
            rows = shards.read_rows(self.folder, slide.slide_id)
            if shards.hash_rows(rows) != slide.rows_sha256:
                raise InputError(
                    f"{shards.rows_path(self.folder, slide.slide_id)} is not what slides.parquet"
                    " says; run the same `eosin tile` again."
                )
            part = index[start : start + slide.tiles]
            part["slide"] = slide_number
            for name in ("offset", "length", "crc32"):
                part[name] = rows[name].to_numpy()
            start += slide.tiles
        return index


class _OpenShard:
    """A file descriptor that lives while a thread reads from it, even if the cache drops it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _confined(slide_id: str) -> str:
    if Path(slide_id).name != slide_id:
        raise InputError(f"The store names a slide {slide_id!r}, which is not a plain name.")
    return slide_id
