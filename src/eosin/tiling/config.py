"""What the user of `eosin tile` says: which slides become which tiles."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosin.errors import UsageError
from eosin.slides.resolution import is_plausible_mpp
from eosin.store.header import SHARDS, SLIDE


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which slides become which tiles."""

    slides: tuple[Path, ...]
    """Slides, or folders that are searched for slides."""
    out: Path
    """Folder of the tile store; the same command on it resumes, or adds new slides."""
    mpp: tuple[float, ...] = (0.5,)
    """Resolutions of the tiles in micrometres per pixel: 0.5 is 20x, 0.25 is 40x."""
    tile_px: int = 512
    """Edge of a tile in pixels."""
    overlap_px: int = 0
    """By how much neighbouring tiles overlap, in pixels of a tile."""
    tissue: str = "optical_density"
    """How tissue is found: optical_density, hsv, otsu, or your own module:function."""
    min_tissue: float = 0.5
    """Least fraction of a tile that must be tissue."""
    regions: Path | None = None
    """Where tiles may lie: a GeoJSON file, or a folder with one of each slide's name."""
    max_tiles: int | None = None
    """At most so many tiles of each slide, shared evenly by the resolutions, drawn at random."""
    seed: int = 0
    """Seed of that draw."""
    quality: int | None = None
    """JPEG quality of the tiles, 1 to 100; by default the slide's own tables and subsampling."""
    format: str = "jpeg"
    """How tiles are stored; only jpeg."""
    pixels: str = SHARDS
    """shards stores the tiles; slide stores only their places and reads the slides again later,
    wherever --slides or the variable EOSIN_SLIDES says that they are."""
    verify_pixels: int = 1
    """How many tiles of each slide are compared with OpenSlide's pixels."""
    slide_mpp: float | None = None
    """Micrometres per pixel of the slides that do not say it themselves."""
    mpp_csv: Path | None = None
    """CSV file with the columns slide and mpp, for single slides; it overrides the slide's own."""
    workers: int | None = None
    """Processes that share the slides; one per core if not given."""
    ray: str | None = None
    """Work on a Ray cluster: its address, or auto for the one that this machine belongs to."""
    plan: bool = False
    """Only look at the slides, and say how many tiles, bytes and hours there will be."""

    def __post_init__(self) -> None:
        """Refuses values that make no sense."""
        _require(len(self.slides) > 0, "--slides", "empty", "at least one slide or folder")
        _require(len(self.mpp) > 0, "--mpp", "empty", "at least one resolution")
        _require(len(set(self.mpp)) == len(self.mpp), "--mpp", self.mpp, "different numbers")
        _require(16 <= self.tile_px <= 8192, "--tile-px", self.tile_px, "between 16 and 8192")
        _require(
            0 <= self.overlap_px < self.tile_px, "--overlap-px", self.overlap_px, "below --tile-px"
        )
        _require(0 <= self.min_tissue <= 1, "--min-tissue", self.min_tissue, "between 0 and 1")
        for option, mpps in (("--mpp", self.mpp), ("--slide-mpp", (self.slide_mpp,))):
            for mpp in mpps:
                _require(mpp is None or is_plausible_mpp(mpp), option, mpp, "between 0.02 and 50")
        _require(
            self.quality is None or 1 <= self.quality <= 100,
            "--quality",
            self.quality,
            "between 1 and 100",
        )
        for option, count in (("--max-tiles", self.max_tiles), ("--workers", self.workers)):
            _require(count is None or count > 0, option, count, "1 or more")
        _require(self.verify_pixels >= 0, "--verify-pixels", self.verify_pixels, "0 or more")
        pixels = (SHARDS, SLIDE)
        _require(self.pixels in pixels, "--pixels", self.pixels, " or ".join(pixels))
        _require_jpeg(self.format)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels of a slide's tiles, and so must not change within a store."""
        return {
            "mpp": list(self.mpp),
            "tile_px": self.tile_px,
            "overlap_px": self.overlap_px,
            "tissue": self.tissue,
            "min_tissue": self.min_tissue,
            "regions": self.regions is not None,
            "quality": self.quality,
            "pixels": self.pixels,
            "max_tiles": self.max_tiles,
            "seed": self.seed if self.max_tiles is not None else None,
        }


def _require(holds: bool, option: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{option} is {value}; it must be {wanted}.")


def _require_jpeg(name: str) -> None:
    if name == "png":
        raise UsageError(
            "--format png is refused: a 512-px tile takes 477 KB instead of 50 KB and is read at a"
            " fifth of the speed (docs/decisions/0014), for pixels that the slide itself holds as"
            " JPEG. Encoded again with the slide's own tables they lose next to nothing; for pixels"
            " without any loss, use --pixels slide."
        )
    _require(name == "jpeg", "--format", name, "jpeg")
