"""`store.json`: what a tile store is, written when it is begun."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eosin import atomic, provenance
from eosin.errors import InputError

FORMAT_VERSION = 2
SHARDS, SLIDE = "shards", "slide"
"""Where a store's pixels are: in its own shards, or left in the slides."""

_FORMAT = "eosin tile store"


def create(
    folder: Path,
    tile_px: int,
    mpps: Sequence[float],
    settings: Mapping[str, Any],
    pixels: str = SHARDS,
    roots: Sequence[Path] = (),
) -> None:
    """Writes `store.json`, with which a folder becomes a tile store.

    Args:
        folder: the store.
        tile_px: edge of every tile.
        mpps: resolutions aimed at; the rows hold what was reached.
        settings: everything that decides what the tiles are, for the comparison on resume.
        pixels: `shards` where the store holds the tiles, `slide` where they stay in the slides.
        roots: folders that the slides' paths are relative to; only a `slide` store looks there.
    """
    atomic.write_json(
        folder / "store.json",
        {
            "format": _FORMAT,
            "format_version": FORMAT_VERSION,
            "tile_px": tile_px,
            "mpp": list(mpps),
            "pixels": pixels,
            "roots": [str(root.absolute()) for root in roots],
            "config": provenance.plain(settings),
            "config_hash": provenance.sha256_of(settings),
            "provenance": provenance.stamp(),
        },
    )


def set_roots(folder: Path, roots: Sequence[Path]) -> None:
    """Notes where the slides are now; folders noted before are kept behind these.

    Raises:
        InputError: the folder is no tile store.
    """
    header = read_header(folder)
    now = dict.fromkeys([*(str(root.absolute()) for root in roots), *header.get("roots", [])])
    if list(now) != header.get("roots"):
        atomic.write_json(folder / "store.json", {**header, "roots": list(now)})


def read_header(folder: Path) -> dict[str, Any]:
    """Reads `store.json`.

    Raises:
        InputError: the folder is no tile store, or one of another format version.
    """
    try:
        header = json.loads((folder / "store.json").read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is not a tile store: it has no store.json; make one with `eosin tile`."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'store.json'} cannot be read: {error}") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InputError(f"{folder / 'store.json'} is not that of a tile store.")
    if header.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder} is a tile store of format {header.get('format_version')}; this Eosin reads"
            f" format {FORMAT_VERSION}. Tile the slides again, or use the Eosin that made it."
        )
    missing = {"tile_px", "mpp", "pixels", "config"} - set(header)
    if missing:
        raise InputError(f"{folder / 'store.json'} lacks {', '.join(sorted(missing))}.")
    return header


def is_store(folder: Path) -> bool:
    """Tells whether a folder is a tile store of any version, finished or not."""
    try:
        return json.loads((folder / "store.json").read_text())["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False
