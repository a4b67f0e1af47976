"""One slide into a tile store: wholly, or quarantined there with the reason."""

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg

from eosin.errors import InputError
from eosin.slides import quality
from eosin.slides.cross_check import check_pixels
from eosin.slides.encoding import DEFAULT_QUALITY, JpegEncoding, encode, of_quality, psnr_db
from eosin.slides.quality import Quality
from eosin.slides.reader import Slide, open_slide
from eosin.store import shards
from eosin.store.header import SHARDS
from eosin.store.records import QUARANTINED, Reached, SlideRecord
from eosin.store.shards import Rows, Shard, TilePlace
from eosin.tiling.config import Config
from eosin.tiling.slide_tiles import Part, lay_out, why_no_tiles
from eosin.tiling.sources import Source

_TCGA_PATIENT = re.compile(r"tcga-\w\w-\w{4}", re.IGNORECASE)
_MOST_DAMAGED = 0.1
_PSNR_TILES = 8
_SECONDS_BETWEEN_REPORTS = 0.25


@dataclass(frozen=True, slots=True)
class Job:
    """One slide to tile; all that a worker needs to know."""

    config: Config
    source: Source
    mpp: float | None
    """What the CSV file says of this slide."""


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a worker has come since it last said so."""

    expected: int = 0
    """Tiles of a slide that it has just begun."""
    tiles: int = 0
    bytes: int = 0
    """What these tiles take in the store."""


Report = Callable[[Advance], None]


def tile_slide(job: Job, report: Report) -> SlideRecord:
    """Tiles one slide into the store, or quarantines it there, and returns its record.

    Raises:
        OSError: the store cannot be written.
    """
    config, source = job.config, job.source
    record = base_record(source)
    layout_path = shards.layout_path(config.out, source.slide_id)
    try:
        with open_slide(
            source.path, job.mpp, config.slide_mpp, layout=layout_path, in_order=True
        ) as slide:
            if slide.layout is not None:
                slide.layout.save(layout_path, source.path)
            width, height = slide.dimensions
            record = replace(
                record,
                vendor=slide.vendor,
                width_px=width,
                height_px=height,
                file_bytes=slide.file_bytes,
                back_end=slide.back_end,
            )
            return _cut(job, slide, record, report)
    except InputError as error:
        reason = str(error)
    except OSError:
        raise
    except Exception as error:
        # One slide that something stumbles over must not stop a run over thousands.
        what = f"{type(error).__name__}: {error}"
        reason = f"{source.path} could not be tiled ({what}); please report this."
    return quarantine(config.out, record, reason)


def base_record(source: Source) -> SlideRecord:
    """What is known of a slide before it is opened."""
    relative = source.relative_path
    patient = _TCGA_PATIENT.match(relative.name)
    return SlideRecord(
        slide_id=source.slide_id,
        path=relative.as_posix(),
        patient=patient[0].upper() if patient else None,
        group=relative.parts[0] if len(relative.parts) > 1 else None,
    )


def quarantine(out: Path, record: SlideRecord, reason: str) -> SlideRecord:
    """Notes in the store why a slide gives no tiles, and returns its record."""
    record = replace(record, status=QUARANTINED, reason=reason)
    shards.commit(out, record)
    return record


def _cut(job: Job, slide: Slide, record: SlideRecord, report: Report) -> SlideRecord:
    config, slide_id = job.config, record.slide_id
    tiles = lay_out(slide, config, slide_id)
    shards.write_mask(config.out, slide_id, tiles.mask)
    if len(tiles) == 0:
        raise InputError(why_no_tiles(slide, config, tiles))
    for part in tiles.parts:
        places = list(zip(part.grid.x_px[part.drawn], part.grid.y_px[part.drawn], strict=True))
        check_pixels(slide, places, config.tile_px, part.target_mpp, config.verify_pixels, slide_id)
    report(Advance(expected=len(tiles)))
    tally = _Tally(report)
    with _opening_sink(config, slide_id) as sink:
        for part in tiles.parts:
            _write_part(config, slide, part, sink, tally)
        tally.check_damage(slide, len(tiles))
        slide.check_unchanged()
    rows = sink.rows()
    shard = shards.shard_path(config.out, slide_id)
    overridden = "mpp_csv" if job.mpp is not None else None
    record = replace(
        record,
        mpp=slide.mpp,
        mpp_source=overridden or ("file" if slide.file_mpp is not None else "slide_mpp"),
        regions_sha256=tiles.regions_sha256,
        reached=tuple(tally.reached),
        encoding="; ".join(dict.fromkeys(tally.encodings)) or None,
        psnr_db=float(np.mean(tally.psnrs_db)) if tally.psnrs_db else None,
        note=" ".join(filter(None, (tiles.note, tally.first_damage))) or None,
        damaged=tally.damaged,
        tiles=len(rows),
        bytes=shard.stat().st_size if config.pixels == SHARDS else 0,
        rows_sha256=shards.hash_rows(rows),
    )
    shards.commit(config.out, record, rows)
    return record


@dataclass(slots=True)
class _Tally:
    """What there is to say of a slide when it is done, and meanwhile."""

    report: Report
    reached: list[Reached] = field(default_factory=list[Reached])
    encodings: list[str] = field(default_factory=list[str])
    psnrs_db: list[float] = field(default_factory=list[float])
    damaged: int = 0
    first_damage: str | None = None
    _tiles: int = 0
    _bytes: int = 0
    _last_report: float = 0.0

    def count(self, length: int) -> None:
        """Counts a tile of so many bytes; says so now and then."""
        self._tiles += 1
        self._bytes += length
        if time.monotonic() - self._last_report > _SECONDS_BETWEEN_REPORTS:
            self.flush()

    def flush(self) -> None:
        """Says how many tiles there were since it was last said."""
        self.report(Advance(tiles=self._tiles, bytes=self._bytes))
        self._tiles = self._bytes = 0
        self._last_report = time.monotonic()

    def count_damage(self, error: InputError) -> None:
        """Counts a tile that cannot be read."""
        self.damaged += 1
        if self.first_damage is None:
            self.first_damage = f"Damaged tiles are left out; the first one: {error}"

    def check_damage(self, slide: Slide, tiles: int) -> None:
        """Refuses a slide of which too much is damaged."""
        self.flush()
        if self.damaged > _MOST_DAMAGED * tiles:
            raise InputError(
                f"{slide.path}: {self.damaged} of {tiles} tiles are damaged, more than a tenth."
                f" {self.first_damage}"
            )


def _write_part(
    config: Config, slide: Slide, part: Part, sink: "Shard | _PlacesOnly", tally: _Tally
) -> None:
    sampled = set(np.linspace(0, len(part.drawn) - 1, _PSNR_TILES).astype(int).tolist())
    damaged = tally.damaged
    for order, tile in enumerate(make_tiles(config, slide, part, part.drawn, tally.count_damage)):
        sink.add(tile.place, tile.quality, tile.jpeg)
        tally.count(len(tile.jpeg))
        if tile.jpeg and order in sampled:
            tally.psnrs_db.append(psnr_db(tile.pixels, simplejpeg.decode_jpeg(tile.jpeg)))
    if config.pixels == SHARDS:
        tally.encodings.append(str(_choose_encoding(config, slide, part)))
    reading = part.reading
    tally.reached.append(
        Reached(
            target_mpp=part.target_mpp,
            mpp=reading.mpp,
            level=reading.level,
            scale=reading.scale,
            reduction=reading.reduction,
            tiles=len(part.drawn) - (tally.damaged - damaged),
        )
    )


class Tile(NamedTuple):
    """A tile as it goes into the store."""

    place: TilePlace
    quality: Quality
    jpeg: bytes
    """Empty where the pixels stay in the slide."""
    pixels: npt.NDArray[np.uint8]


def make_tiles(
    config: Config,
    slide: Slide,
    part: Part,
    numbers: npt.NDArray[np.int64],
    on_damage: Callable[[InputError], None] | None = None,
) -> Iterator[Tile]:
    """Reads, scores and encodes tiles of one resolution, in order.

    Args:
        config: tells size and encoding.
        slide: where they are read.
        part: the resolution.
        numbers: which tiles of its grid.
        on_damage: told of each tile that cannot be read, which is left out then.
    """
    encoding = _choose_encoding(config, slide, part) if config.pixels == SHARDS else None
    for number in numbers.tolist():
        x_px, y_px = int(part.grid.x_px[number]), int(part.grid.y_px[number])
        try:
            pixels = slide.read(x_px, y_px, config.tile_px, part.target_mpp)
        except InputError as error:
            if on_damage is not None:
                on_damage(error)
            continue
        tissue = float(part.grid.tissue[number])
        place = TilePlace(x_px, y_px, part.target_mpp, part.reading.mpp, tissue)
        jpeg = encode(pixels, encoding) if encoding is not None else b""
        yield Tile(place, quality.score(pixels, part.reading.mpp), jpeg, pixels)


def _choose_encoding(config: Config, slide: Slide, part: Part) -> JpegEncoding:
    own = slide.encoding(part.reading)
    if config.quality is None:
        return own or of_quality(DEFAULT_QUALITY)
    return of_quality(config.quality, own.subsampling if own is not None else "4:4:4")


class _PlacesOnly:
    """Takes the rows of tiles whose pixels stay in the slide."""

    def __init__(self) -> None:
        self._rows = Rows()

    def add(self, place: TilePlace, quality: Quality, jpeg: bytes) -> None:
        """Appends one row."""
        del jpeg
        self._rows.add(place, quality, -1, 0, 0)

    def rows(self) -> pa.Table:
        """Gives the rows of all tiles."""
        return self._rows.table()


@contextmanager
def _opening_sink(config: Config, slide_id: str) -> Generator[Shard | _PlacesOnly]:
    if config.pixels == SHARDS:
        with shards.writing_shard(config.out, slide_id) as shard:
            yield shard
    else:
        yield _PlacesOnly()
