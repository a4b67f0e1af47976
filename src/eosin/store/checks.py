"""What may be wrong with a store: every place, length, checksum and name in it is looked at.

A tile is checked twice: as Eosin reads it, by its place in the index, and as any other program
finds it, by walking the tar.
"""

import tarfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import pyarrow as pa

from eosin import provenance
from eosin.errors import InputError
from eosin.store import shards
from eosin.store.shards import TilePlace

if TYPE_CHECKING:
    from eosin.store.tile_store import TileStore

_MOST_OF_ONE_KIND = 5


class Member(NamedTuple):
    """A file in a tar: its name, and where its content is."""

    name: str
    offset: int
    length: int


def check_store(store: "TileStore", advance: Callable[[], object]) -> list[str]:
    """Checks a tile store, several slides at a time, and lists what is wrong.

    Args:
        store: what to check.
        advance: called when a slide is done.
    """
    problems = list(_check_leftovers(store))
    with ThreadPoolExecutor(provenance.available_cores()) as threads:
        for found in threads.map(lambda slide: _check_slide(store, slide), range(_slides(store))):
            problems += found
            advance()
    return problems


def check_tiles(read: Callable[[int], object], numbers: Iterable[int]) -> Iterator[str]:
    """Reads tiles, and says what is wrong with those that cannot be read."""
    for number in numbers:
        try:
            read(number)
        except InputError as error:
            yield str(error)


def check_tar(path: Path, expected: Sequence[Member], also: Container[str] = ()) -> Iterator[str]:
    """Walks a tar as any other program does, and says where that differs from what is expected.

    Args:
        path: the tar.
        expected: the tiles that it should hold.
        also: names of other files that may be in it.
    """
    found: dict[str, Member] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                found[info.name] = Member(info.name, info.offset_data, info.size)
    except (tarfile.TarError, OSError) as error:
        yield f"{path} is not a whole tar: {error}."
    for member in expected:
        other = found.pop(member.name, None)
        if other is None:
            yield f"{path} has no {member.name}, which its rows name."
        elif other != member:
            yield (
                f"{path} has {member.name} at byte {other.offset} with {other.length} bytes; its"
                f" rows say {member.offset} and {member.length}."
            )
    unknown = [name for name in found if name not in also]
    if unknown:
        yield f"{path} has {len(unknown)} files that no row names, such as {unknown[0]}."


def shortened(problems: Iterable[str], what: str) -> list[str]:
    """Keeps the first of many problems of one kind, and counts the others."""
    every = list(problems)
    more = len(every) - _MOST_OF_ONE_KIND
    return every if more <= 1 else [*every[:-more], f"{what}: {more} more such problems."]


def _slides(store: "TileStore") -> int:
    return len(store.slide_ids)


def _check_slide(store: "TileStore", slide: int) -> list[str]:
    slide_id = store.slide_ids[slide]
    try:
        rows = shards.read_rows(store.folder, slide_id)
        problems = list(_check_tables(store, slide, rows))
    except InputError as error:
        return [str(error)]
    if store.in_slides:
        problems += list(_check_whole_slide(store, slide))
    else:
        path = shards.shard_path(store.folder, slide_id)
        problems += shortened(check_tar(path, _members(slide_id, rows)), str(path))
    tiles = check_tiles(store.read, store.tiles_of(slide))
    return problems + shortened(tiles, slide_id)


def _check_tables(store: "TileStore", slide: int, rows: pa.Table) -> Iterator[str]:
    """Compares rows, record, index and files of one slide."""
    slide_id, tiles = store.slide_ids[slide], store.tiles_of(slide)
    path = shards.rows_path(store.folder, slide_id)
    record = shards.read_record(path)
    if record != store.record_of(slide):
        yield f"{path} and slides.parquet say different things; run the same `eosin tile` again."
    if shards.hash_rows(rows) != record.rows_sha256:
        yield f"The rows of {slide_id} are not those that were written."
    if len(rows) != len(tiles):
        yield f"{slide_id} has {len(rows)} rows, but {len(tiles)} tiles."
    elif (store.index.rows[tiles.start : tiles.stop] != store.index.address(rows)).any():
        yield f"{store.index.path} is not what the rows of {slide_id} say; delete it."
    mask = shards.mask_path(store.folder, slide_id)
    if mask.exists() and cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) is None:
        yield f"{mask} is damaged."
    shard = shards.shard_path(store.folder, slide_id)
    size = shard.stat().st_size if shard.is_file() else 0
    if size != record.bytes:
        yield f"{shard} has {size} bytes instead of {record.bytes}."


def _check_whole_slide(store: "TileStore", slide: int) -> Iterator[str]:
    try:
        store.find_slide(slide)
    except InputError as error:
        yield str(error)


def _members(slide_id: str, rows: pa.Table) -> list[Member]:
    """The files that the rows of a slide name."""
    columns = [rows[name].to_pylist() for name in ("x", "y", "target_mpp", "offset", "length")]
    return [
        Member(f"{slide_id}/{shards.tile_name(_place(x, y, mpp))}.jpg", offset, length)
        for x, y, mpp, offset, length in zip(*columns, strict=True)
    ]


def _place(x: int, y: int, target_mpp: float) -> TilePlace:
    return TilePlace(x, y, target_mpp, target_mpp, 1.0)


def _check_leftovers(store: "TileStore") -> Iterator[str]:
    known: set[Any] = {record.slide_id for record in store.slides}
    for name in ("shards", "tiles", "masks", "layouts"):
        for path in sorted((store.folder / name).glob("*")):
            if path.name.startswith("."):
                yield f"{path} was left by a killed run; the same `eosin tile` removes it."
            elif path.stem not in known:
                yield f"{path} belongs to no finished slide; it can be deleted."
