"""Writing one slide into a tile store: its tar of JPEGs, its mask, its rows; all of it or nothing.

The rows, `tiles/<slide_id>.parquet`, are the last file of a slide to appear, and the slide counts
from that moment. They carry the slide's record in their metadata, so that a kill at any moment
loses no finished slide and leaves no half one; a quarantined slide has a record and no rows.
"""

import contextlib
import hashlib
import json
import tarfile
import zlib
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eosin import atomic
from eosin.errors import InputError
from eosin.slides.quality import Quality
from eosin.store.records import SlideRecord, as_record, reading_parquet


class TilePlace(NamedTuple):
    """Where a tile lies on its slide."""

    x: int
    """Left edge in level-0 pixels."""
    y: int
    """Upper edge in level-0 pixels."""
    target_mpp: float
    mpp: float
    tissue: float
    """Fraction of the tile that is tissue, 0 to 1."""


ROW_SCHEMA = pa.schema(
    [
        ("x", pa.int64()),
        ("y", pa.int64()),
        ("target_mpp", pa.float64()),
        ("mpp", pa.float64()),
        ("tissue", pa.float32()),
        *((name, pa.float32()) for name in Quality._fields),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("crc32", pa.uint32()),
    ]
)
"""Columns of `tiles/<slide_id>.parquet`: where the tile lies on the slide in level-0 pixels, the
resolution asked for and the one reached, its scores, and where its JPEG lies in the shard. Sorted
as the resolutions were asked for, then by y and x. Where a store keeps no pixels of its own,
`offset` is -1 and `length` 0."""

_NO_ROWS = ROW_SCHEMA.empty_table()
_RECORD_KEY = b"eosin.slide"
_TAR_BLOCK = 512


def shard_path(folder: Path, slide_id: str) -> Path:
    """Where the tiles of a slide lie."""
    return folder / "shards" / f"{slide_id}.tar"


def rows_path(folder: Path, slide_id: str) -> Path:
    """Where the rows and the record of a slide lie."""
    return folder / "tiles" / f"{slide_id}.parquet"


def mask_path(folder: Path, slide_id: str) -> Path:
    """Where the tissue mask of a slide lies."""
    return folder / "masks" / f"{slide_id}.png"


def layout_path(folder: Path, slide_id: str) -> Path:
    """Where the table of a slide's own JPEG tiles is kept, so that it is parsed once."""
    return folder / "layouts" / f"{slide_id}.npz"


class Rows:
    """The rows of one slide, as they come."""

    def __init__(self) -> None:
        self._columns: dict[str, list[float]] = {name: [] for name in ROW_SCHEMA.names}

    def add(self, place: TilePlace, quality: Quality, offset: int, length: int, crc32: int) -> None:
        """Appends one row; see `ROW_SCHEMA`."""
        stored = {"offset": offset, "length": length, "crc32": crc32}
        for name, value in (place._asdict() | quality._asdict() | stored).items():
            self._columns[name].append(value)

    def table(self) -> pa.Table:
        """Gives the rows so far."""
        return pa.table(self._columns, schema=ROW_SCHEMA)


class Shard:
    """A tar that grows tile by tile, with the row of each tile."""

    def __init__(self, file: BinaryIO, slide_id: str) -> None:
        self._file = file
        self._slide_id = slide_id
        self._rows = Rows()

    def add(self, place: TilePlace, quality: Quality, jpeg: bytes) -> None:
        """Appends one tile and its row."""
        offset = write_member(self._file, f"{self._slide_id}/{tile_name(place)}.jpg", jpeg)
        self._rows.add(place, quality, offset, len(jpeg), zlib.crc32(jpeg))

    def close(self) -> None:
        """Writes the two empty blocks that end a tar."""
        end_tar(self._file)

    def rows(self) -> pa.Table:
        """Gives the rows of all tiles."""
        return self._rows.table()


def tile_name(place: TilePlace) -> str:
    """Names a tile within its slide by its place and by the nanometres of its pixels.

    Without a dot, since WebDataset takes everything behind the first one for the kind of file.
    """
    return f"{place.x}_{place.y}_{round(1000 * place.target_mpp)}nm"


def write_member(file: BinaryIO, name: str, content: bytes) -> int:
    """Appends one member to a plain tar and tells where its content starts.

    Time and owner are 0, so that equal input gives equal bytes.
    """
    member = tarfile.TarInfo(name)
    member.size = len(content)
    file.write(member.tobuf(tarfile.GNU_FORMAT))
    offset = file.tell()
    file.write(content)
    file.write(bytes(-len(content) % _TAR_BLOCK))
    return offset


def end_tar(file: BinaryIO) -> None:
    """Writes the two empty blocks that end a tar."""
    file.write(bytes(2 * _TAR_BLOCK))


@contextlib.contextmanager
def writing_shard(folder: Path, slide_id: str) -> Generator[Shard]:
    """Gives a shard to fill; it appears under its name if the block ends without an error."""
    with (
        atomic.replacing(shard_path(folder, slide_id)) as temporary,
        open(temporary, "wb") as file,
    ):
        shard = Shard(file, slide_id)
        yield shard
        shard.close()


def write_mask(folder: Path, slide_id: str, mask: npt.NDArray[np.bool_]) -> None:
    """Writes a tissue mask as a PNG of 0 and 255."""
    _, png = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    atomic.write_bytes(mask_path(folder, slide_id), png.tobytes())


def commit(folder: Path, record: SlideRecord, rows: pa.Table = _NO_ROWS) -> None:
    """Writes the record of a slide and its rows; from here on the slide counts."""
    content = json.dumps(asdict(record), ensure_ascii=False)
    with atomic.replacing(rows_path(folder, record.slide_id)) as temporary:
        pq.write_table(rows.replace_schema_metadata({_RECORD_KEY: content}), temporary)


def read_rows(folder: Path, slide_id: str) -> pa.Table:
    """Reads the rows of a slide.

    Raises:
        InputError: they are missing or damaged.
    """
    return reading_parquet(pq.read_table, rows_path(folder, slide_id))


def read_record(path: Path) -> SlideRecord:
    """Reads the record of a slide from the file of its rows.

    Raises:
        InputError: the file is damaged, or not of a tile store.
    """
    metadata = reading_parquet(pq.read_schema, path).metadata or {}
    try:
        return as_record(json.loads(metadata[_RECORD_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} holds no record of a slide; delete it and tile again.") from error


def read_records(folder: Path) -> list[SlideRecord]:
    """Reads the records of all slides of a store, sorted by `slide_id`."""
    paths = (path for path in (folder / "tiles").glob("*.parquet") if path.name[0] != ".")
    return sorted(map(read_record, paths), key=lambda record: record.slide_id)


def hash_rows(rows: pa.Table) -> str:
    """Hashes the values of all columns, whatever the Parquet file around them looks like."""
    digest = hashlib.sha256()
    for name in ROW_SCHEMA.names:
        digest.update(rows[name].to_numpy().tobytes())
    return digest.hexdigest()
