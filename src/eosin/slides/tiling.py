"""Slides in, tile store out: in parallel, resumable, and not stopped by a bad slide."""

import contextlib
import hashlib
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from eosin import atomic
from eosin.errors import InputError, Interrupted, UsageError
from eosin.progress import Bar
from eosin.slides import grid, processes, quality, shards, store, tissue
from eosin.slides.reader import Slide, is_plausible_mpp, open_slide
from eosin.slides.shards import DONE, QUARANTINED, SlideRecord
from eosin.slides.sources import Source, find_slides, read_mpp_csv

# Many scanners do not subsample colour; where 4:2:0 meets such a slide it costs 10 dB.
_SUBSAMPLING = "444"
_TCGA_PATIENT = re.compile(r"tcga-\w\w-\w{4}", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which slides become which tiles."""

    slides: tuple[Path, ...]
    """Slides, or folders that are searched for slides."""
    out: Path
    """Folder of the tile store; the same command on it resumes, or adds new slides."""
    mpp: float = 0.5
    """Resolution of the tiles in micrometres per pixel: 0.5 is 20x, 0.25 is 40x."""
    tile_px: int = 512
    """Edge of a tile in pixels."""
    tissue: str = "hsv"
    """How tissue is found: hsv, optical_density, otsu, or your own module:function."""
    min_tissue: float = 0.5
    """Least fraction of a tile that must be tissue."""
    quality: int = 90
    """JPEG quality of the tiles, 1 to 100."""
    max_tiles: int | None = None
    """At most so many tiles of each slide, drawn at random."""
    seed: int = 0
    """Seed of that draw."""
    slide_mpp: float | None = None
    """Micrometres per pixel of the slides that do not say it themselves."""
    mpp_csv: Path | None = None
    """CSV file with the columns slide and mpp, for single slides; it overrides the slide's own."""
    workers: int | None = None
    """Processes that share the slides; one per core if not given."""

    def __post_init__(self) -> None:
        """Refuses values that make no sense."""
        _require(len(self.slides) > 0, "--slides", "empty", "at least one slide or folder")
        _require(16 <= self.tile_px <= 8192, "--tile-px", self.tile_px, "between 16 and 8192")
        _require(0 <= self.min_tissue <= 1, "--min-tissue", self.min_tissue, "between 0 and 1")
        _require(1 <= self.quality <= 100, "--quality", self.quality, "between 1 and 100")
        for option, mpp in (("--mpp", self.mpp), ("--slide-mpp", self.slide_mpp)):
            _require(mpp is None or is_plausible_mpp(mpp), option, mpp, "between 0.02 and 50")
        for option, count in (("--max-tiles", self.max_tiles), ("--workers", self.workers)):
            _require(count is None or count > 0, option, count, "1 or more")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels of a slide's tiles, and so must not change within a store."""
        return {
            "mpp": self.mpp,
            "tile_px": self.tile_px,
            "tissue": self.tissue,
            "min_tissue": self.min_tissue,
            "quality": self.quality,
            "subsampling": _SUBSAMPLING,
            "max_tiles": self.max_tiles,
            "seed": self.seed if self.max_tiles is not None else None,
        }


def _require(holds: bool, option: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{option} is {value}; it must be {wanted}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TilingReport:
    """What a run did."""

    out: Path
    done: int
    """Slides tiled by this run."""
    skipped: int
    """Slides that an earlier run had finished."""
    quarantined: tuple[SlideRecord, ...]
    """Slides that could not be tiled, each with its reason."""
    tiles: int
    """Tiles of the slides done and skipped."""
    bytes: int
    """Size of their shards."""
    seconds: float

    @property
    def exit_code(self) -> int:
        """3 if any slide is quarantined, else 0."""
        return 3 if self.quarantined else 0


@dataclass(frozen=True, slots=True)
class Job:
    """One slide to tile; all that a worker needs to know."""

    config: Config
    source: Source
    mpp: float | None
    """What the CSV file says of this slide."""


def tile(config: Config) -> TilingReport:
    """Tiles all slides that the store does not hold yet; a slide is finished wholly or not at all.

    Slides that were quarantined before are tried again, since the reason may be mended.

    Raises:
        UsageError: an option makes no sense.
        InputError: there are no slides, or the store was made with other settings.
        Interrupted: stopped; the same command resumes.
    """
    started = time.monotonic()
    tissue.load_method(config.tissue)
    sources = find_slides(config.slides)
    mpps = read_mpp_csv(config.mpp_csv, sources) if config.mpp_csv is not None else {}
    jobs = [Job(config, source, mpps.get(source.slide_id)) for source in sources]
    try:
        with atomic.locked(config.out):
            _prepare_store(config)
            finished = [record for job in jobs if (record := _finished(job)) is not None]
            finished_ids = {record.slide_id for record in finished}
            left = [job for job in jobs if job.source.slide_id not in finished_ids]
            tried = _tile_all(config, left, len(finished))
            store.finish(config.out)
    except OSError as error:
        raise Interrupted(
            f"{config.out} cannot be written ({error}); mend that, and the same command resumes."
        ) from error
    done = [record for record in tried if record.status == DONE]
    bad = [record for record in tried if record.status == QUARANTINED]
    return TilingReport(
        out=config.out,
        done=len(done),
        skipped=len(finished),
        quarantined=tuple(sorted(bad, key=lambda record: record.path)),
        tiles=sum(record.tiles for record in done + finished),
        bytes=sum(record.bytes for record in done + finished),
        seconds=time.monotonic() - started,
    )


def _prepare_store(config: Config) -> None:
    if store.TileStore.is_store(config.out):
        made_with = store.read_header(config.out)["config"]
        changed = [
            f"{name} was {made_with.get(name)} and is now {value}"
            for name, value in config.settings.items()
            if made_with.get(name) != value
        ]
        if changed:
            raise InputError(
                f"{config.out} was begun with other settings: {'; '.join(changed)}. Give the same"
                " ones, or another --out."
            )
    elif any(path.name[0] != "." for path in config.out.iterdir()):
        raise InputError(f"{config.out} is neither empty nor a tile store; choose another --out.")
    else:
        store.create(config.out, config.tile_px, config.mpp, config.settings)
    for folder in (".", "shards", "tiles", "masks", "index"):
        atomic.remove_leftovers(config.out / folder)


def _finished(job: Job) -> SlideRecord | None:
    """The record of a slide that the store holds whole.

    Raises:
        InputError: it was tiled under another mpp than the options now give it.
    """
    out, slide_id = job.config.out, job.source.slide_id
    rows_path = shards.rows_path(out, slide_id)
    try:
        record = shards.read_record(rows_path)
        size = shards.shard_path(out, slide_id).stat().st_size
    except (InputError, OSError):
        return None
    if record.status != DONE or size != record.bytes:
        return None
    option, given = "--mpp-csv", job.mpp
    if given is None and record.mpp_source == "slide_mpp":
        option, given = "--slide-mpp", job.config.slide_mpp
    if given is not None and given != record.mpp:
        raise InputError(
            f"{job.source.path} was tiled as a slide of {record.mpp} mpp, and {option} now says"
            f" {given}; delete {rows_path} to tile it again."
        )
    return record


def _tile_all(config: Config, jobs: list[Job], finished: int) -> list[SlideRecord]:
    total = len(jobs) + finished
    results = processes.run(tile_slide, jobs, config.workers or processes.available_cores())
    records: list[SlideRecord] = []
    try:
        # Closed on the way out, so that no worker goes on after the run.
        with (
            contextlib.closing(results),
            Bar("tiling", total, "slides", done=finished) as bar,
        ):
            for record in results:
                records.append(record)
                bar.advance(note=f"{sum(one.tiles for one in records):,} tiles")
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped after {finished + len(records)} of {total} slides; the same command resumes."
        ) from None
    return records


def tile_slide(job: Job) -> SlideRecord:
    """Tiles one slide into the store, or quarantines it there, and returns its record."""
    config, relative = job.config, job.source.relative_path
    patient = _TCGA_PATIENT.match(relative.name)
    record = SlideRecord(
        slide_id=job.source.slide_id,
        path=relative.as_posix(),
        patient=patient[0].upper() if patient else None,
        group=relative.parts[0] if len(relative.parts) > 1 else None,
    )
    try:
        with open_slide(job.source.path, job.mpp, config.slide_mpp) as slide:
            width, height = slide.dimensions
            record = replace(record, vendor=slide.vendor, width_px=width, height_px=height)
            return _cut(job, slide, record)
    except InputError as error:
        record = replace(record, status=QUARANTINED, reason=str(error))
        shards.commit(config.out, record)
        return record


def _cut(job: Job, slide: Slide, record: SlideRecord) -> SlideRecord:
    config, slide_id = job.config, job.source.slide_id
    reading = slide.reading(config.mpp)
    mask_mpp = max(tissue.MASK_MPP, reading.mpp)
    mask = tissue.find_tissue(slide.thumbnail(mask_mpp), mask_mpp, config.tissue)
    shards.write_mask(config.out, slide_id, mask)
    footprint_px = config.tile_px * reading.downsample
    tiles = grid.lay_grid(mask, slide.dimensions, footprint_px, config.min_tissue)
    if len(tiles) == 0:
        raise InputError(_why_no_tiles(config, slide, footprint_px))
    with shards.writing_shard(config.out, slide_id) as shard:
        for number in _drawn(len(tiles), config, slide_id):
            x_px, y_px = int(tiles.x_px[number]), int(tiles.y_px[number])
            pixels = slide.read(x_px, y_px, config.tile_px, config.mpp)
            jpeg = simplejpeg.encode_jpeg(pixels, config.quality, "RGB", _SUBSAMPLING)
            scores = quality.score(pixels)
            shard.add(x_px, y_px, reading.mpp, float(tiles.tissue[number]), scores, jpeg)
    rows = shard.rows()
    overridden = "mpp_csv" if job.mpp is not None else None
    record = replace(
        record,
        mpp=slide.mpp,
        mpp_source=overridden or ("file" if slide.file_mpp is not None else "slide_mpp"),
        level=reading.level,
        reduction=reading.reduction,
        tiles=len(rows),
        bytes=shards.shard_path(config.out, slide_id).stat().st_size,
        rows_sha256=shards.hash_rows(rows),
    )
    shards.commit(config.out, record, rows)
    return record


def _why_no_tiles(config: Config, slide: Slide, footprint_px: float) -> str:
    width, height = slide.dimensions
    if min(width, height) < footprint_px:
        return (
            f"{slide.path} is {width} x {height} px, smaller than one tile, which covers"
            f" {footprint_px:.0f} px of it; give a smaller --tile-px."
        )
    return (
        f"{slide.path} has no tile with {config.min_tissue:.0%} tissue; look at its mask in"
        " masks/, and try a lower --min-tissue or another --tissue."
    )


def _drawn(count: int, config: Config, slide_id: str) -> list[int]:
    """All tiles, or a random draw of them that depends on the seed and the slide alone."""
    if config.max_tiles is None or count <= config.max_tiles:
        return list(range(count))
    digest = hashlib.sha256(f"{config.seed} {slide_id}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8]))
    return sorted(generator.choice(count, config.max_tiles, replace=False).tolist())
