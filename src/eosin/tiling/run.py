"""Slides in, tile store out: in parallel, resumable, and not stopped by a bad slide."""

import contextlib
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eosin import atomic, provenance
from eosin.errors import InputError, Interrupted
from eosin.progress import Bar
from eosin.slides import regions, tissue
from eosin.slides.resolution import Reading
from eosin.store import shards
from eosin.store import tile_store as store
from eosin.store.records import DONE, QUARANTINED, SlideRecord
from eosin.tiling import processes
from eosin.tiling.config import Config
from eosin.tiling.cutting import Advance, Job, Report, base_record, quarantine, tile_slide
from eosin.tiling.processes import Lost
from eosin.tiling.sources import find_slides, read_mpp_csv

__all__ = ["Config", "TilingReport", "tile"]


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
    notes: tuple[SlideRecord, ...]
    """Slides that are done, but of which something was left out."""
    ways: tuple[str, ...]
    """In which ways the resolutions were reached, and on how many slides, over the whole store."""
    tiles: int
    """Tiles of the slides done and skipped."""
    bytes: int
    """Size of their shards."""
    seconds: float

    @property
    def exit_code(self) -> int:
        """3 if any slide or tile is left out because it is damaged or unknown, else 0."""
        return 3 if self.quarantined or any(record.damaged for record in self.notes) else 0


def tile(config: Config) -> TilingReport:
    """Tiles all slides that the store does not hold yet; a slide is finished wholly or not at all.

    Slides that were quarantined before are tried again, since the reason may be mended.

    Raises:
        UsageError: an option makes no sense.
        InputError: there are no slides, or the store was made with other settings.
        Interrupted: stopped; the same command resumes.
    """
    started = time.monotonic()
    jobs = find_jobs(config)
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
        notes=tuple(record for record in sorted(done, key=lambda one: one.path) if record.note),
        ways=_ways([*done, *finished]),
        tiles=sum(record.tiles for record in done + finished),
        bytes=sum(record.bytes for record in done + finished),
        seconds=time.monotonic() - started,
    )


def find_jobs(config: Config) -> list[Job]:
    """Lists the slides and what is said of each, the largest first: so no worker is left alone.

    Raises:
        UsageError: there is no such tissue method.
        InputError: there are no slides, or the CSV file is none.
    """
    tissue.load_method(config.tissue)
    if config.regions is not None and not config.regions.exists():
        raise InputError(f"--regions {config.regions} does not exist.")
    sources = find_slides(config.slides)
    mpps = read_mpp_csv(config.mpp_csv, sources) if config.mpp_csv is not None else {}
    sources.sort(key=lambda source: (-source.path.stat().st_size, source.slide_id))
    return [Job(config, source, mpps.get(source.slide_id)) for source in sources]


def _prepare_store(config: Config) -> None:
    # Only a store without pixels of its own needs to know where the slides are.
    folders = [path if path.is_dir() else path.parent for path in config.slides]
    roots = folders if config.pixels == store.SLIDE else []
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
        if roots:
            store.set_roots(config.out, roots)
    elif any(path.name[0] != "." for path in config.out.iterdir()):
        raise InputError(f"{config.out} is neither empty nor a tile store; choose another --out.")
    else:
        store.create(config.out, config.tile_px, config.mpp, config.settings, config.pixels, roots)
    for folder in (".", "shards", "tiles", "masks", "layouts", "index"):
        atomic.remove_leftovers(config.out / folder)


