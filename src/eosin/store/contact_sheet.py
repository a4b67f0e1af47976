"""A picture of many tiles of a store, to judge by eye what it holds and where to draw a line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro

from eosin.errors import InputError, UsageError
from eosin.images import sheet
from eosin.progress import Bar
from eosin.store import conditions
from eosin.store.exported import open_store
from eosin.store.samples import Store

_TILE_PX = 160
_MOST_DRAWN = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which tiles to show."""

    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """The tile store, or an exported one by path or URL."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The PNG file to write."""
    tiles: int = 64
    """How many tiles to show."""
    seed: int = 0
    """Seed of the draw."""
    sort: Literal["blur", "white", "black", "ink", "tissue"] | None = None
    """Score to sort by; the tiles then spread evenly over its ranks, lowest first."""
    where: tuple[str, ...] = ()
    """Only tiles with such scores, as in "blur<20"; all of the conditions must hold."""

    def __post_init__(self) -> None:
        if not 1 <= self.tiles <= 4096:
            raise UsageError(f"--tiles is {self.tiles}; it must be between 1 and 4096.")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; it must be 0 or more.")
        sheet.require_png(self.out)


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetReport:
    """What a contact sheet shows."""

    out: str
    tiles: int
    of_tiles: int
    """Tiles that meet `--where`."""
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        summary = f"{self.tiles:,} of {self.of_tiles:,} tiles are shown in {self.out}."
        return "\n".join([*self.unreadable, summary])


def show(config: Config) -> SheetReport:
    """Writes a contact sheet; a tile that cannot be read is a crossed box on it.

    Raises:
        UsageError: an option makes no sense.
        InputError: the store cannot be opened, or no tile meets `--where`.
    """
    wanted = conditions.parse(config.where)
    store = open_store(config.store)
    numbers = conditions.choose(store, wanted)
    drawn = draw(store, numbers, config.tiles, config.seed, config.sort)
    scores = None if config.sort is None else store.column(config.sort)[drawn]
    xs, ys = store.column("x")[drawn], store.column("y")[drawn]
    cells: list[sheet.RGB] = []
    unreadable: list[str] = []
    with Bar("reading", len(drawn), "tiles") as bar:
        for row, number in enumerate(drawn.tolist()):
            try:
                tile = store.read(number)
            except InputError as error:
                tile = sheet.crossed(_TILE_PX)
                unreadable.append(str(error))
            place = f"x {xs[row]} y {ys[row]}"
            below = place if scores is None else f"{config.sort} {_number(scores[row])}"
            shown = sheet.resized(tile, _TILE_PX, _TILE_PX)
            cells.append(sheet.captioned(shown, (store.slide_of(number), below)))
            bar.advance()
    sheet.write(config.out, sheet.grid(cells, sheet.columns_of(len(cells))))
    return SheetReport(
        out=str(config.out), tiles=len(drawn), of_tiles=len(numbers), unreadable=tuple(unreadable)
    )


def draw(
    store: Store, numbers: npt.NDArray[Any], count: int, seed: int, sort: str | None = None
) -> npt.NDArray[Any]:
    """Draws tiles at random: spread over the slides, or over the ranks of a score.

    Args:
        store: whose tiles they are.
        numbers: the tiles to draw from.
        count: how many to draw; fewer if there are not so many.
        seed: of the draw.
        sort: the score to spread over and sort by.
    """
    rng = np.random.default_rng(seed)
    count = min(count, len(numbers))
    if len(numbers) > _MOST_DRAWN:
        numbers = numbers[np.unique(rng.integers(len(numbers), size=_MOST_DRAWN))]
    shuffled = rng.permutation(numbers)
    if sort is not None:
        by_score = shuffled[np.argsort(store.column(sort)[shuffled], kind="stable")]
        return by_score[np.linspace(0, len(by_score) - 1, count).round().astype(int)]
    slides = store.slide_numbers(shuffled)
    # The first tile of every slide, then the second of every slide, and so on.
    by_slide = np.argsort(slides, kind="stable")
    firsts = np.searchsorted(slides[by_slide], slides[by_slide], side="left")
    turn = np.empty(len(shuffled), int)
    turn[by_slide] = np.arange(len(shuffled)) - firsts
    drawn = shuffled[np.argsort(turn, kind="stable")[:count]]
    return drawn[np.argsort(store.slide_numbers(drawn), kind="stable")]


def _number(score: float) -> str:
    return f"{score:,.0f}" if score >= 1000 else f"{score:.3g}"
