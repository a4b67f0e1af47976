"""Checks whole stores: `eosin store verify`."""

import time
from dataclasses import dataclass
from typing import Annotated

import tyro

from eosin.errors import UsageError
from eosin.progress import Bar
from eosin.store.exported import ExportedStore, open_store


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to check."""

    stores: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Tile stores, and exported ones by path or URL."""

    def __post_init__(self) -> None:
        if not self.stores:
            raise UsageError("No stores to verify; give the folders that `eosin tile` wrote.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What was found in a store."""

    store: str
    slides: int
    tiles: int
    problems: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        summary = (
            f"{self.store}: {self.tiles:,} tiles of {self.slides:,} slides, "
            f"{len(self.problems) or 'no'} problems; this took {self.seconds:,.1f} s."
        )
        return "\n".join([*self.problems, summary])


def verify_stores(config: Config) -> list[Verification]:
    """Checks every offset, length, checksum, name and count, and decodes every tile.

    Raises:
        InputError: a store cannot be opened at all.
    """
    return [_verify(location) for location in config.stores]


def _verify(location: str) -> Verification:
    started = time.monotonic()
    store = open_store(location)
    slides = len(store.slide_ids)
    units = (store.shards, "shards") if isinstance(store, ExportedStore) else (slides, "slides")
    with Bar("verifying", *units) as bar:
        problems = store.verify(bar.advance)
    return Verification(
        store=location,
        slides=slides,
        tiles=len(store),
        problems=tuple(problems),
        seconds=time.monotonic() - started,
    )
