"""A picture of one tile stained in many ways, to judge by eye what augmentation will do to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from eosin.errors import UsageError
from eosin.images import sheet
from eosin.images.color import Image
from eosin.images.stain import Distribution, load, measure, restain
from eosin.images.stain_channels import ChannelStatistics, Space, StainTarget
from eosin.pretrain.sources import open_source

_TILE_PX = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which tile to stain, and with what."""

    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """A tile store, an exported one by path or URL, an image folder or an HDF5 file."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The PNG file to write."""
    stain: str = "crc-lab"
    """What `eosin stain fit` wrote, or the published crc-lab, crc-hsv or crc-hed."""
    distribution: Distribution | None = None
    """What to draw from; by default what the stain says."""
    tile: int | None = None
    """Number of the tile; by default one is drawn."""
    draws: int = 32
    """How many stained tiles to show."""
    seed: int = 0
    """Seed of the tile and of the draws."""

    def __post_init__(self) -> None:
        if not 1 <= self.draws <= 1024:
            raise UsageError(f"--draws is {self.draws}; it must be between 1 and 1024.")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; it must be 0 or more.")
        sheet.require_png(self.out)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowReport:
    """What the picture shows."""

    out: str
    stain: str
    tile: int
    own: ChannelStatistics
    """The tile's."""
    targets: tuple[StainTarget, ...]
    """Of the stained tiles, in the order in which they are shown."""

    def __str__(self) -> str:
        return (
            f"{self.out} shows tile {self.tile:,} and then {len(self.targets):,} draws of "
            f"{self.stain}; below each are the means and standard deviations of its channels."
        )


def show_stain(config: Config) -> ShowReport:
    """Writes a sheet of a tile and of what a stain makes of it.

    Raises:
        UsageError: there is no tile of this number, or the stain has no such distribution.
        InputError: the stain or the tile cannot be read.
    """
    stain = load(config.stain)
    if config.distribution is not None:
        stain = stain.with_distribution(config.distribution)
    source = open_source(config.store)
    if config.tile is not None and not 0 <= config.tile < len(source):
        raise UsageError(
            f"--tile is {config.tile}; {config.store} has the tiles 0 to {len(source) - 1}."
        )
    of_tile, of_draws = np.random.default_rng(config.seed).spawn(2)
    number = int(of_tile.integers(len(source))) if config.tile is None else config.tile
    tile = source.read(number)
    own = measure(tile, stain.space)
    targets = tuple(stain.draw(of_draws) for _ in range(config.draws))
    cells = [_cell(tile, stain.space, own, f"tile {number}")]
    for target in targets:
        stained = restain(tile, target, own)
        cells.append(_cell(stained, stain.space, target))
    sheet.write(config.out, sheet.grid(cells, sheet.columns_of(len(cells))))
    return ShowReport(
        out=str(config.out),
        stain=f"{stain.name}, {stain.distribution}",
        tile=number,
        own=own,
        targets=targets,
    )


def _cell(
    image: Image, space: Space, statistics: ChannelStatistics | StainTarget, title: str = ""
) -> sheet.RGB:
    """An image in the sheet's size, with its means and then its deviations below."""
    means = "  ".join(
        f"{letter} {_number(space, mean)}"
        for letter, mean in zip(space.upper(), statistics.means, strict=True)
    )
    stds = "std " + "  ".join(_number(space, std) for std in statistics.stds)
    shown = sheet.resized(image, _TILE_PX, _TILE_PX)
    return sheet.captioned(shown, (means, f"{title}  {stds}".strip()))


def _number(space: Space, value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if space == "hed" else f"{value:.0f}"
