"""What tiling would give and cost, from a look at some of the slides; nothing is written."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from eosin import provenance
from eosin.errors import InputError
from eosin.progress import Bar
from eosin.slides.reader import open_slide
from eosin.tiling.config import Config
from eosin.tiling.cutting import Job, make_tiles
from eosin.tiling.run import find_jobs
from eosin.tiling.slide_tiles import lay_out, why_no_tiles

_MOST_SLIDES = 24
_MOST_TILES = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be expected of a run."""

    slides: int
    slide_bytes: int
    looked_at: int
    """How many slides were looked at; if all, the tiles are counted and not estimated."""
    refused: dict[str, str]
    """Of those, which would be quarantined, and why."""
    tiles: dict[float, int]
    """By the resolution asked for."""
    bytes: int
    """Size of all shards."""
    hours: float
    workers: int

    def __str__(self) -> str:
        about = "" if self.looked_at == self.slides else "about "
        tiles = " and ".join(f"{count:,} at {mpp:g} mpp" for mpp, count in self.tiles.items())
        lines = [
            f"{self.slides:,} slides ({_bytes_text(self.slide_bytes)}), {self.looked_at:,} looked"
            f" at, give {about}{tiles or 'no'} tiles.",
            f"They take about {_bytes_text(self.bytes)} and {_hours_text(self.hours)} with"
            f" {self.workers} workers.",
            *(f"Would be quarantined: {reason}" for reason in self.refused.values()),
        ]
        return "\n".join(lines)


@dataclass(slots=True)
class _Looked:
    """What the slides that were looked at add up to."""

    slide_bytes: int = 0
    tiles: Counter[float] = field(default_factory=Counter[float])
    bytes: float = 0.0
    seconds: float = 0.0


def plan(config: Config) -> Plan:
    """Looks at up to 24 slides, spread over all sizes, and at some tiles of each.

    Raises:
        UsageError: an option makes no sense.
        InputError: there are no slides.
    """
    jobs = find_jobs(config)
    sizes = [job.source.path.stat().st_size for job in jobs]
    chosen = np.unique(np.linspace(0, len(jobs) - 1, min(_MOST_SLIDES, len(jobs))).astype(int))
    looked, refused = _Looked(), dict[str, str]()
    with Bar("looking at slides", len(chosen), "slides") as bar:
        for number in chosen.tolist():
            looked.slide_bytes += sizes[number]
            try:
                _look_at(jobs[number], looked)
            except InputError as error:
                refused[str(jobs[number].source.relative_path)] = str(error)
            bar.advance()
    # Tiles, bytes and time follow the size of a slide's file better than the number of slides.
    scale = sum(sizes) / max(looked.slide_bytes, 1)
    workers = min(config.workers or provenance.available_cores(), len(jobs))
    return Plan(
        slides=len(jobs),
        slide_bytes=sum(sizes),
        looked_at=len(chosen),
        refused=refused,
        tiles={mpp: round(looked.tiles[mpp] * scale) for mpp in config.mpp if looked.tiles[mpp]},
        bytes=round(looked.bytes * scale),
        hours=looked.seconds * scale / workers / 3600,
        workers=workers,
    )


def _look_at(job: Job, looked: _Looked) -> None:
    config, source = job.config, job.source
    started = time.perf_counter()
    with open_slide(source.path, job.mpp, config.slide_mpp, in_order=True) as slide:
        tiles = lay_out(slide, config, source.slide_id)
        if len(tiles) == 0:
            raise InputError(why_no_tiles(slide, config, tiles))
        looked.seconds += time.perf_counter() - started
        for part in tiles.parts:
            looked.tiles[part.target_mpp] += len(part.drawn)
            # A run of neighbours, since that is how they are read.
            first = max(0, (len(part.drawn) - _MOST_TILES) // 2)
            sample = part.drawn[first : first + _MOST_TILES]
            started = time.perf_counter()
            lengths = [len(tile.jpeg) for tile in make_tiles(config, slide, part, sample)]
            per_tile = len(part.drawn) / max(len(sample), 1)
            looked.seconds += (time.perf_counter() - started) * per_tile
            looked.bytes += sum(lengths) * per_tile


def _bytes_text(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _hours_text(hours: float) -> str:
    seconds = hours * 3600
    if seconds < 120:
        return f"{seconds:,.0f} seconds"
    return f"{seconds / 60:,.0f} minutes" if hours < 2 else f"{hours:,.1f} hours"
