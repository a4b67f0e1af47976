"""Where the JPEG tiles of a slide lie in its files; parsed once, and kept beside a store."""

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eosin import atomic

_SCALES = (1, 2, 4, 8)
_HEAD_BYTES = 2**16
_FORMAT_VERSION = 1

# The segment of Adobe's that says whether a JPEG holds RGB or YCbCr.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
AS_RGB, AS_YCBCR = _ADOBE + b"\x00", _ADOBE + b"\x01"


@dataclass(frozen=True, slots=True, eq=False)
class JpegLevel:
    """Where the tiles of a level lie in a file."""

    file_name: str
    """In the folder of the slide."""
    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    head: bytes
    """What precedes the stream of each tile: a colour marker and shared tables, without the SOI."""
    offsets: npt.NDArray[np.int64]
    """[rows, columns]."""
    lengths: npt.NDArray[np.int64]
    """[rows, columns]; 0 where nothing was scanned."""

    @property
    def scales(self) -> tuple[int, ...]:
        """By how much the tiles can be reduced while they are decoded and still fit together."""
        edges = (self.tile_width_px, self.tile_height_px)
        return tuple(scale for scale in _SCALES if not any(edge % scale for edge in edges))


@dataclass(frozen=True, slots=True, eq=False)
class JpegLayout:
    """All that is needed to read a slide of JPEG tiles; can be kept beside a store."""

    back_end: str
    vendor: str
    mpp: float | None
    level_downsamples: tuple[float, ...]
    levels: tuple[JpegLevel, ...]

    def save(self, path: Path, slide: Path) -> None:
        """Writes the layout atomically, with what tells whether it still fits the slide."""
        facts = {
            "format_version": _FORMAT_VERSION,
            "fits": _fingerprint(slide),
            "back_end": self.back_end,
            "vendor": self.vendor,
            "mpp": self.mpp,
            "level_downsamples": self.level_downsamples,
            "levels": [_facts_of(level, slide) for level in self.levels],
        }
        arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts))}
        for number, level in enumerate(self.levels):
            arrays[f"offsets{number}"] = level.offsets
            arrays[f"lengths{number}"] = level.lengths.astype(np.uint32)
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    @staticmethod
    def load(path: Path, slide: Path) -> "JpegLayout | None":
        """Reads a layout, or gives None if there is none that fits the slide."""
        try:
            # NumPy would leave the file of a damaged archive open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                facts = json.loads(str(arrays["facts"]))
                if [facts["format_version"], facts["fits"]] != [
                    _FORMAT_VERSION,
                    _fingerprint(slide),
                ]:
                    return None
                levels = tuple(
                    _level_of(row, arrays[f"offsets{number}"], arrays[f"lengths{number}"], slide)
                    for number, row in enumerate(facts["levels"])
                )
                downsamples = tuple(facts["level_downsamples"])
                return JpegLayout(
                    facts["back_end"], facts["vendor"], facts["mpp"], downsamples, levels
                )
        except Exception:
            # A damaged archive can break its reader in any way; the slide is parsed again then.
            return None


def _facts_of(level: JpegLevel, slide: Path) -> dict[str, Any]:
    return {
        # The slide itself may be given another name.
        "file_name": level.file_name if level.file_name != slide.name else None,
        "width_px": level.width_px,
        "height_px": level.height_px,
        "tile_width_px": level.tile_width_px,
        "tile_height_px": level.tile_height_px,
        "head": level.head.hex(),
    }


def _level_of(
    facts: dict[str, Any],
    offsets: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.uint32],
    slide: Path,
) -> JpegLevel:
    facts["file_name"] = facts["file_name"] or slide.name
    facts["head"] = bytes.fromhex(facts["head"])
    return JpegLevel(**facts, offsets=offsets, lengths=lengths.astype(np.int64))


def _fingerprint(slide: Path) -> list[int]:
    """Its size, and its start and its end, which is where TIFF says where the tiles lie."""
    with open(slide, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = zlib.crc32(file.read(_HEAD_BYTES))
        file.seek(max(0, size - _HEAD_BYTES))
        return [size, start, zlib.crc32(file.read(_HEAD_BYTES))]
