"""Fits a stain to tiles: how their colours vary, for stain augmentation in pre-training."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro

from eosin import atomic
from eosin.errors import InputError, UsageError
from eosin.images import stain
from eosin.images.stain import Distribution, Space, Stain
from eosin.pretrain.sources import TileSource, open_source
from eosin.progress import Bar
from eosin.provenance import available_cores, stamp

_CHUNK = 256
_MOST_UNREADABLE = 0.01
_SHOWN_ERRORS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which tiles to fit a stain to."""

    store: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="STORE [STORE ...]")
    ]
    """Tile stores, image folders (nested or not) and HDF5 files; exported stores also by URL."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The JSON file to write."""
    space: Space = "lab"
    """Colour space: OpenCV's LAB or HSV, or haematoxylin, eosin and DAB."""
    distribution: Distribution = "mixture"
    """What to draw from: all are fitted, and the file says which is used unless told otherwise."""
    std_hyper: float = -0.3
    """The spread of normal and laplace is 1 + this times the fitted one."""
    tiles: int = 10_000
    """How many tiles to measure, drawn at random; all of them if there are fewer."""
    seed: int = 0
    """Seed of the draw and of the mixture's starts."""

    def __post_init__(self) -> None:
        if not self.store:
            raise UsageError("Tiles are missing; give tile stores, image folders or HDF5 files.")
        if self.tiles < stain.FEWEST_IMAGES:
            raise UsageError(f"--tiles is {self.tiles}; it must be {stain.FEWEST_IMAGES} or more.")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; it must be 0 or more.")
        if not -1 <= self.std_hyper < np.inf:
            raise UsageError(f"--std-hyper is {self.std_hyper}; it must be -1 or more.")
        if self.out.suffix.lower() != ".json":
            raise UsageError(f"--out {self.out} must end in .json.")


@dataclass(frozen=True, kw_only=True, slots=True)
class FitReport:
    """What was fitted, and where it is."""

    out: str
    tiles: int
    """Measured."""
    of_tiles: int
    """In all sources."""
    unreadable: tuple[str, ...]
    """Errors of tiles that were skipped."""
    stain: Stain

    @property
    def next_command(self) -> str:
        """What shows the stain on a tile."""
        return (
            f"eosin stain show {self.stain.source.split(', ')[0]} --stain {self.out} -o stain.png"
        )

    def __str__(self) -> str:
        lines = list(self.unreadable[:_SHOWN_ERRORS])
        if self.unreadable:
            lines.append(f"{len(self.unreadable):,} unreadable tiles were skipped.")
        lines.append(f"{self.tiles:,} of {self.of_tiles:,} tiles were measured.")
        lines += _table(self.stain)
        mixture = self.stain.mixture
        if mixture is not None:
            shares = ", ".join(f"{weight:.0%}" for weight in mixture.weights)
            noun = "component" if len(mixture.weights) == 1 else "components"
            lines.append(
                f"By BIC the mixture has {len(mixture.weights)} {noun} ({shares}) of at most "
                f"{len(mixture.bic)}."
            )
        lines.append(
            f"{self.out} is a stain in {self.stain.space.upper()}, drawn as "
            f"{self.stain.distribution}."
        )
        return "\n".join(lines)


def fit_stain(config: Config) -> FitReport:
    """Measures tiles drawn at random, fits a stain to them, and writes it.

    Raises:
        InputError: a source cannot be opened, more than 1 % of the tiles cannot be read, or there
            are too few.
    """
    sources = [open_source(path) for path in config.store]
    of_tiles = sum(map(len, sources))
    rng = np.random.default_rng(config.seed)
    count = min(config.tiles, of_tiles)
    # Sorted, so that stores are read from front to back.
    numbers = np.sort(rng.choice(of_tiles, count, replace=False, shuffle=False))
    rows, unreadable = _measure_all(sources, numbers, config.space)
    if len(unreadable) > _MOST_UNREADABLE * count:
        raise InputError(
            f"{len(unreadable):,} of {count:,} tiles cannot be read, more than 1 %; repair or "
            f"leave out their source. The first: {unreadable[0]}"
        )
    fitted = stain.fit(
        rows,
        config.space,
        name=config.out.stem,
        source=", ".join(config.store),
        distribution=config.distribution,
        std_hyper=config.std_hyper,
        seed=config.seed,
    )
    described = [
        {"path": path, "tiles": len(source), "fingerprint": source.fingerprint}
        for path, source in zip(config.store, sources, strict=True)
    ]
    atomic.write_json(
        config.out,
        {
            **fitted.to_json(),
            "tiles": {"measured": len(rows), "unreadable": len(unreadable), "seed": config.seed},
            "sources": described,
            "provenance": stamp(),
        },
    )
    return FitReport(
        out=str(config.out),
        tiles=len(rows),
        of_tiles=of_tiles,
        unreadable=tuple(unreadable),
        stain=fitted,
    )


def _measure_all(
    sources: Sequence[TileSource], numbers: npt.NDArray[np.int64], space: Space
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The statistics of the tiles that can be read, in the order of their numbers, and the errors.

    Decoding and measuring leave the interpreter to other threads.
    """
    ends = np.cumsum([len(source) for source in sources])

    def measured(number: int) -> tuple[float, ...] | str:
        which = int(np.searchsorted(ends, number, side="right"))
        source = sources[which]
        try:
            tile = source.read(number - int(ends[which]) + len(source))
            found = stain.measure(tile, space)
        except InputError as error:
            return str(error)
        return found.means + found.stds

    results: list[tuple[float, ...] | str] = []
    with (
        Bar("measuring", len(numbers), "tiles") as bar,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        # In chunks, so that no million of tiles waits in the pool's queue.
        for start in range(0, len(numbers), _CHUNK):
            for result in pool.map(measured, numbers[start : start + _CHUNK].tolist()):
                results.append(result)
                bar.advance()
    rows = [result for result in results if not isinstance(result, str)]
    errors = [result for result in results if isinstance(result, str)]
    return np.array(rows, np.float64).reshape(-1, 6), errors


def _table(fitted: Stain) -> list[str]:
    """The statistics beside the published ones, a line a channel."""
    published = stain.published(fitted.space)
    digits = 4 if fitted.space == "hed" else 1
    lines = [f"{'':7}{'mean of tiles':>17}{'published':>17}{'std of tiles':>17}{'published':>17}"]
    for channel, letter in enumerate(fitted.space.upper()):
        cells = [
            f"{middle[channel]:.{digits}f} ± {spread[channel]:.{digits}f}"
            for middle, spread in (
                (fitted.mean_of_means, fitted.std_of_means),
                (published.mean_of_means, published.std_of_means),
                (fitted.mean_of_stds, fitted.std_of_stds),
                (published.mean_of_stds, published.std_of_stds),
            )
        ]
        lines.append(f"{letter:7}" + "".join(f"{cell:>17}" for cell in cells))
    return [*lines, f"Published: {published.source}."]
