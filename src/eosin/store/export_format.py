"""What an exported store looks like on disk and behind a URL.

store.json           format, tile size, resolutions, what was exported; written last
slides.parquet       a row a slide of the store that was exported
000000.tar ...       the tiles of all slides mixed: a JPEG and a JSON file each
rows/000000.parquet  a row a tile of that shard, with its slide
index.npy            where each tile is, mapped into memory, shared by all workers
"""

import json
import re
from typing import Any

import numpy as np

from eosin.errors import InputError
from eosin.store.locations import Location

FORMAT = "eosin exported store"
FORMAT_VERSION = 1
INDEX_ROW = np.dtype([("slide", "<u4"), ("offset", "<i8"), ("length", "<u4"), ("crc32", "<u4")])
"""A tile: its slide among those of `slides.parquet` that have tiles, and its place in its shard."""

_SHA256 = re.compile("[0-9a-f]{64}")


def shard_name(shard: int) -> str:
    """Names a shard."""
    return f"{shard:06d}.tar"


def rows_name(shard: int) -> str:
    """Names the rows of a shard."""
    return f"rows/{shard:06d}.parquet"


def key(number: int) -> str:
    """Names a tile in its shard; without a dot, which would end the key that WebDataset sees."""
    return f"{number:09d}"


def is_exported(location: Location) -> bool:
    """Tells whether a folder is an exported store of any version.

    Raises:
        OSError: the location is out of reach.
    """
    try:
        return json.loads(location.read_all("store.json"))["format"] == FORMAT
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False


def read_header(location: Location) -> dict[str, Any]:
    """Reads `store.json`.

    Raises:
        InputError: the location is no exported store, or one of another format version.
    """
    try:
        header = json.loads(location.read_all("store.json"))
    except FileNotFoundError as error:
        raise InputError(
            f"{location} has no store.json, so it is no exported store, or an unfinished one; run"
            " the same `eosin store export` again."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"store.json of {location} cannot be read: {error}.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(
            f"{location} is no exported store; `eosin store export --format webdataset` makes one."
        )
    if header.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{location} is an exported store of format {header.get('format_version')}; this Eosin"
            f" reads format {FORMAT_VERSION}. Export the store again."
        )
    if not _makes_sense(header):
        raise InputError(f"store.json of {location} makes no sense; export the store again.")
    return header


def _makes_sense(header: dict[str, Any]) -> bool:
    """Whether everything that opening relies on is there; a name on disk is made of some of it."""
    hashes = [header.get(name) for name in ("fingerprint", "index_sha256", "slides_sha256")]
    tile_px, mpps, counts = (header.get(name) for name in ("tile_px", "mpp", "shards"))
    return (
        all(isinstance(each, str) and _SHA256.fullmatch(each) is not None for each in hashes)
        and isinstance(tile_px, int)
        and isinstance(mpps, list)
        and all(isinstance(mpp, float | int) for mpp in mpps)
        and isinstance(counts, list)
        and all(isinstance(count, int) and count >= 0 for count in counts)
    )
