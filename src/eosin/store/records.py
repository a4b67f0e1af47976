"""What a store knows of its slides: one record each, the rows of `slides.parquet`."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eosin import atomic
from eosin.errors import InputError

DONE, QUARANTINED = "done", "quarantined"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """How one of the resolutions asked for was reached on a slide, and how many tiles it gave."""

    target_mpp: float
    mpp: float
    """What came out; within 2 % of the target."""
    level: int
    """The level that was read."""
    scale: int
    """By how much it was reduced while decoding: 1, 2, 4 or 8."""
    reduction: float
    """By how much it was then averaged; 1 where it was not."""
    tiles: int


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
    regions_sha256: str | None = None
    """Hash of the file with the regions that tiles were confined to."""
    file_bytes: int | None = None
    """Size of the slide's own file."""
    back_end: str | None = None
    """What read the pixels: `jpeg_tiff`, `openslide` or `dicom`."""
    reached: tuple[Reached, ...] = ()
    """One for each resolution that the slide holds."""
    encoding: str | None = None
    """How the tiles are encoded."""
    psnr_db: float | None = None
    """Mean over a sample of tiles, against the slide's own pixels; 100 where they are equal."""
    status: str = DONE
    reason: str | None = None
    """Why it is quarantined."""
    note: str | None = None
    """What was left out although the slide is done."""
    damaged: int = 0
    """Tiles that are left out because the slide is damaged there."""
    tiles: int = 0
    bytes: int = 0
    """Size of the shard."""
    rows_sha256: str | None = None


_REACHED = pa.struct(
    [
        ("target_mpp", pa.float64()),
        ("mpp", pa.float64()),
        ("level", pa.int64()),
        ("scale", pa.int64()),
        ("reduction", pa.float64()),
        ("tiles", pa.int64()),
    ]
)
SLIDE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("slide_id", "path", "patient", "group", "vendor")),
        ("mpp", pa.float64()),
        ("mpp_source", pa.string()),
        ("width_px", pa.int64()),
        ("height_px", pa.int64()),
        ("regions_sha256", pa.string()),
        ("file_bytes", pa.int64()),
        ("back_end", pa.string()),
        ("reached", pa.list_(_REACHED)),
        ("encoding", pa.string()),
        ("psnr_db", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("note", pa.string()),
        ("damaged", pa.int64()),
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
    table = reading_parquet(pq.read_table, folder / "slides.parquet")
    try:
        return [as_record(row) for row in table.to_pylist()]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'slides.parquet'} lacks columns; tile again.") from error


def as_record(row: dict[str, Any]) -> SlideRecord:
    """Gives the record that a row of JSON or Parquet holds; TypeError or KeyError if it is none."""
    reached = tuple(Reached(**each) for each in row.pop("reached"))
    return SlideRecord(**row, reached=reached)


def reading_parquet(read: Any, path: Path) -> Any:
    """Calls a reader of Parquet files.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return read(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; run the same `eosin tile` again.") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and tile again.") from error
