"""A picture of many tiles of a store, to judge by eye what it holds and where to draw a line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import tyro

from eosin import atomic
from eosin.errors import InputError, UsageError
from eosin.progress import Bar
from eosin.store import conditions
from eosin.store.exported import open_store
from eosin.store.samples import Store

RGB = npt.NDArray[np.uint8]

_TILE_PX = 160
_GAP_PX = 6
_CAPTION_PX = 28
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.36
_MOST_DRAWN = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which tiles to show."""

    store: Annotated[str, tyro.conf.Positional]
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
        if self.out.suffix.lower() != ".png":
            raise UsageError(f"--out {self.out} must end in .png.")


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
    cells: list[RGB] = []
    unreadable: list[str] = []
    with Bar("reading", len(drawn), "tiles") as bar:
        for row, number in enumerate(drawn.tolist()):
            try:
                tile = store.read(number)
            except InputError as error:
                tile = _crossed(store.tile_px)
                unreadable.append(str(error))
            place = f"x {xs[row]} y {ys[row]}"
            below = place if scores is None else f"{config.sort} {_number(scores[row])}"
            cells.append(_cell(tile, (store.slide_of(number), below)))
            bar.advance()
    _, png = cv2.imencode(".png", cv2.cvtColor(_arrange(cells), cv2.COLOR_RGB2BGR))
    atomic.write_bytes(config.out, png.tobytes())
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


def _crossed(size_px: int) -> RGB:
    tile = np.full((size_px, size_px, 3), 235, np.uint8)
    width = max(1, size_px // 60)
    cv2.line(tile, (0, 0), (size_px, size_px), (200, 0, 0), width)
    cv2.line(tile, (0, size_px), (size_px, 0), (200, 0, 0), width)
    return tile


def _cell(tile: RGB, captions: tuple[str, str]) -> RGB:
    shrinks = tile.shape[0] > _TILE_PX
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    cell = np.full((_TILE_PX + _CAPTION_PX, _TILE_PX, 3), 255, np.uint8)
    cell[:_TILE_PX] = cv2.resize(tile, (_TILE_PX, _TILE_PX), interpolation=how)
    for line, text in enumerate(captions):
        foot = (1, _TILE_PX + 11 + 13 * line)
        cv2.putText(cell, _fitted(text), foot, _FONT, _FONT_SCALE, (40, 40, 40), 1, cv2.LINE_AA)
    return cell


def _number(score: float) -> str:
    return f"{score:,.0f}" if score >= 1000 else f"{score:.3g}"


def _fitted(text: str) -> str:
    """Shortens a caption in its middle; what OpenCV's font cannot draw becomes a dot."""
    text = "".join(letter if " " <= letter <= "~" else "." for letter in text)
    for kept in range(len(text), 0, -1):
        short = text if kept == len(text) else f"{text[: kept // 2]}..{text[-(kept - kept // 2) :]}"
        if cv2.getTextSize(short, _FONT, _FONT_SCALE, 1)[0][0] <= _TILE_PX - 2:
            return short
    return ""


def _arrange(cells: list[RGB]) -> RGB:
    """Lays cells out on white, about as wide as high, with the last row as full as can be."""
    side = len(cells) ** 0.5
    widths = range(int(np.ceil(side)), int(1.5 * side) + 2)
    columns = min(widths, key=lambda width: -len(cells) % width)
    rows = -(-len(cells) // columns)
    height, width = cells[0].shape[0] + _GAP_PX, cells[0].shape[1] + _GAP_PX
    sheet = np.full((rows * height + _GAP_PX, columns * width + _GAP_PX, 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        top = _GAP_PX + number // columns * height
        left = _GAP_PX + number % columns * width
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet
