"""Where the tiles of one slide lie: its tissue, and a grid for each resolution that it holds."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eosin import provenance
from eosin.errors import InputError
from eosin.slides import grid, regions, tissue
from eosin.slides.grid import Grid
from eosin.slides.reader import Slide
from eosin.slides.resolution import Reading
from eosin.tiling.config import Config

_MOST_MASK_PX = 8_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The tiles of one resolution."""

    target_mpp: float
    reading: Reading
    grid: Grid
    """All tiles with enough tissue."""
    drawn: npt.NDArray[np.int64]
    """Which of them are wanted, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideTiles:
    """What a slide gives."""

    mask: npt.NDArray[np.bool_]
    """Tissue within the regions, and what could not be read."""
    parts: tuple[Part, ...]
    note: str | None
    """Which resolutions it does not hold."""
    regions_sha256: str | None

    def __len__(self) -> int:
        return sum(len(part.drawn) for part in self.parts)


def lay_out(slide: Slide, config: Config, slide_id: str) -> SlideTiles:
    """Finds the tissue of a slide and lays the grids over it.

    There may be no tile at all; `why_no_tiles` says why.

    Raises:
        InputError: the slide has no mpp, holds none of the resolutions, or has no regions.
    """
    readings, note = _choose_readings(slide, config)
    mask, regions_sha256 = _find_mask(slide, config)
    shares = _shares(config.max_tiles, len(readings))
    parts: list[Part] = []
    for share, (target_mpp, reading) in zip(shares, readings, strict=True):
        step_px = grid.step_px(config.tile_px, config.overlap_px, reading.is_native)
        tiles = grid.lay_grid(
            mask,
            slide.dimensions,
            config.tile_px * reading.downsample,
            step_px * reading.downsample,
            config.min_tissue,
        )
        drawn = _draw(len(tiles), share, f"{config.seed} {slide_id} {target_mpp}")
        parts.append(Part(target_mpp, reading, tiles, drawn))
    return SlideTiles(mask, tuple(parts), note, regions_sha256)


def why_no_tiles(slide: Slide, config: Config, tiles: SlideTiles) -> str:
    """Says why a slide gives no tile, and what to do."""
    width, height = slide.dimensions
    footprint_px = config.tile_px * min(part.reading.downsample for part in tiles.parts)
    if min(width, height) < footprint_px:
        return (
            f"{slide.path} is {width} x {height} px, smaller than one tile, which covers"
            f" {footprint_px:.0f} px of it; give a smaller --tile-px."
        )
    inside = " within its regions" if config.regions is not None else ""
    return (
        f"{slide.path} has no tile with {config.min_tissue:.0%} tissue{inside}; look at its mask in"
        " masks/, and try a lower --min-tissue or another --tissue."
    )


def _choose_readings(
    slide: Slide, config: Config
) -> tuple[list[tuple[float, Reading]], str | None]:
    readings: list[tuple[float, Reading]] = []
    reasons: list[InputError] = []
    for mpp in config.mpp:
        try:
            readings.append((mpp, slide.reading(mpp)))
        except InputError as error:
            reasons.append(error)
    if not readings:
        raise reasons[0]
    return readings, " ".join(map(str, reasons)) or None


def _find_mask(slide: Slide, config: Config) -> tuple[npt.NDArray[np.bool_], str | None]:
    regions_path = None
    if config.regions is not None:
        regions_path = regions.find_regions(config.regions, slide.path)
    width, height = slide.dimensions
    # The largest slides are looked at a little coarser, which bounds the memory that takes.
    coarse = slide.mpp * math.sqrt(width * height / _MOST_MASK_PX)
    mpp = max(tissue.MASK_MPP, slide.mpp, coarse)
    damaged: list[tuple[int, int, int, int]] = []
    mask = tissue.find_tissue(slide.thumbnail(mpp, damaged), mpp, config.tissue)
    for left, top, right, bottom in damaged:
        # What cannot be seen may be tissue: its tiles are tried, fail, and are counted.
        mask[top:bottom, left:right] = True
    if regions_path is None:
        return mask, None
    drawn = regions.draw_regions(
        regions.read_regions(regions_path), (mask.shape[0], mask.shape[1]), slide.dimensions
    )
    return mask & drawn, provenance.sha256_of_file(regions_path)


def _shares(most: int | None, count: int) -> list[int | None]:
    """Divides a number of tiles evenly; the first resolutions get what is over."""
    if most is None:
        return [None] * count
    return [most // count + (number < most % count) for number in range(count)]


def _draw(count: int, most: int | None, seed: str) -> npt.NDArray[np.int64]:
    """All tiles, or a random draw of them that depends on the seed, the slide and the mpp alone."""
    if most is None or count <= most:
        return np.arange(count)
    digest = hashlib.sha256(seed.encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8]))
    return np.sort(generator.choice(count, most, replace=False))
