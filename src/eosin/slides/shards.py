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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eosin import atomic
from eosin.errors import InputError
from eosin.slides.quality import Quality

DONE, QUARANTINED = "done", "quarantined"

ROW_SCHEMA = pa.schema(
    [
        ("x", pa.int64()),
        ("y", pa.int64()),
        ("mpp", pa.float64()),
        ("tissue", pa.float32()),
        *((name, pa.float32()) for name in Quality._fields),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("crc32", pa.uint32()),
    ]
)
"""Columns of `tiles/<slide_id>.parquet`, sorted by y and x: where the tile lies on the slide in
level-0 pixels, its resolution, its scores, and where its JPEG lies in the shard."""

_NO_ROWS = ROW_SCHEMA.empty_table()
_RECORD_KEY = b"eosin.slide"
_TAR_BLOCK = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class SlideRecord:
    """What a store knows of one slide: a row of `slides.parquet`."""

    slide_id: str
    path: str
    """Relative to the input folder."""
    patient: str | None = None
    group: str | None = None
    """The folder of the input that the slide lies in."""
    vendor: str | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    """`file`, `slide_mpp` or `mpp_csv`."""
    width_px: int | None = None
    height_px: int | None = None
    level: int | None = None
    """The level that was read."""
    reduction: float | None = None
    """By how much that level was reduced; 1 where it was taken as it is."""
    status: str = DONE
    reason: str | None = None
    """Why it is quarantined."""
    tiles: int = 0
    bytes: int = 0
    """Size of the shard."""
    rows_sha256: str | None = None


SLIDE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("slide_id", "path", "patient", "group", "vendor")),
        ("mpp", pa.float64()),
        ("mpp_source", pa.string()),
        ("width_px", pa.int64()),
        ("height_px", pa.int64()),
        ("level", pa.int64()),
        ("reduction", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("tiles", pa.int64()),
        ("bytes", pa.int64()),
        ("rows_sha256", pa.string()),
    ]
)
"""Columns of `slides.parquet`: the fields of `SlideRecord`."""


def slide_id_of(relative_path: Path) -> str:
    """Names a slide by its file's stem and 8 hex digits of its path below the input folder."""
    digest = hashlib.sha256(relative_path.as_posix().encode()).hexdigest()
    return f"{relative_path.stem}-{digest[:8]}"


def shard_path(folder: Path, slide_id: str) -> Path:
    """Where the tiles of a slide lie."""
    return folder / "shards" / f"{slide_id}.tar"


def rows_path(folder: Path, slide_id: str) -> Path:
    """Where the rows and the record of a slide lie."""
    return folder / "tiles" / f"{slide_id}.parquet"


def mask_path(folder: Path, slide_id: str) -> Path:
    """Where the tissue mask of a slide lies."""
    return folder / "masks" / f"{slide_id}.png"


class Shard:
    """A tar that grows tile by tile, with the row of each tile."""

    def __init__(self, file: BinaryIO, slide_id: str) -> None:
        self._file = file
        self._slide_id = slide_id
        self._columns: dict[str, list[float]] = {name: [] for name in ROW_SCHEMA.names}

    def add(
        self, x_px: int, y_px: int, mpp: float, tissue: float, quality: Quality, jpeg: bytes
    ) -> None:
        """Appends one tile; its place is in level-0 pixels, `tissue` is a fraction."""
        member = tarfile.TarInfo(f"{self._slide_id}/{x_px}_{y_px}.jpg")
        member.size = len(jpeg)
        self._file.write(member.tobuf(tarfile.GNU_FORMAT))
        row = {
            "x": x_px,
            "y": y_px,
            "mpp": mpp,
            "tissue": tissue,
            **quality._asdict(),
            "offset": self._file.tell(),
            "length": len(jpeg),
            "crc32": zlib.crc32(jpeg),
        }
        for name, value in row.items():
            self._columns[name].append(value)
        self._file.write(jpeg)
        self._file.write(bytes(-len(jpeg) % _TAR_BLOCK))

    def close(self) -> None:
        """Writes the two empty blocks that end a tar."""
        self._file.write(bytes(2 * _TAR_BLOCK))

    def rows(self) -> pa.Table:
        """Gives the rows of all tiles."""
        return pa.table(self._columns, schema=ROW_SCHEMA)


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
    return _reading_parquet(pq.read_table, rows_path(folder, slide_id))


def read_record(path: Path) -> SlideRecord:
    """Reads the record of a slide from the file of its rows.

    Raises:
        InputError: the file is damaged, or not of a tile store.
    """
    metadata = _reading_parquet(pq.read_schema, path).metadata or {}
    try:
        return SlideRecord(**json.loads(metadata[_RECORD_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} holds no record of a slide; delete it and tile again.") from error


def read_records(folder: Path) -> list[SlideRecord]:
    """Reads the records of all slides of a store, sorted by `slide_id`."""
    paths = (path for path in (folder / "tiles").glob("*.parquet") if path.name[0] != ".")
    return sorted(map(read_record, paths), key=lambda record: record.slide_id)


def write_slides(folder: Path, records: list[SlideRecord]) -> None:
    """Writes `slides.parquet`."""
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=SLIDE_SCHEMA)
    with atomic.replacing(folder / "slides.parquet") as temporary:
        pq.write_table(table, temporary)


def read_slides(folder: Path) -> list[SlideRecord]:
    """Reads `slides.parquet`.

    Raises:
        InputError: it is damaged.
    """
    table = _reading_parquet(pq.read_table, folder / "slides.parquet")
    try:
        return [SlideRecord(**row) for row in table.to_pylist()]
    except TypeError as error:
        raise InputError(f"{folder / 'slides.parquet'} lacks columns; tile again.") from error


def hash_rows(rows: pa.Table) -> str:
    """Hashes the values of all columns, whatever the Parquet file around them looks like."""
    digest = hashlib.sha256()
    for name in ROW_SCHEMA.names:
        digest.update(rows[name].to_numpy().tobytes())
    return digest.hexdigest()


def _reading_parquet(read: Any, path: Path) -> Any:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; run the same `eosin tile` again.") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and tile again.") from error
