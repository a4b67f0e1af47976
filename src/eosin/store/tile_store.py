"""The tile store: a folder of tars of JPEG tiles, opened as one long array of images.

store.json                 format, tile size, resolutions, where the pixels are, settings, origin
slides.parquet             a row a slide, quarantined ones with the reason
shards/<slide_id>.tar      the tiles, a plain tar of JPEGs; none where the pixels stay in the slides
tiles/<slide_id>.parquet   a row a tile: place, scores, offset and checksum in the tar
masks/<slide_id>.png       the tissue
layouts/<slide_id>.npz     the slide's own table of JPEG tiles, where the pixels stay in the slides
index/<fingerprint>*.npy   derived from the rows, mapped into memory, shared by all workers
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eosin.errors import InputError, UsageError
from eosin.store import checks, header, records, shards, tile_bytes, whole_slides
from eosin.store.header import (
    FORMAT_VERSION,
    SHARDS,
    SLIDE,
    create,
    read_header,
    set_roots,
)
from eosin.store.index import Index, Numbers
from eosin.store.records import SlideRecord

__all__ = ["SHARDS", "SLIDE", "TileStore", "create", "finish", "read_header", "set_roots"]

_OPEN_SHARDS = 64


def finish(folder: Path) -> None:
    """Derives `slides.parquet` and the index from the records and rows of the finished slides."""
    records.write_slides(folder, shards.read_records(folder))
    store = TileStore(folder)
    for path in (folder / "index").glob("*.npy"):
        if not path.name.startswith(store.index.path.stem):
            path.unlink()


class TileStore:
    """The tiles of a finished store, by number.

    Tiles are sorted by slide, then as the resolutions were asked for, then by row and column on the
    slide. Safe to use from threads, from forked processes, and to send to spawned ones; the index
    is mapped from disk and shared between all of them, and no tile costs a Python object.

    Args:
        folder: a folder that `eosin tile` wrote.

    Raises:
        InputError: it is no tile store, is unfinished, or its tables are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        about = read_header(self.folder)
        self.tile_px: int = about["tile_px"]
        self.mpps: tuple[float, ...] = tuple(about["mpp"])
        if not (self.folder / "slides.parquet").is_file():
            raise InputError(f"{folder} is unfinished; run the same `eosin tile` again.")
        self.in_slides = about["pixels"] == SLIDE
        self.index = Index(self.folder, FORMAT_VERSION, self.tile_px, self.mpps, self.in_slides)
        self._roots = [Path(root) for root in about.get("roots", ())]
        self._shards = tile_bytes.OpenFiles(_OPEN_SHARDS)
        self._whole_slides = whole_slides.WholeSlides(self._roots)

    @staticmethod
    def is_store(folder: Path) -> bool:
        """Tells whether a folder is a tile store of any version, finished or not."""
        return header.is_store(folder)

    @property
    def fingerprint(self) -> str:
        """Changes with the content of the store."""
        return self.index.fingerprint

    @functools.cached_property
    def slides(self) -> list[SlideRecord]:
        """The records of all slides, also of quarantined ones, sorted by `slide_id`."""
        return sorted(records.read_slides(self.folder), key=lambda slide: slide.slide_id)

    @property
    def slide_table(self) -> pa.Table:
        """What every process knows of the slides that have tiles, by the slide's number."""
        return self.index.slides

    @property
    def slide_ids(self) -> list[str]:
        """Names of the slides that have tiles, by the slide's number."""
        return self.index.slide_ids

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self) -> tuple[type["TileStore"], tuple[Path]]:
        return TileStore, (self.folder,)

    def __str__(self) -> str:
        return str(self.folder)

    def slide_of(self, number: int) -> str:
        """Names the slide of a tile."""
        self.index.row(number)
        return self.slide_ids[int(self.slide_numbers(number))]

    def slide_numbers(self, numbers: npt.ArrayLike) -> Numbers:
        """Gives the slides of many tiles at once, as places in `slide_ids`.

        Examples:
            How many tiles each slide has, and the slides of a random draw:

                np.bincount(store.slide_numbers(np.arange(len(store))))
                store.slide_numbers(rng.integers(len(store), size=256))
        """
        return self.index.slide_numbers(numbers)

    def tiles_of(self, slide_number: int) -> range:
        """Gives the numbers of a slide's tiles."""
        return range(*self.index.starts[slide_number : slide_number + 2].tolist())

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        """Bytes of each tile, mapped into memory; only of a store that holds its pixels."""
        return self.index.rows["length"]

    def column(self, name: str) -> npt.NDArray[Any]:
        """Gives a column of the rows for all tiles in order, mapped into memory, read only.

        The first call reads the rows of all slides, and keeps the column beside the index.

        Args:
            name: one of `shards.ROW_SCHEMA`: x, y, target_mpp, mpp, tissue, blur, white, black, ink
                and so on.

        Examples:
            Numbers of the tiles that are sharp enough:

                np.flatnonzero(store.column("blur") > 1000)

        Raises:
            InputError: there is no such column, or rows are damaged.
        """
        return self.index.column(name)

    def read(self, number: int) -> npt.NDArray[np.uint8]:
        """Decodes a tile as uint8 RGB [tile_px, tile_px, 3].

        Raises:
            InputError: the tile is damaged, and the message names shard and tile; or the slide that
                holds it is missing, damaged or changed.
        """
        if self.in_slides:
            return self._read_from_slide(number)
        jpeg = self.read_bytes(number)
        try:
            return tile_bytes.decode(jpeg, self.tile_px)
        except ValueError as error:
            raise self._damaged(number, str(error)) from error

    def read_bytes(self, number: int) -> bytes:
        """Reads a tile as the JPEG that the shard holds, checked against its checksum.

        Raises:
            UsageError: the pixels stay in the slides, so that there is no JPEG of this tile.
            InputError: the tile is damaged; the message names shard and tile.
        """
        row = self.index.row(number)
        if self.in_slides:
            raise UsageError(
                f"{self.folder} holds no JPEGs, since its pixels stay in the slides; tile into"
                " another store with --pixels shards for this."
            )
        length = int(row["length"])
        try:
            path = shards.shard_path(self.folder, self.slide_of(number))
            jpeg = self._shards.read(path, int(row["offset"]), length)
            tile_bytes.check(jpeg, length, int(row["crc32"]))
        except (OSError, ValueError) as error:
            raise self._damaged(number, str(error)) from error
        return jpeg

    def verify(self, advance: Callable[[], object] = lambda: None) -> list[str]:
        """Checks every place, checksum and count, decodes every tile, and lists what is wrong.

        Args:
            advance: called when a slide is done.
        """
        return checks.check_store(self, advance)

    def _read_from_slide(self, number: int) -> npt.NDArray[np.uint8]:
        row = self.index.row(number)
        slide = self._slide_file(int(self.slide_numbers(number)))
        mpp = self.mpps[row["target"]]
        return self._whole_slides.read(slide, int(row["x"]), int(row["y"]), self.tile_px, mpp)

    def record_of(self, slide_number: int) -> SlideRecord:
        """Gives the record of a slide that has tiles."""
        return self._records[self.slide_ids[slide_number]]

    @functools.cached_property
    def _records(self) -> dict[str, SlideRecord]:
        return {slide.slide_id: slide for slide in self.slides}

    def find_slide(self, slide_number: int) -> Path:
        """Finds the file of a slide, where the pixels stay in the slides.

        Raises:
            InputError: it is missing, or has changed.
        """
        return whole_slides.find(self._slide_file(slide_number), self._roots)

    def _slide_file(self, slide_number: int) -> whole_slides.SlideFile:
        slides, slide_id = self.index.slides, self.slide_ids[slide_number]
        return whole_slides.SlideFile(
            path=slides["path"][slide_number].as_py(),
            mpp=slides["mpp"][slide_number].as_py(),
            file_bytes=slides["file_bytes"][slide_number].as_py(),
            layout=shards.layout_path(self.folder, slide_id),
        )

    def _damaged(self, number: int, reason: str) -> InputError:
        path = shards.shard_path(self.folder, self.slide_of(number))
        offset = self.index.row(number)["offset"]
        return InputError(
            f"Tile {number} of {self.folder}, in {path.name} at byte {offset}, cannot be read:"
            f" {reason}. Delete this shard and tiles/{path.stem}.parquet, and run the same"
            " `eosin tile` again."
        )
