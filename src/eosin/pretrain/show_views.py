"""A picture of what an encoder will see: tiles, and beside each the views that training makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from eosin.errors import InputError, UsageError
from eosin.images import sheet
from eosin.images.views import Image, ViewParams, Views, apply
from eosin.pretrain.order import EpochOrder
from eosin.pretrain.sources import open_source
from eosin.progress import Bar

_WIDEST_PX = 2000
_LEAST_TILE_PX = 160
# Room for the longest phrase of a caption, where views are smaller than that.
_LEAST_COLUMN_PX = 90


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which tiles to show, and whose views of them."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """A tile store, an exported one by path or URL, an image folder or an HDF5 file."""
    recipe: str
    """Recipe or method that makes the views (`eosin pretrain --help` lists them), or views as
    published: moco_v2/official, swav/vissl, dino/pathology and so on."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The PNG file to write."""
    tiles: int = 8
    """How many tiles to show: the first ones of a run with this seed on this data alone."""
    seed: int = 0
    """Seed of the order of tiles and of the views, as in `eosin pretrain`."""

    def __post_init__(self) -> None:
        if not 1 <= self.tiles <= 256:
            raise UsageError(f"--tiles is {self.tiles}; it must be between 1 and 256.")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; it must be 0 or more.")
        sheet.require_png(self.out)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsReport:
    """What a sheet of views shows."""

    out: str
    tiles: tuple[int, ...]
    """Numbers of the tiles, a row each."""
    of_tiles: int
    view_px: tuple[int, ...]
    """Side of each view of a tile."""
    scale: float
    """Of the views on the sheet; less than 1 where they would make it too wide."""
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        size = "" if self.scale == 1 else f", at {self.scale:.0%} of their size"
        summary = (
            f"{len(self.tiles):,} of {self.of_tiles:,} tiles with {len(self.view_px)} views each "
            f"are shown in {self.out}{size}."
        )
        return "\n".join([*self.unreadable, summary])


def show_views(config: Config, views: Views) -> ViewsReport:
    """Writes a sheet with a row for each tile: the tile, then its views in the method's order.

    They are the first tiles of a run with this seed on this data, and the views that it makes of
    them. A tile that cannot be read, which a run would replace by another, is a crossed box.

    Args:
        config: what to show.
        views: the method's.

    Raises:
        InputError: the data cannot be opened.
    """
    source = open_source(config.data)
    count = min(config.tiles, len(source))
    numbers = EpochOrder([len(source)], None, config.seed).slice(0, count)[1].tolist()
    layout = _Layout(views)
    cells = layout.head()
    unreadable: list[str] = []
    with Bar("reading", count, "tiles") as bar:
        for position, number in enumerate(numbers):
            try:
                tile = source.read(number)
            except InputError as error:
                unreadable.append(str(error))
                cells += layout.unreadable_row(number)
            else:
                # The generator that a run has at this position.
                rng = np.random.default_rng((config.seed, position))
                cells += layout.row(number, tile, views.sample(rng, *tile.shape[:2]))
            bar.advance()
    sheet.write(config.out, sheet.grid(cells, layout.columns))
    return ViewsReport(
        out=str(config.out),
        tiles=tuple(numbers),
        of_tiles=len(source),
        view_px=views.sizes,
        scale=layout.scale,
        unreadable=tuple(unreadable),
    )


class _Layout:
    """The cells of a sheet: in the first column the tile, then a column for each view.

    All views are shown in the same scale, so that small ones look small beside large ones.
    """

    def __init__(self, views: Views) -> None:
        self._sizes = views.sizes
        sides = (max(_LEAST_TILE_PX, *views.sizes), *views.sizes)
        self.columns = len(sides)
        room = _WIDEST_PX - (sheet.GAP_PX + 2 * sheet.FRAME_PX) * (self.columns + 1)
        self.scale = min(1.0, room / sum(sides))
        self._sides = [max(1, int(side * self.scale)) for side in sides]
        self._widths = [max(side + 2 * sheet.FRAME_PX, _LEAST_COLUMN_PX) for side in self._sides]

    def head(self) -> list[Image]:
        """What each column shows."""
        titles = [f"view {number}, {size} px" for number, size in enumerate(self._sizes, start=1)]
        return [
            sheet.captioned(sheet.NOTHING, [title], width)
            for title, width in zip(["tile", *titles], self._widths, strict=True)
        ]

    def row(self, number: int, tile: Image, drawn: Sequence[ViewParams]) -> list[Image]:
        """A tile and its views."""
        height, width = tile.shape[:2]
        cells = [self._cell(0, _within(tile, self._sides[0]), [f"no. {number}", _size(tile)])]
        for column, params in enumerate(drawn, start=1):
            side = self._sides[column]
            view = sheet.resized(apply(tile, params), side, side)
            cells.append(self._cell(column, view, _operations(params, height * width)))
        return cells

    def unreadable_row(self, number: int) -> list[Image]:
        """A crossed box in place of a tile, and no views."""
        box = sheet.crossed(self._sides[0])
        first = self._cell(0, box, [f"no. {number}", "cannot be read"])
        return [first, *[sheet.NOTHING] * len(self._sizes)]

    def _cell(self, column: int, picture: Image, phrases: Sequence[str]) -> Image:
        width = self._widths[column]
        return sheet.captioned(sheet.framed(picture), sheet.wrapped(phrases, width), width)


def _within(tile: Image, side: int) -> Image:
    """Shrinks a tile that is larger than a square; its shape stays."""
    height, width = tile.shape[:2]
    scale = min(1.0, side / max(height, width))
    return sheet.resized(tile, max(1, round(width * scale)), max(1, round(height * scale)))


def _size(tile: Image) -> str:
    return f"{tile.shape[1]} x {tile.shape[0]} px"


def _operations(params: ViewParams, tile_area_px: int) -> list[str]:
    """What was done to a tile to make a view, in the order in which it was done."""
    _, _, width, height = params.crop_px
    share = width * height / tile_area_px
    flips = ["h"] * params.hflip + ["v"] * params.vflip
    done = [f"crop {share:.0%}", *([f"flip {'+'.join(flips)}"] if flips else [])]
    if params.stain is not None:
        done.append("stain")
    if params.jitter:
        done.append("jitter")
    if params.grayscale:
        done.append("gray")
    if params.blur_sigma_px is not None:
        done.append(f"blur {params.blur_sigma_px:.1f} px")
    if params.solarize_threshold is not None:
        done.append("solarise")
    return done