def _finished(job: Job) -> SlideRecord | None:
    """The record of a slide that the store holds whole.

    Raises:
        InputError: it was tiled under another mpp, or other regions, than the options now give it.
    """
    config, slide_id = job.config, job.source.slide_id
    rows_path = shards.rows_path(config.out, slide_id)
    try:
        record = shards.read_record(rows_path)
        if config.pixels == store.SHARDS:
            size = shards.shard_path(config.out, slide_id).stat().st_size
        else:
            size = record.bytes
    except (InputError, OSError):
        return None
    if record.status != DONE or size != record.bytes:
        return None
    option, given = "--mpp-csv", job.mpp
    if given is None and record.mpp_source == "slide_mpp":
        option, given = "--slide-mpp", config.slide_mpp
    if given is not None and given != record.mpp:
        raise InputError(
            f"{job.source.path} was tiled as a slide of {record.mpp} mpp, and {option} now says"
            f" {given}; delete {rows_path} to tile it again."
        )
    if config.regions is not None:
        path = regions.find_regions(config.regions, job.source.path)
        if provenance.sha256_of_file(path) != record.regions_sha256:
            raise InputError(
                f"{path} has changed since {job.source.path} was tiled; delete {rows_path} to tile"
                " it again."
            )
    return record


def _tile_all(config: Config, jobs: list[Job], finished: int) -> list[SlideRecord]:
    total = len(jobs) + finished
    records: list[SlideRecord] = []
    try:
        with Bar("tiling", total, "slides", done=finished) as bar:
            counter = _Counter(bar, len(jobs))
            # Closed on the way out, so that no worker goes on after the run.
            with contextlib.closing(_results(config, jobs, counter.report)) as results:
                for result in results:
                    records.append(_as_record(result))
                    counter.finish_slide()
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped after {finished + len(records)} of {total} slides; the same command resumes."
        ) from None
    return records


def _results(
    config: Config, jobs: Sequence[Job], report: Report
) -> Generator[SlideRecord | Lost[Job], None, None]:
    if config.ray is not None:
        from eosin.tiling import cluster

        return cluster.run(tile_slide, jobs, config.ray, report, shared=config.out)
    workers = config.workers or provenance.available_cores()
    return processes.run(tile_slide, jobs, workers, report)


def _as_record(result: SlideRecord | Lost[Job]) -> SlideRecord:
    """The record of a slide; one that its worker did not survive is quarantined."""
    if isinstance(result, SlideRecord):
        return result
    job = result.job
    code = f" (exit code {result.exit_code})" if result.exit_code is not None else ""
    return quarantine(
        job.config.out,
        base_record(job.source),
        f"The process that read {job.source.path} was killed twice{code}, for want of memory or by"
        " a fault of its decoder; the same command tries it again. If memory is short, let fewer"
        " work at once.",
    )


class _Counter:
    """Turns what the workers say into progress over slides and tiles."""

    def __init__(self, bar: Bar, slides: int) -> None:
        self._bar = bar
        self._slides = slides
        self._finished = self._begun = 0
        self._expected = self._tiles = self._bytes = 0
        self._shown = 0.0
        self._started = time.monotonic()

    def report(self, advance: Advance) -> None:
        """Counts what a worker has done meanwhile."""
        self._begun += advance.expected > 0
        self._expected += advance.expected
        self._tiles += advance.tiles
        self._bytes += advance.bytes
        self._show()

    def finish_slide(self) -> None:
        """Counts a slide, done or quarantined."""
        self._finished += 1
        self._show()

    def _show(self) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        # Slides in work count by their share of the tiles begun; finished ones count whole.
        share = self._tiles / self._expected if self._expected else 0.0
        done = max(self._finished, min(self._begun * share, self._slides), self._shown)
        note = f"{self._tiles:,} tiles, {self._tiles / seconds:,.0f}/s"
        if self._bytes:
            note += f", {self._bytes / seconds / 1e6:,.1f} MB/s"
        self._bar.advance(done - self._shown, note)
        self._shown = done


def _ways(records: list[SlideRecord]) -> tuple[str, ...]:
    """Counts the slides by the way in which each resolution was reached on them."""
    counts: Counter[tuple[float, str]] = Counter()
    for record in records:
        for one in record.reached:
            way = str(Reading(0, one.scale, one.reduction, 1.0, one.mpp)).partition(", ")[2]
            counts[one.target_mpp, way or "pixels of a level as they are"] += 1
    return tuple(
        f"{mpp:g} mpp: {way} on {count:,} {'slide' if count == 1 else 'slides'}"
        for (mpp, way), count in sorted(counts.items())
    )
