"""Several tile stores into one, without copying pixels where the disk allows it."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from eosin import atomic
from eosin.errors import InputError, UsageError
from eosin.progress import Bar
from eosin.store import header, shards
from eosin.store import tile_store as store
from eosin.store.records import DONE, SlideRecord
from eosin.store.tile_store import TileStore

_FOLDERS = (".", "shards", "tiles", "masks", "layouts", "index")
# What must be equal; where the slides lie, and what wrote the store when, may differ.
_HEADER_NAMES = ("tile_px", "mpp", "pixels")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which stores become one."""

    stores: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Tile stores that were made with the same settings."""
    out: Path
    """Folder of the new store; the same command resumes, or adds further stores."""

    def __post_init__(self) -> None:
        if not self.stores:
            raise UsageError("No stores to merge; give the folders that `eosin tile` wrote.")
        places = [path.resolve() for path in self.stores]
        if len(set(places)) < len(places):
            raise UsageError("One of the stores is named twice; give each once.")
        if self.out.resolve() in places:
            raise UsageError(f"--out {self.out} is one of the stores; give another folder.")


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """What a merge did."""

    out: str
    slides: int
    """Slides of the new store that have tiles."""
    quarantined: int
    tiles: int
    linked: int
    """Files that are the same ones on disk as those of the stores."""
    copied: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.tiles:,} tiles of {self.slides:,} slides are in {self.out}; this run linked "
            f"{self.linked:,} files and copied {self.copied:,} in {self.seconds:,.1f} s."
        )


@dataclass(frozen=True, slots=True)
class _Taken:
    """A slide, and the store that it is taken from."""

    record: SlideRecord
    folder: Path


def merge(config: Config) -> MergeReport:
    """Puts the slides of several stores into one; each slide is there wholly or not at all.

    A shard is the same file on disk as before where both stores lie on one file system, and a copy
    elsewhere. Shards never change, so neither store can spoil the other; deleting one frees the
    space that it alone uses.

    Raises:
        UsageError: the stores are named in a way that makes no sense.
        InputError: they differ in their settings, or hold different tiles of one slide; nothing
            was changed.
    """
    started = time.monotonic()
    stores = [TileStore(path) for path in config.stores]
    headers = [store.read_header(path) for path in config.stores]
    for path, other in zip(config.stores[1:], headers[1:], strict=True):
        _require_equal(config.stores[0], headers[0], path, other)
    taken = _choose(stores)
    with atomic.locked(config.out):
        _prepare(config, headers)
        linked = copied = 0
        with Bar("merging", len(taken), "slides") as bar:
            for each in taken:
                for is_link in _take(each, config.out):
                    linked, copied = linked + is_link, copied + (not is_link)
                bar.advance(note=f"{linked:,} files linked, {copied:,} copied")
        store.finish(config.out)
    merged = TileStore(config.out)
    return MergeReport(
        out=str(config.out),
        slides=len(merged.slide_ids),
        quarantined=len(merged.slides) - len(merged.slide_ids),
        tiles=len(merged),
        linked=linked,
        copied=copied,
        seconds=time.monotonic() - started,
    )


def _require_equal(first: Path, about: dict[str, Any], path: Path, other: dict[str, Any]) -> None:
    ours, theirs = (
        {name: each[name] for name in _HEADER_NAMES} | each["config"] for each in (about, other)
    )
    differing = [
        f"{name} is {ours.get(name)} and {theirs.get(name)}"
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) != theirs.get(name)
    ]
    if differing:
        raise InputError(
            f"{first} and {path} were made with other settings: {'; '.join(differing)}. Tile one of"
            " them again with the settings of the other."
        )


def _choose(stores: Sequence[TileStore]) -> list[_Taken]:
    """Every slide once; a finished one rather than a quarantined one.

    Raises:
        InputError: two stores hold different tiles of one slide.
    """
    taken: dict[str, _Taken] = {}
    for each in stores:
        for record in each.slides:
            earlier = taken.get(record.slide_id)
            if earlier is None or earlier.record.status != DONE:
                taken[record.slide_id] = _Taken(record, each.folder)
            elif record.status == DONE and not _are_equal(record, earlier.record):
                raise InputError(
                    f"{earlier.folder} and {each.folder} hold different tiles of one slide,"
                    f" {record.slide_id} ({earlier.record.path} and {record.path}). If these are"
                    " two slides, tile from the folder above, so that their paths differ; if it is"
                    " one, delete its rows in tiles/ of the store that is out of date, and run the"
                    " same `eosin tile` there again."
                )
    return [taken[slide_id] for slide_id in sorted(taken)]


def _are_equal(one: SlideRecord, other: SlideRecord) -> bool:
    return (one.path, one.rows_sha256, one.bytes, one.file_bytes) == (
        *(other.path, other.rows_sha256, other.bytes, other.file_bytes),
    )


def _prepare(config: Config, headers: Sequence[dict[str, Any]]) -> None:
    """Begins the store, or checks that it is one that these may be added to."""
    out, first = config.out, headers[0]
    roots = [Path(root) for each in headers for root in each.get("roots", ())]
    if header.is_store(out):
        _require_equal(config.stores[0], first, out, store.read_header(out))
    elif any(path.name[0] != "." for path in out.iterdir()):
        raise InputError(f"{out} is neither empty nor a tile store; choose another --out.")
    else:
        store.create(out, first["tile_px"], first["mpp"], first["config"], first["pixels"], roots)
    store.set_roots(out, roots)
    for name in _FOLDERS:
        atomic.remove_leftovers(out / name)


def _take(taken: _Taken, out: Path) -> Iterator[bool]:
    """Brings a slide's files over, its rows last; yields for each whether it is a link.

    Raises:
        InputError: the new store holds other tiles of this slide, or the shard is damaged.
    """
    slide_id, folder = taken.record.slide_id, taken.folder
    if shards.rows_path(out, slide_id).exists():
        there = shards.read_record(shards.rows_path(out, slide_id))
        are_done = there.status == DONE, taken.record.status == DONE
        if are_done == (True, True) and not _are_equal(there, taken.record):
            raise InputError(
                f"{out} holds other tiles of the slide {slide_id} than {folder}; give another"
                " --out."
            )
        if are_done[0] or there == taken.record:
            return
    shard = shards.shard_path(folder, slide_id)
    size = shard.stat().st_size if shard.is_file() else 0
    if size != taken.record.bytes:
        raise InputError(
            f"{shard} has {size} bytes instead of {taken.record.bytes}; look at `eosin store verify"
            f" {folder}` first."
        )
    for place in (shards.shard_path, shards.mask_path, shards.layout_path, shards.rows_path):
        if place(folder, slide_id).is_file():
            yield _link_or_copy(place(folder, slide_id), place(out, slide_id))


def _link_or_copy(source: Path, target: Path) -> bool:
    with atomic.replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            # Another file system, or one without hard links.
            shutil.copyfile(source, temporary)
            return False
    return True
