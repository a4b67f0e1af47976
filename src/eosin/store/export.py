"""Copies the tiles of a store to where, and into what, other machines and programs read."""

import json
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from eosin.errors import InputError, UsageError
from eosin.store import conditions, image_folders, webdataset
from eosin.store.exported import open_store
from eosin.store.locations import Location
from eosin.store.samples import Store

_MARKER = "export.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which tiles to export, where to and how."""

    store: Annotated[str, tyro.conf.Positional]
    """The tile store, or an exported one by path or URL."""
    out: str
    """Folder or URL (s3://bucket/tiles and so on) to write to; the same command resumes."""
    format: Literal["webdataset", "folder"] = "webdataset"
    """webdataset: tar shards with all slides mixed; folder: JPEG files in a folder per slide."""
    shard_mb: int = 1000
    """Size of a shard in megabytes."""
    seed: int = 0
    """Seed of the order that mixes the slides."""
    where: tuple[str, ...] = ()
    """Only tiles with such scores, as in "blur>1000" "ink<0.1"; all of the conditions must hold."""

    def __post_init__(self) -> None:
        if self.shard_mb < 1:
            raise UsageError(f"--shard-mb is {self.shard_mb}; it must be 1 or more.")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What an export wrote."""

    out: str
    format: str
    tiles: int
    of_tiles: int
    """Tiles of the store, before `--where`."""
    shards: int
    """0 for the format folder."""
    bytes: int
    """Of the JPEGs."""
    seconds: float

    @property
    def next_command(self) -> str:
        """What reads the export."""
        if self.format == "folder":
            return f"eosin pretrain barlow_twins_resnet50 --data {self.out} --out runs/bt"
        return f"eosin store verify {self.out}"

    def __str__(self) -> str:
        shards = f" in {self.shards:,} shards" if self.shards else ""
        return (
            f"{self.tiles:,} of {self.of_tiles:,} tiles ({self.bytes / 1e6:,.1f} MB) are{shards} in"
            f" {self.out}; this took {self.seconds:,.1f} s."
        )


def export(config: Config) -> ExportReport:
    """Copies the tiles that meet `--where`, byte by byte; what an earlier run wrote is skipped.

    Raises:
        UsageError: an option makes no sense, or the store keeps no pixels of its own.
        InputError: no tile is left, one is damaged, or --out holds something else.
    """
    started = time.monotonic()
    wanted = conditions.parse(config.where)
    store, out = open_store(config.store), Location(config.out)
    if store.in_slides:
        raise UsageError(
            f"{store} keeps its pixels in the slides, so there are no tiles to export; run `eosin"
            " tile` with --pixels shards into another store, and export that."
        )
    numbers = conditions.choose(store, wanted)
    settings = _settings(config, store, wanted)
    size = int(store.lengths[numbers].sum(dtype=np.int64))
    with out.locked():
        _claim(out, settings)
        if config.format == "folder":
            _announce(f"{len(numbers):,} of {len(store):,} tiles, {size / 1e6:,.0f} MB, to {out}")
            image_folders.write(store, out, numbers)
            shards = 0
        else:
            plan = webdataset.make_plan(store, numbers, config.seed, config.shard_mb * 10**6)
            shards = plan.shards
            _announce(
                f"{len(numbers):,} of {len(store):,} tiles, {size / 1e6:,.0f} MB, in {shards:,}"
                f" shards, to {out}"
            )
            webdataset.write(store, out, plan, settings)
    return ExportReport(
        out=str(out),
        format=config.format,
        tiles=len(numbers),
        of_tiles=len(store),
        shards=shards,
        bytes=size,
        seconds=time.monotonic() - started,
    )


def _announce(text: str) -> None:
    print(f"exporting {text}", file=sys.stderr)


def _settings(
    config: Config, store: Store, wanted: tuple[conditions.Condition, ...]
) -> dict[str, Any]:
    """What decides the files that are written."""
    settings: dict[str, Any] = {
        "format": config.format,
        "store": store.fingerprint,
        "where": [str(condition) for condition in wanted],
    }
    if config.format == "webdataset":
        settings |= {"seed": config.seed, "shard_mb": config.shard_mb}
    return settings


def _claim(out: Location, settings: dict[str, Any]) -> None:
    """Notes what is exported, or checks that an earlier run exported the same.

    Raises:
        InputError: the folder holds something else.
    """
    try:
        earlier: Any = json.loads(out.read_all(_MARKER))
    except FileNotFoundError:
        if not out.is_empty():
            raise InputError(
                f"{out} is neither empty nor an earlier export; choose another --out."
            ) from None
        out.write(_MARKER, (json.dumps(settings, indent=2) + "\n").encode())
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{_MARKER} of {out} cannot be read: {error}.") from error
    names = [name for name in settings if dict(earlier).get(name) != settings[name]]
    if names:
        changed = [f"{name} was {dict(earlier).get(name)}, is {settings[name]}" for name in names]
        raise InputError(
            f"{out} was begun with other settings: {'; '.join(changed)}. Give the same ones, or"
            " another --out."
        )
